"""The commands status, ops, consensus, sql and watch."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.acceptance.conftest import Commands, Inside, check_one_line
from tests.support.moving import an_app, story
from tests.support.servers import value
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

STATUS_KEYS = {
    *("network", "tip", "pruned_below", "waits_for", "confirmations", "writer", "standby", "pins", "builds"),
    *("inputs_pruned_below", "last_reorg", "locale", "rates", "metrics", "report", "warnings", "apps"),
}
APP_KEYS = {
    "name",
    "version",
    "block_id",
    "block_hash",
    "consensus_hash",
    "state_hash",
    "lag",
    "role",
    "status",
    "unexpected",
    "error",
}
CLOSED = "http://user:password@127.0.0.1:1"


class Deployment(NamedTuple):
    """A node with 107 blocks, and a database with two apps at block 104."""

    url: str
    node: FakeNode
    txids: list[str]


def letters(name: str, magic: bytes) -> App:
    """Create an app that keeps texts and rejects `no`."""
    app = App(name, magic=magic, projections="CREATE TABLE letters (txid text PRIMARY KEY, text text)")

    def commit(op: dict[str, str], state: State, txid: str) -> None:
        state.execute("INSERT INTO letters VALUES (%s, %s)", [txid, op["text"]])

    app.add(
        b"s",
        parse=lambda payload: {"text": payload.decode()},
        check=lambda op, state: op["text"] != "no" or Rejected("we do not take \x1b[31mno"),
        commit=commit,
    )
    app.add(b"\x00", parse=lambda payload: {"size": len(payload)})
    return app


@pytest.fixture(scope="module")
def deployment(database_server: DatabaseServer) -> Iterator[Deployment]:
    """Provide a deployment with three ops and a rejection, which the tests leave unchanged."""
    url = database_server.clone()
    with FakeNode() as node:
        first = [node.send(b"aasone"), node.send(b"aasno"), node.send(b"bbstwo, \xe2\x82\xac")]
        node.mine(first)
        last = node.send(b"aa\x00123")
        node.mine([last], n=5)
        apps = (letters("alpha", b"aa"), letters("beta", b"bb"))
        with StateEngine(*apps, database=url, source=node.url, confirmations=3) as engine:
            assert engine.build() == 104
        yield Deployment(url, node, [tx.txid for tx in (*first, last)])
    database_server.drop(url)


@pytest.fixture
def read(inside: Inside, deployment: Deployment) -> Inside:
    """Provide the command line with the deployment's database and an unreachable node as its settings."""
    inside.set(VIRTUALCHAIN_DATABASE=deployment.url, VIRTUALCHAIN_BITCOIN=CLOSED)
    return inside


def test_status_compares_with_the_node(read: Inside, deployment: Deployment) -> None:
    """The JSON has the documented keys, and `lag` counts up to the node's tip."""
    node = deployment.node
    done = read("status", "--json", "--bitcoin", node.url)
    printed = json.loads(done.out)
    assert (printed.keys(), done.err) == (STATUS_KEYS, "")
    assert (printed["network"], printed["tip"]) == ("regtest", {"block_id": node.height, "hash": node.tip})
    assert printed["locale"] is None
    assert [app.keys() for app in printed["apps"]] == [APP_KEYS, APP_KEYS]
    alpha = printed["apps"][0]
    assert (alpha["name"], alpha["version"], alpha["block_id"], alpha["lag"]) == ("alpha", "1", 104, 3)
    assert (alpha["status"], alpha["error"]) == ("running", None)
    assert [len(alpha[key]) for key in ("block_hash", "consensus_hash", "state_hash")] == [64, 32, 64]
    text = read("--bitcoin", node.url, "status").out
    assert text.startswith(
        f"regtest\n  node       block {node.height} ({node.tip})\n  writer     none is running"
    )
    assert "\nalpha 1: running\n" in text
    assert "  lag             3\n" in text
    assert alpha["role"].endswith(":alpha")
    assert f"  role            {alpha['role']}\n" in text


def test_status_works_while_the_node_is_away(read: Inside) -> None:
    """Without a node, the rest is shown, with what the writer reported; standard error says why."""
    done = read("status", "--json", "--app", "beta")
    printed = json.loads(done.out)
    assert (printed["network"], printed["tip"], printed["apps"][0]["lag"]) == ("regtest", None, 3)
    assert [app["name"] for app in printed["apps"]] == ["beta"]
    assert done.err.startswith("virtualchain: the node was not reached: ")
    assert re.search(r"  node       block \d+ \([0-9a-f]{64}\), reported .* ago\n", read("status").out)


def test_status_warns_of_another_locale(
    inside: Inside, database_server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new deployment is refused there in one line; one that exists is read and written, with a warning."""
    name = "elsewhere"
    url = urlsplit(database_server.url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(database_server.url, autocommit=True) as connection:
        locale = "ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8'"
        connection.execute(f"CREATE DATABASE {name} {locale} TEMPLATE template0".encode())
    with FakeNode() as node:
        node.mine([node.send(b"stoone")])
        inside.set(VIRTUALCHAIN_DATABASE=url, VIRTUALCHAIN_BITCOIN=node.url)
        sync = ("sync", "--app", "virtualchain.examples.notary", "--confirmations", 0)
        for command in (("migrate",), sync):
            refused = inside(*command, code=3)
            check_one_line(refused, "has another locale than C (libc, LC_COLLATE C.UTF-8, LC_CTYPE C.UTF-8)")
            assert "CREATE DATABASE name ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'" in refused.err
        with monkeypatch.context() as before:
            before.setattr("virtualchain.store.migrate.require_c_locale", lambda *_: None)
            inside("migrate")
        inside(*sync)
        warning = json.loads(inside("status", "--json").out)["locale"]
        assert warning.startswith("the database has another locale than C (libc, LC_COLLATE C.UTF-8")
        assert f"  locale     {warning}\n" in inside("status").out
    database_server.drop(url)


def test_status_ignores_a_node_of_another_network(read: Inside) -> None:
    """The tip of another network is not shown."""
    with FakeNode("signet", premine=0) as other:
        done = read("status", "--json", "--bitcoin", other.url)
    assert json.loads(done.out)["tip"] is None
    assert "is on signet, but regtest was asked for" in done.err


def test_ops_are_listed_in_chain_order(read: Inside, deployment: Deployment) -> None:
    """The JSON has every column of the view, with bytes as hex."""
    one, _, two, last = deployment.txids
    rows = json.loads(read("ops", "--json").out)
    assert [(row["app"], row["block_id"], row["txid"]) for row in rows] == [
        ("alpha", 102, one),
        ("beta", 102, two),
        ("alpha", 103, last),
    ]
    assert rows[0].keys() == {
        *("app", "block_id", "block_hash", "time", "txindex", "vtxindex", "txid", "opcode", "payload"),
        *("fields", "canonical", "payload_index"),
    }
    assert (rows[0]["opcode"], rows[0]["payload"], rows[0]["fields"]) == ("73", "6f6e65", {"text": "one"})
    assert rows[0]["canonical"] == [b"s:3:one".hex()]
    assert (rows[1]["fields"], rows[2]["opcode"]) == ({"text": "two, €"}, "00")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--app", "beta"), [2]),
        (("--block", 103), [3]),
        (("--block", 0), []),
        (("--from", 103), [3]),
        (("--to", 102), [0, 2]),
        (("--from", 102, "--to", 103, "--opcode", "s"), [0, 2]),
        (("--opcode", "73"), [0, 2]),
        (("--opcode", "0x00"), [3]),
        (("--limit", 1), [0]),
        (("--newest-first",), [3, 2, 0]),
        (("--newest-first", "--limit", 1, "--app", "alpha", "--app", "beta"), [3]),
    ],
)
def test_ops_are_selected(
    read: Inside, deployment: Deployment, options: tuple[object, ...], expected: list[int]
) -> None:
    """The options select by app, block, opcode and number, and reverse the order."""
    done = read("ops", "--json", *options)
    assert [row["txid"] for row in json.loads(done.out)] == [deployment.txids[place] for place in expected]


def test_ops_of_one_transaction(read: Inside, deployment: Deployment) -> None:
    """The transaction id is accepted in upper case, too."""
    txid = deployment.txids[2]
    done = read("ops", "--json", "--txid", txid.upper())
    assert [row["txid"] for row in json.loads(done.out)] == [txid]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--block", 1, "--to", 2), "use either --block, or --from and --to"),
        (("--txid", "12"), "a transaction id has 64 hex digits"),
        (("--opcode", "xyz"), "write one character, or the byte as two hex digits"),
        (("--limit", 0), "invalid value for '--limit'"),
        (("--block", -1), "invalid value for '--block'"),
        (
            ("--app", "gamma"),
            "the apps of this database are alpha, beta, and app 'gamma': there is no module",
        ),
        (("--app", "virtualchain.examples.notary"), "there is no app notary here"),
    ],
)
def test_ops_rejects_invalid_options(read: Inside, options: tuple[object, ...], complaint: str) -> None:
    """Each mistake gets one line."""
    done = read("ops", *options, code=2)
    assert complaint in done.err
    assert (done.out, done.err.count("\n")) == ("", 1)


def test_rejections_show_the_step_and_the_reason(read: Inside, deployment: Deployment) -> None:
    """A reason from the chain is escaped, so that it cannot control the terminal."""
    [row] = json.loads(read("ops", "--rejected", "--json").out)
    assert row == {
        "app": "alpha",
        "block_id": 102,
        "txindex": row["txindex"],
        "txid": deployment.txids[1],
        "opcode": "73",
        "step": "check",
        "reason": "we do not take \x1b[31mno",
        "payload_index": 0,
    }
    head, line = read("ops", "--rejected").out.splitlines()
    assert head.split() == ["block_id", "txindex", "app", "opcode", "txid", "step", "reason"]
    assert line.endswith(f"alpha  s       {deployment.txids[1]}  check  we do not take \\x1b[31mno")


def test_consensus_at_a_block_and_at_the_last(read: Inside) -> None:
    """It prints the digests of each app, at a block or at the last one."""
    printed = json.loads(read("consensus", "--json").out)
    assert [(app["name"], app["block_id"]) for app in printed["apps"]] == [("alpha", 104), ("beta", 104)]
    keys = {"name", "block_id", "block_hash", "ops_hash", "consensus_hash", "state_hash"}
    assert printed["apps"][0].keys() == keys
    [first] = json.loads(read("consensus", 0, "--json", "--app", "alpha").out)["apps"]
    assert first["consensus_hash"] == "2a9148d8b13939723d2aca16c75c6d68"
    assert f"  consensus hash  {first['consensus_hash']}\n" in read("consensus", 0).out
    late = read("consensus", 105, code=2)
    assert "no app has digests of block 105: alpha is at block 104" in late.err


def test_sql_prints_columns(read: Inside) -> None:
    """Unqualified names refer to the apps' tables and the log's views; null is empty, bytes are hex."""
    done = read("sql", "SELECT text, NULL AS nothing, '\\x00ff'::bytea AS bytes FROM letters")
    assert done.out == "text  nothing  bytes\none            00ff\n"
    assert read("sql", "SELECT count(*) FROM beta.letters").out == "count\n1\n"
    assert read("sql", "SELECT max(block_id) AS tip FROM blocks").out == "tip\n104\n"
    assert read("sql", "SELECT 1 AS a WHERE false").out == "a\n"
    assert read("sql", "SET work_mem = '8MB'").out == ""


def test_sql_prints_json(read: Inside) -> None:
    """It prints an array of objects with numbers as numbers; the statement may come from standard input."""
    statement = (
        "SELECT 1 AS a, 2.50 AS b, sum(fee) AS c, 'NaN'::float8 AS d, true AS e, ARRAY['\\xff'::bytea] AS f,"
        " '{\"k\": [1]}'::jsonb AS g, 'infinity'::timestamptz AS h, 7 % 4 AS i FROM inputs"
    )
    [row] = json.loads(read("sql", "--json", "-", stdin=statement).out)
    expected = '{"a": 1, "b": 2.5, "c": 4000, "d": "nan", "e": true, "f": ["ff"], "g": {"k": [1]}, "i": 3}'
    assert row.pop("h") == "infinity"
    assert row == json.loads(expected)
    exact = """SELECT 1.00 AS a, '{"k": 0.12345678901234567890, "t": "1.0"}'::jsonb AS b"""
    expected = '{"a": 1.00, "b": {"k": 0.12345678901234567890, "t": "1.0"}}'
    assert read("sql", "--json", exact).out == f"[\n{expected}\n]\n"
    assert json.loads(read("sql", "--json", "SELECT WHERE false").out) == []
    assert json.loads(read("sql", "--json", "SET work_mem = '8MB'").out) == []
    assert "two columns are named a" in read("sql", "--json", "SELECT 1 AS a, 2 AS a", code=2).err


def test_sql_prints_csv(read: Inside) -> None:
    """It prints a line of column names, then the rows, quoted if necessary."""
    out = read("sql", "--csv", "SELECT app, fields FROM ops ORDER BY block_id, app").out
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["app", "fields"]
    assert (rows[1][0], json.loads(rows[2][1])) == ("alpha", {"text": "two, €"})


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("SELECT * FROM leters", 'relation "leters" does not exist (at character 15)'),
        ("CREATE TABLE mine (a integer)", "cannot execute CREATE TABLE in a read-only transaction"),
        ("DELETE FROM alpha.letters", "cannot delete from view"),
        ("SELECT nextval('s')", 'relation "s" does not exist'),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands into a prepared statement"),
        ("COPY (SELECT 1) TO STDOUT", "COPY cannot be used"),
        ("SET TRANSACTION READ WRITE", "must be set before any query"),
        (" ", "there is no statement"),
    ],
)
def test_sql_reports_a_mistake_in_one_line(read: Inside, statement: str, complaint: str) -> None:
    """An invalid statement, or one that writes, is reported as wrong usage."""
    done = read("sql", statement, code=2)
    assert complaint in done.err
    assert (done.out, done.err.count("\n")) == ("", 1)


def test_a_closed_pipe_is_quiet(cli: Commands, deployment: Deployment) -> None:
    """`virtualchain sql … | head -1` ends without an error."""
    cli.environment["VIRTUALCHAIN_DATABASE"] = deployment.url
    command = [sys.executable, "-m", "virtualchain", "sql", "SELECT * FROM generate_series(1, 100000)"]
    with subprocess.Popen(
        command, cwd=cli.folder, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"generate_series\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_reading_works_beside_a_writer(read: Inside, deployment: Deployment) -> None:
    """They read while a writer holds its lock."""
    with StateEngine(letters("alpha", b"aa"), database=deployment.url, source=deployment.node.url):
        assert json.loads(read("ops", "--json", "--limit", 1).out)


def test_sql_shows_a_block(inside: Inside, database_url: str, fake_node: FakeNode) -> None:
    """--as-of accepts a height or a hash; a block that cannot be shown is reported in one line."""
    story(fake_node, 1, 10)
    with StateEngine(an_app("one"), database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    statement = "SELECT max(block_id) AS n, max(hash) AS hash FROM blocks"
    command = ("--database", database_url, "--json", "sql", statement)
    assert json.loads(inside(*command, "--as-of", 105).out)[0]["n"] == 105
    assert json.loads(inside(*command).out)[0]["n"] == fake_node.height
    block_hash = value(database_url, "SELECT hash FROM virtualchain.blocks WHERE block_id = 104")
    assert json.loads(inside(*command, "--as-of", block_hash).out)[0]["n"] == 104
    for block, complaint in (("100000", "block 100000 is not here"), ("soon", "block: 'soon'")):
        check_one_line(inside(*command, "--as-of", block, code=2), complaint)


def test_sql_cancels_a_query_that_takes_too_long(inside: Inside, database_url: str) -> None:
    """The message has the limit and the option that raises it; 0 means no limit."""
    command = ("--database", database_url, "sql", "SELECT pg_sleep(0.3)")
    done = inside(*command, "--timeout", "0.1", code=3)
    assert done.out == ""
    assert "took more than 0.1 seconds" in done.err
    assert "--timeout SECONDS" in done.err
    inside(*command, "--timeout", "0")
    inside(*command)


@contextmanager
def watching(cli: Commands, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command watch; interrupt it at the end, and check that it ends without an error."""
    command = [sys.executable, "-m", "virtualchain", "watch", *arguments]
    with subprocess.Popen(
        command,
        cwd=cli.folder,
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0


def lines_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read lines up to the first one that contains a text."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while text not in lines[-1] and lines[-1]:
        lines.append(process.stdout.readline())
    return lines


def test_watch_prints_blocks_and_rollbacks(cli: Commands, fake_node: FakeNode, database_url: str) -> None:
    """Each block is a line with its ops and changes below it, or one JSON object on a line."""
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        fake_node.mine([fake_node.send(b"mvoadd a")])
        engine.build()
        first = str(fake_node.height)
        options = ("--database", database_url, "--from", first)
        with (
            watching(cli, *options, "--app", "plain") as for_people,
            watching(cli, *options, "--json") as for_programs,
        ):
            lines = lines_until(for_people, "owners")
            assert lines[0].startswith(f"block {first} {fake_node.tip}: 1 op, 2 changes")
            assert lines[1].startswith("  plain op o ")
            assert (
                lines[2].startswith('  plain insert marks {"place": 1} {"raw": "\\\\\\\\x00ff"')
                or "note" in lines[2]
            )
            assert lines[3] == '  plain insert owners {"name": "a"} {"rank": 1}\n'
            fake_node.mine([fake_node.send(b"mvonote a")])
            engine.build()
            assert 'note: "block 102" -> "block 102+"' in lines_until(for_people, "update")[-1]
            before = lines_until(for_programs, fake_node.tip)  # it has come as far before the fork
            fake_node.reorg(1)
            story(fake_node, 1, 1)
            engine.build()
            assert lines_until(for_people, "rolled back")[-1].startswith(f"rolled back to block {first} ")
            events = [json.loads(line) for line in [*before, *lines_until(for_programs, fake_node.tip)]]
    assert [(event["event"], event["block_id"]) for event in events] == [
        ("block", 102),
        ("block", 103),
        ("rollback", 102),
        ("block", 103),
        ("block", 104),
        ("block", 105),
    ]
    assert events[0]["changes"][1]["new"] == {"name": "a", "rank": 1}
    assert events[0]["ops"][0]["fields"] == {"do": "add", "name": "a"}
    with watching(cli, *options[:2], "--json", "--after", events[1]["position"]) as resumed:
        again = [json.loads(line) for line in lines_until(resumed, fake_node.tip)]
    assert again == events[2:]
    for wrong in (("--after", "x"), ("--after", "1", "--from", "1"), ("--after", f"103-{'ab' * 32}-1")):
        assert "position" in cli("watch", *options[:2], *wrong, code=2).err


def test_watch_refuses_a_block_whose_changes_are_pruned(
    cli: Commands, fake_node: FakeNode, database_url: str
) -> None:
    """The message names the first block whose changes are kept."""
    story(fake_node, 1, 30)
    with StateEngine(
        an_app(), database=database_url, source=fake_node.url, confirmations=0, history=10
    ) as engine:
        engine.build()
    done = cli("watch", "--database", database_url, "--from", "50", code=2)
    assert "is kept from block 122 on: begin there, not with 50" in done.err
