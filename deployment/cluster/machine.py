"""Whether a machine is what a replica's settings say: what Ray gave the replica of it, and memory for what scores read.

A whole difference of weights, unlike a low-rank one, is as large as the weights, each client has one, and every score
reads them all, several times: from memory that takes a while, and from a disk for ever. Knows no model.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from attribution.base.linear_products import PACKED_BYTES
from attribution.bundle.footprint import sizes_of
from deployment.errors import StartError
from deployment.settings import Settings

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_GIB = 2**30


def require_given(settings: Settings, given: Mapping[str, float]) -> None:
    """Refuse what Ray gave a replica where it is not what the settings say, by which threads and device are chosen.

    Args:
        settings: of the service.
        given: processors and GPUs, as `CPU` and `GPU`; what is not named is none.

    Raises:
        StartError: they differ, as where Serve's configuration gives `ray_actor_options` of its own.
    """
    wanted = {"CPU": settings.processors, "GPU": settings.gpus_per_replica}
    for name, number in wanted.items():
        if abs(given.get(name, 0.0) - number) > 1e-3:  # Ray counts in ten-thousandths
            setting = f"{name.lower()}s_per_replica"
            raise StartError(
                f"Ray gave this replica {given.get(name, 0.0):g} {name}, and {setting} is {number:g}: let {setting} "
                "say it, and leave ray_actor_options of the deployment `replica` out"
            )


def require_memory(settings: Settings, memory_bytes: int | None = None, *, bundle: Path | None = None) -> None:
    """Refuse whole differences that do not fit into a machine's memory beside the model.

    Args:
        settings: of the service.
        memory_bytes: of the machine; None for this one's.
        bundle: its folder; None for the one that the settings name.

    Raises:
        StartError: they do not; both are told.
        BundleError: a file of the bundle is missing or malformed.
    """
    folder = bundle or settings.bundle
    sizes = sizes_of(folder)
    if not sizes.dense_bytes:
        return
    available = _memory_bytes() if memory_bytes is None else memory_bytes
    decoded = {settings.serve_dtype} if settings.engine.kind == "embedded" else set()
    networks = [sizes.weights * _BYTES[dtype] for dtype in decoded | {settings.score_dtype}]
    copies = [min(size, PACKED_BYTES) for size in networks]  # at most: of one that is larger there is none
    model = sum(networks + copies) if settings.device == "cpu" else 0
    if sizes.dense_bytes + model > available:
        beside = f", beside {model / _GIB:.1f} GiB of the model" if model else ""
        raise StartError(
            f"{folder}: the updates of its {sizes.clients} clients are whole differences of the weights, "
            f"{sizes.dense_bytes / _GIB:.1f} GiB that every score reads{beside}, and this machine has "
            f"{available / _GIB:.1f} GiB of memory: let clients deliver low-rank updates (LoRA), or take a larger one"
        )


def _memory_bytes() -> int:
    """The memory of this machine, or of the container where that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _LIMITS:
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)
