"""Messages: integers, scripts, fields, edicts and flaws, in small cases."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runes_chain import ETCHING, TERMS, TURBO, leb128, runestone, script_of
from tests.support.runes_model import U32, U64, U128, read_message
from virtualchain.bitcoin.script import push
from virtualchain.examples.runes import varint
from virtualchain.examples.runes.decipher import decipher_outputs
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Edict, Etching, Flaw, Runestone, Terms
from virtualchain.examples.runes.script import TruncatedScript, instructions

EMPTY = b"\x51"


def message(script: bytes, *others: bytes) -> Runestone | Cenotaph | None:
    """Decipher a transaction whose first output has this script."""
    return decipher_outputs([script, *others])


def flaw(script: bytes, *others: bytes) -> str | None:
    """Return a message's flaw."""
    artifact = message(script, *others)
    return artifact.flaw.value if isinstance(artifact, Cenotaph) else None


# Integers and scripts.


@given(st.integers(0, U128))
def test_integers_are_read_as_they_are_written(value: int) -> None:
    """Any integer of 128 bits survives, and its length is the shortest."""
    encoded = varint.encode(value)
    assert encoded == leb128(value)
    assert varint.decode(encoded + b"\xff") == (value, len(encoded))
    assert varint.decode_all(encoded * 3) == [value] * 3


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("", "unterminated"),
        ("80", "unterminated"),
        ("80" * 19, "unterminated"),
        ("80" * 18 + "04", "overflow"),
        ("80" * 18 + "7c", "overflow"),
        ("80" * 19 + "00", "overlong"),
    ],
)
def test_invalid_integers(data: str, kind: str) -> None:
    """An integer ends within its data, has at most 19 bytes and at most 128 bits."""
    with pytest.raises(varint.InvalidVarint) as caught:
        varint.decode(bytes.fromhex(data))
    assert caught.value.kind == kind


def test_the_largest_integer_and_longer_forms_are_valid() -> None:
    """19 bytes are allowed, also for 0."""
    assert varint.decode(b"\xff" * 18 + b"\x03") == (U128, 19)
    assert varint.decode(b"\x80" * 18 + b"\x00") == (0, 19)
    assert flaw(b"\x6a\x5d" + push(b"\x89" + b"\x80" * 17 + b"\0" + b"\1")) is None


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("", []),
        ("00", [b""]),
        ("0161", [b"a"]),
        ("4c0161", [b"a"]),
        ("4d010061", [b"a"]),
        ("4e0100000061", [b"a"]),
        ("4f5051606aac", [None] * 6),
        ("02ff", "truncated"),
        ("4c", "truncated"),
        ("4dff", "truncated"),
        ("4e000000", "truncated"),
        ("51004effffffff", "truncated"),
    ],
)
def test_instructions(script: str, parts: Any) -> None:
    """Pushes of all forms are read; other opcodes push nothing, OP_1 and OP_1NEGATE included."""
    if parts == "truncated":
        with pytest.raises(TruncatedScript):
            list(instructions(bytes.fromhex(script)))
    else:
        assert list(instructions(bytes.fromhex(script))) == parts


# Which output counts.


def test_the_first_output_with_the_prefix_counts() -> None:
    """A malformed one hides later ones; a push of the prefix's second byte is not the prefix."""
    good = runestone(mint=(1, 1))
    assert message(EMPTY, b"\x6a\x01\x5d", good) == Runestone(mint=RuneId(1, 1))
    assert message(b"\x6a\x5d\x51", good) == Cenotaph(Flaw.OPCODE)
    assert message(b"\x6a\x5d\x05", good) == Cenotaph(Flaw.INVALID_SCRIPT)
    assert message(EMPTY, b"\x6a", b"\x5d\x6a") is None
    assert decipher_outputs([]) is None


def test_an_empty_payload_is_an_empty_runestone() -> None:
    """With and without an empty push."""
    assert message(b"\x6a\x5d") == message(b"\x6a\x5d\x00") == Runestone()


def test_an_integer_may_span_pushes() -> None:
    """The data of all pushes is put together."""
    assert message(b"\x6a\x5d" + push(b"\x14\xe8") + b"\0" + push(b"\x07\x14\x01")) == Runestone(
        mint=RuneId(1000, 1)
    )


# Fields.


def test_an_etching_with_all_fields() -> None:
    """Each field is where its tag says."""
    script = runestone(
        flags=ETCHING | TERMS | TURBO,
        divisibility=38,
        premine=5,
        rune=26,
        spacers=1,
        symbol=0x1F600,
        cap=2,
        amount=3,
        height_start=4,
        height_end=5,
        offset_start=6,
        offset_end=7,
        mint=(8, 9),
        pointer=0,
    )
    terms = Terms(amount=3, cap=2, height_start=4, height_end=5, offset_start=6, offset_end=7)
    etching = Etching(38, 5, 26, 1, 0x1F600, terms, turbo=True)
    assert message(script) == Runestone(etching=etching, mint=RuneId(8, 9), pointer=0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"divisibility": 39}, Etching()),
        ({"divisibility": (39, 1)}, Etching()),
        ({"divisibility": (1, 39)}, Etching(divisibility=1)),
        ({"spacers": 2**27}, Etching()),
        ({"spacers": 2**27 - 1}, Etching(spacers=2**27 - 1)),
        ({"symbol": 0xD800}, Etching()),
        ({"symbol": 0xDFFF}, Etching()),
        ({"symbol": 0x110000}, Etching()),
        ({"symbol": 0}, Etching(symbol=0)),
        ({"symbol": 0x10FFFF}, Etching(symbol=0x10FFFF)),
        ({"premine": U128}, Etching(premine=U128)),
    ],
)
def test_fields_that_only_describe_a_rune(fields: dict[str, Any], expected: Etching) -> None:
    """A value that is not valid is absent; of several, the first counts."""
    artifact = message(runestone((), flags=ETCHING, **fields))
    assert artifact == Runestone(etching=expected)


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("truncated-field", script_of([2])),
        ("trailing-integers", script_of([0, 1, 1, 1])),
        ("trailing-integers", script_of([0, 1, 1, 1, 0, 1])),
        ("edict-rune-id", script_of([0, 0, 1, 0, 0])),
        ("edict-rune-id", script_of([0, U64 + 1, 0, 0, 0])),
        ("edict-rune-id", script_of([0, 1, U32 + 1, 0, 0])),
        ("edict-rune-id", script_of([0, U64, 0, 0, 0, 1, 0, 0, 0])),
        ("edict-rune-id", script_of([0, 1, U32, 0, 0, 0, 1, 0, 0])),
        ("edict-output", script_of([0, 1, 1, 0, 2])),
        ("supply-overflow", runestone(flags=ETCHING | TERMS, premine=1, cap=1, amount=U128)),
        ("supply-overflow", runestone(flags=ETCHING | TERMS, cap=2, amount=2**127)),
        ("unrecognized-flag", runestone(flags=TERMS)),
        ("unrecognized-flag", runestone(flags=TURBO)),
        ("unrecognized-flag", runestone(flags=8)),
        ("unrecognized-flag", runestone(flags=ETCHING | 2**127)),
        ("unrecognized-even-tag", script_of([24, 1])),
        ("unrecognized-even-tag", script_of([126, 0])),
        ("unrecognized-even-tag", script_of([U128 - 1, 0])),
        ("unrecognized-even-tag", runestone(flags=(ETCHING, 0))),
        ("unrecognized-even-tag", runestone(premine=1)),
        ("unrecognized-even-tag", runestone(rune=1)),
        ("unrecognized-even-tag", runestone(flags=ETCHING, cap=1)),
        ("unrecognized-even-tag", runestone(flags=ETCHING | TERMS, height_start=U64 + 1)),
        ("unrecognized-even-tag", runestone(mint=1)),
        ("unrecognized-even-tag", runestone(mint=(1, 2, 3))),
        ("unrecognized-even-tag", runestone(mint=(0, 1))),
        ("unrecognized-even-tag", runestone(mint=(U64 + 1, 1))),
        ("unrecognized-even-tag", runestone(mint=(1, U32 + 1))),
        ("unrecognized-even-tag", runestone(pointer=1)),
        ("unrecognized-even-tag", runestone(pointer=(0, 0))),
    ],
)
def test_flaws(name: str, script: bytes) -> None:
    """Each makes a cenotaph; a flaw that is not looked for would make a runestone."""
    assert flaw(script) == name


@pytest.mark.parametrize(
    "script",
    [
        script_of([0]),
        script_of([0, 1, 1, 0, 1]),
        script_of([0, U64, U32, 0, 0]),
        script_of([127, 5, 9, 9, U128, 0]),
        runestone(mint=(0, 0)),
        runestone(mint=(U64, U32)),
        runestone(pointer=0),
        runestone(flags=ETCHING | TERMS, premine=1, cap=1, amount=U128 - 1),
        runestone(flags=ETCHING | TERMS, height_start=U64, offset_end=U64),
    ],
)
def test_what_is_close_to_a_flaw(script: bytes) -> None:
    """The limits belong to what is allowed."""
    assert flaw(script) is None
    assert message(script) is not None


def test_the_first_flaw_is_reported() -> None:
    """The order is that of the page: reading, supply, flags, tags."""
    fields: dict[str, Any] = {"flags": ETCHING | TERMS | 8, "premine": U128, "cap": 1, "amount": 1}
    assert flaw(runestone([(0, 1, 0, 0)], [24, 0], **fields)) == "edict-rune-id"
    assert flaw(runestone([], [24, 0], **fields)) == "supply-overflow"
    assert flaw(runestone([], [24, 0], flags=8)) == "unrecognized-flag"


def test_what_a_cenotaph_keeps() -> None:
    """The mint, and the name of an etching; nothing if the payload itself cannot be read."""
    fields: dict[str, Any] = {"rune": 7, "mint": (1, 2), "premine": 5}
    assert message(runestone([], [24, 0], flags=ETCHING, **fields)) == Cenotaph(
        Flaw.UNRECOGNIZED_EVEN_TAG, 7, RuneId(1, 2)
    )
    assert message(runestone([], [], **fields)) == Cenotaph(Flaw.UNRECOGNIZED_EVEN_TAG, None, RuneId(1, 2))
    assert message(runestone([], [], flags=ETCHING, **fields) + b"\x51") == Cenotaph(Flaw.OPCODE)


def test_ids_of_edicts_are_differences() -> None:
    """Within a block the position is a difference, too; in a new block it is not."""
    artifact = message(runestone([(5, 3, 1, 0), (0, 2, 2, 1), (1, 2, 3, 0), (0, 0, 4, 0)]), EMPTY)
    assert artifact == Runestone(
        (
            Edict(RuneId(5, 3), 1, 0),
            Edict(RuneId(5, 5), 2, 1),
            Edict(RuneId(6, 2), 3, 0),
            Edict(RuneId(6, 2), 4, 0),
        )
    )


TAGS = st.sampled_from([*range(26), 126, 127, U128])
VALUES = st.one_of(st.integers(0, 40), st.sampled_from([U32, U64, U64 + 1, U128, 2**27, 0xD800, 0x10FFFF]))


@given(
    st.lists(st.tuples(TAGS, VALUES), max_size=12),
    st.lists(VALUES, max_size=9),
    st.booleans(),
    st.binary(max_size=3),
)
def test_random_messages_agree_with_the_model(
    pairs: list[tuple[int, int]], body: list[int], has_body: bool, tail: bytes
) -> None:
    """The independent model of the rules reads every message in the same way."""
    integers = [number for pair in pairs for number in pair] + ([0, *body] if has_body else [])
    scripts = [EMPTY, script_of(integers) + tail, b"\x6a"]
    expected, actual = read_message(scripts), decipher_outputs(scripts)
    assert (expected is None) == (actual is None)
    if expected is None or actual is None:
        return
    assert expected["mint"] == actual.mint
    if isinstance(actual, Cenotaph):
        assert (expected["flaw"], expected["rune"]) == (actual.flaw, actual.etching)
        return
    assert "flaw" not in expected
    assert (expected["edicts"], expected["pointer"]) == (
        [tuple(each) for each in actual.edicts],
        actual.pointer,
    )
    assert (expected["etching"] is None) == (actual.etching is None)
    if actual.etching is not None:
        for name in ("divisibility", "premine", "rune", "spacers", "symbol", "turbo"):
            assert expected["etching"][name] == getattr(actual.etching, name)
        terms = actual.etching.terms
        assert (expected["etching"]["terms"] is None) == (terms is None)
        for name, value in (expected["etching"]["terms"] or {}).items():
            assert getattr(terms, name) == value
