"""Whether a machine is what a replica's settings say: what Ray gave the replica of it, and memory for what scores read.

A whole difference of weights, unlike a low-rank one, is as large as the weights, each client has one, and every score
reads them all, several times: from memory that takes a while, and from a disk for ever. And of a model that is loaded
beside another there are two: a kernel that is out of memory ends the replica, and whoever it answers. Knows no model.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from attribution.base.linear_products import PACKED_BYTES
from attribution.bundle.footprint import BundleSizes, sizes_of
from deployment.errors import StartError
from deployment.settings import Settings

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), "memory.current", ("active_file", "inactive_file")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        "memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
)
"""A container's bound in the second and the first version of control groups, what it uses, and what it has cached."""
_MEMINFO = Path("/proc/meminfo")
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
    model = _model_bytes(settings, sizes)
    if sizes.dense_bytes + model > available:
        beside = f", beside {model / _GIB:.1f} GiB of the model" if model else ""
        raise StartError(
            f"{folder}: the updates of its {sizes.clients} clients are whole differences of the weights, "
            f"{sizes.dense_bytes / _GIB:.1f} GiB that every score reads{beside}, and this machine has "
            f"{available / _GIB:.1f} GiB of memory: let clients deliver low-rank updates (LoRA), or take a larger one"
        )


def require_room(settings: Settings, free_bytes: int | None = None, *, bundle: Path) -> None:
    """Refuse a bundle that is to be loaded beside another, where its model does not fit into what is free.

    Args:
        settings: of the service.
        free_bytes: of the machine's memory; None for what the kernel says that can be had.
        bundle: its folder.

    Raises:
        StartError: it does not; both are told. A GPU that is full says so itself, and ends nobody.
        BundleError: a file of the bundle is missing or malformed.
    """
    free = _free_bytes() if free_bytes is None else free_bytes
    sizes = sizes_of(bundle)
    needed = _model_bytes(settings, sizes) + sizes.dense_bytes
    if free is not None and needed > free:
        raise StartError(
            f"{bundle}: takes {needed / _GIB:.1f} GiB of memory beside what is served, and {free / _GIB:.1f} GiB are "
            "free: start the service again with it, which needs no room for two, or take a larger machine"
        )


def _model_bytes(settings: Settings, sizes: BundleSizes) -> int:
    """What a model's networks take of a machine's memory, at most; nothing where they are on a GPU."""
    decoded = {settings.serve_dtype} if settings.engine.kind == "embedded" else set()
    scored = set() if settings.scorers else {settings.score_dtype}
    networks = [sizes.weights * _BYTES[dtype] for dtype in decoded | scored]
    copies = [min(size, PACKED_BYTES) for size in networks]  # at most: of one that is larger there is none
    return sum(networks + copies) if settings.device == "cpu" else 0


def _free_bytes() -> int | None:
    """What a program can have without that others are swapped out (`MemAvailable` of proc(5)); None where none is told.

    In a container with a bound of its own, no more than what is left of that; what it has cached of files is free.
    """
    told = _numbers(_MEMINFO)
    if "MemAvailable:" not in told:
        return None
    free = told["MemAvailable:"] * 1024
    for limit, used, cached in _GROUPS:
        bound = limit.read_text().strip() if limit.is_file() else ""
        if bound.isdecimal():
            stat = _numbers(limit.with_name("memory.stat"))
            reclaimable = sum(stat.get(name, 0) for name in cached)
            free = min(free, int(bound) - int(limit.with_name(used).read_text()) + reclaimable)
    return free


def _numbers(file: Path) -> dict[str, int]:
    """The second word of each line, where it is a number, by the first; nothing of a file that is not there."""
    lines = [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _memory_bytes() -> int:
    """The memory of this machine, or of the container where that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file, _, _ in _GROUPS:
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)
