"""Weights in installed packages: found whole or joined from parts, and refused when anything is missing or altered."""

import hashlib
from pathlib import Path

import pytest

from attribution.base.wheel_weights import find_in_wheel
from attribution.errors import ModelError

CONTENT = bytes(range(256)) * 40


def _distribution(site: Path, name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
    """An installed package as pip leaves it: its files, and METADATA and RECORD beside them."""
    module, info = site / name.replace("-", "_"), site / f"{name.replace('-', '_')}-1.0.dist-info"
    for folder in (module, info):
        folder.mkdir(parents=True)
    for file, content in files.items():
        (module / file).write_bytes(content)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {each}" for each in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text("".join(f"{module.name}/{file},,\n" for file in files))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder on the path that packages are installed to."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def _in_parts(site: Path, *, declared: bytes = CONTENT, numbers: tuple[int, ...] = (0, 1)) -> None:
    sums = f"{hashlib.sha256(declared).hexdigest()}  big.gguf\n".encode()
    needed = tuple(f"big-part{number}==1.0" for number in numbers)
    _distribution(site, "big", {"SHA256SUMS": sums}, needed)
    for number in numbers:
        half = CONTENT[:5000] if number == 0 else CONTENT[5000:]
        _distribution(site, f"big-part{number}", {f"big.gguf.part{number:02d}": half})


def test_a_whole_file_is_where_the_package_has_it(site, tmp_path):
    """A file that a package ships in one piece is used in place."""
    _distribution(site, "small", {"small.gguf": CONTENT})
    found = find_in_wheel("small/small.gguf")

    assert found.sha256 is None
    assert found.join_parts(tmp_path) == site / "small" / "small.gguf"


def test_parts_are_joined_in_order(site, tmp_path):
    """Parts in the packages that a package requires become the file whose hash it declares."""
    _in_parts(site)
    found = find_in_wheel("big/big.gguf")

    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert found.join_parts(tmp_path).read_bytes() == CONTENT


def test_an_altered_part_is_refused(site, tmp_path):
    """Parts that do not make the declared file are refused with both hashes."""
    _in_parts(site, declared=CONTENT + b"x")
    with pytest.raises(ModelError, match=r"big\.gguf: its 2 parts have SHA-256 .* SHA256SUMS says"):
        find_in_wheel("big/big.gguf").join_parts(tmp_path)


def test_a_missing_part_is_named(site):
    """A gap in the numbers of the parts is refused by the first number that is not there."""
    _in_parts(site, numbers=(1, 2))
    with pytest.raises(ModelError, match=r"big\.gguf\.part00 is missing"):
        find_in_wheel("big/big.gguf")


def test_parts_without_a_hash_are_refused(site):
    """Parts whose whole nobody vouches for are refused."""
    _distribution(site, "bare", {"bare.gguf.part00": CONTENT})
    with pytest.raises(ModelError, match="no SHA256SUMS"):
        find_in_wheel("bare/bare.gguf")


@pytest.mark.parametrize(
    ("reference", "named"),
    [("absent/x.gguf", "'absent' is not installed"), ("small/x.gguf", r"no file named 'x.gguf'")],
)
def test_what_is_not_there_is_named(site, reference, named):
    """A package that is not installed, and a file that it does not ship, are refused by name."""
    _distribution(site, "small", {"small.gguf": CONTENT})
    with pytest.raises(ModelError, match=named):
        find_in_wheel(reference)


def test_a_required_package_that_is_not_installed_is_named(site):
    """A package with parts whose sibling is not installed is refused by the sibling's name."""
    sums = f"{'0' * 64}  big.gguf\n".encode()
    _distribution(site, "big", {"SHA256SUMS": sums}, ("big-part0==1.0",))
    with pytest.raises(ModelError, match="'big-part0' is not installed"):
        find_in_wheel("big/big.gguf")
