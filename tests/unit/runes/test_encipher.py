"""Runestones are written as they are read, and the reference's vectors say the same when written again."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.runes_chain import runestone as independent
from tests.support.runes_model import U32, U64, U128, read_message
from tests.support.shared_data import shared
from virtualchain.app.declarations import read_contract
from virtualchain.app.encoding import write_input
from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.errors import UsageError
from virtualchain.examples.runes import app
from virtualchain.examples.runes.decipher import decipher, decipher_outputs
from virtualchain.examples.runes.encipher import encipher
from virtualchain.examples.runes.names import with_spacers
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Edict, Etching, Runestone, Terms
from virtualchain.examples.runes.script import instructions

CONTRACT = read_contract(app)
MANY = 2**32
"""Outputs enough for any edict and pointer."""
NUMBERS, HEIGHTS = st.integers(0, U128), st.none() | st.integers(0, U64)
IDS = st.builds(RuneId, st.integers(1, U64), st.integers(0, U32)) | st.just(RuneId(0, 0))
NEAR_IDS = st.builds(RuneId, st.integers(1, 3), st.integers(0, 3)) | st.just(RuneId(0, 0))
EDICTS = st.lists(st.builds(Edict, IDS | NEAR_IDS, NUMBERS, st.integers(0, U32)), max_size=30)
SMALL = st.none() | st.integers(0, 2**63)
TERMS = st.builds(Terms, SMALL, SMALL, HEIGHTS, HEIGHTS, HEIGHTS, HEIGHTS)
SYMBOLS = st.characters(exclude_categories=["Cs"]).map(ord)
ETCHINGS = st.builds(
    Etching,
    divisibility=st.none() | st.integers(0, 38),
    premine=st.none() | st.integers(0, 2**127),
    rune=st.none() | NUMBERS,
    spacers=st.none() | st.integers(0, 2**27 - 1),
    symbol=st.none() | SYMBOLS,
    terms=st.none() | TERMS,
    turbo=st.booleans(),
)
RUNESTONES = st.builds(
    Runestone,
    EDICTS.map(tuple),
    st.none() | ETCHINGS,
    st.none() | IDS,
    st.none() | st.integers(0, U32),
)


def in_order(runestone: Runestone) -> Runestone:
    """Sort edicts by rune, as they can be written."""
    edicts = tuple(sorted(runestone.edicts, key=lambda edict: edict.id))
    return Runestone(edicts, runestone.etching, runestone.mint, runestone.pointer)


@settings(deadline=None, max_examples=300)
@given(RUNESTONES)
def test_what_is_enciphered_is_deciphered(runestone: Runestone) -> None:
    """Edicts, etching, terms, mint and pointer survive, and no push is too long for Bitcoin."""
    payload = encipher(runestone)
    assert decipher(payload, MANY) == in_order(runestone)
    pushed = list(instructions(payload))
    assert all(data is not None and 1 <= len(data) <= 520 for data in pushed)
    assert all(data is not None and len(data) == 520 for data in pushed[:-1])


def test_pushes_have_their_shortest_form() -> None:
    """Around each size of a push, the script is the one that an independent writer makes."""
    for count in (*range(17, 22), *range(60, 70), *range(125, 135), 300):
        edicts = tuple(Edict(RuneId(1, 0), 1, 0) for _ in range(count))
        body = [(1, 0, 1, 0), *[(0, 0, 1, 0)] * (count - 1)]
        assert b"\x6a\x5d" + encipher(Runestone(edicts)) == independent(body)


def test_the_reference_s_runestones_say_the_same_when_they_are_written_again() -> None:
    """Every recorded message that is not a cenotaph."""
    content = json.loads(gzip.decompress(shared("runes/decipher.json.gz").read_bytes()))
    written = 0
    for vector in content["vectors"]:
        scripts = [output.script_pubkey for output in read_outputs(bytes.fromhex(vector["tx"]))[1]]
        artifact = decipher_outputs(scripts)
        if isinstance(artifact, Runestone):
            again = encipher(artifact)
            assert decipher(again, len(scripts)) == artifact
            first = next(n for n, script in enumerate(scripts) if script.startswith(b"\x6a\x5d"))
            replaced = [*scripts[:first], b"\x6a\x5d" + again, *scripts[first + 1 :]]
            assert read_message(replaced) == read_message(scripts)
            written += 1
    assert written > 100


@pytest.mark.parametrize(
    ("runestone", "message"),
    [
        (Runestone(pointer=U32 + 1), "pointer must be from 0 to"),
        (Runestone(pointer=-1), "pointer must be from 0 to"),
        (Runestone(mint=RuneId(0, 1)), "mint: 0:1 is not the id"),
        (Runestone(mint=RuneId(U64 + 1, 1)), "mint: .* is not the id"),
        (Runestone((Edict(RuneId(1, U32 + 1), 1, 1),)), "edicts: .* is not the id"),
        (Runestone((Edict(RuneId(-1, 0), 1, 1),)), "edicts: .* is not the id"),
        (Runestone((Edict(RuneId(1, 1), U128 + 1, 1),)), "edicts: the amount must be"),
        (Runestone((Edict(RuneId(1, 1), 1, U32 + 1),)), "edicts: the output must be"),
        (Runestone(etching=Etching(rune=U128 + 1)), "rune must be"),
        (Runestone(etching=Etching(divisibility=39)), "divisibility must be from 0 to 38"),
        (Runestone(etching=Etching(spacers=2**27)), "spacers must be"),
        (Runestone(etching=Etching(symbol=0xD800)), "symbol: 55296 is not a character"),
        (Runestone(etching=Etching(symbol=0x110000)), "symbol must be"),
        (Runestone(etching=Etching(premine=U128, terms=Terms(amount=1, cap=1))), "the premine and all"),
        (Runestone(etching=Etching(terms=Terms(height_end=U64 + 1))), "height_end must be"),
        (Runestone(etching=Etching(terms=Terms(offset_start=U64 + 1))), "offset_start must be"),
        (Runestone(etching=Etching(terms=Terms(amount=U128 + 1))), "amount must be"),
    ],
)
def test_what_no_message_can_say_is_refused(runestone: Runestone, message: str) -> None:
    """Whatever would make a cenotaph, or lose a field, is an error that names the field."""
    with pytest.raises(ValueError, match=message):
        encipher(runestone)


@settings(deadline=None, max_examples=60)
@given(RUNESTONES)
def test_the_app_s_fields_say_all_of_a_runestone(runestone: Runestone) -> None:
    """Fields as people write them become the same message; names have their spacers."""
    fields: dict[str, Any] = {
        "edicts": [[str(edict.id), edict.amount, edict.output % 3] for edict in runestone.edicts],
        "mint": None if runestone.mint is None else str(runestone.mint),
        "pointer": None if runestone.pointer is None else runestone.pointer % 3,
    }
    etching = runestone.etching
    if etching is not None:
        symbol = None if etching.symbol is None else chr(etching.symbol)
        fields |= {"etching": True, "turbo": etching.turbo, "symbol": symbol}
        fields |= {"divisibility": etching.divisibility, "premine": etching.premine}
        if etching.rune is not None:
            fields["rune"] = with_spacers(etching.rune, etching.spacers or 0)
        if etching.terms is not None:
            fields |= {name: getattr(etching.terms, name) for name in Terms.__slots__}
    artifact = decipher(write_input(CONTRACT, b"", fields), 3)
    assert isinstance(artifact, Runestone)
    assert [[str(edict.id), edict.amount, edict.output] for edict in artifact.edicts] == sorted(
        fields["edicts"], key=lambda edict: RuneId.parse(edict[0])
    )
    assert (artifact.mint, artifact.pointer) == (runestone.mint, fields["pointer"])
    assert (artifact.etching is None) == (etching is None)
    if etching is not None and artifact.etching is not None:
        assert artifact.etching.terms == (None if etching.terms == Terms() else etching.terms)
        assert artifact.etching.rune == etching.rune
        if etching.rune is not None:
            assert with_spacers(etching.rune, artifact.etching.spacers or 0) == fields["rune"]
        for name in ("divisibility", "premine", "symbol", "turbo"):
            assert getattr(artifact.etching, name) == getattr(etching, name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"edicts": [["1:1", 1]]}, "is not the id of a rune, an amount and an output"),
        ({"edicts": [["1", 1, 0]]}, "'1' is not the id of a rune"),
        ({"mint": "x"}, "'x' is not the id of a rune"),
        ({"rune": "lower"}, "not the name of a rune: character"),
        ({"rune": "A", "symbol": "ab"}, "'ab' is not one character"),
        ({"edicts": [["1:1", 1, 4]]}, r"field 'edicts' is .*, in which parse reads 0; .*outputs="),
        ({"pointer": 3}, "field 'pointer' is 3, .* reads null"),
    ],
)
def test_fields_that_are_none_are_refused(fields: dict[str, Any], message: str) -> None:
    """The message has the field; edicts and pointer must fit the transaction's outputs."""
    with pytest.raises(UsageError, match=message):
        app.build_input(**fields)


def test_the_number_of_outputs_can_be_passed() -> None:
    """An edict for the number of all outputs means each of them, so it depends on the transaction."""
    payload = app.build_input(edicts=[["1:1", 1, 4]], pointer=3, outputs=3)
    artifact = decipher(payload, 4)
    assert artifact == Runestone((Edict(RuneId(1, 1), 1, 4),), pointer=3)
    assert app.build_output(payload) == b"\x6a\x5d" + payload
