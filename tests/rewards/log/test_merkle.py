"""The Merkle log agrees with the RFC's own recursion and vectors, and no altered proof is accepted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.errors import LogError
from rewards.log.merkle import (
    EMPTY_ROOT,
    MemoryNodes,
    consistency_proof,
    grow,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The reference tree of Certificate Transparency: its entries, and the roots of its first 1 to 8 leaves.
ENTRIES = [
    bytes.fromhex(text)
    for text in [
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    ]
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAF_0, LEAVES_0_1, LEAVES_0_3 = ROOTS[0], ROOTS[1], ROOTS[3]
LEAF_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
LEAF_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
LEAF_6 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
LEAVES_2_3 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
LEAVES_4_5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
LEAVES_6_7 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
LEAVES_4_7 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"

LARGEST = 64
LEAVES = [leaf_hash(b"entry %d" % number) for number in range(LARGEST)]
TREE = MemoryNodes(LEAVES)
SIZES = st.integers(min_value=1, max_value=LARGEST)


def literal_root(leaves):
    """MTH, as RFC 9162 2.1.1 states it, over leaf hashes."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = split_point(len(leaves))
    return node_hash(literal_root(leaves[:k]), literal_root(leaves[k:]))


def literal_path(m, leaves):
    """PATH, as RFC 9162 2.1.3.1 states it."""
    if len(leaves) == 1:
        return []
    k = split_point(len(leaves))
    if m < k:
        return [*literal_path(m, leaves[:k]), literal_root(leaves[k:])]
    return [*literal_path(m - k, leaves[k:]), literal_root(leaves[:k])]


def literal_subproof(m, leaves, known):
    """SUBPROOF, as RFC 9162 2.1.4.1 states it; PROOF(m, D) is SUBPROOF(m, D, true)."""
    if m == len(leaves):
        return [] if known else [literal_root(leaves)]
    k = split_point(len(leaves))
    if m <= k:
        return [*literal_subproof(m, leaves[:k], known), literal_root(leaves[k:])]
    return [*literal_subproof(m - k, leaves[k:], False), literal_root(leaves[:k])]


def split_point(n):
    """The largest power of two below n, by counting."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def flipped(value, bit):
    """The bytes with one bit changed."""
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")


class CountingNodes:
    """Nodes that count how often they are read."""

    def __init__(self, nodes):
        self._nodes = nodes
        self.reads = []

    def node(self, level, index):
        self.reads.append((level, index))
        return self._nodes.node(level, index)


def test_empty_root_is_the_hash_of_nothing():
    """The root of a log without entries is SHA-256 of the empty string."""
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" == EMPTY_ROOT.hex()
    assert EMPTY_ROOT == root(MemoryNodes(), 0)


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size):
    """The reference entries give the published roots, also when the tree has grown beyond that size."""
    hashes = [leaf_hash(entry) for entry in ENTRIES]

    assert ROOTS[size - 1] == root(MemoryNodes(hashes[:size]), size).hex()
    assert ROOTS[size - 1] == root(MemoryNodes(hashes), size).hex()


@pytest.mark.parametrize(
    ("index", "size", "published"),
    [
        (0, 1, []),
        (0, 8, [LEAF_1, LEAVES_2_3, LEAVES_4_7]),
        (5, 8, [LEAF_4, LEAVES_6_7, LEAVES_0_3]),
        (2, 3, [LEAVES_0_1]),
        (1, 5, [LEAF_0, LEAVES_2_3, LEAF_4]),
    ],
)
def test_inclusion_proofs_are_those_of_certificate_transparency(index, size, published):
    """The published inclusion proofs are built and accepted."""
    hashes = [leaf_hash(entry) for entry in ENTRIES]
    proof = inclusion_proof(MemoryNodes(hashes), index, size)

    assert published == [value.hex() for value in proof]
    assert verify_inclusion(hashes[index], index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        (1, 1, []),
        (1, 8, [LEAF_1, LEAVES_2_3, LEAVES_4_7]),
        (6, 8, [LEAVES_4_5, LEAVES_6_7, LEAVES_0_3]),
        (2, 5, [LEAVES_2_3, LEAF_4]),
        (6, 7, [LEAVES_4_5, LEAF_6, LEAVES_0_3]),
    ],
)
def test_consistency_proofs_are_those_of_certificate_transparency(first, second, published):
    """The published consistency proofs are built and accepted."""
    proof = consistency_proof(MemoryNodes([leaf_hash(entry) for entry in ENTRIES]), first, second)
    first_root, second_root = bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[second - 1])

    assert published == [value.hex() for value in proof]
    assert verify_consistency(first, second, first_root, second_root, proof)


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_roots_and_proofs_agree_with_the_recursion_of_the_rfc(size):
    """For every size, leaf and earlier size, what is built is what the literal recursion gives, and it verifies."""
    leaves = LEAVES[:size]
    whole = root(TREE, size)

    assert literal_root(leaves) == whole
    for index in range(size):
        proof = inclusion_proof(TREE, index, size)
        assert literal_path(index, leaves) == proof
        assert verify_inclusion(leaves[index], index, size, proof, whole)
    for first in range(1, size + 1):
        proof = consistency_proof(TREE, first, size)
        assert literal_subproof(first, leaves, True) == proof
        assert verify_consistency(first, size, root(TREE, first), whole, proof)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=40), max_size=8))
def test_growth_in_batches_gives_the_same_nodes(batches):
    """However leaves are batched, each complete node appears exactly once, after its children, with the same hash."""
    leaves = [leaf_hash(b"%d" % number) for number in range(sum(batches))]
    nodes, at_once, size, seen = MemoryNodes(), MemoryNodes(leaves), 0, []
    for batch in batches:
        new = grow(nodes, size, leaves[size : size + batch])
        nodes.append(leaves[size : size + batch])
        for level, index, value in new:
            assert at_once.node(level, index) == value == nodes.node(level, index)
            assert level == 0 or {(level - 1, 2 * index), (level - 1, 2 * index + 1)} <= set(seen)
            seen.append((level, index))
        size += batch

    assert size == nodes.size
    assert literal_root(leaves) == root(nodes, size)
    assert len(set(seen)) == len(seen)
    assert {(level, index) for level in range(10) for index in range(size >> level)} == set(seen)


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=1, max_value=2000), st.data())
def test_few_nodes_are_read(size, data):
    """Growing, a root and a proof read at most two nodes for each level of the tree."""
    nodes = MemoryNodes(LEAVES[number % LARGEST] for number in range(size))
    place = data.draw(st.integers(min_value=0, max_value=size - 1))
    deeds = [
        lambda counting: grow(counting, size, LEAVES),
        lambda counting: root(counting, size),
        lambda counting: inclusion_proof(counting, place, size),
        lambda counting: consistency_proof(counting, place + 1, size),
    ]
    for deed in deeds:
        counting = CountingNodes(nodes)
        deed(counting)
        assert len(counting.reads) <= 2 * size.bit_length()
        assert len(counting.reads) == len(set(counting.reads))


@settings(max_examples=200, deadline=None)
@given(SIZES, st.data())
def test_any_flipped_bit_breaks_inclusion(size, data):
    """One bit changed in the leaf, the root or any hash of the proof, and the proof is refused."""
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    leaf, *proof, whole = LEAVES[index], *inclusion_proof(TREE, index, size), root(TREE, size)
    hashes = [leaf, *proof, whole]
    place = data.draw(st.integers(min_value=0, max_value=len(hashes) - 1))
    hashes[place] = flipped(hashes[place], data.draw(st.integers(min_value=0, max_value=255)))

    assert not verify_inclusion(hashes[0], index, size, hashes[1:-1], hashes[-1])


@settings(max_examples=200, deadline=None)
@given(SIZES, st.data())
def test_any_flipped_bit_breaks_consistency(second, data):
    """One bit changed in either root or any hash of the proof, and the proof is refused."""
    first = data.draw(st.integers(min_value=1, max_value=second))
    hashes = [root(TREE, first), *consistency_proof(TREE, first, second), root(TREE, second)]
    place = data.draw(st.integers(min_value=0, max_value=len(hashes) - 1))
    hashes[place] = flipped(hashes[place], data.draw(st.integers(min_value=0, max_value=255)))

    assert not verify_consistency(first, second, hashes[0], hashes[-1], hashes[1:-1])


@pytest.mark.parametrize("size", range(1, 34))
def test_an_inclusion_proof_holds_for_its_own_index_only(size):
    """With distinct leaves, a leaf and its proof are refused at every other index of the same tree."""
    whole = root(TREE, size)
    for index in range(size):
        proof = inclusion_proof(TREE, index, size)
        accepted = [at for at in range(-1, size + 2) if verify_inclusion(LEAVES[index], at, size, proof, whole)]
        assert [index] == accepted


@pytest.mark.parametrize("second", range(1, 34))
def test_a_consistency_proof_holds_for_its_own_first_size_only(second):
    """With distinct leaves, a proof and its roots are refused for every other first size of the same tree."""
    whole = root(TREE, second)
    for first in range(1, second + 1):
        proof, first_root = consistency_proof(TREE, first, second), root(TREE, first)
        accepted = [
            claim for claim in range(-1, second + 2) if verify_consistency(claim, second, first_root, whole, proof)
        ]
        assert [first] == accepted


@pytest.mark.parametrize("size", range(1, 18))
def test_a_proof_does_not_hold_against_the_tree_of_another_size(size):
    """Against size and root of any other checkpoint of the same log, each proof is refused."""
    others = [other for other in range(18) if other != size]
    for place in range(size):
        included, consistent = inclusion_proof(TREE, place, size), consistency_proof(TREE, place + 1, size)
        for other in others:
            assert not verify_inclusion(LEAVES[place], place, other, included, root(TREE, other))
            assert not verify_consistency(place + 1, other, root(TREE, place + 1), root(TREE, other), consistent)


def test_a_size_is_not_proven_but_taken_from_the_checkpoint():
    """Trees of 5 to 8 leaves have a path of one shape to leaf 0: the root decides, and its size is not shown."""
    proof, whole = inclusion_proof(TREE, 0, 8), root(TREE, 8)
    accepted = [size for size in range(1, 20) if verify_inclusion(LEAVES[0], 0, size, proof, whole)]

    assert [5, 6, 7, 8] == accepted


@settings(max_examples=100, deadline=None)
@given(SIZES, st.data())
def test_a_proof_of_another_length_is_refused(size, data):
    """A hash that is missing, repeated or added anywhere makes a proof invalid."""
    place = data.draw(st.integers(min_value=0, max_value=size - 1))
    whole, first_root = root(TREE, size), root(TREE, place + 1)
    for proof, holds in [
        (inclusion_proof(TREE, place, size), lambda p: verify_inclusion(LEAVES[place], place, size, p, whole)),
        (
            consistency_proof(TREE, place + 1, size),
            lambda p: verify_consistency(place + 1, size, first_root, whole, p),
        ),
    ]:
        at = data.draw(st.integers(min_value=0, max_value=len(proof)))
        assert holds(proof)
        assert not holds([*proof[:at], data.draw(st.sampled_from([whole, *proof])), *proof[at:]])
        assert at == len(proof) or not holds([*proof[:at], *proof[at + 1 :]])


def test_a_rewritten_log_is_not_consistent():
    """No proof from a log whose past was changed is accepted against the root of before."""
    forged = MemoryNodes([*LEAVES[:3], leaf_hash(b"forged"), *LEAVES[4:]])
    for first in range(4, 20):
        for second in range(first, 20):
            proof = consistency_proof(forged, first, second)
            assert not verify_consistency(first, second, root(TREE, first), root(forged, second), proof)


HOSTILE_NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**63, 2**64, 2**4000, True, 1.0, None, "1"]),
    SIZES,
)
HOSTILE_HASHES = st.one_of(st.binary(max_size=40), st.sampled_from([*LEAVES[:3], None, "text", 7, bytearray(32)]))
HOSTILE_PROOFS = st.one_of(st.lists(HOSTILE_HASHES, max_size=8), st.sampled_from([None, b"", "", 5, {}]))


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(HOSTILE_NUMBERS, HOSTILE_NUMBERS, HOSTILE_HASHES, HOSTILE_HASHES, HOSTILE_PROOFS)
def test_verification_never_raises(one, other, left, right, proof):
    """Whatever is presented, verification answers; only what is trivially true among it is accepted."""
    trivial = proof == [] and left == right and isinstance(left, bytes) and len(left) == 32

    assert (trivial and type(one) is int and (type(other), one, other) == (int, 0, 1)) == verify_inclusion(
        left, one, other, proof, right
    )
    assert (trivial and type(one) is type(other) is int and 0 < one == other < 2**63) == verify_consistency(
        one, other, left, right, proof
    )


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 4), (-1, 4), (3, 2**63)])
def test_sizes_without_a_proof_are_refused(first, second):
    """An empty, shrinking or impossible log is not consistent with anything."""
    assert not verify_consistency(first, second, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not verify_consistency(first, second, EMPTY_ROOT, root(TREE, 5), [LEAVES[0]])


def test_nothing_is_included_in_the_empty_tree():
    """A tree without leaves includes nothing, not even its own root."""
    assert not verify_inclusion(EMPTY_ROOT, 0, 0, [], EMPTY_ROOT)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: root(TREE, -1), "size .* not -1"),
        (lambda: root(TREE, 2**63), "size .* not 9223372036854775808"),
        (lambda: root(TREE, True), "size .* not True"),
        (lambda: root(TREE, LARGEST + 1), "64 leaves has no complete node 64 at level 0"),
        (lambda: grow(TREE, -1, []), "size .* not -1"),
        (lambda: grow(TREE, 5, [LEAVES[0], b"short"]), "leaf 6 must be 32 bytes, not b'short'"),
        (lambda: inclusion_proof(TREE, 5, 5), "index .* size 5, not 5"),
        (lambda: inclusion_proof(TREE, 0, 0), "index .* size 0, not 0"),
        (lambda: inclusion_proof(TREE, -1, 5), "index .* not -1"),
        (lambda: inclusion_proof(TREE, 1.0, 5), "index .* not 1.0"),
        (lambda: inclusion_proof(TREE, 0, -5), "size .* not -5"),
        (lambda: consistency_proof(TREE, 0, 5), "first .* 5, not 0"),
        (lambda: consistency_proof(TREE, 6, 5), "first .* 5, not 6"),
        (lambda: consistency_proof(TREE, 1, None), "second .* not None"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(build, named):
    """Leaves and sizes out of range, and what is no hash, raise an error that names them."""
    with pytest.raises(LogError, match=named):
        build()


def test_a_refused_batch_leaves_the_nodes_as_they_were():
    """Of a batch with a bad hash, nothing is appended."""
    nodes = MemoryNodes(LEAVES[:3])
    with pytest.raises(LogError, match="leaf 4"):
        nodes.append([LEAVES[3], b""])

    assert (3, literal_root(LEAVES[:3])) == (nodes.size, root(nodes, 3))
    with pytest.raises(LogError, match="no complete node 3 at level 0"):
        nodes.node(0, 3)
