"""The commands migrate, sync and resume."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import Commands, Inside
from tests.support.servers import value
from virtualchain.bitcoin.compiled import IS_COMPILED
from virtualchain.testing import ChainBuilder, FakeNode
from virtualchain.testing.bitcoind import Bitcoind


def mine(node: FakeNode, *texts: bytes) -> None:
    """Mine one block with an op for each text."""
    node.mine([node.send(b"sto" + text) for text in texts])


def test_sync_goes_to_the_stable_tip_and_a_second_one_finds_nothing(
    cli: Commands, fake_node: FakeNode, database_url: str
) -> None:
    """The summary shows the app, its block and what was done; options work before and after the command."""
    mine(fake_node, b"one", b"no")
    fake_node.mine(n=7)
    first = cli("--app", "apps", "--bitcoin", fake_node.url, "sync", "--database", database_url)
    stable = fake_node.height - 6
    assert f"notes: running\n  block           {stable}\n" in first.out
    assert f"{stable + 1} blocks and 2 inputs in " in first.out
    assert f"at the stable tip: block {stable + 1} has 5 of 6 confirmations" in first.out
    assert first.err == ""
    again = cli("sync", "--app", "apps", "--bitcoin", fake_node.url, "--database", database_url)
    assert "0 blocks and 0 inputs in " in again.out
    assert value(database_url, "SELECT string_agg(text, ',') FROM notes.notes") == "one"


def test_sync_prints_one_json_object_and_nothing_else(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """With --json, the summary is one object with what was done and the state of each app."""
    mine(fake_node, b"one")
    done = inside(
        *("sync", "--json", "--app", "apps:plain", "--app", "apps", "--to", 100, "--confirmations", 0),
        *("--bitcoin", fake_node.url, "--database", database_url),
    )
    printed = json.loads(done.out)
    assert printed.keys() == {"blocks", "inputs", "seconds", "waits_for", "warnings", "apps"}
    assert (printed["blocks"], printed["inputs"], printed["waits_for"]) == (101, 0, None)
    assert [(app["name"], app["block_id"], app["status"]) for app in printed["apps"]] == [
        ("notes", 100, "running"),
        ("plain", 100, "running"),
    ]


def test_settings_come_from_file_environment_and_options(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """A variable overrides the settings file of the current folder, and an option overrides both."""
    (inside.folder / "virtualchain.toml").write_text(
        f'[virtualchain]\nbitcoin = "{fake_node.url}"\ndatabase = "postgresql://nobody@127.0.0.1:1/none"\n'
        'confirmations = 50\n[[apps]]\nuse = "apps:plain"\n'
    )
    inside.set(VIRTUALCHAIN_DATABASE=database_url, VIRTUALCHAIN_CONFIRMATIONS="40")
    assert "with 30 confirmations authors can know none" in inside("sync", "--confirmations", 30, code=2).err
    printed = json.loads(inside("sync", "--confirmations", 20, "--json").out)
    assert printed["apps"][0]["block_id"] == fake_node.height - 20


def test_a_halted_app_lags_until_it_is_resumed(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """The other app continues, the command ends with exit code 4, and after resume the app catches up."""
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    apps = ("--app", "apps:plain", "--app", "apps:notes")
    inside("sync", *apps, *common)
    height = fake_node.height
    (inside.folder / "broken").touch()
    mine(fake_node, b"one")
    halted = inside("sync", *apps, *common, code=4)
    assert f"plain: running\n  block           {height + 1}\n" in halted.out
    assert f"notes: halted\n  block           {height}\n" in halted.out
    place = f"{inside.folder / 'apps.py'}, line 11, in check"
    assert re.fullmatch(
        f"virtualchain: app notes is halted before block {height + 1}, transaction [0-9a-f]{{64}}: db_check "
        rf"failed with RuntimeError: out of \(op o {{\"text\": \"one\"}}, {re.escape(place)}\); "
        "fix it, then run `virtualchain resume notes`",
        halted.err.splitlines()[-1],
    )
    assert "The other apps continue" in halted.err

    shown = inside("status", *common)
    assert f"failed          db_check in block {height + 1}: RuntimeError: out of\\npaper" in shown.out
    assert f"in the code     {place}\n" in shown.out
    assert 'op              o {"text": "one"}\n' in shown.out
    assert "Traceback" not in shown.out
    error = json.loads(inside("status", "--json", *common).out)["apps"][0]["error"]
    assert (error["block_id"], error["callback"]) == (height + 1, "db_check")
    assert (error["file"], error["line"], error["op"]) == (
        str(inside.folder / "apps.py"),
        11,
        '{"text": "one"}',
    )
    assert "out of" in error["traceback"]
    for verbose in (inside("status", "-v", *common).out, inside("sync", "-v", *apps, *common, code=4).err):
        assert "Traceback (most recent call last)" in verbose
        assert f'File "{inside.folder / "apps.py"}", line 11, in check' in verbose
    scanner = "compiled" if IS_COMPILED else "interpreted"
    assert f"virtualchain: blocks are scanned by {scanner} code\n" in verbose

    (inside.folder / "broken").unlink()
    assert "halted" in inside("sync", *apps, *common, code=4).err
    assert "app notes continues after block" in inside("resume", "notes", *common).out
    caught_up = inside("sync", *apps, *common)
    assert caught_up.err == f"virtualchain: app notes is catching up from the tape to block {height + 1}\n"
    assert value(database_url, "SELECT text FROM notes.notes") == "one"
    assert value(database_url, "SELECT count(DISTINCT block_id) FROM virtualchain.apps") == 1


def test_an_app_halted_alone_ends_sync_with_4(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """If no app is left, the command ends with exit code 4 and reports the reason once."""
    mine(fake_node, b"one")
    (inside.folder / "broken").touch()
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    done = inside("sync", "--app", "apps", *common, code=4)
    assert done.err.count("app notes is halted") == 1
    assert "notes: halted\n" in done.out
    assert inside("run", "--app", "apps", *common, code=4).err.count("app notes is halted") == 1


def test_resume_refuses_an_app_that_is_not_halted(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """A running app and an unknown app cannot be resumed."""
    inside("sync", "--app", "apps", "--bitcoin", fake_node.url, "--database", database_url)
    assert (
        "app notes is not halted: it is running"
        in inside("resume", "notes", "--database", database_url, code=2).err
    )
    assert (
        "this database has no app other; it has notes"
        in inside("resume", "other", "--database", database_url, code=2).err
    )


def test_migrate_makes_the_schema(inside: Inside, empty_database_url: str) -> None:
    """Without the schema, status asks for migrate, which creates it and can be run again."""
    missing = inside("status", "--database", empty_database_url, code=3)
    assert "run `virtualchain migrate`" in missing.err
    first = inside("migrate", "--database", empty_database_url)
    assert " is at revision " in first.out
    assert inside("migrate", "--database", empty_database_url).out == first.out
    printed = json.loads(inside("migrate", "--database", empty_database_url, "--json").out)
    assert printed["revision"] == first.out.split()[-1]
    assert ":***@" in printed["database"]
    assert json.loads(inside("status", "--json", "--database", empty_database_url).out)["apps"] == []


def test_a_schema_newer_than_the_code_is_refused(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """A database that a later version has migrated is refused."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.alembic_version SET version_num = '9999'")
    done = inside("sync", "--app", "apps", "--bitcoin", fake_node.url, "--database", database_url, code=3)
    assert "(9999) is newer than this virtualchain" in done.err


@pytest.mark.node
def test_sync_from_a_real_node(
    cli: Commands, bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """A sync with the node's cookie file reaches its tip, and status shows no lag."""
    chain = ChainBuilder()
    claim = chain.send(b"ntc" + bytes(32), sender="alice")
    chain.mine([claim])
    node = bitcoind_factory()
    for raw in chain.raw_blocks()[1:]:
        assert node.rpc("submitblock", raw.hex()) is None
    common = ("--bitcoin", node.url, "--cookie", node.cookie, "--database", database_url)
    cli("sync", "--app", "virtualchain.examples.notary", "--confirmations", 0, *common)
    printed = json.loads(cli("status", "--json", *common).out)
    assert printed["tip"] == {"block_id": chain.height, "hash": chain.tip}
    assert (printed["apps"][0]["block_hash"], printed["apps"][0]["lag"]) == (chain.tip, 0)
    assert value(database_url, "SELECT txid FROM notary.documents") == claim.txid
    assert Path(node.cookie).is_file()


def test_sync_counts_verdicts_by_step(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """The summary has what became of each app's inputs in this run, and the file that holds the code."""
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    apps = ("--app", "./apps.py", "--app", "apps:plain")
    payloads = (b"stoone", b"stono", b"sto\xff", b"stx", b"st")
    fake_node.mine([fake_node.send(payload) for payload in payloads])
    done = inside("sync", *apps, *common)
    ignored = "1 without an opcode of the app"
    assert f"inputs          4: 1 accepted, 1 rejected at parse, 1 rejected at check, {ignored}\n" in done.out
    assert f"inputs          4: 2 accepted, 1 rejected at parse, {ignored}\n" in done.out
    assert done.out.count(f"code            {inside.folder / 'apps.py'}\n") == 2
    assert "failed at" not in done.err
    mine(fake_node, b"two")
    printed = json.loads(inside("sync", *apps, *common, "--json").out)
    assert [(app["inputs"], app["accepted"], app["rejected"]) for app in printed["apps"]] == [(1, 1, {})] * 2
    assert [app["file"] for app in printed["apps"]] == [str(inside.folder / "apps.py")] * 2
    assert printed["warnings"] == []
    assert "inputs          none\n" in inside("sync", *apps, *common).out


@pytest.mark.parametrize(
    ("payloads", "failure"),
    [
        ((b"stono", b"stono"), "all 2 inputs failed at check, the last one because of: we do not take no"),
        ((b"stono",), "the only input failed at check: we do not take no"),
        ((b"stx", b"sty", b"st"), "all 2 inputs had no opcode of the app after the magic"),
        ((b"stono", b"stx"), None),
        ((b"stono", b"sto\xff"), None),
        ((b"stono", b"stook"), None),
        ((), None),
    ],
)
def test_sync_warns_if_all_inputs_fail_alike(
    inside: Inside, fake_node: FakeNode, database_url: str, payloads: tuple[bytes, ...], failure: str | None
) -> None:
    """An author whose inputs all fail in one way reads why."""
    common = ("--app", "apps", "--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    fake_node.mine([fake_node.send(payload) for payload in payloads])
    done = inside("sync", *common)
    if failure is None:
        assert done.err == ""
        return
    assert done.err.startswith(f"virtualchain: app notes: {failure}")
    assert ("; see `virtualchain ops --rejected`\n" in done.err) == ("opcode" not in failure)


def test_an_app_that_catches_up_is_counted(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """What it takes from the tape counts as what it takes from the node."""
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    mine(fake_node, b"no")
    inside("sync", "--app", "apps:plain", *common)
    done = inside("sync", "--app", "apps:plain", "--app", "apps:notes", *common)
    assert "inputs          1: 1 rejected at check\n" in done.out
    assert "app notes: the only input failed at check: we do not take no" in done.err


def test_the_module_that_was_found_instead_is_named(inside: Inside) -> None:
    """A module that is not the author's is named with its file."""
    done = inside("sync", "--app", "json", code=2)
    assert re.search(r"the app json \(.+json/__init__.py\) lacks get_virtual_chain_name", done.err)
