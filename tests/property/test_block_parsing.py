"""Blocks and scripts of any bytes: the fast scan misses nothing, and only MalformedBlock is raised."""

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bitcoin.building import HEADER, MAIN, P2PKH, block, checked, op_return, push, transaction
from virtualchain.bitcoin.block import (
    Scan,
    Scanner,
    inputs,
    read_transaction,
    split_transactions,
    txids,
)
from virtualchain.bitcoin.networks import NETWORKS
from virtualchain.bitcoin.payload import first_op_return, watch
from virtualchain.bitcoin.script import classify, op_return_payload, public_keys, pushes
from virtualchain.errors import MalformedBlock
from virtualchain.model import SpentOutput

MAGICS = (b"id", b"\x6a\x02", b"i")
WATCHES = tuple(watch(magic, None, "last") for magic in MAGICS) + tuple(
    watch(magic, first_op_return(magic), "first") for magic in MAGICS
)
FAST = Scanner(WATCHES, MAIN)
FULL = Scanner([dataclasses.replace(each, prefilter=False) for each in WATCHES], MAIN)

# Only the few byte values that matter to the search and the scripts, so that rare cases become frequent.
DENSE = st.lists(st.sampled_from(b"\x00\x01\x02\x04\x4c\x4d\x4e\x51\x6a\xacid!"), max_size=12).map(bytes)
PAYLOADS = st.builds(bytes.__add__, st.sampled_from([*MAGICS, b"", b"x"]), DENSE)
SCRIPTS = st.one_of(
    DENSE,
    PAYLOADS.map(op_return),
    st.builds(bytes.__add__, PAYLOADS.map(op_return), DENSE),
    st.just(P2PKH),
    st.binary(max_size=300),
)
TRANSACTIONS = st.builds(
    lambda scripts, sigs, witness, value: transaction(
        *scripts,
        script_sigs=sigs,
        witnesses=[witness] * len(sigs) if witness else [],
        values=[value] * len(scripts),
    ),
    st.lists(SCRIPTS, max_size=4),
    st.lists(SCRIPTS, min_size=1, max_size=3),
    st.lists(SCRIPTS, max_size=3),
    st.integers(0, 2**63 - 1),
)
BLOCKS = st.lists(TRANSACTIONS, max_size=6).map(lambda transactions: block(*transactions))


@st.composite
def mutated_blocks(draw: st.DrawFn) -> bytes:
    """Remove, insert or replace a few bytes after the header of a valid block."""
    raw = bytearray(draw(BLOCKS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(len(HEADER), len(raw)))
        raw[at : at + draw(st.sampled_from([0, 1, 1, 2, 4, 1000]))] = draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b"\xfd\xff\xff", b"\xff" * 9, b"\x6a\x03id!"]))
        )
    return bytes(raw)


@settings(deadline=None)
@given(st.lists(st.lists(SCRIPTS, max_size=4), max_size=6))
def test_the_scan_finds_what_the_outputs_were_made_to_hold(scripts: list[list[bytes]]) -> None:
    """The expectation comes from the scripts that the block was built from, without a parser."""
    expected = []
    for txindex, outputs in enumerate(scripts, 1):
        last = next((script for script in reversed(outputs) if script.startswith(b"\x6a")), b"")
        payload = op_return_payload(last) or b""
        if payload.startswith(b"id") and len(payload) > 2:
            expected.append(txindex)
    raw = block(*[transaction(*outputs) for outputs in scripts])
    candidates = Scanner([watch(b"id", None, "names")], MAIN).scan(checked(7, raw)).candidates
    assert [each.txindex for each in candidates] == expected


@settings(deadline=None)
@given(BLOCKS)
def test_the_fast_scan_finds_what_decoding_every_transaction_finds(raw: bytes) -> None:
    """The byte search loses no candidate and invents none."""
    assert FAST.scan(checked(7, raw)) == FULL.scan(checked(7, raw))


@settings(deadline=None)
@given(st.lists(TRANSACTIONS, max_size=6))
def test_a_block_is_split_where_its_transactions_were_joined(transactions: list[bytes]) -> None:
    """Splitting and decoding agree on every transaction, its end and its id."""
    raw = block(*transactions)
    assert split_transactions(raw)[1:] == transactions
    assert txids(raw)[1:] == [read_transaction(each, MAIN).txid for each in transactions]


@settings(deadline=None, max_examples=150)
@given(mutated_blocks())
def test_a_mutated_block_is_read_the_same_or_rejected(raw: bytes) -> None:
    """Each reader returns a result or raises MalformedBlock, and both scans return the same result."""
    fast, full, ids = (outcome(read, raw) for read in (scan_fast, scan_full, txids))
    joined: object = None
    if isinstance(full, Scan):
        assert fast == full
        joined = outcome(lambda raw: inputs(full, spent_by(raw)), raw)  # refuses impossible amounts
        assert isinstance(joined, MalformedBlock) or len(joined) == len(full.candidates)  # type: ignore[arg-type]
    for error in (each for each in (fast, full, ids, joined) if isinstance(each, MalformedBlock)):
        assert str(error).startswith("block ")


def scan_fast(raw: bytes) -> Scan:
    """Scan with the byte search first."""
    return FAST.scan(checked(7, raw))


def scan_full(raw: bytes) -> Scan:
    """Scan by decoding every transaction."""
    return FULL.scan(checked(7, raw))


def outcome(read: Callable[[bytes], object], raw: bytes) -> object:
    """Return what a reader returns, or its error."""
    try:
        return read(raw)
    except MalformedBlock as error:
        return error


def spent_by(raw: bytes) -> dict[int, list[SpentOutput]]:
    """Make up the outputs that a block spends."""
    transactions = [read_transaction(each, MAIN) for each in split_transactions(raw)]
    return {n: [SpentOutput(1, b"\x51")] * len(each.inputs) for n, each in enumerate(transactions)}


@settings(deadline=None)
@given(BLOCKS, st.data())
def test_a_truncated_block_is_rejected(raw: bytes, data: st.DataObject) -> None:
    """Both scans notice, however much of the end is missing."""
    size = data.draw(st.integers(len(HEADER), len(raw) - 1))
    for scan in (scan_fast, scan_full):
        with pytest.raises(MalformedBlock, match="block 7"):
            scan(raw[:size])


@settings(deadline=None)
@given(
    st.one_of(SCRIPTS, st.builds(lambda start, rest: start + push(rest), DENSE, st.binary(max_size=80))),
    SCRIPTS,
    st.lists(SCRIPTS, max_size=3),
    st.sampled_from(sorted(NETWORKS)),
)
def test_any_script_can_be_read(script: bytes, script_sig: bytes, witness: list[bytes], name: str) -> None:
    """Type, address, payload and keys of any bytes are computed without an error."""
    script_type, addresses = classify(script, NETWORKS[name])
    has_none = script_type in {"pubkey", "multisig", "nulldata", "nonstandard"}
    assert len(addresses) == (0 if has_none else 1)
    assert all(isinstance(address, str) and address for address in addresses)
    assert op_return_payload(script) is None or script_type in {"nulldata", "nonstandard"}
    assert all(len(key) in {64, 66, 130} for key in public_keys(script, script_sig, witness))
    assert b"".join(push(data) for data in pushes(op_return(script)[1:])) == push(script)
