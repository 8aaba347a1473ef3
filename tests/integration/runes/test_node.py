"""Runes on a real node: real commitments, and a deep reorganization compared with a fresh index.

The environment variable RUNES_REORG sets how many blocks are replaced (default: 30).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from embit import hashes
from embit.util import secp256k1
from psycopg.rows import dict_row

from tests.support.runes_chain import (
    ETCHING,
    OP_RETURN,
    TERMS,
    Coin,
    Spent,
    coins_of,
    runestone,
    transaction,
    txid_of,
)
from tests.support.tables import deployment
from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.audit.verify import verify
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.script import push
from virtualchain.engine.preview import preview_transactions
from virtualchain.examples.runes import app
from virtualchain.examples.runes.names import number_of
from virtualchain.store.foreseen import net
from virtualchain.testing import key
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.wire import compact_size

pytestmark = pytest.mark.node

ANYBODY = b"\x51"
"""An output script that needs no signature."""
DEPTH = int(os.environ.get("RUNES_REORG", "30"))


def leaf_output(leaf: bytes) -> tuple[bytes, bytes]:
    """Return a taproot output script with one leaf, and the control block that discloses it (BIP 341)."""
    internal = key("internal").public_key[1:]
    leaf_hash = hashes.tagged_hash("TapLeaf", b"\xc0" + compact_size(len(leaf)) + leaf)
    point = secp256k1.ec_pubkey_parse(b"\x02" + internal)
    tweaked = secp256k1.ec_pubkey_add(point, hashes.tagged_hash("TapTweak", internal + leaf_hash))
    serialized = secp256k1.ec_pubkey_serialize(tweaked)
    return b"\x51\x20" + serialized[1:33], bytes([0xC0 | (serialized[0] & 1)]) + internal


@dataclass
class Miner:
    """Mines given transactions at a node; anybody can spend their outputs, which are worth nothing."""

    node: Bitcoind
    coins: list[Coin] = field(default_factory=list)
    """Outputs that nothing spends so far."""
    _salt: int = 0

    def mine(self, *txs: bytes) -> int:
        """Mine a block with these transactions; return its height."""
        mined = self.node.rpc("generateblock", "raw(51)", [raw.hex() for raw in txs])
        height = int(self.node.rpc("getblockheader", mined["hash"])["height"])
        for raw in txs:
            self.coins += [coin for coin in coins_of(raw, height) if coin.script == ANYBODY]
        return height

    def tx(self, inputs: Sequence[Spent], *outputs: bytes) -> bytes:
        """Make a transaction."""
        self._salt += 1
        return transaction(inputs, outputs, self._salt, value=0)

    def coin(self, dice: Random | None = None) -> Spent:
        """Spend the oldest coin, or any."""
        return Spent(self.coins.pop(0 if dice is None else dice.randrange(len(self.coins))))


@pytest.fixture
def miner(bitcoind: Bitcoind) -> Miner:
    """Return a miner with a few hundred coins."""
    made = Miner(bitcoind)
    first = bitcoind.rpc("generatetodescriptor", 101, "raw(51)")[0]
    block = bitcoind.rpc("getblock", first)
    coinbase = Spent(Coin(block["tx"][0], 0, ANYBODY, block["height"]))
    made.mine(made.tx([coinbase], *[ANYBODY] * 400))
    return made


@pytest.fixture
def build(database_url: str, bitcoind: Bitcoind, tmp_path: Path) -> Callable[..., None]:
    """Return a function that has a new engine follow the node up to its tip."""

    def run(url: str = database_url) -> None:
        with StateEngine(
            app, database=url, source=bitcoind.url, confirmations=0, state_folder=tmp_path
        ) as engine:
            engine.build()

    return run


def query(url: str, statement: str) -> list[dict[str, Any]]:
    """Query a database."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_a_name_is_committed_to_and_etched(
    database_url: str, miner: Miner, build: Callable[..., None]
) -> None:
    """The node has checked the disclosed leaf; one block too early, the same commitment does not count."""
    etched = []
    for name, blocks in (("AAAAAAAAAAAAAAA", 4), ("BBBBBBBBBBBBBBB", 5)):
        number = number_of(name)
        leaf = push(number.to_bytes(16, "little").rstrip(b"\0")) + b"\x75\x51"
        script, control = leaf_output(leaf)
        committing = miner.tx([miner.coin()], script)
        height = miner.mine(committing)
        for _ in range(blocks - 1):
            miner.mine()
        (coin,) = coins_of(committing, height)
        etching = runestone(flags=ETCHING, rune=number, spacers=1, premine=10)
        raw = miner.tx([Spent(coin, (leaf, control))], etching)
        etched.append((miner.mine(raw), raw))
    build()
    rune = query(database_url, "SELECT id, spaced_name, etching FROM runes.runes ORDER BY number DESC")[0]
    assert rune == {
        "id": f"{etched[1][0]}:1",
        "spaced_name": "B•BBBBBBBBBBBBBB",
        "etching": txid_of(etched[1][1]),
    }
    ops = query(database_url, "SELECT fields FROM virtualchain.ops ORDER BY block_id DESC LIMIT 2")
    problems = [op["fields"]["etching_problem"] for op in reversed(ops)]
    assert problems == ["no input commits to the name", None]


def random_block(miner: Miner, rune: tuple[int, int], dice: Random) -> list[bytes]:
    """Make transactions for a block: mints, transfers, splits, burns, cenotaphs and etchings."""
    txs = []
    for _ in range(dice.randrange(1, 5)):
        inputs = [miner.coin(dice) for _ in range(dice.randrange(1, 4))]
        outputs = [ANYBODY] * dice.randrange(1, 4)
        edict = (*rune, dice.randrange(9), dice.randrange(len(outputs) + 2))
        messages = (
            runestone(mint=rune),
            runestone([edict], mint=rune),
            runestone(mint=rune, pointer=dice.randrange(len(outputs))),
            runestone((), (24, 0), mint=rune),
            runestone([(0, 0, 3, 0)], flags=ETCHING, premine=7),
            OP_RETURN,
        )
        txs.append(miner.tx(inputs, *outputs, dice.choice(messages)))
    return txs


def extend(miner: Miner, rune: tuple[int, int], blocks: int, dice: Random) -> None:
    """Mine random blocks."""
    for _ in range(blocks):
        miner.mine(*random_block(miner, rune, dice))


def timeless(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a row without the time of its block, which nobody knows before."""
    return None if row is None else {name: value for name, value in row.items() if name != "timestamp"}


def test_what_blocks_do_is_foreseen(database_url: str, miner: Miner, tmp_path: Path) -> None:
    """On top of blocks that are not in the log yet: which transactions count, and what becomes of rows."""
    etching = miner.tx([miner.coin()], ANYBODY, runestone(flags=ETCHING | TERMS, cap=10**6, amount=5))
    rune = (miner.mine(etching), 1)
    extend(miner, rune, 3, dice := Random(4))
    foreseen = {}
    options: dict[str, Any] = {"source": miner.node.url, "confirmations": 2, "state_folder": tmp_path}
    with closing(open_source(miner.node.url)) as source:
        for _ in range(12):
            with StateEngine(app, database=database_url, **options) as engine:
                engine.build()
            txs = random_block(miner, rune, dice)
            verdicts = preview_transactions(database_url, read_contract(app), txs, source=source)
            foreseen[miner.mine(*txs)] = verdicts
        miner.mine()
        miner.mine()
        with StateEngine(app, database=database_url, **options) as engine:
            engine.build()
    ops = "SELECT block_id, txid, fields FROM virtualchain.ops ORDER BY block_id, vtxindex"
    assert [row for row in query(database_url, ops) if row["block_id"] in foreseen] == [
        {"block_id": verdict.block_id, "txid": verdict.txid, "fields": verdict.fields}
        for verdicts in foreseen.values()
        for verdict in verdicts
        if verdict.is_accepted
    ]
    changes = 'SELECT "table", block_id, key, new FROM virtualchain.changes'
    actual = {
        (row["block_id"], row["table"], json.dumps(row["key"], sort_keys=True)): timeless(row["new"])
        for row in query(database_url, changes)
        if row["block_id"] in foreseen
    }
    assert len(actual) > 50
    assert actual == {
        (block_id, change.table, json.dumps(change.key, sort_keys=True)): timeless(change.new)
        for block_id, verdicts in foreseen.items()
        for change in net(change for verdict in verdicts for change in verdict.changes)
        if change.old_json != change.new_json
    }


def test_a_deep_reorganization_leaves_what_a_fresh_index_has(
    database_url: str, database_server: DatabaseServer, miner: Miner, build: Callable[..., None]
) -> None:
    """In the middle of mints, transfers and cenotaphs; tables, history and digests are equal."""
    etching = miner.tx([miner.coin()], ANYBODY, runestone(flags=ETCHING | TERMS, cap=10**6, amount=5))
    rune = (miner.mine(etching), 1)
    extend(miner, rune, 10, Random(1))
    coins = list(miner.coins)
    fork = miner.node.rpc("getblockcount")
    for seed in (2, 3):
        miner.coins = list(coins)
        extend(miner, rune, DEPTH + seed, Random(seed))
        build()
        if seed == 2:
            miner.node.rpc("invalidateblock", miner.node.rpc("getblockhash", fork + 1))
    reorgs = query(database_url, "SELECT depth FROM virtualchain.reorgs")
    assert [row["depth"] for row in reorgs] == [DEPTH + 2]
    assert verify(database_url, [read_contract(app, "regtest")], deep=True).faults == []
    kinds = query(database_url, "SELECT DISTINCT kind FROM runes.rune_events")
    assert {row["kind"] for row in kinds} == {
        *("spent", "etched", "minted", "transferred", "burned", "cenotaph")
    }
    fresh = database_server.clone()
    try:
        build(fresh)
        left, right = deployment(database_url), deployment(fresh)
        assert {name for name in left if left[name] != right[name]} == set()
    finally:
        database_server.drop(fresh)


def test_the_command_follows_a_node(database_url: str, miner: Miner) -> None:
    """`virtualchain sync --app virtualchain.examples.runes` needs no more than a node."""
    height = miner.mine(miner.tx([miner.coin()], ANYBODY, runestone(flags=ETCHING, premine=5)))
    command = [sys.executable, "-m", "virtualchain", "sync", "--app", "virtualchain.examples.runes"]
    command += ["--bitcoin", miner.node.url, "--database", database_url, "--confirmations", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    rune = query(database_url, "SELECT id, premine FROM runes.runes ORDER BY number DESC")[0]
    assert rune == {"id": f"{height}:1", "premine": 5}
