"""What a service stands on besides its ledger: folders, secrets and its bundle, each as it was at the start.

Each part can be asked whether it is still that; a part that was not there at the start is no part. Knows no thread,
and no ledger.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from attribution.bundle.manifest import MANIFEST_NAME, read_manifest
from attribution.errors import BundleError
from deployment.errors import PartLostError
from rewards.errors import SignatureError
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.store.presence import identity

Check = Callable[[], None]
"""Returns where a part is as it was; raises PartLostError, LedgerError or OSError where it is not."""


def folder(part: str, *paths: Path) -> Check:
    """Folders that bear their names still: another one in their place holds nothing of what was promised."""
    opened = {path: identity(path) for path in paths}

    def check() -> None:
        for path, was in opened.items():
            if identity(path) != was:
                raise _loss_of(part, path)

    return check


def secret(part: str, path: Path) -> Check:
    """A file whose content stays the same."""
    content = sha256(path.read_bytes()).digest()

    def check() -> None:
        try:
            is_same = sha256(path.read_bytes()).digest() == content
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            raise _loss_of(part, path)

    return check


def signing_key(part: str, path: Path, require_known: Callable[[VerifyKey], None]) -> Check:
    """A file that holds a signing key of the ledger's; another one after a rotation is as good, a stranger's is not.

    Args:
        part: how the part is called.
        path: the file.
        require_known: raises SignatureError where a key is none of the ledger's; asked once for each key in a row.
    """
    accepted: VerifyKey | None = None

    def check() -> None:
        nonlocal accepted
        if not path.is_file():
            raise _loss_of(part, path)
        try:
            public = SigningKey.load(path).public
        except SignatureError as error:
            raise PartLostError(str(error), f"{part}_damaged") from error
        if public != accepted:
            try:
                require_known(public)
            except SignatureError as error:
                raise PartLostError(f"{path}: {error}", f"{part}_replaced") from error
            accepted = public

    return check


def bundle(part: str, path: Path, verify: Callable[[Path], object]) -> Check:
    """A bundle that says what it said, with every file that it names as it was; a copy of it is as good.

    What else lies in its folder, such as a round that is being copied there, is no part of it. A model in memory may be
    its file itself (mmap), so that what is written into that is served at once.

    Args:
        part: how the part is called.
        path: the bundle's folder.
        verify: raises BundleError where a file has not the hash that the manifest says; asked when one was written.
    """
    manifest = read_manifest((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    updates = [named for client in manifest.clients for named in (client.path, client.last_round_path) if named]
    files = [*(path / manifest.global_.path).rglob("*"), *(path / named for named in updates)]
    accepted = {file: _stamp(file) for file in files if file.is_file()}
    refused: tuple[dict[Path, tuple[int, int]], PartLostError] | None = None
    says = secret(part, path / MANIFEST_NAME)

    def check() -> None:
        nonlocal accepted, refused
        says()
        for file, (size, _) in accepted.items():
            if not file.is_file() or file.stat().st_size != size:
                raise _loss_of(part, file)
        current = {file: _stamp(file) for file in accepted}
        if refused is not None and refused[0] == current:
            raise refused[1]
        if current != accepted:
            try:
                verify(path)
            except BundleError as error:
                refused = current, PartLostError(str(error), f"{part}_replaced")
                raise refused[1] from error
            accepted = current

    return check


def manifests_of(folders: Iterable[Path]) -> dict[str, Path]:
    """Consortium -> the file of its bundle that says so, of the folders that are on this machine."""
    manifests: dict[str, Path] = {}
    for folder in folders:
        with suppress(OSError, ValueError):  # another machine's, or none any more: its replicas say what of it
            file = folder / MANIFEST_NAME
            manifests[read_manifest(file.read_text(encoding="utf-8")).consortium] = file
    return manifests


def _stamp(file: Path) -> tuple[int, int]:
    """Size, and when it was written last, in nanoseconds since 1970."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _loss_of(part: str, path: Path) -> PartLostError:
    if path.exists():
        return PartLostError(f"{path} is another one than when the service started", f"{part}_replaced")
    return PartLostError(f"{path} is gone", f"{part}_missing")
