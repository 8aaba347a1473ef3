"""Payload rules on any bytes: patterns miss nothing, and envelopes are what a script was made of."""

import dataclasses

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.property.test_block_parsing import TRANSACTIONS
from tests.unit.bitcoin.building import MAIN, block, checked, op_return, transaction
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.payload import (
    envelopes,
    first_op_return,
    last_op_return,
    read_envelope,
    runestone,
    watch,
)
from virtualchain.bitcoin.transaction import write_count
from virtualchain.model import TxIn

ORD = envelopes(b"ord")
START = b"\x00\x63\x03ord"
Part = tuple[bytes, list[list[bytes]]]
"""A part of a script, and the pushes of the envelopes in it."""
CONTROL = b"\xc0" + bytes(32)
RULES = (ORD, envelopes(b"o"), envelopes(b"\x00\x63"), runestone)
WATCHES = tuple(watch(b"", rule, rule.name, has_opcode=False) for rule in RULES)


def _pushed(code: int, data: bytes) -> tuple[bytes, bytes]:
    """Write a push with OP_PUSHDATA1, 2 or 4."""
    return bytes([code]) + len(data).to_bytes(1 << (code - 0x4C), "little") + data, data


PUSHES = st.one_of(
    st.builds(_pushed, st.just(0x4C), st.binary(max_size=255)),
    st.builds(_pushed, st.sampled_from([0x4D, 0x4E]), st.binary(max_size=300)),
    st.binary(max_size=75).map(lambda data: (bytes([len(data)]) + data, data)),
    st.integers(1, 16).map(lambda number: (bytes([0x50 + number]), bytes([number]))),
    st.just((b"\x4f", b"\x81")),
)
"""Pushes as a script writes them, each with its data."""
OTHER = st.sampled_from([0x50, 0x61, 0x63, 0x67, 0x6A, 0x75, 0x87, 0xAC, 0xFF]).map(
    lambda code: bytes([code])
)
"""Opcodes that push nothing, except OP_ENDIF."""
WHOLE = st.lists(PUSHES, max_size=5).map(
    lambda pushes: (
        START + b"".join(written for written, _ in pushes) + b"\x68",
        [[data for _, data in pushes]],
    )
)
BROKEN: st.SearchStrategy[Part] = st.builds(
    lambda pushes, other, rest: (START + b"".join(written for written, _ in pushes) + other + rest, []),
    st.lists(PUSHES, max_size=3),
    OTHER,
    st.sampled_from([b"", b"\x68", b"\x01a\x68"]),
)
BETWEEN = st.one_of(
    OTHER,
    st.sampled_from([b"\x00", b"\x00\x00", b"\x68", b"\x03ord", b"\x07" + START + b"\x68"]),
    st.binary(max_size=75).map(lambda data: bytes([len(data)]) + data),
).map(lambda script: (script, list[list[bytes]]()))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.one_of(WHOLE, BROKEN, BETWEEN), max_size=8),
    st.sampled_from([b"", START, START + b"\x51", b"\x02a"]),
)
@example([(b"\x00", []), (b"\x63", []), (b"\x03ord", [])], b"\x68")
@example([(b"\x00\x00", []), (b"\x63", []), (b"\x03ord", []), (START + b"\x68", [[]])], b"")
def test_envelopes_are_those_that_a_script_was_made_of(parts: list[Part], end: bytes) -> None:
    """Broken ones, other opcodes and an unfinished one among them; none if the script ends inside a push."""
    script = b"".join(written for written, _ in parts) + end
    expected = [pushes for _, envelopes_in_part in parts for pushes in envelopes_in_part]
    pieces = [written for written, _ in parts]
    if any(
        pieces[n].endswith(b"\x00") and pieces[n + 1 : n + 3] == [b"\x63", b"\x03ord"]
        for n in range(len(pieces))
    ):
        return  # parts that are none make up a beginning
    payloads = ORD.find([TxIn("", 0, b"", 0, (script, CONTROL))])
    assert isinstance(payloads, list)
    assert [read_envelope(payload) for payload in payloads] == (
        [] if end == b"\x02a" else [(0, pushes) for pushes in expected]
    )


@settings(deadline=None)
@given(st.binary(max_size=40))
@example(b"\xfd\x00\x01")
@example(b"\x00\xfd\xfc\x00" + bytes(252))
def test_a_payload_of_an_envelope_has_one_form(payload: bytes) -> None:
    """Whatever `read_envelope` takes, it takes in that form alone."""
    try:
        number, pushes = read_envelope(payload)
    except ValueError:
        return
    assert write_count(number) + b"".join(write_count(len(each)) + each for each in pushes) == payload


@settings(deadline=None)
@given(st.binary(max_size=600), st.lists(st.binary(max_size=40).filter(lambda other: other[:1] != b"\x6a")))
@example(b"", [])
@example(bytes(75), [])
@example(bytes(76), [])
@example(bytes(256), [])
@example(bytes(65_000), [])
def test_what_a_rule_writes_it_finds(payload: bytes, others: list[bytes]) -> None:
    """Wherever the output is among others that are not the rule's; only OP_RETURN needs a byte to push."""
    for rule, written in (
        (last_op_return, payload),
        (first_op_return(b"ab"), b"ab" + payload),
        (runestone, payload),
    ):
        assert rule.write is not None
        expected = written if written or rule is runestone else None
        assert rule.find([*others, rule.write(written), *others]) == expected
        if rule is not runestone and written:
            assert rule.write(written) == op_return(written)
    assert ORD.write is None


SCRIPTS = st.lists(st.one_of(WHOLE, BROKEN, BETWEEN), max_size=4).map(
    lambda parts: b"".join(written for written, _ in parts)
)
DENSE = st.lists(st.sampled_from(b"\x00\x63\x01\x02\x03ord\x68\x6a\x5d\x50\xc0"), max_size=12).map(bytes)
REVEALS = st.builds(
    lambda outputs, witnesses: transaction(*outputs, script_sigs=[b""] * len(witnesses), witnesses=witnesses),
    st.lists(st.one_of(DENSE, DENSE.map(b"\x6a\x5d".__add__)), max_size=3),
    st.lists(
        st.one_of(
            st.lists(DENSE, min_size=1, max_size=4),
            SCRIPTS.map(lambda script: [script, CONTROL]),
            SCRIPTS.map(lambda script: [b"", script, CONTROL, b"\x50"]),
        ),
        min_size=1,
        max_size=3,
    ),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(REVEALS, TRANSACTIONS), max_size=5))
def test_patterns_miss_nothing(transactions: list[bytes]) -> None:
    """A scanner that searches for patterns finds what one does that asks for every transaction."""
    raw = checked(7, block(*transactions))
    for made in WATCHES:
        everywhere = dataclasses.replace(made, patterns=())
        assert Scanner([made], MAIN).scan(raw).candidates == Scanner([everywhere], MAIN).scan(raw).candidates
    together = Scanner(WATCHES, MAIN).scan(raw).candidates
    places = {each.txindex for made in WATCHES for each in Scanner([made], MAIN).scan(raw).candidates}
    assert [each.txindex for each in together] == sorted(places)
