"""The log as pages, rows with their history, what differs between blocks, and search."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.integration.engine.test_opaque_state import Ledger
from tests.integration.reading.test_readers import grant
from tests.support.moving import an_app, story
from tests.support.row_versions import rows_at
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.errors import UsageError
from virtualchain.examples.notary import app as notary
from virtualchain.reading import history, journal
from virtualchain.reading.catalog import projection, projections
from virtualchain.reading.pages import Page
from virtualchain.reading.search import search
from virtualchain.reading.views import show_block, snapshot
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Connection = psycopg.Connection[Any]
Pages = Callable[[str | None], Page]


def failing() -> App:
    """Make an app that a certain input halts."""
    app = App("failing", magic=b"fa", projections="CREATE TABLE t (id integer PRIMARY KEY)")

    def commit(op: dict[str, Any], state: State) -> None:
        raise RuntimeError("no way")

    app.add(b"o", parse=lambda payload: {"do": payload.decode()}, commit=commit)
    return app


def many_opcodes() -> App:
    """Make an app with a rare opcode, which rejects every tenth input."""
    app = App("kinds", magic=b"ki", projections="CREATE TABLE t (id text PRIMARY KEY, n integer NOT NULL)")

    def parse(payload: bytes) -> dict[str, int]:
        return {"n": int(payload)}

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        return op["n"] % 10 != 3 or Rejected("a three")

    def commit(op: dict[str, Any], state: State, txid: str) -> None:
        state.table("t").put({"id": txid, "n": op["n"]})

    for opcode in (b"a", b"z"):
        app.add(opcode, parse=parse, check=check, commit=commit)
    return app


@pytest.fixture(scope="module")
def deployment(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a deployment of apps in every state, after a fork."""
    url = database_server.clone()
    with FakeNode() as node:
        late = an_app("late", first_block_id=100_000)
        apps = (an_app("one"), an_app("two"), many_opcodes(), failing(), notary, Ledger(), late)
        options: dict[str, Any] = {
            "database": url, "source": node.url, "confirmations": 0, "history": None,
            "state_folder": tmp_path_factory.mktemp("states"),
        }  # fmt: skip
        story(node, 3, 20)
        for n in range(12):
            node.mine(
                [node.send(b"ki" + (b"z" if n == 2 else b"a") + str(100 * n + i).encode()) for i in range(20)]
            )
        with StateEngine(*apps, **options) as engine:
            engine.build()
        node.reorg(3)
        story(node, 4, 5)
        node.mine([node.send(b"faox")])
        with StateEngine(*apps, **options) as engine:
            engine.build()
        yield url
    database_server.drop(url)


@pytest.fixture(scope="module")
def shared(deployment: str) -> Iterator[Connection]:
    """Return a transaction that reads it."""
    with snapshot(deployment) as connection:
        yield connection


@pytest.fixture
def connection(shared: Connection) -> Iterator[Connection]:
    """Return the transaction, which is as before after errors and settings."""
    with shared.transaction(force_rollback=True):
        yield shared


def everything(pages: Pages) -> list[dict[str, Any]]:
    """Read a list page by page."""
    rows: list[dict[str, Any]] = []
    seen: list[str | None] = [None]
    while True:
        page = pages(seen[-1])
        rows += page.rows
        if page.next is None:
            return rows
        assert page.next not in seen
        seen.append(page.next)


def one_page(read: Any, connection: Connection, limit: int, selection: Any, before: str | None) -> Page:
    """Return the page of a list that begins at a cursor."""
    page: Page = read(connection, **selection, before=before, limit=limit)
    return page


def objects(connection: Connection, statement: str) -> list[dict[str, Any]]:
    """Return rows as JSON objects."""
    return [row for (row,) in connection.execute(f"SELECT row_to_json(q) FROM ({statement}) AS q".encode())]


OPS = """SELECT app, block_id, block_hash, time, txindex, vtxindex, txid, opcode, payload, fields,
    payload_index FROM virtualchain.ops WHERE {}
    ORDER BY block_id DESC, app COLLATE "C" DESC, vtxindex DESC"""
REJECTIONS = """SELECT app, block_id, txindex, txid, opcode, step, reason, payload_index
    FROM virtualchain.rejections WHERE {}
    ORDER BY block_id DESC, app COLLATE "C" DESC, txindex DESC, payload_index DESC"""


@pytest.mark.parametrize(
    ("condition", "selection"),
    [
        ("true", {}),
        ("app = 'one'", {"app": "one"}),
        ("app = 'kinds' AND opcode = 'z'", {"app": "kinds", "opcode": b"z"}),
        ("block_id = 105", {"block_id": 105}),
        ("app = 'two' AND block_id = 105", {"app": "two", "block_id": 105}),
        ("false", {"app": "nix"}),
        ("false", {"app": "ledger", "opcode": b"+"}),
    ],
)
@pytest.mark.parametrize("limit", [2, 1000])
def test_ops_and_rejections_page_by_page(
    connection: Connection, condition: str, selection: dict[str, Any], limit: int
) -> None:
    """Pages have what the views have, newest first, for one app or all of them."""
    for read, statement in ((journal.ops, OPS), (journal.rejections, REJECTIONS)):
        expected = objects(connection, statement.format(condition))
        rows = everything(partial(one_page, read, connection, limit, selection))
        assert rows == expected
        assert bool(rows) or condition == "false" or read is journal.rejections


def test_rejections_of_a_step(connection: Connection) -> None:
    """A step selects rejections of an app; it is a mistake without one, and if there is no such step."""
    rows = everything(
        lambda before: journal.rejections(connection, "kinds", step="check", before=before, limit=3)
    )
    assert rows == objects(connection, REJECTIONS.format("app = 'kinds'"))
    assert len(rows) > 10
    assert journal.rejections(connection, "kinds", step="parse").rows == []
    with pytest.raises(UsageError, match="step is not one of parse, check, commit: 'x'"):
        journal.rejections(connection, "kinds", step="x")
    with pytest.raises(UsageError, match="of one app: name it"):
        journal.ops(connection, opcode=b"a")


def test_what_is_rare_is_searched_for_in_bounded_steps(deployment: str) -> None:
    """If a page's share of the log was searched in vain, the next page continues, and nothing is missed."""
    with psycopg.connect(deployment) as connection:
        for name in ("newest_ops", "newest_rejections"):
            [(definition,)] = connection.execute(
                "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", [name]
            ).fetchall()
            assert "50000" in definition
            connection.execute(definition.replace("50000", "9").encode())
        pages: list[Page] = []

        def ops(before: str | None) -> Page:
            pages.append(journal.ops(connection, "kinds", opcode=b"z", before=before, limit=5))
            return pages[-1]

        assert everything(ops) == objects(connection, OPS.format("app = 'kinds' AND opcode = 'z'"))
        assert [len(page.rows) for page in pages].count(0) > 5
        late = everything(
            lambda before: journal.rejections(connection, "one", step="parse", before=before, limit=5)
        )
        assert late == objects(connection, REJECTIONS.format("app = 'one' AND step = 'parse'"))
        connection.rollback()


def test_blocks(connection: Connection) -> None:
    """Blocks come newest first with the numbers of what is in them, and one is found by height or hash."""
    rows = everything(lambda before: journal.blocks(connection, None if before is None else int(before), 10))
    assert [row["block_id"] for row in rows] == list(range(rows[0]["block_id"], -1, -1))
    counts = """SELECT b.block_id,
        (SELECT count(*) FROM virtualchain.ops AS o WHERE o.block_id = b.block_id) AS ops,
        (SELECT count(*) FROM virtualchain.rejections AS r WHERE r.block_id = b.block_id) AS rejections
        FROM virtualchain.blocks AS b ORDER BY 1 DESC"""
    assert [{name: row[name] for name in ("block_id", "ops", "rejections")} for row in rows] == objects(
        connection, counts
    )
    for place in (str(rows[5]["block_id"]), rows[5]["hash"], rows[5]["hash"].upper()):
        item = journal.block(connection, place)
        assert item is not None
        assert item.value["hash"] == rows[5]["hash"]
        assert item.value["next_hash"] == rows[4]["hash"]
        assert item.value["prev_hash"] == rows[6]["hash"]
        assert sum(app["ops"] for app in item.value["apps"]) == rows[5]["ops"]
        assert {app["app"] for app in item.value["apps"]} >= {"one", "two", "kinds", "notary", "ledger"}
    for place in ("99999", "4294967296", "ab" * 32):
        assert journal.block(connection, place) is None
    for place in ("", "x", "-1", "ab" * 31, "1e3", "\0"):
        with pytest.raises(UsageError, match="not a block's height or hash"):
            journal.block(connection, place)


def test_an_op_and_its_transaction(connection: Connection) -> None:
    """An op is shown with its transaction, and a transaction with all that came of it."""
    [row] = objects(
        connection, "SELECT * FROM virtualchain.ops WHERE app = 'kinds' ORDER BY block_id, vtxindex LIMIT 1"
    )
    item = journal.op(connection, "kinds", row["block_id"], row["vtxindex"])
    assert item is not None
    shown = item.value
    transaction = shown.pop("transaction")
    assert shown == row
    [expected] = objects(connection, f"SELECT * FROM virtualchain.inputs WHERE txid = '{row['txid']}'")
    assert transaction == {name: expected[name] for name in transaction}
    assert set(transaction) == {"fee", "senders", "outputs", "raw", "evidence", "tracked_by", "magics"}
    known = journal.transaction(connection, row["txid"].upper())
    assert known is not None
    assert [place["block_id"] for place in known.value["places"]] == [row["block_id"]]
    assert [(op["app"], op["vtxindex"]) for op in known.value["ops"]] == [("kinds", row["vtxindex"])]
    [rejected] = objects(
        connection, "SELECT * FROM virtualchain.rejections WHERE app = 'kinds' ORDER BY block_id LIMIT 1"
    )
    other = journal.transaction(connection, rejected["txid"])
    assert other is not None
    assert other.value["rejections"] == [rejected]
    assert other.value["ops"] == []
    assert journal.transaction(connection, "ab" * 32) is None
    assert journal.op(connection, "kinds", row["block_id"], 99) is None
    assert journal.op(connection, "kinds", 2**40, 0) is None
    with pytest.raises(UsageError, match="not a transaction id"):
        journal.transaction(connection, "ab")


def test_hashes_are_looked_up_by_index(deployment: str) -> None:
    """Transactions and blocks are found by their ids without reading the table, once it is large."""
    with psycopg.connect(deployment) as connection:
        connection.execute("SET enable_seqscan = off")
        for statement, index in (
            ("SELECT * FROM virtualchain.inputs WHERE txid = 'ab'", "inputs_txid"),
            ("SELECT * FROM virtualchain.ops WHERE txid = 'ab'", "inputs_txid"),
            ("SELECT * FROM virtualchain.blocks WHERE hash = 'ab'", "blocks_hash_text"),
            (
                "SELECT * FROM virtualchain.blocks_of('00112233445566778899aabbccddeeff')",
                "snapshots_consensus_hash",
            ),
        ):
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}".encode()))
            assert index in plan or "Function Scan" in plan


def test_the_deployment_at_a_glance(connection: Connection) -> None:
    """Apps of every state are described, and what happened last."""
    glance = journal.deployment(connection)
    apps = {app["name"]: app for app in glance["apps"]}
    assert apps["failing"]["status"] == "halted"
    assert "no way" in str(apps["failing"]["error"])
    assert apps["late"]["block_id"] is None
    assert glance["last_block"]["block_id"] == apps["one"]["block_id"]
    assert (glance["first_block"], glance["network"], glance["is_standby"]) == (0, "regtest", False)
    assert glance["last_reorg"]["blocks_undone"] == 3
    assert glance["reorgs"] == 1
    assert [row["reorg_id"] for row in journal.reorgs(connection).rows] == [glance["last_reorg"]["reorg_id"]]
    assert journal.reorgs(connection, glance["last_reorg"]["reorg_id"]).rows == []
    assert glance["writer"]["apps"]
    assert journal.pending(connection) == []
    assert journal.progress(connection)
    assert [row.value["opcode"] for row in journal.opcodes(connection, "kinds")] == ["\\x61", "\\x7a"]
    digests = everything(
        lambda before: journal.snapshots(connection, "one", None if before is None else int(before), 9)
    )
    assert digests == objects(
        connection, "SELECT * FROM virtualchain.snapshots WHERE app = 'one' ORDER BY block_id DESC"
    )


def test_an_empty_database_is_described(database_server: DatabaseServer) -> None:
    """Before the first start there is nothing, and that is no error."""
    url = database_server.clone()
    with snapshot(url) as connection:
        glance = journal.deployment(connection)
        assert (glance["network"], glance["last_block"], glance["apps"], glance["writer"]) == (
            None,
            None,
            [],
            None,
        )
        for page in (journal.blocks(connection), journal.ops(connection), journal.rejections(connection)):
            assert page == Page((), None)
        assert not journal.activity(connection) + journal.progress(connection)
        assert projections(connection) == []
        assert search(connection, "1") == []
        assert journal.block(connection, "0") is None
    database_server.drop(url)


@pytest.mark.parametrize("points", [1, 7, 200])
def test_activity_is_counted_in_parts(connection: Connection, points: int) -> None:
    """The parts cover the range without overlap, and their numbers add up."""
    rows = [item.value for item in journal.activity(connection, points=points)]
    assert len({row["first_block_id"] for row in rows}) <= points
    for name in ("ops", "rejections"):
        [total] = objects(connection, f"SELECT count(*) AS n FROM virtualchain.{name}")
        assert sum(row[name] for row in rows) == total["n"]
    one = [row for row in rows if row["app"] == "one"]
    places = [block for row in one for block in range(row["first_block_id"], row["last_block_id"] + 1)]
    assert places == list(range(journal.deployment(connection)["last_block"]["block_id"] + 1))
    part = [item.value for item in journal.activity(connection, "kinds", 110, 124, points)]
    [total] = objects(
        connection,
        "SELECT count(*) AS n FROM virtualchain.ops WHERE app = 'kinds' AND block_id BETWEEN 110 AND 124",
    )
    assert sum(row["ops"] for row in part) == total["n"]
    assert journal.activity(connection, "kinds", 900, 1000) == []
    assert not any(row["is_estimate"] for row in rows)


def rows_by_key(url: str, table: str, key: str, block: int) -> dict[Any, Any]:
    """Return rows of app one as of a block."""
    with psycopg.connect(url, autocommit=True) as connection:
        return {row[key]: row for row in rows_at(connection, f"one.{table}", block)}


@pytest.mark.parametrize(("first", "last"), [(104, 116), (116, 104), (110, 111), (102, 102), (-1, 120)])
def test_net_changes_are_the_difference_of_two_states(
    connection: Connection, deployment: str, first: int, last: int
) -> None:
    """What differs between two blocks, in either direction, is the difference of the tables."""
    rows = everything(lambda after: history.net_changes(connection, "one", None, first, last, 3, after))
    for table, key in (("owners", "name"), ("marks", "place")):
        old, new = (rows_by_key(deployment, table, key, max(block, 0)) for block in (first, last))
        expected = {k: (old.get(k), new.get(k)) for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
        shown = [row for row in rows if row["table"] == table]
        assert {row["key"][key]: (row["old"], row["new"]) for row in shown} == expected
        assert len(shown) == len(expected)
        for row in shown:
            assert (
                row["action"]
                == {(True, False): "insert", (False, True): "delete", (False, False): "update"}[
                    row["old"] is None, row["new"] is None
                ]
            )
        only = history.net_changes(connection, "one", table, first, last, 1000)
        assert only.rows == shown


def test_what_a_block_changed(connection: Connection) -> None:
    """A block's changes are those of the view, for one app or all."""
    for block in (105, 110, 121):
        expected = objects(
            connection,
            f"""SELECT app, "table", action, key, old, new FROM virtualchain.changes WHERE block_id = {block}
            ORDER BY app COLLATE "C", "table" COLLATE "C", key""",
        )
        assert everything(partial(history.block_changes, connection, None, block, 4)) == expected
        one = [row for row in expected if row["app"] == "one"]
        assert history.block_changes(connection, "one", block).rows == one
    for first, last in ((-2, 5), (5, 2**31)):
        with pytest.raises(UsageError, match="not a block's height"):
            history.net_changes(connection, None, None, first, last)
    with pytest.raises(UsageError, match="cursor"):
        history.block_changes(connection, None, 105, 4, "W10")


def test_the_history_of_a_row_names_what_may_have_caused_it(connection: Connection, deployment: str) -> None:
    """A row's versions are those that the views show, with gaps, each with the op that mentions its key."""
    owners = projection(connection, "one", "owners")
    tip = journal.deployment(connection)["last_block"]["block_id"]
    gaps = 0
    for name in "abcde":
        shown = history.row_history(connection, owners, {"name": name})
        assert shown.next is None
        assert shown.kept_from is None
        states = [rows_by_key(deployment, "owners", "name", block).get(name) for block in range(101, tip + 1)]
        for version in shown.versions:
            until = version.until_block or tip + 1
            assert states[version.from_block - 101 : until - 101] == [version.row] * (
                until - version.from_block
            )
            gaps += version.row is None
        blocks = [(version.from_block, version.until_block) for version in shown.versions]
        assert [until for _, until in blocks[1:]] == [start for start, _ in blocks[:-1]]
        pages: list[history.RowVersion] = []
        before: int | None = None
        while True:
            page = history.row_history(connection, owners, {"name": name}, before, limit=1)
            pages += page.versions
            if page.next is None:
                break
            before = page.next
        assert tuple(pages) == shown.versions
    assert gaps > 0
    marks = projection(connection, "one", "marks")
    assert history.row_history(connection, marks, {"place": "1000"}).versions == ()
    table = projection(connection, "kinds", "t")
    [op] = objects(
        connection,
        "SELECT txid, block_id, vtxindex FROM virtualchain.ops WHERE app = 'kinds' AND opcode = 'z' LIMIT 1",
    )
    [version] = history.row_history(connection, table, {"id": op["txid"]}).versions
    assert [(cause["txid"], cause["vtxindex"]) for cause in version.ops] == [(op["txid"], op["vtxindex"])]
    assert not version.has_more_ops
    changes = history.op_changes(connection, "kinds", op["block_id"], op["vtxindex"])
    assert changes[0].value["key"] == {"id": op["txid"]}
    assert [item.value["mentions"] > 0 for item in changes] == [True] + [False] * (len(changes) - 1)


def test_mistakes_in_keys(connection: Connection) -> None:
    """A key with another column, without one, or with a value that does not fit is named."""
    marks = projection(connection, "one", "marks")
    for key, message in (
        ({}, "the key of table marks is place, and place is missing"),
        ({"place": "1", "name": "a"}, "name is not a column of it"),
        ({"place": "x"}, 'the key of table marks: invalid input syntax for type integer: "x"'),
        ({"place": "1\0"}, "NUL byte"),
        ({"place": "99999999999"}, "out of range"),
    ):
        with pytest.raises(UsageError, match=message), connection.transaction():
            history.row_history(connection, marks, key)


def test_the_log_as_of_a_block(connection: Connection) -> None:
    """Lists end at the block that is shown."""
    show_block(connection, "110")
    assert journal.blocks(connection).rows[0]["block_id"] == 110
    for page in (
        journal.ops(connection),
        journal.snapshots(connection, "one"),
    ):
        assert page.rows[0]["block_id"] <= 110
    assert max(item.value["last_block_id"] for item in journal.activity(connection)) == 110
    owners = projection(connection, "one", "owners")
    assert all(
        version.from_block <= 110
        for version in history.row_history(connection, owners, {"name": "a"}).versions
    )
    show_block(connection, "7777")
    for ask in (journal.blocks, journal.ops, journal.deployment, projections, lambda c: search(c, "1")):
        with pytest.raises(UsageError, match="block 7777 is not here"), connection.transaction():
            ask(connection)


def test_search(connection: Connection) -> None:
    """It finds what has a name, a number, a hash or an address, and takes any text."""
    glance = journal.deployment(connection)
    one = next(app for app in glance["apps"] if app["name"] == "one")
    [op] = objects(connection, "SELECT * FROM virtualchain.ops WHERE app = 'kinds' ORDER BY block_id LIMIT 1")
    [sender] = objects(
        connection,
        f"SELECT senders -> 0 -> 'addresses' ->> 0 AS a FROM virtualchain.inputs WHERE txid = '{op['txid']}'",
    )

    def kinds(text: str) -> set[tuple[Any, ...]]:
        return {(hit.kind, *hit.path, *hit.parameters.items()) for hit in search(connection, text)}

    height = str(one["block_id"])
    assert ("block", "blocks", height) in kinds(f" {height}\n")
    assert ("block", "blocks", height) in kinds(one["block_hash"].upper())
    assert ("transaction", "tx", op["txid"]) in kinds(op["txid"])
    assert ("row", "apps", "kinds", "tables", "t", "row", ("id", op["txid"])) in kinds(op["txid"])
    assert ("consensus", "blocks", height) in kinds(one["consensus_hash"])
    assert ("app", "apps", "one") in kinds("ONE")
    assert ("table", "apps", "one", "tables", "marks") in kinds("one.marks")
    assert ("address", "tx", op["txid"]) in {hit for hit in kinds(sender["a"]) if len(hit) == 3} or len(
        kinds(sender["a"])
    ) == 20
    [mark] = objects(connection, "SELECT place, name FROM one.marks LIMIT 1")
    assert ("row", "apps", "one", "tables", "marks", "row", ("place", str(mark["place"]))) in kinds(
        str(mark["place"])
    )
    for text in (
        *("", " ", "'", '"', "%", "\\", "a\0b", "\ud800", "x" * 10_000, "9" * 200, "\\x00", "{}", "NaN", "٣"),
        *(sender["a"][:-1] + "q", "1" * 30, "bc1" + "q" * 40, "99999999999999999999", "[" * 300, "1e999999"),
    ):
        assert search(connection, text) == []


def test_a_reader_sees_what_it_was_granted(deployment: str, database_server: DatabaseServer) -> None:
    """All of this works for a mere reader of one app, who has neither the tables nor the rows of others."""
    from urllib.parse import quote, urlsplit

    role = f"{urlsplit(deployment).path[1:]}:mere"
    granted = grant(deployment, role, "one", login=True)
    parts = urlsplit(deployment)
    place = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=f"{quote(role, safe='')}:{granted.password}@{place}").geturl()
    with snapshot(url) as connection:
        assert {item.app for item in projections(connection)} == {"one"}
        with pytest.raises(UsageError, match="has none that user"):
            projection(connection, "two", "owners")
        owners = projection(connection, "one", "owners")
        assert history.row_history(connection, owners, {"name": "a"}).versions
        assert {row["app"] for row in history.net_changes(connection, None, None, 101, 115).rows} == {"one"}
        assert journal.ops(connection, "two").rows
        assert journal.deployment(connection)["last_block"]
        assert journal.activity(connection)
        [op] = objects(
            connection, "SELECT * FROM virtualchain.ops WHERE app = 'kinds' ORDER BY block_id LIMIT 1"
        )
        assert {hit.kind for hit in search(connection, op["txid"])} == {"transaction"}
        assert journal.transaction(connection, op["txid"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT FROM vc.ops")
