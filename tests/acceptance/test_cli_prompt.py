"""What needs a terminal or a shell: the prompt of psql, and completion."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import Commands, Inside
from virtualchain.testing import FakeNode

APP = ("--app", "virtualchain.examples.notary")
STUB = """#!{python}
import json, os, sys
kept = {{name: value for name, value in os.environ.items() if name.startswith("PG")}}
print(json.dumps([sys.argv[1:], kept]))
"""


def on_a_terminal(cli: Commands, *arguments: object, typed: str = "") -> tuple[int, str]:
    """Run a command on a new terminal; return its exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "virtualchain", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=cli.folder, env=cli.environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # on Linux, this means that the other end was closed
        pass
    finally:
        os.close(ours)
    return process.wait(timeout=30), shown.decode().replace("\r\n", "\n")


@pytest.fixture
def deployed(cli: Commands, fake_node: FakeNode, database_url: str) -> str:
    """Return the URL of a database on which the notary runs."""
    cli("sync", *APP, "--bitcoin", fake_node.url, "--database", database_url)
    return database_url


def test_sql_without_a_query_becomes_psql(cli: Commands, deployed: str) -> None:
    """The connection, including the password, is in the environment of psql, which gets no arguments."""
    stub = cli.folder / "psql"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    cli.environment["PATH"] = str(cli.folder)
    code, shown = on_a_terminal(cli, "sql", "--database", f"{deployed}?options=-cwork_mem%3D8MB")
    arguments, variables = json.loads(shown)
    where = urlsplit(deployed)
    assert (code, arguments) == (0, [])
    assert {key: variables[key] for key in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE")} == {
        "PGHOST": where.hostname,
        "PGPORT": str(where.port),
        "PGUSER": where.username,
        "PGPASSWORD": where.password,
        "PGDATABASE": where.path[1:],
    }
    assert variables["PGOPTIONS"] == (
        "-cwork_mem=8MB -c default_transaction_read_only=on -c search_path=notary,\\ virtualchain "
        "-c virtualchain.as_of="
    )


NOTARY = "--app virtualchain.examples.notary"


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_the_prompt_reads_and_does_not_write(cli: Commands, deployed: str) -> None:
    """Unqualified names work in psql as in `sql`, and it cannot write."""
    cli.environment |= {"PAGER": "cat", "PSQL_HISTORY": "/dev/null", "TERM": "dumb"}
    typed = "SELECT count(*) FROM documents, ops;\nCREATE TABLE mine ();\n\\q\n"
    code, shown = on_a_terminal(cli, "sql", "--database", deployed, typed=typed)
    assert code == 0
    assert "(1 row)" in shown
    assert "cannot execute CREATE TABLE in a read-only transaction" in shown


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_a_prompt_of_a_reader_cannot_be_talked_into_writing(cli: Commands, deployed: str) -> None:
    """If there is a reader, psql runs with its rights, also after RESET ROLE and in a writing transaction."""
    role = f"{urlsplit(deployed).path[1:]}:reader"
    cli("db", "grant-reader", role, "--database", deployed)
    cli.environment |= {"PAGER": "cat", "PSQL_HISTORY": "/dev/null", "TERM": "dumb"}
    typed = (
        "SET default_transaction_read_only = off;\nRESET ROLE;\nDELETE FROM vc.blocks;\n"
        "CREATE TEMPORARY TABLE mine ();\nSELECT count(*) FROM documents, ops;\n\\q\n"
    )
    code, shown = on_a_terminal(cli, "sql", "--database", deployed, typed=typed)
    assert code == 0
    assert "permission denied for schema vc" in shown
    assert "permission denied to create temporary tables" in shown
    assert "(1 row)" in shown


def test_without_psql_the_url_is_named(cli: Commands, deployed: str, tmp_path: Path) -> None:
    """If psql is missing, one line says so and suggests another client."""
    cli.environment |= {"PATH": str(tmp_path), "VIRTUALCHAIN_PG_BIN": str(tmp_path)}
    code, shown = on_a_terminal(cli, "sql", "--database", deployed)
    assert (code, shown.count("\n")) == (2, 1)
    assert "psql is not installed" in shown
    assert "`virtualchain db url`" in shown


def test_the_prompt_has_no_json(inside: Inside) -> None:
    """With --json or --csv, a statement is required."""
    for option in ("--json", "--csv"):
        assert "need a statement: pass it as QUERY" in inside("sql", option, code=2).err


@pytest.mark.parametrize(
    ("shell", "shown"), [("bash", "complete -"), ("zsh", "#compdef"), ("fish", "complete -")]
)
def test_each_shell_has_its_completion_script(inside: Inside, shell: str, shown: str) -> None:
    """A command, or a variable, prints the script, which calls `virtualchain` for the completions."""
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("bash is not installed, and click asks it for its version")
    done = inside("completion", shell)
    assert shown in done.out
    assert f"_VIRTUALCHAIN_COMPLETE={shell}_complete" in done.out
    inside.set(_VIRTUALCHAIN_COMPLETE=f"{shell}_source")
    assert inside().out.strip() == done.out.strip()


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("virtualchain st", ["status", "state-root"]),
        ("virtualchain --app a db st", ["start", "stop", "status", "standby"]),
        ("virtualchain --version re", ["resume", "replay", "remove"]),
        ("virtualchain --data", ["--database"]),
        ("virtualchain sync --data", ["--database"]),
        ("virtualchain ops --newest", ["--newest-first"]),
        (f"virtualchain {NOTARY} resume n", ["notary"]),
        (f"virtualchain {NOTARY} send notary c", ["claim"]),
        ("virtualchain send --dry-run virtualchain.examples.notary r", ["revoke"]),
        (f"virtualchain {NOTARY} preview notary claim sh", ["sha256="]),
        (f"virtualchain {NOTARY} preview notary claim sha256=ab sh", []),
        (f"virtualchain {NOTARY} prove-row notary d", ["documents"]),
        ("virtualchain --app no.such.module send n", []),
        ("virtualchain --app apps send notes x", []),
        ("virtualchain --app loud resume l", ["loud"]),
    ],
)
def test_words_are_completed(inside: Inside, words: str, completed: list[str]) -> None:
    """Commands, and options before and after them, are completed without running anything."""
    (inside.folder / "loud.py").write_text(
        'from apps import *\nnotes.name = "loud"\napp = notes\nprint("Hi")\n'
    )
    count = len(words.split()) - 1
    inside.set(_VIRTUALCHAIN_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))
    done = inside()
    assert (done.out.split(), done.err) == ([f"plain,{word}" for word in completed], "")
