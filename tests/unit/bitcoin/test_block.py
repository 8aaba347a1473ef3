"""The scan of a block: what it finds, what it rejects, and the inputs that the tape gets from it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import (
    COINBASE,
    HEADER,
    MAIN,
    P2PKH,
    as_coinbase,
    block,
    checked,
    count,
    op_return,
    push,
    transaction,
)
from virtualchain.bitcoin.block import (
    Candidate,
    Scanner,
    inputs,
    read_transaction,
    split_transactions,
    txids,
)
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.layout import Search, walk
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.payload import first_op_return, watch
from virtualchain.bitcoin.transaction import MAX_MONEY
from virtualchain.consensus.hashing import hash160
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import FindPayload, SpentOutput, Watch

DEFAULT = watch(b"id", None, "names")
INPUT = transaction(op_return(b"id!x"), P2PKH)
NOISE = transaction(P2PKH)


def scan(raw: bytes, *watches: Watch) -> tuple[Candidate, ...]:
    """Scan a block for the watches, or for the default one."""
    return Scanner(watches or (DEFAULT,), MAIN).scan(checked(7, raw)).candidates


def txindexes(raw: bytes, *watches: Watch) -> list[int]:
    """List the txindexes of the candidates that a scan finds."""
    return [candidate.txindex for candidate in scan(raw, *watches)]


def test_a_transaction_with_the_magic_is_found() -> None:
    """A candidate has its txindex, its values, its bytes and its magics."""
    raw = block(NOISE, INPUT, NOISE)
    result = Scanner([DEFAULT], MAIN).scan(checked(7, raw))
    assert result.block == read_header(7, HEADER)
    assert result.candidates == (Candidate(2, read_transaction(INPUT, MAIN), INPUT, (b"id",)),)


@pytest.mark.parametrize(
    "form",
    [b"\x04", b"\x4b", b"\x4c\x04", b"\x4c\x0a", b"\x4d\x04\0", b"\x4d\x0a\x0a", b"\x4e\x0a\x0a\x0a\x0a"],
)
def test_the_push_may_have_any_form(form: bytes) -> None:
    """It may have a line feed among its length bytes, or run past its script."""
    assert txindexes(block(transaction(b"\x6a" + form + b"id!x"))) == [1]


@pytest.mark.parametrize(
    "script",
    [op_return(b"id"), op_return(b"ID!x"), op_return(b"xid!"), b"\x04id!x", b"\x6a\x04id!x\0", b"\x6aid!x"],
)
def test_what_only_resembles_a_payload_is_not_found(script: bytes) -> None:
    """It has no opcode byte, another magic, or another script."""
    assert txindexes(block(transaction(script))) == []


def test_the_coinbase_is_never_a_candidate() -> None:
    """Its payload does not count, whichever rule finds it."""
    raw = HEADER + count(1) + as_coinbase(INPUT)
    everything = Watch(b"", "app:all", lambda outputs: b"all", prefilter=False)
    assert txindexes(raw) == txindexes(raw, everything) == []


def test_a_magic_in_a_witness_or_a_data_push_is_not_an_input() -> None:
    """The search matches it, but the decoded transaction does not confirm it."""
    hidden = transaction(P2PKH, witnesses=[[op_return(b"id!x")]])
    nested = transaction(op_return(op_return(b"id!x")))
    assert txindexes(block(hidden, nested, INPUT)) == [3]


def test_only_an_output_can_match() -> None:
    """The search takes neither what only looks like an output nor a push that ends before the magic does."""
    scripts = [
        op_return(b"i"),
        b"\x51" + op_return(b"id!x"),
        b"\x6a\x50id!x",
        P2PKH,
        op_return(b"\x6a\x04id!x"),
    ]
    raw = block(
        transaction(*scripts, script_sigs=[op_return(b"id!x")], witnesses=[[op_return(b"id!x")]]), INPUT
    )
    layout = walk(raw, Search.of([b"id"]))
    assert list(layout.matching()) == [2]
    assert list(walk(raw, Search.of([b"i", b"id"])).matching()) == [1, 2]


def test_a_magic_may_be_any_bytes() -> None:
    """It is not treated as a pattern."""
    raw = block(
        transaction(op_return(b"abc!")), transaction(op_return(b"a.c!")), transaction(op_return(b"|(\n!"))
    )
    assert txindexes(raw, watch(b"a.c", None, "dot")) == [2]
    assert txindexes(raw, watch(b"|(\n", None, "bar")) == [3]


def test_one_transaction_may_carry_several_magics() -> None:
    """They are sorted and not repeated, whatever the order of the apps."""
    raw = block(transaction(op_return(b"id!x"), op_return(b"magic!y")))
    magics = (b"i", b"id", b"m", b"ma", b"mag", b"magi", b"magic")
    watches = [watch(magic, first_op_return(magic), "first") for magic in magics]
    for order in (watches, watches[::-1], [*watches, *watches]):
        assert [candidate.magics for candidate in scan(raw, *order)] == [magics]


def test_an_empty_magic_takes_every_payload() -> None:
    """One byte, the opcode, is enough; an empty push is not."""
    raw = block(NOISE, transaction(op_return(b"!")), transaction(b"\x6a\x4c\0"))
    assert txindexes(raw, watch(b"", None, "all")) == [2]
    assert txindexes(raw, Watch(b"", "last_op_return", DEFAULT.find_payload, prefilter=True)) == [2]


def test_an_apps_own_rule_sees_every_transaction() -> None:
    """It is called even for transactions in which a byte search would find nothing."""

    def find(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
        return b"id!" if outputs[0]["value"] == 777 else None

    raw = block(NOISE, transaction(P2PKH, values=[777]), INPUT)
    assert txindexes(raw, watch(b"id", find, "odd")) == [2]
    assert txindexes(raw, watch(b"id", find, "odd"), DEFAULT) == [2, 3]


def _raise(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
    raise KeyError(len(outputs))


def _text(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
    return cast("bytes", "id!x")


@pytest.mark.parametrize("rule", [_raise, _text])
def test_a_rule_that_fails_keeps_the_transaction_for_its_app(rule: FindPayload) -> None:
    """The app's machine hits the error itself; the scan continues for all apps."""
    candidates = scan(block(NOISE, INPUT), watch(b"bad", rule, "bad"), DEFAULT)
    assert [(each.txindex, each.magics) for each in candidates] == [(1, (b"bad",)), (2, (b"bad", b"id"))]


def test_a_rule_cannot_change_what_others_see() -> None:
    """Each watch gets its own copy of the outputs."""

    def spoil(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
        for output in outputs:
            assert isinstance(output, dict)
            output["script_pubkey"] = ""
        return None

    assert txindexes(block(INPUT), watch(b"id", spoil, "bad"), DEFAULT) == [1]


@pytest.mark.parametrize("raw", [HEADER, HEADER + b"\xff" * 20, block(NOISE)[:-1], block(NOISE) + b"\0"])
def test_a_damaged_block_is_rejected_even_without_inputs(raw: bytes) -> None:
    """If no byte looks like an input, the missing bytes might have contained one."""
    with pytest.raises(MalformedBlock, match="block 7"):
        scan(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (HEADER[:-1], "block 7: a header has 80 bytes"),
        (block(INPUT)[:-1], "its bytes end inside transaction 1"),
        (block(INPUT) + b"\0", "1 bytes follow its last transaction"),
        (block(INPUT)[:-30] + op_return(b"id!x"), "its bytes end inside transaction 1"),
        (HEADER + b"\0" + op_return(b"id!x"), "it has no transactions"),
        (HEADER + b"\xfd\xff\xff" + INPUT, "a count of 65535"),
        (HEADER + b"\xfd\x02\0" + COINBASE + INPUT, "a count of 2 is written in 3 bytes"),
        (HEADER + b"\x02" + COINBASE + b"\2\0\0\0\0\0" + INPUT, "transaction 1 has no input"),
        (HEADER + b"\x02" + b"\2\0\0\0\xff" + b"\xff" * 8 + INPUT, "a count of 18446744073709551615"),
        (HEADER + b"\x02" + b"\2\0\0\0\xfc" + INPUT, "its bytes end inside transaction 0"),
    ],
)
def test_a_damaged_block_is_rejected_by_name(raw: bytes, message: str) -> None:
    """Whether it is too short, too long or has impossible counts, the error says which block and why."""
    with pytest.raises(MalformedBlock, match=message) as caught:
        scan(raw)
    assert str(caught.value).startswith("block 7")
    if len(raw) > 80:
        assert read_header(7, HEADER).hash in str(caught.value)


def test_a_block_is_checked_to_its_end() -> None:
    """Damage after the last match is noticed, with and without the byte search."""
    for watched in (DEFAULT, dataclasses.replace(DEFAULT, prefilter=False)):
        with pytest.raises(MalformedBlock, match="block 7"):
            scan(HEADER + count(3) + COINBASE + INPUT + b"\xff" * 9, watched)


def test_counts_of_three_bytes_are_read() -> None:
    """The block has many transactions, inputs, outputs and witness items, and long scripts."""
    wide = transaction(
        *[P2PKH] * 300, script_sigs=[b"\x51" * 300] * 300, witnesses=[[b"w" * 300] * 300] * 300
    )
    assert txindexes(block(*[NOISE] * 260, wide, INPUT)) == [262]


def test_senders_and_fee_come_from_the_spent_outputs() -> None:
    """There is one sender per input, in order, with the key that the input reveals."""
    key = b"\x02" + bytes(32)
    script = b"\x00\x14" + hash160(key)
    raw = transaction(
        op_return(b"id!x"),
        P2PKH,
        script_sigs=[push(b"s\x83"), b""],
        witnesses=[[], [b"s\x01", key]],
        values=[0, 400],
    )
    p2pk = push(key) + b"\xac"
    spent = {1: [SpentOutput(300, p2pk), SpentOutput(250, script)]}
    (joined,) = inputs(Scanner([DEFAULT], MAIN).scan(checked(7, block(raw))), spent)
    assert (joined.block_id, joined.txindex, joined.txid) == (7, 1, read_transaction(raw, MAIN).txid)
    assert (joined.raw, joined.magics, joined.fee) == (raw, (b"id",), 150)
    assert joined.outputs == read_transaction(raw, MAIN).outputs
    first, second = joined.senders
    assert (first.txid, first.vout, first.value, first.type) == ("01" * 32, 1, 300, "pubkey")
    assert (first.script_pubkey, first.addresses, first.public_keys) == (p2pk.hex(), (), (key.hex(),))
    assert (second.txid, second.vout, second.value) == ("02" * 32, 2, 250)
    assert (second.type, len(second.addresses), second.public_keys) == ("witness_v0_keyhash", 1, (key.hex(),))
    assert (first.sighash, second.sighash) == (("SINGLE|ANYONECANPAY",), ("ALL",))
    assert joined.evidence == "node"


@pytest.mark.parametrize("spent", [{}, {1: []}, {2: [SpentOutput(1, b"")]}, {1: [SpentOutput(1, b"")] * 2}])
def test_spent_outputs_that_are_missing_are_an_error(spent: dict[int, list[SpentOutput]]) -> None:
    """There is never an empty sender or a fee of zero instead."""
    result = Scanner([DEFAULT], MAIN).scan(checked(7, block(INPUT)))
    with pytest.raises(
        MissingData, match=f"block 7 .*transaction 1 .{result.candidates[0].transaction.txid}"
    ):
        inputs(result, spent)


@pytest.mark.parametrize(
    ("values", "spent"),
    [
        ([0, 0], [MAX_MONEY, 1]),
        ([0, MAX_MONEY + 1], [MAX_MONEY, 0]),
        ([-1, 1000], [1000, 0]),
        ([2**63 - 1, 2**63 - 1], [1000, 0]),
        ([0, 0], [2**63, 0]),
        ([0, 0], [2**64, -(2**64)]),
        ([0, 0], [1000, -1]),
    ],
)
def test_amounts_that_no_chain_holds_are_refused(values: list[int], spent: list[int]) -> None:
    """There are no negative ones, and nobody spends or pays more than there can be, whatever the script."""
    raw = transaction(op_return(b"id!x"), P2PKH, script_sigs=[b"", b""], values=values)
    result = Scanner([DEFAULT], MAIN).scan(checked(7, block(raw)))
    with pytest.raises(MalformedBlock, match=r"block 7 .*transaction 1 .*is said to spend"):
        inputs(
            result,
            {1: [SpentOutput(value, script) for value, script in zip(spent, (b"\x51", P2PKH), strict=True)]},
        )


def test_the_registry_inputs_of_a_real_block_are_found() -> None:
    """Block 400,000 has five operations of the name registry network, and the slow scan finds no others."""
    raw = shared("mainnet/400000.blk").read_bytes()
    candidates = scan(raw)
    assert len(candidates) == 5
    assert candidates == scan(raw, dataclasses.replace(DEFAULT, prefilter=False))
    assert all(txids(raw)[each.txindex] == each.transaction.txid for each in candidates)


def test_fees_of_a_real_block_are_what_its_miner_took() -> None:
    """The coinbase pays out the subsidy and all fees, which are what senders have beyond outputs."""
    raw = shared("testnet3/1087400.blk").read_bytes()
    prevouts = json.loads(shared("testnet3/1087400.prevouts.json").read_text())
    test = network("test")
    everything = Watch(b"", "app:all", lambda outputs: b"all", prefilter=False)
    result = Scanner([everything], test).scan(checked(1087400, raw, test))
    spent = {}
    for candidate in result.candidates:
        outpoints = [f"{spending.txid}:{spending.vout}" for spending in candidate.transaction.inputs]
        spent[candidate.txindex] = [
            SpentOutput(value, bytes.fromhex(script))
            for value, script in (prevouts[outpoint] for outpoint in outpoints)
        ]
    joined = inputs(result, spent)
    coinbase = read_transaction(split_transactions(raw)[0], test)
    subsidy = 50 * 10**8 >> 1087400 // 210_000
    assert sum(output.value for output in coinbase.outputs) == subsidy + sum(each.fee for each in joined)
    for each in joined:
        for sender in each.senders:
            assert [sender.value, sender.script_pubkey] == prevouts[f"{sender.txid}:{sender.vout}"]
            assert len(sender.addresses) == 1
