"""Hash functions, texts of values, Merkle trees and skip-list gaps, case by case."""

import enum
import hashlib
from typing import NoReturn

import pytest

from virtualchain import consensus
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.errors import InvalidOp, Unserializable, UsageError

EMPTY = "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"
EMPTY_HASH160 = "b472a266d0bd89c13706a4132ccfb16f7c3b9fcb"


class Color(enum.IntEnum):
    """An int that does not print as its number."""

    RED = 3

    def __str__(self) -> str:
        return "red"


def test_sha256d_of_nothing_is_the_known_digest() -> None:
    """It is the leaf of a block without ops."""
    assert sha256d(b"").hex() == EMPTY


def test_hash160_of_nothing_is_the_known_digest() -> None:
    """The bytes do not depend on what this machine's OpenSSL supports."""
    assert hash160(b"").hex() == EMPTY_HASH160


def test_hash160_falls_back_if_openssl_has_no_ripemd160(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's RIPEMD-160 returns what OpenSSL's would."""

    def refuse(name: str, *args: object, **kwargs: object) -> NoReturn:
        raise ValueError(f"unsupported hash type {name}")

    genuine = [hash160(bytes([n]) * n) for n in range(1, 70)]
    monkeypatch.setattr(hashlib, "new", refuse)
    assert hash160(b"").hex() == EMPTY_HASH160
    assert [hash160(bytes([n]) * n) for n in range(1, 70)] == genuine


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "True"),
        (False, "False"),
        (0, "0"),
        (-5, "-5"),
        (2**64, "18446744073709551616"),
        (Color.RED, "3"),
        ("", ""),
        ("p,1:q\0", "p,1:q\0"),
        ("Grüße €", "Grüße €"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (6400000.0, "6400000.0"),
        (1e11, "100000000000.0"),
        (1e12, "1e+12"),
        (1e-5, "1e-05"),
        (0.1, "0.1"),
        (1 / 3, "0.333333333333"),
        (2.5e-300, "2.5e-300"),
        (123456789012.5, "123456789012.0"),
        (1234567890123.5, "1.23456789012e+12"),
        ([], "[]"),
        ([6, 5, 4], "[6, 5, 4]"),
        ([-1], "[-1]"),
        ([2**63 - 1, -(2**63)], "[9223372036854775807, -9223372036854775808]"),
        ([2**63, -(2**63) - 1], "[9223372036854775808L, -9223372036854775809L]"),
    ],
)
def test_text_is_what_python_2_printed(value: object, text: str) -> None:
    """Long ints in a list end in the L that Python 2's repr gave them."""
    assert consensus.text_of(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"bytes", "a bytes cannot be hashed"),
        ((1, 2), "a tuple cannot be hashed"),
        ({"a": 1}, "a dict cannot be hashed"),
        ({1}, "a set cannot be hashed"),
        (1j, "a complex cannot be hashed"),
        (float("nan"), "nan is not a number"),
        (float("inf"), "inf is not a number"),
        (float("-inf"), "-inf is not a number"),
        ("half \ud800", "character 5 is a lone surrogate"),
        ([1, "2"], "ints only, not a str"),
        ([1.0], "ints only, not a float"),
        ([True], "ints only, not a bool"),
        ([[1]], "ints only, not a list"),
        ([None], "ints only, not a NoneType"),
        (2**2048, "more than 2048 bits"),
        ([-(2**2048)], "more than 2048 bits"),
    ],
)
def test_a_value_that_cannot_be_hashed_is_rejected_with_its_field(value: object, why: str) -> None:
    """The error is both virtualchain's and a ValueError, so a parser that raises it rejects the op."""
    with pytest.raises(Unserializable, match=f"field 'color'.*{why}") as caught:
        consensus.serialize_op(b"a", {"color": value}, ["color"])
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("value", "is_the_apps"),
    [
        (b"", True),
        ((), True),
        ({1}, True),
        (1j, True),
        ([1, b"x"], True),
        (["1", (2,)], True),
        ({"a": [b"x"]}, True),
        ({}, False),
        ({"a": [{"b": None}]}, False),
        ([1, "2"], False),
        ([[1]], False),
        ([None, 1.5, True], False),
        (float("nan"), False),
        (2**2048, False),
        ("\ud800", False),
    ],
)
def test_what_json_can_hold_is_no_error_of_the_app(value: object, *, is_the_apps: bool) -> None:
    """The error distinguishes what a stranger can have written from what only the app can make."""
    with pytest.raises(Unserializable) as caught:
        consensus.text_of(value)
    assert isinstance(caught.value, InvalidOp) == is_the_apps


def test_a_list_that_contains_itself_is_refused() -> None:
    """Looking through it comes to an end."""
    endless: list[object] = []
    endless += [endless, {"a": endless}]
    with pytest.raises(Unserializable, match="ints only, not a list"):
        consensus.text_of(endless)


def test_the_largest_int_is_printed() -> None:
    """Its 617 digits are below the lowest limit that Python can be set to."""
    assert consensus.text_of(2**2048 - 1) == str(2**2048 - 1).encode()


def test_lengths_count_bytes_and_an_opcode_may_be_any_byte() -> None:
    """Text beyond ASCII has more bytes in UTF-8 than characters."""
    op = {"name": "é€", "n": 7, "extra": object()}
    assert (
        consensus.serialize_op(b"\xff", op, ["name", "n", "name"])
        == b"\xff:5:\xc3\xa9\xe2\x82\xac,1:7,5:\xc3\xa9\xe2\x82\xac"
    )


def test_every_missing_field_is_named() -> None:
    """One error lists everything that has to be fixed."""
    with pytest.raises(InvalidOp, match="op 'a' has no y, z:"):
        consensus.serialize_op(b"a", {"x": 1}, ["x", "y", "z"])


def test_an_empty_first_block_has_the_known_hashes() -> None:
    """They are the two digests that the protocol page states."""
    assert consensus.ops_hash([]) == EMPTY
    assert consensus.consensus_hash(EMPTY, []) == "2a9148d8b13939723d2aca16c75c6d68"


def test_repeating_the_last_op_does_not_change_the_ops_hash() -> None:
    """The shape of CVE-2012-2459 is part of the wire format: an ops hash does not count its ops."""
    ops = sorted([b"a:1:1", b"a:1:2", b"a:1:3"], key=lambda op: consensus.ops_hash([op]))
    assert consensus.ops_hash([*ops, ops[-1]]) == consensus.ops_hash(ops)
    assert consensus.ops_hash([*ops, ops[0]]) != consensus.ops_hash(ops)


@pytest.mark.parametrize(
    ("block_id", "first", "ids"),
    [
        (100, 100, []),
        (101, 100, [100]),
        (102, 100, [101]),
        (103, 100, [102, 100]),
        (131, 100, [130, 128, 124, 116, 100]),
        (0, 0, []),
        (7, 0, [6, 4, 0]),
        (99, 100, []),
    ],
)
def test_prior_blocks_lie_one_less_than_powers_of_two_below(
    block_id: int, first: int, ids: list[int]
) -> None:
    """They are 1, 3, 7, 15, 31 … blocks below, down to the first block and no further."""
    assert consensus.prior_block_ids(block_id, first) == ids


@pytest.mark.parametrize(
    ("ops_hash", "prior"),
    [
        (EMPTY[:-2], []),
        (EMPTY.upper(), []),
        (EMPTY[:-1] + "g", []),
        (EMPTY[:-2] + " 0", []),
        (EMPTY, [EMPTY]),
        (EMPTY, ["2a9148d8b13939723d2aca16c75c6d6"]),
        (EMPTY, ["2A9148d8b13939723d2aca16c75c6d68"]),
        (EMPTY, ["é" * 32]),
    ],
)
def test_a_malformed_hash_is_rejected(ops_hash: str, prior: list[str]) -> None:
    """A wrong length or an upper-case digit would silently produce another chain."""
    with pytest.raises(UsageError, match="hex"):
        consensus.consensus_hash(ops_hash, prior)


def test_a_tree_needs_a_leaf() -> None:
    """A tree without leaves has no root."""
    with pytest.raises(UsageError, match="at least one hash"):
        consensus.merkle_root([])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0:,",
        f"66:r-{EMPTY},",
        f"69:66:r-{EMPTY},,",
        f"070:66:r-{EMPTY},,",
        f"70:66:r-{EMPTY.upper()},,",
        f"70:66:x-{EMPTY},,",
        f"70:66:r-{EMPTY},,\n",
        f"140:66:m-{EMPTY},66:m-{EMPTY},,",
        f"140:66:r-{EMPTY},66:m-{EMPTY},,",
    ],
)
def test_a_malformed_path_verifies_nothing(path: str) -> None:
    """The answer is False; nothing is raised."""
    assert consensus.verify_merkle_path(EMPTY, path, EMPTY) is False


def test_a_malformed_leaf_verifies_nothing() -> None:
    """A leaf that is not a hash is in no tree."""
    assert consensus.verify_merkle_path(EMPTY, f"70:66:r-{EMPTY},,", "no hash") is False


def test_an_m_step_is_not_a_sibling() -> None:
    """It is valid only on its own, in a tree of one leaf."""
    other = "00" * 32
    root = consensus.merkle_root([EMPTY, other])
    assert consensus.verify_merkle_path(root, f"70:66:r-{other},,", EMPTY)
    assert not consensus.verify_merkle_path(root, f"70:66:m-{other},,", EMPTY)
