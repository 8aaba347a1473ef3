"""Mistakes of the user and failures of node or database: one line each, and the right exit code."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import Commands, Inside, check_one_line
from virtualchain.testing import FakeNode

APP = ("--app", "virtualchain.examples.notary")
CLOSED = "http://user:password@127.0.0.1:1"

MODULES = {
    "broken.py": "import virtualchain\nraise RuntimeError('no luck')\n",
    "halfway.py": "def get_virtual_chain_name(): return 'halfway'\n",
    "floating.py": """
from virtualchain import App
app = App("floating", magic=b"fl", projections="CREATE TABLE t (a float8 PRIMARY KEY)")
app.add(b"o", parse=lambda payload: {})
""",
    "mistyped.py": """
from virtualchain import App
app = App("mistyped", magic=b"mi", projections="CREATE TABEL t (a integer)")
app.add(b"o", parse=lambda payload: {})
""",
}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sync",), "name an app to run, for example --app virtualchain.examples.notary"),
        (("sync", "--app", "nowhere"), "app 'nowhere': there is no module nowhere"),
        (("sync", "--app", "no:where:at"), "write MODULE or MODULE:OBJECT"),
        (("sync", "--app", "virtualchain.examples.notary:missing"), "has no missing"),
        (("sync", "--app", "broken"), "importing it fails: RuntimeError: no luck"),
        (("sync", "--app", "halfway"), "lacks get_virtual_chain_version"),
        (("sync", *APP, *APP), "--app names virtualchain.examples.notary more than once"),
        (("sync", *APP, "--bitcoin", "ftp://node"), "the node's URL is not that of a bitcoind"),
        (("sync", *APP, "--bitcoin", "https://node"), "put user:password into its URL"),
        (
            ("sync", *APP, "--bitcoin", "http://far.example"),
            "put user:password into its URL, or name the cookie",
        ),
        (("sync", *APP, "--network", "moonnet"), "there is no network 'moonnet': choose one of mainnet"),
        (("sync", *APP, "--confirmations", "many"), "--confirmations must be a whole number, 0 or more"),
        (("sync", *APP, "--database", "mysql://x"), "the database URL cannot be read"),
        (("sync", *APP, "--config", "none.toml"), "none.toml: cannot be read: No such file"),
        (("sync", "--to", "-1"), "invalid value for '--to'"),
        (("sync", "--wiat"), "no such option"),
        (("snyc",), "no such command"),
        (("sql",), "there is no terminal for a prompt: pass a statement as QUERY"),
        (("--app",), "option '--app' requires an argument"),
        (("db", "halt"), "no such command 'halt'"),
        (("demo", "--database", "postgresql://user:secret@127.0.0.1:1/shop"), "whose name ends in _demo"),
    ],
)
def test_wrong_usage_ends_with_2(
    inside: Inside, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    """The mistake is reported before the node or the database is contacted."""
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    database = (
        () if "--database" in arguments else ("--database", "postgresql://user:secret@127.0.0.1:1/none")
    )
    done = inside(*database, *arguments, code=2)
    check_one_line(done, complaint)
    assert "secret" not in done.err


@pytest.mark.parametrize(
    ("app", "complaint"),
    [("floating", "column a of t is a float"), ("mistyped", "cannot be created")],
)
def test_projections_that_cannot_be_kept_end_with_2(
    inside: Inside, tmp_path: Path, fake_node: FakeNode, database_url: str, app: str, complaint: str
) -> None:
    """Invalid projections are reported when the app is installed."""
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    done = inside("sync", "--app", app, "--database", database_url, "--bitcoin", fake_node.url, code=2)
    assert complaint in done.err
    assert "Traceback" not in done.err


def test_trouble_with_the_database_ends_with_3(
    inside: Inside, fake_node: FakeNode, database_url: str, empty_database_url: str
) -> None:
    """A wrong password, a missing database, a missing schema and a missing server are distinguished."""
    base, _, name = database_url.rpartition("/")
    user = base.partition("@")[0].rpartition(":")[0]
    place = base.partition("@")[2]
    node = ("--bitcoin", fake_node.url)
    for command in (("sync", *APP, *node), ("migrate",), ("status", *node)):
        wrong = inside(*command, "--database", f"{user}:wrong@{place}/{name}", code=3)
        check_one_line(wrong, "check the user and password")
        assert ":wrong@" not in wrong.err
        check_one_line(
            inside(*command, "--database", f"{base}/missing", code=3), "create it first, with createdb"
        )
        absent = inside(*command, "--database", "postgresql://user@127.0.0.1:1/none", code=3)
        check_one_line(absent, "is the server running there?")
    for reader in (("ops",), ("consensus",), ("sql", "SELECT 1"), ("resume", "notary")):
        done = inside(*reader, "--database", empty_database_url, code=3)
        check_one_line(done, "holds nothing of virtualchain's yet: run `virtualchain migrate`")


def test_trouble_with_the_node_ends_with_3(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """A closed port, a missing cookie, a wrong password and another network are distinguished."""
    sync = ("sync", *APP, "--database", database_url)
    check_one_line(inside(*sync, "--bitcoin", CLOSED, code=3), "http://127.0.0.1:1")
    check_one_line(inside(*sync, code=3), "no cookie file")
    wrong = fake_node.url.replace(":password@", ":wrong@")
    check_one_line(inside(*sync, "--bitcoin", wrong, code=3), "refuses the password of user 'user'")
    other = inside(*sync, "--bitcoin", fake_node.url, "--network", "mainnet", code=3)
    check_one_line(other, "is on regtest, but mainnet was asked for")


def test_a_database_of_another_chain_ends_with_3(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """A deployment refuses a node of another network."""
    sync = ("sync", *APP, "--database", database_url, "--bitcoin")
    inside(*sync, fake_node.url)
    with FakeNode("signet", premine=0) as other:
        check_one_line(
            inside(*sync, other.url, code=3), "this database follows regtest, and the node is on signet"
        )


def test_a_deep_fork_ends_with_4(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """With the policy halt, the fork is reported and nothing changes."""
    sync = ("sync", "--database", database_url, "--bitcoin", fake_node.url, "--confirmations", 0)
    (inside.folder / "virtualchain.toml").write_text(f'[[apps]]\nuse = "{APP[1]}"\non_deep_fork = "halt"\n')
    inside(*sync)
    fake_node.reorg(3)
    check_one_line(inside(*sync, code=4), "deep fork above block 98")


def test_there_is_no_database_yet(inside: Inside, tmp_path: Path) -> None:
    """Commands that read do not create an embedded server."""
    inside.set(VIRTUALCHAIN_HOME=str(tmp_path / "home"))
    for command in (("status",), ("ops",), ("sql", "SELECT 1"), ("consensus",)):
        check_one_line(inside(*command, code=3), "there is no database yet")
    assert not (tmp_path / "home").exists()


def test_verbose_shows_where_an_error_comes_from(inside: Inside, tmp_path: Path) -> None:
    """--verbose prints the traceback before the usual line."""
    (tmp_path / "broken.py").write_text(MODULES["broken.py"])
    done = inside("sync", "--app", "broken", "-v", code=2)
    assert "\nTraceback" in f"\n{done.err}"
    assert 'broken.py", line 2' in done.err
    assert done.err.splitlines()[-1].startswith("virtualchain: app 'broken': importing it fails")


def test_a_bug_shows_a_traceback(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception ends with a traceback and its own exit code."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("virtualchain.settings.load", fail)
    done = inside("status", code=70)
    assert "ZeroDivisionError: oops" in done.err
    assert "this is a bug" in done.err


def test_errors_of_the_real_command(cli: Commands) -> None:
    """In its own process, too, an error is one line without a traceback."""
    check_one_line(cli("sync", code=2), "name an app to run")
    check_one_line(cli("sync", *APP, "--database", "postgresql://u@127.0.0.1:1/x", code=3), "no cookie file")
