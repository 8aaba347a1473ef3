"""Names, hashes and senders are read as the network read them."""

import json
from typing import Any

import pytest

from tests.support.names_chain import ALICE, BOB, COMPANY, Person
from tests.support.shared_data import shared
from virtualchain.bitcoin.script import push
from virtualchain.examples.names import MAINNET, reading
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.rules import Refused

SIGNATURE = push(b"\x30" * 71)


def vectors() -> dict[str, Any]:
    """Read the network's hash vectors."""
    hashes: dict[str, Any] = json.loads(shared("blockstack/mainnet.json").read_text())["hashes"]
    return hashes


def test_base40_is_the_network_s() -> None:
    """Digits, letters and four signs are the digits of a base-40 number."""
    for text, number in vectors()["b40"]:
        assert int.from_bytes(reading.base40(text), "big") == number


def test_base40_uses_as_few_bytes_as_possible() -> None:
    """Leading zeros vanish, but there is at least one byte."""
    assert [reading.base40(text) for text in ("0", "00", "1", "6f", "01a")] == [
        b"\0",
        b"\0",
        b"\1",
        b"\xff",
        b"\x32",
    ]


def test_preorder_hashes_are_the_network_s() -> None:
    """They commit to the name, the sender's script and the recipient's address, on mainnet and regtest."""
    for vector in vectors()["hash_name"]:
        computed = reading.preorder_hash(vector["name"], vector["sender_script"], vector["register_address"])
        assert computed == vector["preorder_hash"]


def test_hash128_is_the_network_s() -> None:
    """It is the first half of a SHA-256."""
    for text, digest in vectors()["hash128"]:
        assert reading.hash128(text) == digest


def test_mainnet_starts_from_the_network_s_snapshots() -> None:
    """There are four, before the first block."""
    expected = json.loads(shared("blockstack/mainnet.json").read_text())["initial_snapshots"]
    assert {str(block_id): text for block_id, text in MAINNET.initial_snapshots.items()} == expected


@pytest.mark.parametrize("name", ["a.b", "a_b-0.x_y-9", "n" * 33 + ".abc", "n." + "x" * 19])
def test_valid_names(name: str) -> None:
    """They have at most 37 characters, and at most 19 after the dot."""
    assert reading.read_name(name.encode()) == name
    assert reading.read_namespace_id(reading.namespace_of(name).encode()) == reading.namespace_of(name)


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
def test_invalid_names(text: bytes) -> None:
    """They are refused, and never read as a similar name."""
    with pytest.raises(Refused):
        reading.read_name(text)


def spent(person: Person) -> dict[str, Any]:
    """Describe an output of a person, as the engine passes it in `senders`."""
    kind = "scripthash" if person.is_script else "pubkeyhash"
    return {"type": kind, "script_pubkey": person.script.hex(), "addresses": [person.address]}


def sender_of(person: Person, *script_sigs: bytes) -> dict[str, Any]:
    """Read the sender of a transaction with these input scripts; the first spends the person's output."""
    inputs = [{"script_sig": script_sig.hex()} for script_sig in script_sigs]
    return Transaction([spent(person)], inputs, [], has_positions=False).sender()


def test_the_sender_s_key_is_searched_in_every_input() -> None:
    """It is the second push of the first input that shows it; a script has no key."""
    alice, bob = (SIGNATURE + push(person.public_key) for person in (ALICE, BOB))
    assert sender_of(ALICE, alice, bob)["sender_pubkey"] == ALICE.public_key.hex()
    assert sender_of(ALICE, bob, b"", alice)["sender_pubkey"] == ALICE.public_key.hex()
    assert sender_of(ALICE, bob)["sender_pubkey"] is None
    assert sender_of(ALICE, push(ALICE.public_key))["sender_pubkey"] is None
    assert sender_of(ALICE, SIGNATURE + SIGNATURE + push(ALICE.public_key))["sender_pubkey"] is None
    assert sender_of(COMPANY, alice) == {
        "sender": COMPANY.script.hex(),
        "address": COMPANY.address,
        "sender_pubkey": None,
    }
