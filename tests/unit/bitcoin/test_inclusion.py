"""A transaction's branch leads to the root of its block's header, and nothing else passes for one."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import MAIN
from virtualchain.bitcoin.header import read_header, sha256d
from virtualchain.bitcoin.inclusion import Inclusion, _lead, check_inclusion, inclusions
from virtualchain.bitcoin.layout import txids, walk
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import push_height
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block
from virtualchain.testing.blocks import make_block

MAINNET = network("mainnet")


def _block(count: int) -> tuple[Block, bytes]:
    """Build a block at height 7 of an easy network with so many transactions beside its coinbase."""
    parent = read_header(6, bytes(72) + bytes.fromhex("ffff7f20") + bytes(4))
    transactions = [_transaction(number) for number in range(count)]
    raw, _ = make_block(parent, [(raw, sha256d(raw)) for raw in transactions], b"\x51", 0)
    return read_header(7, raw[:80]), raw


def _transaction(number: int) -> bytes:
    spent = number.to_bytes(32, "little") + bytes(4)
    return b"\1\0\0\0\1" + spent + b"\0" + b"\xff" * 4 + b"\1" + bytes(8) + b"\x03\x51\x51\x51" + bytes(4)


@pytest.mark.parametrize("count", range(12))
def test_every_transaction_of_a_block_is_shown_to_be_in_it(count: int) -> None:
    """Blocks of up to twelve transactions have trees with every kind of odd row."""
    header, raw = _block(count)
    shown = [
        check_inclusion(one, header, network("regtest")) for one in inclusions(walk(raw), range(count + 1))
    ]
    assert shown == txids(raw)


@pytest.mark.parametrize("block_id", [325000, 400000, 481824, 951658])
def test_real_transactions_are_shown_to_be_in_their_blocks(block_id: int) -> None:
    """Coinbases of real blocks state their height where the network requires it."""
    raw = shared(f"mainnet/{block_id}.blk").read_bytes()
    header, ids = read_header(block_id, raw[:80]), txids(raw)
    places = [0, 1, len(ids) // 2, len(ids) - 1]
    assert [check_inclusion(one, header, MAINNET) for one in inclusions(walk(raw), places)] == [
        ids[place] for place in places
    ]


def _recorded(proof: dict[str, Any], header: Block) -> str:
    """Follow the branch of a recorded proof of another project, which has no coinbase."""
    parts = {key: bytes.fromhex(text[2:]) for key, text in proof.items() if str(text).startswith("0x")}
    transaction = parts["version"] + parts["vin"] + parts["vout"] + parts["locktime"]
    read_inputs(transaction)
    return _lead(transaction, parts["intermediate_nodes"], proof["index"], header)


def test_recorded_branches_lead_to_the_root_and_damaged_ones_do_not() -> None:
    """The cases are of other software: one proof of mainnet, with a part replaced in each bad one."""
    cases = json.loads(shared("headers/spv-proofs.json").read_text())
    [good] = map(json.loads, cases["valid"])
    shown = good["confirming_header"]
    header = read_header(shown["height"], bytes.fromhex(shown["raw"][2:]))
    assert _recorded(good, header) == bytes.fromhex(good["tx_id"][2:])[::-1].hex()
    for txindex in {*range(64)} - {good["index"]}:
        with pytest.raises(MalformedBlock, match="does not lead to the header's root"):
            _recorded({**good, "index": txindex}, header)
    for case in cases["badSPVProofs"]:
        with pytest.raises(MalformedBlock):
            _recorded(case["proof"], header)


def _good(count: int = 6, txindex: int = 3) -> tuple[Inclusion, Block]:
    header, raw = _block(count)
    (inclusion,) = inclusions(walk(raw), [txindex])
    return inclusion, header


def _with(good: Inclusion, name: str, value: bytes) -> Inclusion:
    changed: dict[str, Any] = {name: value}
    return replace(good, **changed)


def test_whatever_byte_of_an_inclusion_changes_it_is_refused() -> None:
    """Neither a flipped bit nor another length of any part passes."""
    good, header = _good()
    for name in ("transaction", "branch", "coinbase", "coinbase_branch"):
        value: bytes = getattr(good, name)
        for at in range(len(value)):
            bad = _with(good, name, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
            with pytest.raises(MalformedBlock):
                check_inclusion(bad, header, network("regtest"))
        for shorter in (value[:-1], value[:-32], b"", value + b"\0", value + bytes(32)):
            with pytest.raises(MalformedBlock):
                check_inclusion(_with(good, name, shorter), header, network("regtest"))


def test_another_place_is_refused_also_the_one_of_a_repeated_node() -> None:
    """The last node of an odd row stands there twice, but has one place."""
    for txindex in range(7):
        good, header = _good(txindex=txindex)
        for other in {*range(-1, 20)} - {txindex}:
            with pytest.raises(MalformedBlock):
                check_inclusion(replace(good, txindex=other), header, network("regtest"))


def test_a_header_that_lies_about_its_height_is_refused() -> None:
    """The coinbase states the height, on networks and at heights where it must."""
    good, header = _good()
    for block_id in (6, 8, 7 + 256):
        with pytest.raises(MalformedBlock, match="height"):
            check_inclusion(good, replace(header, block_id=block_id), network("regtest"))
    assert check_inclusion(good, header, MAIN)  # mainnet's first 227,930 blocks do not state it


def test_an_inner_node_is_not_a_transaction() -> None:
    """The tree above two transactions passes neither for a transaction nor for a shorter tree."""
    good, header = _good()
    parent = b"".join(sorted((sha256d(good.transaction), good.branch[:32])))
    for inner in (parent, good.branch[:32] + sha256d(good.transaction)):
        bad = replace(good, transaction=inner, branch=good.branch[32:], txindex=good.txindex >> 1)
        with pytest.raises(MalformedBlock):
            check_inclusion(bad, header, network("regtest"))
        bad = replace(bad, coinbase_branch=good.coinbase_branch[32:])
        with pytest.raises(MalformedBlock):
            check_inclusion(bad, header, network("regtest"))


def test_a_transaction_of_the_size_of_an_inner_node_is_refused() -> None:
    """Also a real one, which is in the block: nobody can tell the two apart."""
    odd = _transaction(1)[:-8] + b"\x04" + b"\x51" * 4 + bytes(4)
    assert len(odd) == 64
    parent = read_header(6, bytes(72) + bytes.fromhex("ffff7f20") + bytes(4))
    raw, _ = make_block(parent, [(odd, sha256d(odd))], b"\x51", 0)
    (shown,) = inclusions(walk(raw), [1])
    with pytest.raises(MalformedBlock, match="64 bytes"):
        check_inclusion(shown, read_header(7, raw[:80]), network("regtest"))


def test_a_tree_below_the_tree_is_refused() -> None:
    """If a leaf has 64 bytes, a branch could go on to a transaction below it: the coinbase's is shorter."""
    coinbase, below = _good()[0].coinbase, _transaction(1)
    leaf = sha256d(below) + bytes(range(32))
    root = sha256d(sha256d(coinbase) + sha256d(leaf))
    header = replace(_good()[1], merkle_root=root[::-1].hex())
    forged = Inclusion(2, below, leaf[32:] + sha256d(coinbase), coinbase, sha256d(leaf))
    with pytest.raises(MalformedBlock, match="differ in length"):
        check_inclusion(forged, header, network("regtest"))


@pytest.mark.parametrize(
    ("block_id", "script"),
    [(0, "00"), (1, "51"), (16, "60"), (17, "0111"), (127, "017f"), (128, "028000"), (227931, "035b7a03")],
)
def test_heights_are_written_as_coinbases_state_them(block_id: int, script: str) -> None:
    """They are script numbers, and short ones have opcodes of their own."""
    assert push_height(block_id).hex() == script
