"""A node that lies, at every level of `verify` and `senders`: what each refuses, and what it believes."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from tests.support.chain_source import ChainSource
from tests.support.lying_node import intercept, put, spend_otherwise
from tests.support.rides import coin, rides_app, spending
from tests.support.text_app import text_app
from virtualchain import App, StateEngine
from virtualchain.bitcoin.block import split_transactions
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.header import HEADER_SIZE, sha256d
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.transaction import pack_outputs, read_inputs
from virtualchain.consensus.hashing import hash160
from virtualchain.errors import MalformedBlock, MissingData, NodeError, UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing import ChainBuilder, FakeNode, key
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import make_undo, read_undo
from virtualchain.testing.wire import compact_size

WAYS = pytest.mark.parametrize("way", ["REST", "RPC"])
LEVELS = ("off", "headers", "merkle")
Build = Callable[..., int]
Lie = Callable[[FakeNode], None]


@pytest.fixture
def build(database_url: str) -> Build:
    """Return a function that runs an app on a node over REST or RPC, and returns the last block."""

    def run(node: FakeNode, way: str = "REST", app: App | None = None, **options: Any) -> int:
        settings: dict[str, Any] = {"database": database_url, "confirmations": 0, **options}
        source = open_source(node.url, rest=way == "REST")
        with StateEngine(app or text_app(first_block_id=100), source=source, **settings) as engine:
            return engine.build()

    return run


def taken(query: Query) -> int:
    """Return the last block on the tape."""
    rows = query("SELECT coalesce(max(block_id), -1) AS tip FROM vc.blocks")
    return int(rows[0]["tip"])


# The chain


def parts(raw: bytes) -> tuple[bytes, list[bytes]]:
    """Split a block into its header and its transactions."""
    return raw[:HEADER_SIZE], split_transactions(raw)


def joined(header: bytes, transactions: list[bytes]) -> bytes:
    """Write a block."""
    return header + compact_size(len(transactions)) + b"".join(transactions)


def reheaded(
    node: FakeNode, *, bits: int | None = None, seconds: int | None = None, works: bool = True
) -> None:
    """Replace the tip by a block with another header, with proof of work or without."""
    tip = node.chain.tree.tip
    assert tip.parent is not None
    header, transactions = parts(tip.raw)
    version, parent, root, time, stated, _ = struct.unpack("<i32s32sIII", header)
    time = time if seconds is None else seconds
    bits = stated if bits is None else bits
    limit = 1 << 255
    for nonce in range(1 << 20):
        header = struct.pack("<i32s32sIII", version, parent, root, time, bits, nonce)
        if (int.from_bytes(sha256d(header), "little") < limit) == works:
            break
    put(node, joined(header, transactions))


def median(node: FakeNode) -> int:
    """Return the median of the times of the eleven blocks before the tip."""
    return sorted(stored.block.time for stored in node.chain.tree.chain[-12:-1])[5]


def change(node: FakeNode, alter: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the transactions of the tip under its header."""
    tip = node.chain.tree.tip
    header, transactions = parts(tip.raw)
    tip.raw = joined(header, alter(transactions))


def grow_by(node: FakeNode, stored: StoredBlock) -> None:
    """Add the last transaction of a block to the tip, and what it spends."""
    tip, added = node.chain.tree.tip, split_transactions(stored.raw)[-1]
    own, its = node.chain.undo(tip), node.chain.undo(stored)
    assert own is not None
    assert its is not None
    change(node, lambda transactions: [*transactions, added])
    tip.undo = make_undo([*read_undo(own), read_undo(its)[-1]])


def add(node: FakeNode) -> None:
    """Add a transaction of the block before to the tip."""
    grow_by(node, node.chain.tree.chain[-2])


def repeat(node: FakeNode) -> None:
    """Repeat the tip's last transaction."""
    grow_by(node, node.chain.tree.tip)


def other_block(node: FakeNode) -> None:
    """Answer with the bytes of another block."""
    node.chain.tree.tip.raw = node.chain.tree.chain[-2].raw


def shifted(node: FakeNode) -> None:
    """Call each block by a height that is one more than its own."""
    intercept(node, "getblockhash", ask=lambda parameters: [max(parameters[0] - 1, 0)])
    intercept(node, "getblockchaininfo", answer=lambda _, result: {**result, "blocks": result["blocks"] + 1})


CHAIN_LIES: dict[str, tuple[Lie, str, str]] = {
    "no work": (lambda node: reheaded(node, works=False), "headers", "no proof of work"),
    "a target that nobody met": (
        lambda node: reheaded(node, bits=0x1D00FFFF),
        "headers",
        "no proof of work",
    ),
    "a target above the limit": (lambda node: reheaded(node, bits=0x2100FFFF), "headers", "easier than"),
    "the time of the median": (
        lambda node: reheaded(node, seconds=median(node)),
        "headers",
        "must be later than",
    ),
    "a time long past": (lambda node: reheaded(node, seconds=1), "headers", "must be later than"),
    "a transaction left out": (
        lambda node: change(node, lambda transactions: transactions[:-1]),
        "merkle",
        "Merkle root",
    ),
    "a transaction added": (add, "merkle", "Merkle root"),
    "the last transaction repeated": (repeat, "merkle", r"Merkle root|occurs twice"),
    "a transaction changed": (
        lambda node: change(node, lambda each: [*each[:-1], each[-1].replace(b"sto1", b"stoX")]),
        "merkle",
        "Merkle root",
    ),
    "only the coinbase": (lambda node: change(node, lambda each: each[:1]), "merkle", "Merkle root"),
    "another block": (other_block, "off", r"requested|another block"),
    "part of a block": (
        lambda node: change(node, lambda each: [*each[:-1], each[-1][:-1]]),
        "off",
        "damaged",
    ),
    "a false height": (shifted, "merkle", "does not state this height"),
}
"""Lies about the tip, the first level that refuses them, and with what message."""


@WAYS
@pytest.mark.parametrize("verify", LEVELS)
@pytest.mark.parametrize("name", CHAIN_LIES)
def test_what_a_level_of_verify_refuses(
    fake_node: FakeNode, build: Build, query: Query, name: str, verify: str, way: str
) -> None:
    """Each level refuses what it promises to, and the levels below it believe the node."""
    lie, first_level, message = CHAIN_LIES[name]
    for number in range(2):
        fake_node.mine([fake_node.send(b"sto%d" % number)])
    lie(fake_node)
    first = fake_node.height - (0 if lie is shifted else 12)
    app = text_app(first_block_id=first)
    if LEVELS.index(verify) < LEVELS.index(first_level):
        assert build(fake_node, way, app, verify=verify) in {fake_node.height, fake_node.height + 1}
    else:
        with pytest.raises(NodeError, match=message):
            build(fake_node, way, app, verify=verify)
        assert taken(query) < fake_node.height


def test_an_old_name_of_a_level(fake_node: FakeNode, build: Build) -> None:
    """`header` is `headers`, with a warning."""
    fake_node.mine([fake_node.send(b"sto1")])
    reheaded(fake_node, works=False)
    with pytest.warns(FutureWarning), pytest.raises(MalformedBlock, match="no proof of work"):
        build(fake_node, verify="header")


@pytest.mark.parametrize("verify", ["headers", "merkle"])
def test_a_reorganization_with_less_work_is_not_followed(
    fake_node: FakeNode, build: Build, query: Query, verify: str
) -> None:
    """The node is on a shorter branch: what it calls its chain counts less than what its blocks cost."""
    fake_node.mine([fake_node.send(b"sto1")], n=6)
    ours = fake_node.chain.tree.tip
    assert build(fake_node, verify=verify) == ours.height
    fake_node.chain.tree.activate(fake_node.chain.tree.chain[-5])
    fake_node.chain.mine(n=2)
    intercept(fake_node, "getblockchaininfo", answer=lambda _, result: {**result, "chainwork": "f" * 64})
    assert build(fake_node, verify=verify) == ours.height
    assert query("SELECT encode(hash, 'hex') AS hash FROM vc.blocks ORDER BY block_id DESC LIMIT 1") == [
        {"hash": ours.block.hash}
    ]
    higher: Any = {"blocks": ours.height + 50}
    intercept(fake_node, "getblockchaininfo", answer=lambda _, result: {**result, **higher})
    with pytest.raises(NodeError):
        build(fake_node, verify=verify)
    assert query("SELECT count(*) AS n FROM vc.reorgs") == [{"n": 0}]


# The senders

KINDS = ("p2wpkh", "p2pkh", "p2sh-p2wpkh", "p2tr")
VICTIM = {kind: key("victim", kind).script_pubkey for kind in KINDS}


def spending_of(node: FakeNode) -> Any:
    """Return the input of the tip's last transaction."""
    return read_inputs(split_transactions(node.chain.tree.tip.raw)[-1])[0]


def confused(node: FakeNode, kind: str) -> bytes:
    """Make a script of another form that the tip's input fits."""
    what = spending_of(node)
    if kind == "p2pkh":
        return b"\xa9\x14" + hash160(key("alice").public_key) + b"\x87"
    if kind == "p2wpkh":
        return b"\x00\x20" + hashlib.sha256(what.witness[1]).digest()
    if kind == "p2sh-p2wpkh":
        return b"\x76\xa9\x14" + hash160(what.script_sig[1:]) + b"\x88\xac"
    return b"\x00\x20" + hashlib.sha256(what.witness[0]).digest()


def sent_by(node: FakeNode, kind: str) -> None:
    """Mine an input of alice's."""
    node.mine([node.send(b"sto1", sender=key("alice", kind))])


def spent(node: FakeNode) -> bytes:
    """Return what the tip's last transaction spends, as the tape keeps it."""
    undo = node.chain.undo(node.chain.tree.tip)
    assert undo is not None
    [coin] = read_undo(undo)[-1]
    return pack_outputs([SpentOutput(coin.value, coin.script)])


@WAYS
@pytest.mark.parametrize(
    ("senders", "evidence"), [("node", {"node", "transaction"}), ("bound", {"bound"}), ("proved", {"proof"})]
)
@pytest.mark.parametrize("txindex", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_honest_senders_pass_every_level(
    build: Build, query: Query, kind: str, txindex: bool, senders: str, evidence: set[str], way: str
) -> None:
    """The tape says what they were taken on; the rest of it is the same."""
    with FakeNode(txindex=txindex) as node:
        sent_by(node, kind)
        build(node, way, senders=senders)
        [row] = query("SELECT evidence, spent, spent_at FROM vc.inputs")
        assert row.pop("evidence") in evidence
        assert row == {"spent": spent(node), "spent_at": None}


def otherwise(**values: Any) -> Lie:
    """Report the tip's spent outputs with another value, script or height."""
    return lambda node: spend_otherwise(node, node.height, lambda coin: coin._replace(**values))


def dearer(node: FakeNode) -> None:
    """Report more money than was spent."""
    spend_otherwise(node, node.height, lambda coin: coin._replace(value=coin.value + 1))


def in_other_forms(node: FakeNode, kind: str) -> None:
    """Report a script of another kind that the input fits as well."""
    script = confused(node, kind)
    spend_otherwise(node, node.height, lambda coin: coin._replace(script=script))


@WAYS
@pytest.mark.parametrize("txindex", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("senders", ["node", "bound", "proved"])
def test_a_script_of_another_kind_is_believed_on_the_nodes_word_only(
    build: Build, query: Query, senders: str, kind: str, txindex: bool, way: str
) -> None:
    """What an input reveals as a key could be the script of another output: that shows nothing."""
    with FakeNode(txindex=txindex) as node:
        sent_by(node, kind)
        in_other_forms(node, kind)
        uses_index = txindex and way == "RPC"  # then the node is not asked for what it would lie about
        if senders == "node" or (senders == "bound" and uses_index):
            build(node, way, senders=senders)
            [row] = query("SELECT evidence, spent FROM vc.inputs")
            assert (row["spent"] == spent(node)) == (not uses_index)
        else:
            with pytest.raises(MalformedBlock, match=r"another script than was reported"):
                build(node, way, senders=senders)
            assert query("SELECT * FROM vc.inputs") == []


@WAYS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("senders", ["node", "bound", "proved"])
def test_another_amount(build: Build, query: Query, senders: str, kind: str, way: str) -> None:
    """An input that binds its script says nothing of the amount; a previous transaction does."""
    with FakeNode() as node:
        sent_by(node, kind)
        dearer(node)
        if senders == "node" or (senders == "bound" and kind != "p2tr"):
            build(node, way, senders=senders)
            assert query("SELECT fee > 1000 AS lies FROM vc.inputs") == [{"lies": True}]
        else:
            with pytest.raises(MalformedBlock, match=r"satoshi, but \d+ were reported"):
                build(node, way, senders=senders)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("senders", ["node", "bound", "proved"])
def test_a_victims_script(build: Build, senders: str, kind: str) -> None:
    """Who spends an output by a signature alone could be anybody to whoever believes the node."""
    with FakeNode() as node:
        sent_by(node, kind)
        spend_otherwise(node, node.height, lambda coin: coin._replace(script=VICTIM[kind]))
        if senders == "node" and kind == "p2tr":
            build(node)
        else:
            with pytest.raises(MalformedBlock, match=r"cannot spend|another script"):
                build(node, senders=senders)


BARE = {
    "p2pk": b"\x21" + key("alice").public_key + b"\xac",
    "multisig": b"\x51\x21" + key("alice").public_key + b"\x51\xae",
    "nonstandard": b"\x51",
}


@pytest.mark.parametrize("lie", ["", "script", "value"])
@pytest.mark.parametrize("txindex", [False, True])
@pytest.mark.parametrize("script", BARE.values(), ids=BARE)
def test_scripts_without_a_hash_are_taken_from_the_transaction(
    build: Build, query: Query, script: bytes, txindex: bool, lie: str
) -> None:
    """At the level `bound`, nothing that they reveal is believed; without lies they pass."""
    with FakeNode(txindex=txindex) as node:
        funding = node.send(to=[(script, 10_000)])
        node.mine([funding])
        outpoint = bytes.fromhex(funding.txid)[::-1] + (0).to_bytes(4, "little")
        raw = (
            b"\x02\0\0\0\x01"
            + outpoint
            + b"\x01\x51"
            + b"\xff" * 4
            + b"\x01"
            + bytes(8)
            + b"\x06\x6a\x04sto1"
            + bytes(4)
        )
        node.mine([raw])
        if lie:
            otherwise(**({"script": b"\x52"} if lie == "script" else {"value": 10_001}))(node)
            with pytest.raises(MalformedBlock, match="reported"):
                build(node, senders="bound")
        else:
            build(node, senders="bound")
            assert query("SELECT spent, evidence FROM vc.inputs") == [
                {"spent": spent(node), "evidence": "bound"}
            ]


# What shows the outputs that are not bound


def swap(node: FakeNode) -> None:
    """Answer with another transaction than the requested one."""
    other = split_transactions(node.chain.tree.chain[-1].raw)[-1].hex()
    intercept(
        node, "getrawtransaction", answer=lambda _, result: other if isinstance(result, str) else result
    )


@pytest.mark.parametrize("kind", ["p2tr", "p2wpkh"])
def test_another_previous_transaction_is_refused(build: Build, query: Query, kind: str) -> None:
    """Its id is not the one that the input names; `proved` asks for blocks and does not see it."""
    with FakeNode(txindex=True) as node:
        sent_by(node, kind)
        swap(node)
        if kind == "p2tr":
            with pytest.raises(NodeError, match=r"was requested, but .* returned"):
                build(node, senders="bound")
            assert query("SELECT * FROM vc.inputs") == []
        build(node, senders="proved")
        assert query("SELECT evidence FROM vc.inputs") == [{"evidence": "proof"}]


@WAYS
@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (otherwise(height=50), "block 50 .*does not hold"),
        (otherwise(height=0), "block 0 .*does not hold"),
        (otherwise(height=2**30), "was not made before it is spent"),
        (lambda node: otherwise(height=node.height)(node), r"does not hold"),
        (otherwise(generated=True), "is transaction 2 of block"),
    ],
    ids=["another block", "the first block", "a later block", "its own block", "a coinbase"],
)
def test_a_false_place_of_an_output_is_refused(
    build: Build, query: Query, lie: Lie, message: str, way: str
) -> None:
    """The block of the height holds the transaction, or the height is a lie."""
    with FakeNode() as node:
        funding = node.send(to=[("alice", 100_000)], sender="bob")
        node.mine([funding], n=3)
        sent_by(node, "p2wpkh")
        app = text_app(first_block_id=node.height, needs=("height",))
        lie(node)
        with pytest.raises(MalformedBlock, match=message):
            build(node, way, app, senders="proved")
        assert taken(query) == -1


@WAYS
def test_proved_senders_have_proven_heights(build: Build, query: Query, way: str) -> None:
    """They are those of the blocks that hold the transactions, also of the block itself and of coinbases."""
    with FakeNode() as node:
        funding = node.send(to=[("bob", 100_000)], sender="carol")
        node.mine([funding], n=4)
        first = node.height
        node.mine([node.send(b"sto1", sender=["bob", "alice"])])
        build(node, way, text_app(first_block_id=first, needs=("height",)), senders="proved")
        [row] = query("SELECT evidence, heights, senders FROM virtualchain.inputs")
        assert row["evidence"] == "proof"
        assert row["heights"] == [first - 3, node.height]  # the faucet funds alice in the same block


def test_the_block_of_an_output_is_that_of_the_tape(build: Build, query: Query) -> None:
    """A block that left the chain may hold the same transaction: the tape knows that it did."""
    with FakeNode() as node:
        funding = node.send(to=[("bob", 100_000)], sender="carol")
        [left] = node.mine([funding])[:1]
        height = node.height
        node.reorg(1, 3, [funding])
        node.mine([node.send(b"sto1", sender="bob")])
        node.mine([node.send(b"sto2", sender="bob")])
        app = text_app(first_block_id=height)
        asked: list[int] = []

        def stale(parameters: list[Any], result: Any) -> Any:
            asked.append(parameters[0])
            return left if parameters[0] == height and asked.count(height) > 1 else result

        intercept(node, "getblockhash", answer=stale)
        with pytest.raises(
            MalformedBlock, match=f"was shown with block {left} at height {height}, but the tape"
        ):
            build(node, app=app, senders="proved")
        assert taken(query) == node.height - 2
        # Below the tape's first block, it has work and holds the transaction: nothing contradicts it.
        later = text_app("later", first_block_id=height + 1)
        reset(query)
        build(node, app=later, senders="proved")
        assert query("SELECT count(*) AS n FROM vc.inputs WHERE evidence = 'proof'") == [{"n": 2}]


def reset(query: Query) -> None:
    """Forget the tape."""
    for table in ("snapshots", "ops", "inputs", "coinbases", "coverage", "apps", "blocks"):
        query(f"WITH gone AS (DELETE FROM vc.{table} RETURNING 1) SELECT count(*) FROM gone")


def test_a_block_that_made_several_outputs_is_fetched_once(build: Build, query: Query) -> None:
    """So proof does not cost a block for each input."""
    with FakeNode() as node:
        people = [f"person {number}" for number in range(6)]
        node.mine([node.send(to=[(name, 100_000) for name in people], sender="carol")], n=3)
        node.mine([node.send(b"sto1", sender=name) for name in people])
        build(node, app=text_app(first_block_id=node.height), senders="proved")
        assert query("SELECT count(*) AS n FROM vc.inputs WHERE evidence = 'proof'") == [{"n": 6}]
        # For its first header, for its inputs, and the one that made what these spend.
        assert node.calls["/rest/block"] == 3


@pytest.mark.parametrize("txindex", [False, True])
@pytest.mark.parametrize("senders", ["bound", "proved"])
def test_what_a_source_cannot_show_is_not_taken(
    build: Build, query: Query, senders: str, txindex: bool
) -> None:
    """A pruned node lacks the blocks that made outputs; nothing is believed in their place."""
    with FakeNode(txindex=txindex) as node:
        funding = node.send(to=[(key("bob", "p2tr"), 100_000)], sender="carol")
        node.mine([funding], n=6)
        node.mine([node.send(b"sto1", sender=key("bob", "p2tr"))])
        node.prune(node.height - 2)
        with pytest.raises(MissingData, match="pruned"):
            build(node, app=text_app(first_block_id=node.height), senders=senders)
        assert query("SELECT * FROM vc.inputs") == []
        build(node, app=text_app(first_block_id=node.height))


def test_a_source_that_states_no_heights_proves_nothing(build: Build, database_url: str) -> None:
    """It says so, and what to use."""
    builder = ChainBuilder()
    builder.mine([builder.send(b"sto1")])
    app = text_app(first_block_id=102)
    for senders, kind in (("proved", "p2wpkh"), ("bound", "p2tr")):
        builder.mine([builder.send(b"sto1", sender=key("alice", kind))])
        with (
            StateEngine(
                app,
                database=database_url,
                source=ChainSource(builder),
                confirmations=0,
                senders=senders,  # type: ignore[arg-type]
            ) as engine,
            pytest.raises(MissingData, match="does not state which blocks made the outputs"),
        ):
            engine.build()
    with pytest.raises(UsageError, match="senders='all': choose node, bound or proved"):
        StateEngine(app, database=database_url, source=ChainSource(builder), senders="all")  # type: ignore[arg-type]


def test_files_prove_senders(tmp_path: Path, database_url: str, query: Query) -> None:
    """With and without undo data, the blocks that made outputs are among the files."""
    builder = ChainBuilder()
    for kind in KINDS:
        builder.mine([builder.send(b"sto1", sender=key("alice", kind))])
    builder.save(tmp_path / "chain")
    for number, senders in enumerate(("bound", "proved")):
        app = text_app(f"app{number}", first_block_id=100)
        reset(query)
        with StateEngine(
            app,
            database=database_url,
            source=open_blocks(tmp_path / "chain"),
            confirmations=0,
            senders=senders,  # type: ignore[arg-type]
        ) as engine:
            assert engine.build() == builder.height
        rows = query("SELECT DISTINCT evidence FROM vc.inputs")
        assert rows == [{"evidence": "bound" if senders == "bound" else "proof"}]


def test_apps_that_track_outputs_have_proven_senders(fake_node: FakeNode, run: Run, query: Query) -> None:
    """What they see because of their outputs is proved like what a payload shows."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    fake_node.mine([spending([coin(minted, 1)], outputs=2)])
    run(rides_app(), senders="proved", verify="merkle")
    assert query("SELECT DISTINCT evidence, branch IS NOT NULL AS is_shown FROM vc.inputs") == [
        {"evidence": "proof", "is_shown": True}
    ]


@pytest.mark.node
@pytest.mark.parametrize("txindex", [False, True])
@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("senders", ["bound", "proved"])
def test_a_real_node_shows_senders(
    bitcoind_factory: Callable[..., Bitcoind],
    database_url: str,
    query: Query,
    tmp_path: Path,
    senders: Any,
    rest: bool,
    txindex: bool,
) -> None:
    """Over REST and RPC, with an index and without, senders of every kind are shown."""
    chain = ChainBuilder()
    for kind in KINDS:
        chain.mine([chain.send(b"sto1", sender=key("alice", kind))])
    chain.save(tmp_path / "chain")
    options = [f"-rest={rest:d}", f"-txindex={txindex:d}", f"-loadblock={tmp_path / 'chain'}"]
    node = bitcoind_factory(*options)
    node.wait_for_height(chain.height)
    app = text_app(first_block_id=100, needs=("height",) if senders == "proved" else ())
    with StateEngine(
        app,
        database=database_url,
        source=open_source(node.url, node.cookie),
        confirmations=0,
        senders=senders,
        verify="merkle",
    ) as engine:
        assert engine.build() == chain.height
    rows = query("SELECT evidence, branch FROM vc.inputs")
    assert {row["evidence"] for row in rows} == {"bound" if senders == "bound" else "proof"}
    assert len(rows) == 4
    assert all(row["branch"] is not None for row in rows)
