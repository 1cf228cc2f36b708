"""Whether the base model that an adapter names is the one that it is merged into, as far as names can tell.

Names cannot prove that weights are the same; they tell when somebody took the wrong folder.
"""

import re
from pathlib import Path

_QUANTISED = re.compile(r"[.-](q\d\w*|iq\d\w*|f16|f32|bf16)$", re.IGNORECASE)  # as GGUF files are called
_CACHED = re.compile(r"(?:^|/)models--[^/]+--([^/]+)(?:/|$)")  # a folder of the hub's cache


def other_base(named: str | None, reference: str, folder: Path) -> str | None:
    """The base that an adapter names, where it is not `reference`, whose weights lie in `folder`; None if it may be."""
    if not named:
        return None
    scheme, _, rest = reference.partition(":")
    known = {_last(rest.partition("@")[0] if scheme == "hf" else rest), _last(str(folder))}
    return None if _last(named) in known else named


def _last(name: str) -> str:
    """A model's own name, without where it lies, who published it, and in which type."""
    path = name.replace("\\", "/").rstrip("/")
    if cached := _CACHED.search(path):
        path = cached[1]
    last = path.rsplit("/", 1)[-1].removesuffix(".gguf")
    return _QUANTISED.sub("", last).casefold()
