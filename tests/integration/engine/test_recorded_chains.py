"""The reference implementation's recorded chains, in the whole engine and a real database.

The recording has a verdict for each transaction, and the apps follow it. Several run on one tape: one with
tables, one with a state that is saved and loaded, and for short chains one that is re-evaluated each time.

Six of the 860 blocks have an op that our contract rejects: text with a NUL, which PostgreSQL cannot store.
A chain is cut after such a block, and the next part starts from the recorded hashes as initial snapshots.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.recorded_source import RecordedSource
from tests.support.shared_data import shared
from virtualchain import Rejected, State, StateEngine
from virtualchain.testing.database import DatabaseServer

EXCERPT = Path(__file__).parents[2] / "data" / "consensus" / "chain.json.gz"
IN_THE_EXCERPT = ["first-0", "no-initial-snapshots", "initial-snapshots-reach-past-first", "no-ops-at-all"]
IN_THE_SHARED_FILE = ["main", "tricky", "first-1", "large-heights"]

Json = dict[str, Any]


class Recorded:
    """The recording's rules, without a state."""

    def __init__(self, name: str, chain: Json) -> None:
        self._name = name
        self._chain = chain
        self._txs = {tx["txid"]: tx for block in chain["blocks"] for tx in block["txs"]}

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return self._name

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "20.0.1.0"

    def get_first_block_id(self) -> int:
        """Return the recorded first block."""
        first: int = self._chain["first_block_id"]
        return first

    def get_magic_bytes(self) -> str:
        """Return the recorded magic."""
        magic: str = self._chain["magic"]
        return magic

    def get_opcodes(self) -> list[str]:
        """Return the opcodes for which the recording has fields."""
        return list(self._chain["opfields"])

    def get_opfields(self) -> dict[str, list[str]]:
        """Return the hashed fields."""
        fields: dict[str, list[str]] = self._chain["opfields"]
        return fields

    def get_initial_snapshots(self) -> dict[int, str]:
        """Return the consensus hashes that the chain starts from."""
        return {int(block_id): text for block_id, text in self._chain["initial_snapshots"].items()}

    def get_valid_transaction_window(self) -> int:
        """Return S."""
        window: int = self._chain["valid_transaction_window"]
        return window

    def db_parse(self, *arguments: Any) -> Json | None:
        """Return the recorded parse result; `senders` identify the transaction."""
        parsed: Json | None = self._txs[arguments[3][0]["txid"]]["db_parse"]
        if parsed is None:
            return None
        # Unhashed fields are kept too, unless they cannot be stored.
        return {name: value for name, value in parsed.items() if name != "ignored_extra" or value != "\0"}

    def recorded_tx(self, op: Json) -> Json:
        """Return the recorded transaction of an op."""
        tx: Json = self._txs[op["virtualchain_senders"][0]["txid"]]
        return tx

    def db_check(self, block_id: int, opcode: bytes, op: Json, *_: Any) -> bool | Rejected:
        """Reject what the recording's check rejected."""
        return self.recorded_tx(op)["verdict"] != "reject" or Rejected("as recorded")

    def commit_result(self, opcode: bytes, op: Json) -> Any:
        """Translate the recorded result of db_commit to our contract."""
        fields = self.get_opfields()[opcode.decode()]
        second = {name: 2 if name == "n" else "2nd" for name in fields}
        results = {
            "accept": None,
            "none": False,  # for the reference, None is a rejection
            "false": False,
            "list": [op],
            "two": [op, second],
            "mixed": [op],  # it was [False, op, None]
        }
        return results[self.recorded_tx(op)["verdict"]]


class WithTables(Recorded):
    """Stores the accepted ops in a table, and checks the staleness window from a callback."""

    def get_projections(self) -> str:
        """Return one table."""
        return (
            "CREATE TABLE accepted (block_id int, vtxindex int, txid text, PRIMARY KEY (block_id, vtxindex))"
        )

    def db_scan_block(self, block_id: int, op_list: list[Json], db_state: State) -> None:
        """Check that the hashes of the window are fresh, but the block's own, which does not exist yet."""
        fresh = self._chain.get("valid_consensus_hashes_at", {}).get(str(block_id))
        if fresh is not None:
            assert all(db_state.is_fresh(text) for text in fresh[:-1])
            assert not db_state.is_fresh(fresh[-1])
            assert db_state.consensus_hash(block_id) is None

    def db_commit(
        self, block_id: int, opcode: bytes, op: Json, txid: str, vtxindex: int, db_state: State
    ) -> Any:
        """Store the op, then return the result, so that a rejection has something to undo."""
        db_state.execute(
            "INSERT INTO accepted VALUES (%s, %s, %s)", [block_id, vtxindex, self.recorded_tx(op)["txid"]]
        )
        return self.commit_result(opcode, op)


class WithState(Recorded):
    """Stores the accepted ops in a list that it saves as JSON."""

    def get_db_state(self, filename: str | None = None) -> list[Any]:
        """Create a state, or load the saved one."""
        loaded: list[Any] = [] if filename is None else json.loads(Path(filename).read_text())
        return loaded

    def db_commit(
        self, block_id: int, opcode: bytes, op: Json, txid: str, vtxindex: int, db_state: list[Any]
    ) -> Any:
        """Store the op unless it is rejected."""
        result = self.commit_result(opcode, op)
        if result is not False:
            db_state.append([block_id, vtxindex, self.recorded_tx(op)["txid"]])
        return result

    def db_save(self, block_id: int, filename: str, db_state: list[Any]) -> None:
        """Save the state."""
        Path(filename).write_text(json.dumps(db_state))


class Forgetful(WithState):
    """Cannot load its state, so the engine re-evaluates all of its blocks."""

    def get_db_state(self) -> list[Any]:  # type: ignore[override]
        """Create a state."""
        return []


@pytest.fixture(params=IN_THE_EXCERPT + IN_THE_SHARED_FILE)
def chain(request: pytest.FixtureRequest) -> Json:
    """Return one recorded chain."""
    file = EXCERPT if request.param in IN_THE_EXCERPT else shared("consensus/chain.json.gz")
    chains = json.loads(gzip.decompress(file.read_bytes()))["chains"]
    selected: Json = next(chain for chain in chains if chain["label"] == request.param)
    return selected


def holds_nul(block: Json) -> bool:
    """Check whether a hashed field of a block's ops contains a NUL."""
    values = [value for op in block["accepted_ops"] for value in op["values"]]
    return any(isinstance(value, str) and "\0" in value for value in values)


def parts_of(chain: Json) -> Iterator[Json]:
    """Cut a chain after each block that holds a NUL; the hashes up to there become initial snapshots."""
    snapshots, blocks = dict(chain["initial_snapshots"]), list[Json]()
    for block in chain["blocks"]:
        blocks.append(block)
        if holds_nul(block):
            yield {**chain, "initial_snapshots": snapshots, "blocks": blocks}
            snapshots = snapshots | {str(block["height"]): block["consensus_hash"] for block in blocks}
            blocks = []
    yield {**chain, "initial_snapshots": snapshots, "blocks": blocks}


def apps_of(part: Json) -> list[Recorded]:
    """Make the apps that run on a part."""
    apps = [WithTables("tables", part), WithState("state", part)]
    return [*apps, Forgetful("forgetful", part)] if part["label"] in IN_THE_EXCERPT else apps


def accepted_ops(blocks: Sequence[Json]) -> list[tuple[int, int, str]]:
    """Return block, vtxindex and txid of the ops that the recording accepted."""
    rows = []
    for block in blocks:
        parsed = [tx for tx in block["txs"] if tx["db_parse"] is not None]
        assert len(parsed) == block["n_parsed"]
        accepted = [tx["verdict"] in {"accept", "list", "two", "mixed"} for tx in parsed]
        rows += [
            (block["height"], vtxindex, tx["txid"])
            for vtxindex, tx in enumerate(parsed)
            if accepted[vtxindex]
        ]
    return rows


def check_log(connection: psycopg.Connection, app: str, part: Json) -> None:
    """Compare an app's log with the recording, except a last block with a NUL."""
    blocks = [block for block in part["blocks"] if not holds_nul(block)]
    last = blocks[-1]["height"]
    snapshots = connection.execute(
        "SELECT block_id, ops_hash, consensus_hash FROM virtualchain.snapshots "
        "WHERE app = %s AND block_id <= %s ORDER BY block_id",
        [app, last],
    ).fetchall()
    initial = [(int(block_id), None, text) for block_id, text in part["initial_snapshots"].items()]
    recorded = [(block["height"], block["ops_hash"], block["consensus_hash"]) for block in blocks]
    assert snapshots == sorted(initial) + recorded
    ops = connection.execute(
        "SELECT unnest(canonical) FROM virtualchain.ops WHERE app = %s AND block_id <= %s "
        "ORDER BY block_id, vtxindex",
        [app, last],
    )
    serialized = [op["serialized_hex"] for block in blocks for op in block["accepted_ops"]]
    assert [canonical.hex() for (canonical,) in ops] == serialized
    reasons = connection.execute(
        "SELECT reason FROM virtualchain.rejections WHERE app = %s AND block_id > %s AND step = 'parse'",
        [app, last],
    )
    with_nul = [reason for (reason,) in reasons if reason.endswith("contains a NUL character")]
    assert bool(with_nul) is holds_nul(part["blocks"][-1])


def test_recorded_chains_have_their_recorded_hashes(
    chain: Json, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """For all apps, over a restart, ops, hashes and windows are those of the reference implementation."""
    for number, part in enumerate(parts_of(chain)):
        url = database_server.clone()
        run(part, url, tmp_path / str(number))
        with psycopg.connect(url) as connection:
            for app in apps_of(part):
                check_log(connection, app.get_virtual_chain_name(), part)
            table = connection.execute("SELECT * FROM tables.accepted ORDER BY 1, 2").fetchall()
        complete = [block for block in part["blocks"] if not holds_nul(block)]
        assert [row for row in table if row[0] <= complete[-1]["height"]] == accepted_ops(complete)
        for name in [app.get_virtual_chain_name() for app in apps_of(part)[1:]]:
            saved = json.loads((tmp_path / str(number) / f"{name}.state").read_text())
            assert [tuple(item) for item in saved] == table
        database_server.drop(url)


def run(part: Json, url: str, folder: Path) -> None:
    """Run the apps over a part, with a restart, and compare the windows with the recording."""
    middle = part["blocks"][len(part["blocks"]) // 2]["height"]
    apps = apps_of(part)
    source = RecordedSource(part["blocks"])
    for stop in (middle, None):
        with StateEngine(*apps, database=url, source=source, confirmations=0, state_folder=folder) as engine:
            engine.build(stop)
            for app in (app.get_virtual_chain_name() for app in apps):
                for block_id, fresh in part.get("valid_consensus_hashes_at", {}).items():
                    if int(block_id) < engine.get_current_block(app):
                        assert engine.get_valid_consensus_hashes(int(block_id), app) == fresh
            assert not engine.halted()
