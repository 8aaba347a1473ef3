"""Real operations of the network on mainnet: their payloads, hashes and rows are ours."""

import json
from dataclasses import replace
from typing import Any

from tests.support.names_chain import CREATOR, IMPORTER, NamesChain, Person, names_chain
from tests.support.shared_data import shared
from virtualchain.bitcoin.script import classify
from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names import MAINNET, encoding
from virtualchain.examples.names.params import BITCOIN
from virtualchain.examples.names.reading import BURN_SCRIPT

BURN = bytes.fromhex(BURN_SCRIPT)


def recorded() -> list[dict[str, Any]]:
    """Read the recorded operations."""
    ops: list[dict[str, Any]] = json.loads(shared("blockstack/mainnet.json").read_text())["ops"]
    return ops


class Sender(Person):
    """Somebody on mainnet, known by a public key in hex."""

    @property
    def public_key(self) -> bytes:
        """As it was pushed."""
        return bytes.fromhex(self.name)


def payload(op: dict[str, Any]) -> bytes:
    """Give the recorded payload without the magic."""
    return bytes.fromhex(op["reconstructed_op_return_payload"])[2:]


def test_names_and_addresses_hash_to_what_was_recorded() -> None:
    """Each name to its hash, each key to its script, each script to its address."""
    for op in recorded():
        if op.get("name"):
            assert encoding.hash128(op["name"]) == op["name_hash128"]
        if op["sender_pubkey"] and op["op"] in {"?", "*"}:
            assert op["sender"] == f"76a914{hash160(bytes.fromhex(op['sender_pubkey'])).hex()}88ac"
        assert classify(bytes.fromhex(op["sender"]), MAINNET.bitcoin)[1] == (op["address"],)


def test_the_first_operation_of_the_network(database_url: str) -> None:
    """The preorder of the namespace `id`, in the first block of all, becomes the row that was recorded."""
    op = recorded()[0]
    sender = Sender(op["sender_pubkey"])
    params = replace(MAINNET, first_block=op["block_number"] - 1, initial_snapshots=before(op))
    with names_chain(database_url, params) as chain:
        raw = chain.tx(payload(op), sender, [(1, sender.script), (op["op_fee"], BURN)])
        assert chain.mine_at({op["vtxindex"]: raw}) == [None]
        assert_as_recorded(chain.fields(), op)
        (row,) = chain.query("SELECT * FROM names.preorders")
        assert row["fee_address"] == op["burn_address"]


def before(op: dict[str, Any]) -> dict[int, str]:
    """Let the consensus hash that an operation names be known in front of everything."""
    return {op["block_number"] - 2: op["consensus_hash"]}


def test_the_preorders_of_a_block(database_url: str) -> None:
    """Those of block 462592, each at its place, become the rows that were recorded."""
    ops = [op for op in recorded() if op["op"] == "?" and op["block_number"] == 462_592]
    assert len(ops) == 3
    params = replace(MAINNET, first_block=ops[0]["block_number"] - 1, initial_snapshots=before(ops[0]))
    with names_chain(database_url, params) as chain:
        placed = {}
        for op in ops:
            sender = Sender(op["sender_pubkey"])
            outputs = [(1, sender.script), (op["op_fee"], BURN)]
            placed[op["vtxindex"]] = chain.tx(payload(op), sender, outputs)
        assert chain.mine_at(placed) == [None] * 3
        for place, op in enumerate(ops):
            assert_as_recorded(chain.fields(place), op)


def test_a_name_from_its_preorder_on(database_url: str) -> None:
    """patrickstanley.id: preordered, registered, given a value and given away, at its heights and places."""
    preorder, registration, update, transfer = recorded()[1:5]
    assert registration["name"] == update["name"] == "patrickstanley.id"
    sender = Sender(preorder["sender_pubkey"])
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
        # The consensus hash of another history: ours has one of its own, so the payload is compared alone.
        mark = encoding.hash128(update["name"] + update["consensus_hash"])
        assert payload(update) == b"+" + bytes.fromhex(mark + update["value_hash"])
        assert transfer["consensus_hash"] == update["consensus_hash"]


def open_id(chain: NamesChain) -> None:
    """Bring the namespace `id` up, cheap enough for what was paid in it."""
    seen = next(iter(chain.params.initial_snapshots.values()))
    chain.do(chain.preorder_namespace("id", CREATOR, IMPORTER, fee=40 * BITCOIN, seen=seen))
    chain.do(chain.reveal("id", coeff=250, base=1, lifetime=52_595))
    chain.do(chain.ready("id"))


def assert_as_recorded(fields: dict[str, Any], op: dict[str, Any]) -> None:
    """Compare an op's hashed fields with a recorded row; its transaction was another."""
    ours = {name: value for name, value in fields.items() if name in op and name != "txid"}
    assert ours == {name: op[name] for name in ours}
    assert len(ours) >= 9


def test_payloads_are_what_the_fields_say() -> None:
    """Each recorded payload is its opcode with the fields behind it."""
    told = 0
    for op in recorded():
        if "reconstructed_op_return_payload" not in op:
            continue
        assert payload(op) == op["op"].encode() + body(op)
        told += 1
    assert told >= 6


def body(op: dict[str, Any]) -> bytes:
    """Put an operation's fields together as its payload has them."""
    match op["op"]:
        case "*" | "?":
            return bytes.fromhex(op["preorder_hash"] + op["consensus_hash"])
        case "+":
            mark = encoding.hash128(op["name"] + op["consensus_hash"])
            return bytes.fromhex(mark + op["value_hash"])
        case _:
            return bytes(op["name"].encode())
