"""Operations are written as the network wrote them, and read as they were written."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.shared_data import shared
from virtualchain.app.declarations import read_contract
from virtualchain.app.encoding import find_opcode, write_input
from virtualchain.bitcoin.script import op_return_payload
from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.errors import UsageError
from virtualchain.examples.names import app
from virtualchain.examples.names.conformance.scenario import RecordedOp, read_file, read_scenario
from virtualchain.examples.names.reading import hash128

EPOCH_1 = 400_000
"""A height by whose rules the network ran when it was recorded."""
CONTRACT = read_contract(app)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_"
IDS = st.text(LETTERS, min_size=1, max_size=19)
NAMES = st.builds("{}.{}".format, st.text(LETTERS, min_size=1, max_size=17), IDS)


def hashes(size: int) -> st.SearchStrategy[str]:
    """Draw a hash of so many bytes as hex."""
    return st.binary(min_size=size, max_size=size).map(bytes.hex)


NIBBLES, BYTES = st.integers(0, 15), st.integers(0, 255)
FIELDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "namespace_preorder": st.fixed_dictionaries({"preorder_hash": hashes(20), "consensus_hash": hashes(16)}),
    "namespace_reveal": st.fixed_dictionaries(
        {
            "namespace_id": IDS,
            "lifetime": st.integers(0, 2**32 - 1),
            "coeff": BYTES,
            "base": BYTES,
            "buckets": st.lists(NIBBLES, min_size=16, max_size=16),
            "nonalpha_discount": st.integers(1, 15),
            "no_vowel_discount": st.integers(1, 15),
        },
        optional={"version": st.integers(0, 2**16 - 1)},
    ),
    "namespace_ready": st.fixed_dictionaries({"namespace_id": IDS}),
    "name_preorder": st.fixed_dictionaries({"preorder_hash": hashes(20), "consensus_hash": hashes(16)}),
    "name_registration": st.fixed_dictionaries({"name": NAMES}, optional={"value_hash": hashes(20)}),
    "name_import": st.fixed_dictionaries({"name": NAMES}),
    "name_update": st.fixed_dictionaries(
        {"name": NAMES, "value_hash": hashes(20), "consensus_hash": hashes(16)}
    ),
    "name_transfer": st.fixed_dictionaries(
        {"name": NAMES, "consensus_hash": hashes(16)}, optional={"keep_data": st.booleans()}
    ),
    "name_revoke": st.fixed_dictionaries({"name": NAMES}),
    "announce": st.fixed_dictionaries({"message_hash": hashes(20)}),
}


def parsed(payload: bytes) -> dict[str, Any]:
    """Read a payload in a transaction from one owner of a key to two others, by the newest rules."""
    script = "76a914" + "01" * 20 + "88ac"
    output = {"script_pubkey": script, "type": "pubkeyhash", "addresses": ["1x"], "value": 1}
    other = {**output, "script_pubkey": script.replace("01", "02")}
    carrier = {"script_pubkey": "6a", "type": "nulldata", "addresses": [], "value": 0}
    spending = {"script_sig": "", "witness": []}
    op = app.db_parse(
        10**6, payload[2:3], payload[3:], [output], [spending], [carrier, output, other], 1, None
    )
    assert isinstance(op, dict)
    return op


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("opcode", FIELDS)
@given(data=st.data())
def test_what_is_written_is_read(opcode: str, data: st.DataObject) -> None:
    """All fields of all operations survive; the hashes of names are those of the names that were written."""
    fields = data.draw(FIELDS[opcode])
    op = parsed(write_input(CONTRACT, find_opcode(CONTRACT, opcode), fields))
    expected = dict(fields)
    if opcode == "name_update":
        expected["name_consensus_hash"] = hash128(expected.pop("name") + expected.pop("consensus_hash"))
    elif opcode == "name_transfer":
        expected = {"keep_data": True, "name_hash128": hash128(expected.pop("name")), **expected}
    elif opcode == "namespace_reveal":
        expected = {"version": 1, **expected}
    assert {name: op[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("opcode", "fields", "message"),
    [
        (":", {"name": "Judecn.id"}, "not a valid name"),
        (":", {"name": "judecn"}, "not a valid name"),
        (":", {"name": "a" * 36 + ".id"}, "not a valid name"),
        ("~", {"name": "a." + "b" * 20}, "the namespace id is too long"),
        ("!", {"namespace_id": "a.b"}, "not a valid namespace id"),
        ("#", {"message_hash": "ab" * 19}, "is not 40 hex digits"),
        ("+", {"name": "a.id", "value_hash": "AB" * 20, "consensus_hash": "0" * 32}, "is not 40 hex digits"),
    ],
)
def test_what_no_operation_can_say_is_refused(opcode: str, fields: dict[str, Any], message: str) -> None:
    """The message is the rule's."""
    with pytest.raises(UsageError, match=message):
        app.build_input(opcode, **fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lifetime": 2**32}, "does not fit into 4 bytes"),
        ({"coeff": 256}, "does not fit into 1 bytes"),
        ({"base": -1}, "does not fit into 1 bytes"),
        ({"buckets": [1] * 15}, "a namespace has 16 buckets"),
        ({"buckets": [16] * 16}, "not from 0 to 15"),
        ({"no_vowel_discount": 0}, "rejects: a discount is 0"),
    ],
)
def test_terms_that_no_namespace_can_have_are_refused(change: dict[str, Any], message: str) -> None:
    """Numbers have the sizes of the wire format."""
    terms = {"lifetime": 1, "coeff": 1, "base": 1, "buckets": [1] * 16}
    terms |= {"nonalpha_discount": 1, "no_vowel_discount": 1}
    with pytest.raises(UsageError, match=message):
        app.build_input("&", namespace_id="id", **{**terms, **change})


def test_a_value_in_a_registration_needs_epoch_3() -> None:
    """By the rules of an earlier height the name would be read as another one, and that is refused."""
    fields: dict[str, Any] = {"name": "judecn.id", "value_hash": "ab" * 20}
    assert len(app.build_input(":", **fields)) == 3 + 37 + 20
    with pytest.raises(UsageError, match="rejects: not a valid name"):
        app.build_input(":", block_id=EPOCH_1, **fields)


def recorded() -> Iterator[tuple[RecordedOp, bytes]]:
    """Read all accepted operations of the recorded runs, with their payloads."""
    for file in ("0.13", "0.14", "0.14.1"):
        for content in read_file(shared(f"blockstack/scenarios-{file}.json.gz")):
            scenario = read_scenario(content, file)
            for block in scenario.blocks:
                payloads = [_payload(tx.raw) for tx in block.txs if tx.is_accepted]
                hashed = [payload for payload in payloads if payload[2:3] != b"#"]
                assert len(hashed) == len(block.ops)
                yield from zip(block.ops, hashed, strict=True)


def _payload(raw: bytes) -> bytes:
    scripts = [output.script_pubkey for output in read_outputs(raw)[1]]
    payload = op_return_payload([script for script in scripts if script[:1] == b"\x6a"][-1])
    assert payload is not None
    return payload


def fields_of(op: RecordedOp, payload: bytes) -> dict[str, Any]:
    """Return the encoder's fields of a recorded operation; only a transfer's own hash is not among them."""
    fields = dict(op.fields)
    match op.opcode:
        case "*" | "?":
            return {"preorder_hash": op.fields[0][1], "consensus_hash": fields["consensus_hash"]}
        case "&":
            numbers = ("lifetime", "coeff", "base", "nonalpha_discount", "no_vowel_discount", "version")
            return {
                "namespace_id": fields["namespace_id"],
                "buckets": json.loads(fields["buckets"]),
                **{name: int(fields[name]) for name in numbers},
            }
        case "!":
            return {"namespace_id": fields["namespace_id"]}
        case "+":
            return {name: fields[name] for name in ("name", "value_hash", "consensus_hash")}
        case ">":
            seen = payload[20:].hex()  # the op has that of the last update, if there was one
            return {"name": fields["name"], "consensus_hash": seen, "keep_data": fields["op"] == ">>"}
    return {"name": fields["name"]}


def test_recorded_operations_are_written_byte_for_byte() -> None:
    """The fields that the network recorded become the bytes that it read."""
    written = set()
    for op, payload in recorded():
        fields = fields_of(op, payload)
        opcode = payload[2:3]
        assert write_input(CONTRACT, opcode, fields, block_id=EPOCH_1) == payload, (op.opcode, fields)
        written.add(opcode)
    assert written == {bytes([byte]) for byte in b"*&!?:;+>~"}
