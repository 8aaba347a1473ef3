"""Real operations of the network on mainnet: the app reproduces their payloads, hashes and rows."""

import json
from dataclasses import replace
from typing import Any

from tests.support.names_chain import CREATOR, IMPORTER, KeyHolder, NamesChain, names_chain
from tests.support.shared_data import shared
from virtualchain.bitcoin.script import classify
from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names import MAINNET, reading
from virtualchain.examples.names.params import BITCOIN, BURN_SCRIPT

BURN = bytes.fromhex(BURN_SCRIPT)


def recorded() -> list[dict[str, Any]]:
    """Read the recorded operations."""
    ops: list[dict[str, Any]] = json.loads(shared("blockstack/mainnet.json").read_text())["ops"]
    return ops


def payload(op: dict[str, Any]) -> bytes:
    """Return the recorded payload without the magic."""
    return bytes.fromhex(op["reconstructed_op_return_payload"])[2:]


def test_names_and_addresses_hash_to_what_was_recorded() -> None:
    """Names yield the recorded hashes, keys the recorded scripts, scripts the recorded addresses."""
    for op in recorded():
        if op.get("name"):
            assert reading.hash128(op["name"]) == op["name_hash128"]
        if op["sender_pubkey"] and op["op"] in {"?", "*"}:
            assert op["sender"] == f"76a914{hash160(bytes.fromhex(op['sender_pubkey'])).hex()}88ac"
        assert classify(bytes.fromhex(op["sender"]), MAINNET.bitcoin)[1] == (op["address"],)


def test_the_first_operation_of_the_network(database_url: str) -> None:
    """The preorder of the namespace `id` in the very first block becomes the recorded row."""
    op = recorded()[0]
    sender = KeyHolder(op["sender_pubkey"])
    params = replace(MAINNET, first_block=op["block_number"] - 1, initial_snapshots=snapshots_for(op))
    with names_chain(database_url, params) as chain:
        raw = chain.tx(payload(op), sender, [(1, sender.script), (op["op_fee"], BURN)])
        assert chain.mine_at({op["vtxindex"]: raw}) == [None]
        assert_as_recorded(chain.fields(), op)
        (row,) = chain.query("SELECT * FROM names.preorders")
        assert row["fee_address"] == op["burn_address"]


def snapshots_for(op: dict[str, Any]) -> dict[int, str]:
    """Return initial snapshots with the consensus hash that an operation names."""
    return {op["block_number"] - 2: op["consensus_hash"]}


def test_the_preorders_of_a_block(database_url: str) -> None:
    """Those of block 462592, each at its txindex, become the recorded rows."""
    ops = [op for op in recorded() if op["op"] == "?" and op["block_number"] == 462_592]
    assert len(ops) == 3
    params = replace(MAINNET, first_block=ops[0]["block_number"] - 1, initial_snapshots=snapshots_for(ops[0]))
    with names_chain(database_url, params) as chain:
        placed = {}
        for op in ops:
            sender = KeyHolder(op["sender_pubkey"])
            outputs = [(1, sender.script), (op["op_fee"], BURN)]
            placed[op["vtxindex"]] = chain.tx(payload(op), sender, outputs)
        assert chain.mine_at(placed) == [None] * 3
        for index, op in enumerate(ops):
            assert_as_recorded(chain.fields(index), op)


def test_a_name_from_its_preorder_on(database_url: str) -> None:
    """patrickstanley.id is preordered and registered at its heights and txindexes; later payloads agree."""
    preorder, registration, update, transfer = recorded()[1:5]
    assert registration["name"] == update["name"] == "patrickstanley.id"
    sender = KeyHolder(preorder["sender_pubkey"])
    params = replace(
        MAINNET,
        first_block=preorder["block_number"] - 10,
        initial_snapshots={preorder["block_number"] - 11: preorder["consensus_hash"]},
    )
    with names_chain(database_url, params) as chain:
        open_id(chain)
        chain.mine_to(preorder["block_number"] - 1)
        raw = chain.tx(payload(preorder), sender, [(1, sender.script), (preorder["op_fee"], BURN)])
        assert chain.mine_at({preorder["vtxindex"]: raw}) == [None]
        assert_as_recorded(chain.fields(), preorder)
        chain.mine_to(registration["first_registered"] - 1)
        owner = bytes.fromhex(registration["sender"])
        raw = chain.tx(payload(registration), sender, [(1, owner)])
        assert chain.mine_at({registration["vtxindex"]: raw}) == [None]
        assert_as_recorded(chain.fields(), registration)
        row = chain.name("patrickstanley.id")
        assert (row["owner"], row["preorder_hash"], row["name_hash128"]) == (
            registration["address"],
            registration["preorder_hash"],
            registration["name_hash128"],
        )
        # These name a consensus hash of the real chain, which differs here, so only payloads are compared.
        mark = reading.hash128(update["name"] + update["consensus_hash"])
        assert payload(update) == b"+" + bytes.fromhex(mark + update["value_hash"])
        assert transfer["consensus_hash"] == update["consensus_hash"]


def open_id(chain: NamesChain) -> None:
    """Create the namespace `id`, with prices low enough for the recorded fees."""
    seen = next(iter(chain.params.initial_snapshots.values()))
    chain.mine_accepted(chain.preorder_namespace("id", CREATOR, IMPORTER, fee=40 * BITCOIN, seen=seen))
    chain.mine_accepted(chain.reveal("id", coeff=250, base=1, lifetime=52_595))
    chain.mine_accepted(chain.ready("id"))


def assert_as_recorded(fields: dict[str, Any], op: dict[str, Any]) -> None:
    """Compare an op's hashed fields with a recorded row, except for the txid."""
    comparable = {name: value for name, value in fields.items() if name in op and name != "txid"}
    assert comparable == {name: op[name] for name in comparable}
    assert len(comparable) >= 9


def test_payloads_encode_the_fields() -> None:
    """Each recorded payload is its opcode followed by the fields."""
    compared = 0
    for op in recorded():
        if "reconstructed_op_return_payload" not in op:
            continue
        assert payload(op) == op["op"].encode() + body(op)
        compared += 1
    assert compared >= 6


def body(op: dict[str, Any]) -> bytes:
    """Encode an operation's fields as its payload does."""
    match op["op"]:
        case "*" | "?":
            return bytes.fromhex(op["preorder_hash"] + op["consensus_hash"])
        case "+":
            mark = reading.hash128(op["name"] + op["consensus_hash"])
            return bytes.fromhex(mark + op["value_hash"])
        case _:
            return bytes(op["name"].encode())
