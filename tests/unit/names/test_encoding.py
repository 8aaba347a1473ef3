"""The registry's hashes and numbers, against what the network computed."""

import json
from typing import Any

import pytest

from tests.support.shared_data import shared
from virtualchain.examples.names import MAINNET, encoding
from virtualchain.examples.names.refusal import Refused


def vectors() -> dict[str, Any]:
    """Read the network's hash vectors."""
    hashes: dict[str, Any] = json.loads(shared("blockstack/mainnet.json").read_text())["hashes"]
    return hashes


def test_b40_is_the_network_s() -> None:
    """Digits, letters and four signs as a number of base 40."""
    for text, number in vectors()["b40"]:
        assert int.from_bytes(encoding.b40(text), "big") == number


def test_b40_takes_as_few_bytes_as_it_can() -> None:
    """Leading zeros vanish, and one byte is the least."""
    assert [encoding.b40(text) for text in ("0", "00", "1", "6f", "01a")] == [
        b"\0",
        b"\0",
        b"\1",
        b"\xff",
        b"\x32",
    ]


def test_preorder_hashes_are_the_network_s() -> None:
    """They bind name, sender's script and the recipient's address, on mainnet and regtest."""
    for vector in vectors()["hash_name"]:
        made = encoding.preorder_hash(vector["name"], vector["sender_script"], vector["register_address"])
        assert made == vector["preorder_hash"]


def test_hash128_is_the_network_s() -> None:
    """Half a SHA-256 of text."""
    for text, digest in vectors()["hash128"]:
        assert encoding.hash128(text) == digest


def test_mainnet_starts_from_the_network_s_snapshots() -> None:
    """Four of them, in front of the first block."""
    wanted = json.loads(shared("blockstack/mainnet.json").read_text())["initial_snapshots"]
    assert {str(block_id): text for block_id, text in MAINNET.initial_snapshots.items()} == wanted


@pytest.mark.parametrize("name", ["a.b", "a_b-0.x_y-9", "n" * 33 + ".abc", "n." + "x" * 19])
def test_names(name: str) -> None:
    """Of 37 characters at most, 19 of them behind the dot."""
    assert encoding.read_name(name.encode()) == name
    assert encoding.read_namespace_id(encoding.namespace_of(name).encode()) == encoding.namespace_of(name)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b".",
            b"a",
            b"a.",
            b".a",
            b"a.b.c",
            b"A.b",
            b"a.b\n",
            b"\xc3\xa9.b",
            b"a+.b",
            b"a b.c",
            b"a\0.b",
        ),
        *(b"n" * 34 + b".abc", b"n." + b"x" * 20),
    ],
)
def test_what_is_no_name(text: bytes) -> None:
    """Refused, never read as something near it."""
    with pytest.raises(Refused):
        encoding.read_name(text)
