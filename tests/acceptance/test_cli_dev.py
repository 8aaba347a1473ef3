"""The command dev, as somebody uses it who writes an app: sends, errors, mended files, forks, restarts."""

import re
import stat
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.acceptance.conftest import Commands
from tests.support.developing import APP, DIVISION, PREMINED, SQL, Dev, save
from virtualchain.testing import key

SCHEMAS = "sql SELECT nspname FROM pg_namespace WHERE nspname ~ '^(guest|vis)' ORDER BY 1"


def test_an_app_is_written(cli: Commands, start: Callable[..., Dev]) -> None:
    """Inputs, failures, mended files, a fork, a kill and a restart: the state is always right."""
    module, tables = cli.folder / "guestbook.py", cli.folder / "guestbook.sql"
    dev = start()
    loaded = dev.next("loaded")
    assert (loaded["app"], loaded["block_id"]) == ("guestbook", PREMINED)

    sent = dev.do('send sign message="Hello world"')
    [judged], [change] = sent["inputs"], sent["changes"]
    assert (judged["verdict"], judged["block_id"], judged["opcode"]) == ("accepted", PREMINED + 1, "s")
    assert judged["fields"] == {"author": key("alice").address(), "message": "Hello world"}
    assert (change["action"], change["table"], change["new"]["message"]) == (
        *("insert", "entries"),
        "Hello world",
    )
    assert dev.do("hold sign message=first --sender bob")["held"] == 1
    assert dev.do("preview sign message=second --sender bob")["verdict"] == "accepted"
    assert dev.do("hold sign message=second --sender bob")["held"] == 2
    refused = dev.do("preview sign message=third --sender bob")
    assert (refused["verdict"], refused["reason"]) == ("refused", "an author may sign twice")
    assert len(dev.do("mine")["inputs"]) == 2
    assert dev.rows() == ["Hello world", "first", "second"]

    # A failure in a callback, and the file mended.
    failed = dev.do("send sign message=boom --sender carol")
    failure = failed["failure"]
    assert (failed["ok"], failure["callback"], failure["block_id"]) == (False, "commit", PREMINED + 3)
    assert (Path(failure["file"]).name, failure["source"]) == ("guestbook.py", f"share = {DIVISION}")
    assert failure["values"] == {"divisor": "0"}
    assert "is halted before block" in dev.do("send sign message=x")["error"]
    save(module, DIVISION, "100 // (divisor or 1)")
    assert dev.next("loaded")["block_id"] == PREMINED + 3
    assert dev.rows()[-1] == "boom"

    # A file that cannot be loaded: the app is as it was until it is mended.
    save(module, "class Sign:", "class Sign")
    failure = dev.next("failed")["failure"]
    assert (failure["line"], failure["source"]) == (8, "class Sign")
    assert "SyntaxError" in failure["message"]
    meanwhile = dev.do("send sign message=meanwhile --sender dave")
    assert meanwhile["inputs"][0]["verdict"] == "accepted", meanwhile

    # A mistake that the guard knows is found before the first block.
    module.write_text(APP.replace(DIVISION, "__import__('time').time_ns()"))
    assert "docs/mistakes.md" in dev.next("failed")["failure"]["message"]

    # Rules under which a block of the past fails: the same.
    module.write_text(APP.replace(DIVISION, "100 // (divisor - 7)"))
    failure = dev.next("failed")["failure"]
    assert (failure["block_id"], failure["values"]) == (PREMINED + 1, {"divisor": "7"})
    assert dev.rows()[-1] == "meanwhile"

    # Other tables, another rule, another magic and name: what the new code makes of the same chain.
    mended = APP.replace(DIVISION, "100 // (divisor or 1)")
    tables.write_text(SQL.replace("message text", "message text NOT NULL, shout text"))
    module.write_text(mended.replace('%s, %s)"', "%s, %s, 'x')\"").replace('["n"] < 2', '["n"] < 1'))
    dev.next("loaded")
    assert dev.rows() == ["Hello world", "first", "boom", "meanwhile"]
    assert {row["shout"] for row in dev.do("rows entries")["rows"]} == {"x"}
    assert [row["reason"] for row in dev.do("rejections")["rows"]] == ["an author may sign twice"]
    module.write_text(mended.replace('App("guestbook", magic=b"gb"', 'App("visitors", magic=b"vi"'))
    tables.write_text(SQL)
    assert dev.next("loaded")["app"] == "visitors"
    assert dev.rows() == []
    assert [row["nspname"] for row in dev.do(SCHEMAS)["rows"]] == ["visitors", "visitors__1"]
    module.write_text(mended)
    dev.next("loaded")

    # Tables that the database refuses: what it says of them, and no line of Python.
    tables.write_text(SQL.replace("CREATE TABLE", "CREATE TABEL"))
    failure = dev.next("failed")["failure"]
    assert 'syntax error at or near "TABEL" (line 2)' in failure["message"]
    assert failure["file"] is None
    tables.write_text(SQL)
    dev.next("loaded")

    # A fork, killed in the middle of its work, and what is left.
    undone = dev.do("fork 2")["undone"]
    assert (undone["depth"], undone["ops"], undone["rows"]) == (2, 2, 2)
    dev.kill()
    dev = start()
    assert dev.next("loaded")["block_id"] == PREMINED + 5
    assert dev.rows() == ["Hello world", "first", "second"]
    busy = cli.start("dev", "--app", "guestbook").end("")
    assert (busy.code, busy.out) == (5, "")
    assert re.search(r"another `virtualchain dev` is at work in \S+ \(process \d+\)", busy.err)
    database = cli.folder / ".virtualchain" / "dev" / "database"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    with psycopg.connect(database.read_text().strip()) as connection:
        assert connection.execute("SELECT count(*) FROM guestbook.entries").fetchone() == (3,)
    assert (cli.folder / ".virtualchain" / "dev" / ".gitignore").read_text() == "*\n"
    assert dev.end() == 0

    chain = cli.folder / ".virtualchain" / "dev" / "chain"
    chain.write_bytes(chain.read_bytes()[:-7])
    torn = cli.start("dev").end("")
    assert torn.code == 2
    assert f"{chain} is damaged" in torn.err
    assert "`virtualchain dev --fresh`" in torn.err
    dev = start("--fresh", "--no-pages")
    assert dev.next("loaded")["block_id"] == PREMINED
    assert dev.end() == 0


def test_lines_of_a_file(cli: Commands, start: Callable[..., Dev]) -> None:
    """Lines run one after the other on the app as it is then; the exit code says whether one failed."""
    (cli.folder / "virtualchain.toml").unlink()
    (cli.folder / "guestbook.py").write_text("import nothing_like_this\n")
    dev = start("--app", "./guestbook.py")
    failure = dev.next("failed")["failure"]
    assert (failure["line"], failure["source"]) == (1, "import nothing_like_this")
    assert dev.do("send sign message=x")["error"] == "no app is loaded: mend it"
    (cli.folder / "guestbook.py").write_text(APP)
    refused = dev.do("send --hex 676273ff")  # the line itself finds the change
    assert refused["inputs"][0]["verdict"] == "refused"
    assert dev.do("send --hex 6161")["inputs"][0]["verdict"] == "ignored"
    assert dev.do("preview --hex 6161")["error"].startswith("payload 6161 does not begin with the magic")
    assert "has no opcode 'snig'" in dev.do("send snig message=x")["error"]
    assert "no opcode is named; it has s (sign)" in dev.do("send message=x")["error"]
    assert "unknown: massage" in dev.do("send sign massage=x")["error"]
    assert dev.do("nonsense")["ok"] is False
    assert dev.do("sql SELECT 1/0")["ok"] is False
    assert dev.do("fork 1000")["ok"] is False
    assert (
        dev.do("send s message=for-bob --to bob=546sat --burn 1000sat")["inputs"][0]["verdict"] == "accepted"
    )
    assert dev.do("status")["app"]["opcodes"][0]["fields"] == [
        {"name": "message", "type": "str", "optional": False}
    ]
    assert dev.do("mine 2")["last"] == PREMINED + 5
    assert dev.end() == 1
