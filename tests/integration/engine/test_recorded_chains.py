"""The reference implementation's recorded chains, through the whole engine and a real database.

The rules are the recording's: each transaction has its verdict. They run as several apps on one tape: with
tables, with a state that is saved and loaded, and for short chains with one that is judged again each time.

Six blocks of the 860 hold an op that our contract refuses: text with a NUL, which PostgreSQL cannot store.
A chain is cut behind such a block, and goes on from the recorded hashes as its initial snapshots.
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

CUT = Path(__file__).parents[2] / "data" / "consensus" / "chain.json.gz"
IN_THE_CUT = ["first-0", "no-initial-snapshots", "initial-snapshots-reach-past-first", "no-ops-at-all"]
IN_THE_WHOLE = ["main", "tricky", "first-1", "large-heights"]

Json = dict[str, Any]


class Recorded:
    """The recording's rules, but for what they keep."""

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
        """Return the opcodes that the recording has fields for."""
        return list(self._chain["opfields"])

    def get_opfields(self) -> dict[str, list[str]]:
        """Return the hashed fields."""
        fields: dict[str, list[str]] = self._chain["opfields"]
        return fields

    def get_initial_snapshots(self) -> dict[int, str]:
        """Return the consensus hashes to start from."""
        return {int(block_id): text for block_id, text in self._chain["initial_snapshots"].items()}

    def get_valid_transaction_window(self) -> int:
        """Return S."""
        window: int = self._chain["valid_transaction_window"]
        return window

    def db_parse(self, *arguments: Any) -> Json | None:
        """Look up what the recording parsed; `senders` say which transaction this is."""
        parsed: Json | None = self._txs[arguments[3][0]["txid"]]["db_parse"]
        if parsed is None:
            return None
        # The fields beside the hashed ones are kept but where they could not be stored.
        return {name: value for name, value in parsed.items() if name != "ignored_extra" or value != "\0"}

    def recorded(self, op: Json) -> Json:
        """Find the recorded transaction of an op."""
        tx: Json = self._txs[op["virtualchain_senders"][0]["txid"]]
        return tx

    def db_check(self, block_id: int, opcode: bytes, op: Json, *_: Any) -> bool | Rejected:
        """Refuse what the recording's check refused."""
        return self.recorded(op)["verdict"] != "reject" or Rejected("as recorded")

    def outcome(self, opcode: bytes, op: Json) -> Any:
        """Return what our contract has for the recorded result of db_commit."""
        fields = self.get_opfields()[opcode.decode()]
        second = {name: 2 if name == "n" else "2nd" for name in fields}
        outcomes = {
            "accept": None,
            "none": False,  # the reference took None for a refusal
            "false": False,
            "list": [op],
            "two": [op, second],
            "mixed": [op],  # it was [False, op, None]
        }
        return outcomes[self.recorded(op)["verdict"]]


class WithTables(Recorded):
    """Keeps the accepted ops in a table, and tries the staleness window from within."""

    def get_projections(self) -> str:
        """Make one table."""
        return (
            "CREATE TABLE accepted (block_id int, vtxindex int, txid text, PRIMARY KEY (block_id, vtxindex))"
        )

    def db_scan_block(self, block_id: int, op_list: list[Json], db_state: State) -> None:
        """While a block is processed its own hash does not exist: the others of its window are fresh."""
        fresh = self._chain.get("valid_consensus_hashes_at", {}).get(str(block_id))
        if fresh is not None:
            assert all(db_state.is_fresh(text) for text in fresh[:-1])
            assert not db_state.is_fresh(fresh[-1])
            assert db_state.consensus_hash(block_id) is None

    def db_commit(
        self, block_id: int, opcode: bytes, op: Json, txid: str, vtxindex: int, db_state: State
    ) -> Any:
        """Write first, so that a refusal has something to undo."""
        db_state.execute(
            "INSERT INTO accepted VALUES (%s, %s, %s)", [block_id, vtxindex, self.recorded(op)["txid"]]
        )
        return self.outcome(opcode, op)


class WithState(Recorded):
    """Keeps the accepted ops in a list that it saves as JSON."""

    def get_db_state(self, filename: str | None = None) -> list[Any]:
        """Make a state, or load the saved one."""
        loaded: list[Any] = [] if filename is None else json.loads(Path(filename).read_text())
        return loaded

    def db_commit(
        self, block_id: int, opcode: bytes, op: Json, txid: str, vtxindex: int, db_state: list[Any]
    ) -> Any:
        """Keep what is not refused."""
        outcome = self.outcome(opcode, op)
        if outcome is not False:
            db_state.append([block_id, vtxindex, self.recorded(op)["txid"]])
        return outcome

    def db_save(self, block_id: int, filename: str, db_state: list[Any]) -> None:
        """Save the state."""
        Path(filename).write_text(json.dumps(db_state))


class Forgetful(WithState):
    """Cannot load what it saved, so the engine judges all of its blocks again."""

    def get_db_state(self) -> list[Any]:  # type: ignore[override]
        """Make a state."""
        return []


@pytest.fixture(params=IN_THE_CUT + IN_THE_WHOLE)
def chain(request: pytest.FixtureRequest) -> Json:
    """Read one recorded chain."""
    file = CUT if request.param in IN_THE_CUT else shared("consensus/chain.json.gz")
    chains = json.loads(gzip.decompress(file.read_bytes()))["chains"]
    found: Json = next(chain for chain in chains if chain["label"] == request.param)
    return found


def holds_nul(block: Json) -> bool:
    """Return whether a hashed field of a block's ops is text with a NUL."""
    values = [value for op in block["accepted_ops"] for value in op["values"]]
    return any(isinstance(value, str) and "\0" in value for value in values)


def legs(chain: Json) -> Iterator[Json]:
    """Cut a chain behind each block that holds a NUL; what was passed is declared as initial snapshots."""
    passed, blocks = dict(chain["initial_snapshots"]), list[Json]()
    for block in chain["blocks"]:
        blocks.append(block)
        if holds_nul(block):
            yield {**chain, "initial_snapshots": passed, "blocks": blocks}
            passed = passed | {str(block["height"]): block["consensus_hash"] for block in blocks}
            blocks = []
    yield {**chain, "initial_snapshots": passed, "blocks": blocks}


def apps_of(leg: Json) -> list[Recorded]:
    """Make the apps that a leg is run through."""
    apps = [WithTables("tables", leg), WithState("state", leg)]
    return [*apps, Forgetful("forgetful", leg)] if leg["label"] in IN_THE_CUT else apps


def accepted_places(blocks: Sequence[Json]) -> list[tuple[int, int, str]]:
    """Work out from the recording which ops were accepted, and their places among the parsed."""
    found = []
    for block in blocks:
        parsed = [tx for tx in block["txs"] if tx["db_parse"] is not None]
        assert len(parsed) == block["n_parsed"]
        accepted = [tx["verdict"] in {"accept", "list", "two", "mixed"} for tx in parsed]
        found += [
            (block["height"], vtxindex, tx["txid"])
            for vtxindex, tx in enumerate(parsed)
            if accepted[vtxindex]
        ]
    return found


def compare(connection: psycopg.Connection, app: str, leg: Json) -> None:
    """Hold an app's log against the recording, but for a last block with a NUL."""
    blocks = [block for block in leg["blocks"] if not holds_nul(block)]
    last = blocks[-1]["height"]
    snapshots = connection.execute(
        "SELECT block_id, ops_hash, consensus_hash FROM virtualchain.snapshots "
        "WHERE app = %s AND block_id <= %s ORDER BY block_id",
        [app, last],
    ).fetchall()
    initial = [(int(block_id), None, text) for block_id, text in leg["initial_snapshots"].items()]
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
    assert bool(with_nul) is holds_nul(leg["blocks"][-1])


def test_recorded_chains_give_their_hashes(
    chain: Json, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """Ops, ops hashes, consensus hashes and windows are the reference's, over a restart, for all apps."""
    for number, leg in enumerate(legs(chain)):
        url = database_server.clone()
        run(leg, url, tmp_path / str(number))
        with psycopg.connect(url) as connection:
            for app in apps_of(leg):
                compare(connection, app.get_virtual_chain_name(), leg)
            table = connection.execute("SELECT * FROM tables.accepted ORDER BY 1, 2").fetchall()
        whole = [block for block in leg["blocks"] if not holds_nul(block)]
        assert [row for row in table if row[0] <= whole[-1]["height"]] == accepted_places(whole)
        for name in [app.get_virtual_chain_name() for app in apps_of(leg)[1:]]:
            saved = json.loads((tmp_path / str(number) / f"{name}.state").read_text())
            assert [tuple(item) for item in saved] == table
        database_server.drop(url)


def run(leg: Json, url: str, folder: Path) -> None:
    """Run the apps over a leg, with a restart, and hold the windows against the recording."""
    middle = leg["blocks"][len(leg["blocks"]) // 2]["height"]
    apps = apps_of(leg)
    source = RecordedSource(leg["blocks"])
    for stop in (middle, None):
        with StateEngine(*apps, database=url, source=source, confirmations=0, state_folder=folder) as engine:
            engine.build(stop)
            for app in (app.get_virtual_chain_name() for app in apps):
                for block_id, fresh in leg.get("valid_consensus_hashes_at", {}).items():
                    if int(block_id) < engine.get_current_block(app):
                        assert engine.get_valid_consensus_hashes(int(block_id), app) == fresh
            assert not engine.halted()
