"""One hash for the same tensors, however they are held; another for any that differ in what a reader would notice."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import save_file

from attribution.errors import RoundsError
from attribution.rounds.hashing import tensors_sha256
from attribution.rounds.stored_tensors import read_stored, store_tensors
from attribution.rounds.tensor_bytes import ITEM_BYTES, NAMES, Tensor, as_tensor

TYPES = [name for name in NAMES.values() if hasattr(np, name)]
ARRAYS = arrays.arrays(st.sampled_from(TYPES), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
TENSORS = st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4)


@pytest.mark.long
@given(TENSORS, st.randoms())
def test_neither_order_nor_layout_nor_byte_order_matters(tensors, random):
    """The same numbers under the same names have one hash, in any order and wherever they lie."""
    names = [*tensors]
    random.shuffle(names)
    other = {}
    for name in names:
        array = np.array(tensors[name], order="F")
        apart = np.zeros((*array.shape, 2), array.dtype)
        apart[..., 0] = array
        other[name] = random.choice([array, apart[..., 0], array.astype(array.dtype.newbyteorder(">"))])

    assert tensors_sha256(tensors) == tensors_sha256(other)


@pytest.mark.long
@given(TENSORS, TENSORS)
def test_different_tensors_have_different_hashes(one, other):
    """Two sets of tensors have one hash only where names, types, sizes and bits are the same."""
    same = one.keys() == other.keys() and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in one
    )

    assert same == (tensors_sha256(one) == tensors_sha256(other))


@pytest.mark.parametrize(
    "other",
    [
        {"b": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((3, 2), np.float32)},
        {"a": np.zeros((6,), np.float32)},
        {"a": np.zeros((2, 3), np.int32)},
        {"a": np.full((2, 3), -0.0, np.float32)},
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros((0,), np.float32)},
        {},
    ],
)
def test_name_shape_type_and_bits_matter(other):
    """One of them changed alone changes the hash, and so does an empty tensor beside the others."""
    assert tensors_sha256({"a": np.zeros((2, 3), np.float32)}) != tensors_sha256(other)


@pytest.mark.long
@given(TENSORS)
def test_a_file_has_the_hash_of_what_it_holds(tmp_path_factory, tensors):
    """What was stored has the hash of what was given, and so has the file, read in its own order."""
    path = tmp_path_factory.mktemp("stored") / "t.safetensors"
    stored = store_tensors(path, tensors)

    assert tensors_sha256(tensors) == stored.sha256
    assert stored == read_stored(path)
    assert {name: array.shape for name, array in tensors.items()} == stored.shapes


@pytest.mark.parametrize(("code", "name"), NAMES.items())
def test_torch_numpy_and_files_agree(code, name, tmp_path):
    """Tensors of PyTorch, also of bfloat16 and with gradients, hash as those of NumPy and as the file of either."""
    values = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    if name == "bfloat16":
        values.requires_grad_()
    bits = torch.arange(6).reshape(2, 3).to(getattr(torch, name)).view(getattr(torch, f"uint{8 * ITEM_BYTES[code]}"))
    of_numpy = Tensor(code, bits.numpy())
    save_file({"x": values.detach()}, tmp_path / "torch.safetensors")
    stored = store_tensors(tmp_path / "ours.safetensors", {"x": of_numpy})

    assert tensors_sha256({"x": values}) == tensors_sha256({"x": of_numpy})
    assert stored == read_stored(tmp_path / "torch.safetensors") == read_stored(tmp_path / "ours.safetensors")


def test_tensors_that_lie_oddly_in_torch_hash_alike():
    """A transposed view of bfloat16 has the hash of its copy."""
    values = torch.arange(6.0).reshape(2, 3).bfloat16().T

    assert tensors_sha256({"x": values}) == tensors_sha256({"x": values.contiguous()})


def test_the_hash_is_what_its_description_says():
    """Whoever writes it anew from the text of the module has the same; a version would change its first line."""
    data = np.array([[1.5, -2.0]], np.float32)

    def number(value: int) -> bytes:
        return value.to_bytes(8, "little")

    text = b"protoken-tensors/1\n" + number(2) + "é".encode() + number(3) + b"F32" + number(2) + number(1) + number(2)
    expected = hashlib.sha256(text + hashlib.sha256(data.tobytes()).digest()).hexdigest()

    assert expected == tensors_sha256({"é": data})


def test_what_lies_well_is_not_copied():
    """The bytes of an array in C order are the array's own."""
    array = np.ones((3, 4), np.float32)

    assert np.shares_memory(as_tensor("x", array).little_endian(), array)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn"])
def test_a_number_that_is_none_is_seen(name, value):
    """NaN and the infinities, of every type that has them; the largest numbers are numbers, and so are integers."""
    kind = getattr(torch, name)
    numbers = torch.full((100_000,), torch.finfo(kind).max, dtype=torch.float64).to(kind)
    spoilt = numbers.clone()
    spoilt[-1] = torch.tensor(value).to(kind) if name != "float8_e4m3fn" else float("nan")  # it has no infinity

    assert as_tensor("x", numbers).is_finite()
    assert not as_tensor("x", spoilt).is_finite()
    assert as_tensor("x", np.full(3, -1)).is_finite()


@pytest.mark.parametrize(
    ("numbers", "fits"),
    [
        ([float(np.finfo(np.float32).max)] * 70_000, True),
        ([0.0] * 70_000 + [-1e39], False),
        ([float("nan")], False),
        ([], True),
    ],
    ids=("largest", "too large", "none", "empty"),
)
def test_a_number_that_is_none_in_32_bits_is_seen(numbers, fits):
    """Of 64 bits too large, or none to begin with; every piece of a tensor is looked at."""
    assert fits == as_tensor("x", np.array(numbers, np.float64)).is_finite_in_32_bits()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: [1.0], "tensor 'x': is a list, not an array"),
        (lambda: np.ones(2, complex), "tensor 'x': holds complex128"),
        (lambda: np.array(["a"]), "tensor 'x': holds str"),
        (lambda: np.array([{}]), "tensor 'x': holds object"),
        (lambda: torch.ones(2, dtype=torch.complex64), "tensor 'x': holds complex64"),
    ],
)
def test_what_is_no_tensor_is_refused(make, words):
    """What no safetensors file holds has no hash, and the refusal names it."""
    with pytest.raises(RoundsError) as refused:
        tensors_sha256({"x": make()})

    assert words in str(refused.value)


@pytest.mark.long
def test_the_package_needs_neither_torch_nor_flower():
    """Each module of it is imported where there is no torch, no transformers and no Flower."""
    code = (
        "import importlib, pkgutil, sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'transformers', 'flwr', 'peft', 'ml_dtypes'))\n"
        "import attribution.rounds as package\n"
        "names = [each.name for each in pkgutil.iter_modules(package.__path__)]\n"
        "for name in names: importlib.import_module(f'attribution.rounds.{name}')\n"
        "print(len(names))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )

    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 6
