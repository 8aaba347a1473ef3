"""Apps whose state rides on outputs: which transactions they see, and what they must do with them."""

import types
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Query, Run
from tests.support.listening import once_at
from tests.support.rides import TABLES, RidesModel, coin, rides_app, spending
from virtualchain import App, State, StateEngine, last_op_return
from virtualchain.app.declarations import read_contract
from virtualchain.audit.verify import verify
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource, Offline
from virtualchain.engine import rebuild
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.rebuild import replay
from virtualchain.engine.upgrade import upgrade
from virtualchain.engine.versions import build_beside, remove
from virtualchain.errors import AppHalted, InvalidApp, MissingData, NodeUnavailable, UpstreamLacks, UsageError
from virtualchain.testing import FakeNode

SPELLINGS = pytest.mark.parametrize("by_statements", [False, True], ids=["helper", "statements"])

DIGESTS: Final = (
    "SELECT block_id, consensus_hash, state_hash FROM virtualchain.snapshots WHERE app = %s ORDER BY block_id"
)


def balances(query: Query, name: str = "rides") -> dict[tuple[str, int], int]:
    """Return the app's balances by output."""
    return {(row["txid"], row["vout"]): row["amount"] for row in query(f"SELECT * FROM {name}.rides")}


def moves(query: Query, name: str = "rides") -> list[tuple[int, int, str, int]]:
    """Return what the app has noted of its transactions, in order."""
    rows = query(f"SELECT block_id, txindex, spends, amount FROM {name}.moves ORDER BY 1, 2")
    return [tuple(row.values()) for row in rows]


def digests(query: Query, name: str = "rides") -> list[dict[str, Any]]:
    """Return the app's digests."""
    return query(
        "SELECT block_id, consensus_hash, state_hash FROM virtualchain.snapshots WHERE app = %s ORDER BY 1",
        (name,),
    )


def test_a_fork_below_an_apps_first_block(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """What it tracks begins with its first block as before, not right above the fork."""
    earlier = App("earlier", magic=b"ea")
    earlier.add(b"o", parse=lambda payload: {})
    app = rides_app()
    app.first_block_id = fake_node.height + 2
    fake_node.mine(n=5)
    run(app, earlier)
    fake_node.reorg(6, 8)
    run(app, earlier)
    assert query("SELECT tracking_from FROM vc.apps WHERE name = 'rides'") == [
        {"tracking_from": app.first_block_id}
    ]
    assert verify(database_url).faults == []


@SPELLINGS
@pytest.mark.parametrize("ends", [False, True])
def test_a_fork_below_the_history_after_a_change_of_code(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    fresh_index: Callable[..., str],
    by_statements: bool,
    ends: bool,
) -> None:
    """What the new code needs of blocks that the old one took is fetched again, also in two attempts."""
    model = RidesModel(1)
    for _ in range(30):
        model.block(fake_node)
    run(rides_app(by_statements=not by_statements), history=5)
    app = rides_app(by_statements=by_statements)
    run(app, history=5)
    fork = fake_node.height - 10
    fake_node.reorg(10)
    if ends:

        def end() -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            run(app, history=5, on_catch_up=once_at(fork - 10, end))
        assert query("SELECT max(block_id) AS last FROM vc.blocks") == [{"last": fork + 10}]
    fetched = fake_node.calls["/rest/block"]
    run(app, history=5)
    assert (fake_node.calls["/rest/block"] - fetched > fork - 20) is not ends
    assert digests(query) == digests_at(fresh_index(rides_app(), history=5))


@pytest.mark.parametrize("is_upstream", [False, True])
def test_such_a_fork_with_a_node_that_has_dropped_the_blocks(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch, is_upstream: bool
) -> None:
    """Nothing is undone, and the error says why blocks are needed that the tape has; it is not waited for."""
    for number in range(30):
        fake_node.mine([fake_node.send(b"rim%d" % number)])
    run(rides_app(), history=5)
    app = rides_app(by_statements=True)
    run(app, history=5)
    fake_node.reorg(10)

    def lacks(*_: object) -> Any:
        raise UpstreamLacks("blocks 1 to 30 were not searched")

    if is_upstream:
        monkeypatch.setattr(rebuild, "scan_for", lacks)
    else:
        fake_node.prune(fake_node.height - 20)
    with pytest.raises(MissingData, match="app rides must be derived again, and the tape does not have what"):
        run(app, history=5)
    assert query("SELECT max(block_id) AS last FROM vc.blocks") == [{"last": fake_node.height - 1}]


@SPELLINGS
def test_a_balance_moves_with_its_output(
    fake_node: FakeNode, run: Run, query: Query, by_statements: bool
) -> None:
    """A transaction that spends a tracked output is the app's, with a payload or without."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    moved = spending([coin(minted, 1)], outputs=2)
    fake_node.mine([moved])
    chained = [spending([coin(moved)])]
    for _ in range(3):
        chained.append(spending([coin(chained[-1])]))
    other = spending([coin(moved, 1)])
    fake_node.mine([*chained, other, spending([coin(other)])])
    run(rides_app(by_statements=by_statements))
    assert balances(query) == {(chained[-1].txid, 0): 7}
    assert [row[2:] for row in moves(query)] == [("[]", 7), *[("[0]", 7)] * 5]
    ops = query("SELECT opcode, payload, vtxindex FROM virtualchain.ops ORDER BY block_id, txindex")
    assert [row["payload"] for row in ops] == [b"7", *[None] * 5]
    assert [row["opcode"] for row in ops] == [b"m", *[b""] * 5]
    inputs = query("SELECT magics, tracked_by FROM virtualchain.inputs ORDER BY block_id, txindex")
    assert [(row["magics"], row["tracked_by"]) for row in inputs] == [
        ([b"ri"], []),
        ([], ["rides"]),  # spends what was tracked before its block
        *[([], ["rides"])] * 4,
        # What comes of the other output was not tracked, so nobody asked for it.
    ]


@SPELLINGS
@pytest.mark.parametrize("seed", range(2))
def test_random_chains(fake_node: FakeNode, run: Run, query: Query, by_statements: bool, seed: int) -> None:
    """Balances and moves are those of a model, block by block, after a fork, and when derived again."""
    model = RidesModel(seed)
    app = rides_app(by_statements=by_statements)
    for _ in range(12):
        model.block(fake_node)
    run(app)
    assert (balances(query), moves(query)) == (model.balances, model.moves)
    for _ in range(3):
        model.block(fake_node)
        run(app)
        assert (balances(query), moves(query)) == (model.balances, model.moves)


@SPELLINGS
def test_forks(
    fake_node: FakeNode, run: Run, query: Query, fresh_index: Callable[..., str], by_statements: bool
) -> None:
    """After forks between making and spending, all is as in a fresh index of the other branch."""
    model, app = RidesModel(11), rides_app(by_statements=by_statements)
    states = {}
    for _ in range(10):
        states[fake_node.height] = deepcopy(model)
        model.block(fake_node)
    run(app)
    for depth in (1, 2, 5, 7):
        fork = max(height for height in states if height <= fake_node.height - depth)
        model = deepcopy(states[fork])
        states = {height: state for height, state in states.items() if height <= fork}
        fake_node.reorg(fake_node.height - fork, 1)
        for _ in range(depth + 2):
            states[fake_node.height] = deepcopy(model)
            model.block(fake_node)
        run(app)
        assert (balances(query), moves(query)) == (model.balances, model.moves)
    assert digests(query) == digests_at(fresh_index(app))


def digests_at(url: str, name: str = "rides") -> list[dict[str, Any]]:
    """Return the digests of an app in another database."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(DIGESTS, (name,)).fetchall()


def test_both_spellings_have_equal_digests(fake_node: FakeNode, fresh_index: Callable[..., str]) -> None:
    """What a handler reads by the table helper or by statements is the same."""
    model = RidesModel(5)
    for _ in range(10):
        model.block(fake_node)
    first, second = (
        digests_at(fresh_index(rides_app(by_statements=by_statements))) for by_statements in (False, True)
    )
    assert first == second


def test_joining_late(fake_node: FakeNode, run: Run, query: Query, fresh_index: Callable[..., str]) -> None:
    """An app that joins is advanced from blocks beside the others, whether it begins on the tape or below."""
    model = RidesModel(7)
    for _ in range(8):
        model.block(fake_node)
    start = fake_node.height - 4
    first = rides_app("first", first_block_id=start, magic=b"no")
    run(first)
    joining = rides_app("rides")
    run(first, joining)
    assert (balances(query), moves(query)) == (model.balances, model.moves)
    assert digests(query) == digests_at(fresh_index(joining))
    model.block(fake_node)
    run(first, joining)
    assert (balances(query), moves(query)) == (model.balances, model.moves)


def test_the_tape_is_enough_for_the_same_rules(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """`replay` takes no block from the node; a new version needs blocks, and gets them from `upgrade`."""
    model, app = RidesModel(3), rides_app()
    for _ in range(8):
        model.block(fake_node)
    run(app)
    before = digests(query)
    contract = read_contract(app)
    with closing(Deployment(database_url, [contract], None, Options())) as deployment:
        replayed = replay(deployment, "rides", Listener())
    assert replayed is not None
    assert (replayed.differences, digests(query)) == ((), before)
    newer = read_contract(rides_app(version="2"))
    with pytest.raises(UsageError, match="were not searched"):
        build_beside(database_url, newer, "newer")
    upgraded = upgrade(database_url, newer, lambda: open_source(fake_node.url))
    assert upgraded is not None
    assert (upgraded.difference, upgraded.now.version) == (None, "2")
    assert (balances(query), moves(query)) == (model.balances, model.moves)
    model.block(fake_node)
    run(rides_app(version="2"))
    assert (balances(query), moves(query)) == (model.balances, model.moves)


def test_a_tape_that_is_enough_up_to_a_block(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """An app that comes back takes from the tape what it had taken, and only the rest from the node."""
    model, other, app = RidesModel(13), rides_app("other", magic=b"no"), rides_app()
    for _ in range(6):
        model.block(fake_node)
    run(other, app)
    remove(database_url, "rides")
    pruned = fake_node.height
    for _ in range(3):
        model.block(fake_node)
    run(other)
    fake_node.prune(pruned)
    run(other, app)
    assert query("SELECT DISTINCT status FROM virtualchain.apps") == [{"status": "running"}]
    assert (balances(query), moves(query)) == (model.balances, model.moves)


def test_other_code_is_covered_from_where_it_runs(fake_node: FakeNode, run: Run, query: Query) -> None:
    """If only the code changes, it goes on; what it has not taken itself does not count as searched."""
    model = RidesModel(4)
    for _ in range(4):
        model.block(fake_node)
    run(rides_app())
    for _ in range(2):
        model.block(fake_node)
    run(rides_app(by_statements=True))
    rows = query("SELECT from_block, until_block FROM vc.coverage WHERE rule LIKE 'tracking:rides:%'")
    last = query("SELECT tracking_from FROM vc.apps")[0]["tracking_from"]
    assert rows == [{"from_block": 0, "until_block": last - 1}]
    assert balances(query) == model.balances


@pytest.mark.parametrize("by_statements", [False, True])
def test_an_output_that_stays_halts_the_app(
    fake_node: FakeNode, run: Run, query: Query, by_statements: bool
) -> None:
    """A handler that leaves the rows of what is spent is named with the output, and leaves no trace."""
    app = App("rot", magic=b"ri", tracks="rides", projections=TABLES)

    class Mint:
        def parse(self, payload: bytes) -> dict[str, Any]:
            return {}

        def commit(self, op: dict[str, Any], state: State, txid: str) -> None:
            if by_statements:
                state.execute("INSERT INTO rides VALUES (%s, 1, 'a', 1, 'x')", (txid,))
            else:
                row = {"txid": txid, "vout": 1, "kind": "a", "amount": 1, "owner": "x"}
                state.table("rides").put(row)

    class Spend:
        def parse(self, payload: None) -> dict[str, Any] | None:
            return None

    app.opcode(b"m")(Mint)
    app.spend(Spend)
    minted = fake_node.send(b"rim1")
    fake_node.mine([minted])
    fake_node.mine([spending([coin(minted, 1)])])
    with pytest.raises(AppHalted, match=f"output {minted.txid}:1 is spent by this transaction"):
        run(app)
    assert query("SELECT count(*) AS n FROM virtualchain.rejections") == [{"n": 0}]
    assert query("SELECT block_id FROM virtualchain.apps") == [{"block_id": fake_node.height - 1}]


@SPELLINGS
def test_rejected_payloads_still_move(
    fake_node: FakeNode, run: Run, query: Query, by_statements: bool
) -> None:
    """A payload of another app, or none of the app's opcodes, makes a transaction one without a payload."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    moved = spending([coin(minted, 1)], b"xxm1")
    fake_node.mine([moved])
    again = spending([coin(moved)], b"ri?1")
    fake_node.mine([again])
    run(rides_app(by_statements=by_statements))
    assert balances(query) == {(again.txid, 0): 7}


def test_what_is_seen_does_not_depend_on_callbacks(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A transaction that only spends another one of the block is dropped if nothing it spends is tracked."""
    minted = fake_node.send(b"rim7")
    burned = spending([coin(minted, 1)], outputs=2)
    fake_node.mine([minted, burned, spending([coin(burned, 1)]), spending([coin(burned, 0)])])
    seen: list[list[dict[str, Any]]] = []
    app = rides_app()
    app.scan(lambda ops, state: seen.append(deepcopy(ops)))
    run(app)
    assert [op["virtualchain_is_spend"] for op in seen[-1]] == [False, True, True, True]
    rows = query("SELECT vtxindex, payload FROM virtualchain.ops ORDER BY vtxindex")
    assert [row["vtxindex"] for row in rows] == [0, 1, 3]
    assert query("SELECT count(*) AS n FROM virtualchain.rejections") == [{"n": 0}]
    assert query("SELECT count(*) AS n FROM virtualchain.inputs") == [{"n": 4}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tracks": "none"}, "tracks none, which is not one of its projections"),
        ({"tracks": "moves"}, "whose primary key must have the columns txid text and vout integer"),
        ({"max_payload": 80}, "tracks outputs and has a maximum payload"),
        ({"needs": ("depth",)}, 'it must be a tuple, and may name "height"'),
    ],
)
def test_wrong_declarations(run: Run, options: dict[str, Any], message: str) -> None:
    """What cannot work is refused before the first block, by name."""
    with pytest.raises(InvalidApp, match=message):
        run(rides_app(**options))


def test_an_app_needs_a_handler_for_spends(run: Run) -> None:
    """Without one, a tracked output could be spent and stay."""
    app = App("none", magic=b"ri", tracks="rides", projections=TABLES)
    app.add(b"m", parse=lambda payload: {})
    with pytest.raises(InvalidApp, match=r"register one with @app\.spend"):
        run(app)


@pytest.mark.parametrize("key", ["kind, vout, txid", "vout, txid", "kind, txid, vout"])
def test_any_order_of_the_key(fake_node: FakeNode, run: Run, query: Query, key: str) -> None:
    """The columns of the output may be anywhere in the key: an index finds them if the key does not."""
    model = RidesModel(8)
    for _ in range(6):
        model.block(fake_node)
    run(rides_app(projections=TABLES.replace("PRIMARY KEY (txid, vout, kind)", f"PRIMARY KEY ({key})")))
    assert (balances(query), moves(query)) == (model.balances, model.moves)
    rows = query("SELECT count(*) AS n FROM pg_indexes WHERE schemaname = 'rides__1' AND tablename = 'rides'")
    assert rows == [{"n": 1 if key == "vout, txid" else 2}]


def test_a_table_that_only_statements_can_handle(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A tracked table may have columns that `state.table` does not take."""
    model = RidesModel(9)
    for _ in range(6):
        model.block(fake_node)
    tables = TABLES.replace("owner text,", "owner text, about jsonb DEFAULT '{}',")
    run(rides_app(by_statements=True, projections=tables))
    assert (balances(query), moves(query)) == (model.balances, model.moves)
    with pytest.raises(AppHalted, match="use statements"):
        run(rides_app("other", projections=tables))


def test_two_apps_share_what_both_see(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Each transaction is on the tape once, with the names of both, and with heights if one needs them."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    height = fake_node.height
    moved = spending([coin(minted, 1)])
    fake_node.mine([moved])
    seen: list[list[dict[str, Any]]] = []
    second = rides_app("second", needs=("height",), by_statements=True)
    second.scan(lambda ops, state: seen.append([op["virtualchain_senders"][0] for op in ops]))
    run(rides_app(), second)
    rows = query("SELECT tracked_by, heights FROM virtualchain.inputs ORDER BY block_id")
    assert rows[1] == {"tracked_by": ["rides", "second"], "heights": [height]}
    assert (seen[-1][0]["height"], seen[-1][0]["coinbase"]) == (height, False)
    assert balances(query) == balances(query, "second") == {(moved.txid, 0): 7}


class Failing(Offline):
    """A source that fails to say what further transactions spend, at one call."""

    def __init__(self, source: BlockSource) -> None:
        self.source, self.network = source, source.network
        self.calls, self.fails_at = 0, -1

    def __getattribute__(self, name: str) -> Any:
        if name in {"source", "network", "calls", "fails_at", "spent_outputs", "__class__"}:
            return super().__getattribute__(name)
        return getattr(self.source, name)

    def spent_outputs(self, block_hash: str, transactions: Any) -> Any:
        """Fail at one call."""
        self.calls += 1
        if self.calls == self.fails_at:
            raise NodeUnavailable("on purpose")
        return self.source.spent_outputs(block_hash, transactions)


def test_a_source_that_fails_in_between(fake_node: FakeNode, query: Query, database_url: str) -> None:
    """Nothing of the block is left, in the apps' memory either, and the next attempt takes it."""
    model = RidesModel(6)
    for _ in range(6):
        model.block(fake_node)
    source = Failing(open_source(fake_node.url))
    apps = rides_app(), rides_app("other", magic=b"ot")
    with StateEngine(*apps, database=database_url, source=source, confirmations=0) as engine:
        for call in range(2, 40, 3):
            source.calls, source.fails_at = 0, call
            try:
                engine.build()
            except NodeUnavailable:
                continue
            break
        source.fails_at = -1
        engine.build()
    assert (balances(query), moves(query)) == (model.balances, model.moves)


def test_a_network_of_its_own(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The first block may be declared by network, and reducers see which one it is."""
    seen = []
    app = rides_app(first_block_id={"mainnet": 840_000, "regtest": 103})
    app.final(lambda ops, state: seen.append((state.block_id, state.network)))
    fake_node.mine(n=5)
    run(app)
    assert seen[0] == (103, "regtest")
    assert query("SELECT first_block_id FROM virtualchain.apps") == [{"first_block_id": 103}]
    with pytest.raises(UsageError, match="does not run on regtest"):
        run(rides_app("other", first_block_id={"mainnet": 840_000}))


def plain_rides(*, opcodes: object, magic: bytes) -> types.SimpleNamespace:
    """Make the app as a plain object with the published callbacks."""

    def db_parse(
        block_id: int,
        opcode: bytes,
        payload: bytes | None,
        senders: Any,
        inputs: Any,
        outputs: list[dict[str, Any]],
        fee: int,
        db_state: State,
    ) -> dict[str, Any]:
        is_spend = payload is None
        assert opcode == (b"m" if opcodes and not is_spend else b"")
        place = (output["n"] for output in outputs if not output["script_pubkey"].startswith("6a"))
        return {"amount": 0 if payload is None else int(payload), "vout": next(place)}

    def db_commit(
        block_id: int, opcode: bytes, op: dict[str, Any], txid: str, vtxindex: int, db_state: State
    ) -> None:
        amount = op["amount"]
        assert op["virtualchain_is_spend"] == (amount == 0)
        for n in op["virtualchain_spends"]:
            sender = op["virtualchain_senders"][n]
            for row in db_state.tracked(sender["txid"], sender["vout"]):
                amount += row["amount"]
                db_state.execute("DELETE FROM rides WHERE txid = %(txid)s AND vout = %(vout)s", row)
        db_state.execute("INSERT INTO rides VALUES (%s, %s, 'a', %s, '')", (txid, op["vout"], amount))

    return types.SimpleNamespace(
        get_virtual_chain_name=lambda: "rides",
        get_virtual_chain_version=lambda: "1",
        get_first_block_id=lambda: {"regtest": 0},
        get_magic_bytes=lambda: magic,
        get_opcodes=lambda: opcodes,
        get_opfields=lambda: {b"": ["amount"]} if opcodes is None else {b"m": ["amount"], b"": ["vout"]},
        get_projections=lambda: TABLES,
        get_tracked=lambda: "rides",
        db_parse=db_parse,
        db_check=lambda block_id, opcode, op, txid, vtxindex, checked: True,
        db_commit=db_commit,
        find_payload=last_op_return,
    )


@pytest.mark.parametrize(("opcodes", "magic"), [("m", b"ri"), (None, b"rim"), (None, b"")])
def test_plain_apps(fake_node: FakeNode, run: Run, query: Query, opcodes: object, magic: bytes) -> None:
    """An object with the published callbacks tracks outputs, with opcodes and without, and with any magic."""
    payload = b"7" if magic == b"" else b"rim7"
    minted = fake_node.send(payload)
    fake_node.mine([minted])
    moved = spending([coin(minted, 1)])
    added = spending([coin(moved)], payload)
    fake_node.mine([moved, added])
    run(plain_rides(opcodes=opcodes, magic=magic))
    assert balances(query) == {(added.txid, 0): 14}
    rows = query("SELECT opcode, payload, canonical FROM virtualchain.ops ORDER BY block_id, vtxindex")
    code = b"m" if opcodes else b""
    assert [(row["opcode"], row["payload"]) for row in rows] == [(code, b"7"), (b"", None), (code, b"7")]
    assert rows[1]["canonical"] == [b":1:0"]  # its amount, or its output
