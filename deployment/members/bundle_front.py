"""The front page of a bundle as a member reads it: its manifest, and that each update beside it is what it names.

Needs no model: whether the numbers add up is for `protoken consortium verify`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from attribution.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from attribution.errors import BundleError
from attribution.files.untrusted import file_sha256, in_one_line, read_text


@dataclass(frozen=True)
class BundleFront:
    """What a manifest says, and its SHA-256, by which the ledger knows the bundle."""

    manifest: Manifest
    sha256: str


def read_front(path: Path) -> BundleFront:
    """The front page of a bundle in a folder, with the updates that it names; or a manifest alone.

    Raises:
        BundleError: it cannot be read, is malformed, or an update is not the one that it names.
    """
    file = path / MANIFEST_NAME if path.is_dir() else path
    text = read_text(file, BundleError)
    try:
        manifest = read_manifest(text)
    except ValueError as error:
        raise BundleError(f"{file}: {in_one_line(error)}") from error
    if path.is_dir():
        for client in manifest.clients:
            if (digest := file_sha256(path / client.path, BundleError)) != client.sha256:
                raise BundleError(
                    f"{path / client.path}: has the hash {digest}, and {MANIFEST_NAME} names {client.sha256}"
                )
    read = hashlib.sha256(text.encode()).hexdigest()  # and not what the file holds by now
    return BundleFront(manifest, read)
