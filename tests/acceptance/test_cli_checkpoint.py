"""The commands checkpoint create, show, apply and keygen."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Commands, Inside
from tests.support.checkpoints import content, forge, say, words_in
from virtualchain.testing import ChainBuilder, FakeNode
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer

APP = ("--app", "words")


@pytest.fixture(autouse=True)
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the app into a module `words`."""
    (tmp_path / "words.py").write_text("from tests.support.checkpoints import words\napp = words()\n")
    monkeypatch.delitem(sys.modules, "words", raising=False)


def test_from_one_deployment_to_another(
    cli: Commands,
    fake_node: FakeNode,
    options: tuple[str, ...],
    database_server: DatabaseServer,
    database_url: str,
) -> None:
    """A checkpoint created on one deployment is applied to another, which continues with the same digests."""
    say(fake_node, "one two", "three", "-one")
    cli(*APP, *options, "sync")
    at = fake_node.height
    made = cli(*options, "checkpoint", "create", "file").out
    assert made.startswith(f"words 1 at block {at}\n")
    shown = json.loads(cli("--json", "checkpoint", "show", "file").out)
    assert shown["valid"] is True
    assert (shown["block_id"], shown["block_hash"], shown["signers"]) == (at, fake_node.tip, [])
    assert shown["tables"] == {"pairs": 2, "words": 2}
    other = database_server.create()
    there = ("--bitcoin", fake_node.url, "--database", other, "--confirmations", "0")
    applied = cli(*APP, *there, "checkpoint", "apply", "file").out
    assert applied.startswith(f"app words is at block {at}, on its own chain: the next sync or run")
    say(fake_node, "four")
    cli(*APP, *there, "sync")
    cli(*APP, *options, "sync")
    assert content(other)["words.words"] == content(database_url)["words.words"]
    status = [json.loads(cli(*where, "--json", "consensus").out) for where in (options, there)]
    assert status[0] == status[1]
    database_server.drop(other)


def test_signed_and_trusted(
    cli: Commands, inside: Inside, fake_node: FakeNode, options: tuple[str, ...], database_url: str
) -> None:
    """Only checkpoints signed by a key trusted by option, variable or settings file are accepted."""
    say(fake_node, "one")
    inside(*APP, *options, "sync")
    key = cli("checkpoint", "keygen", "key").out.strip()
    assert (inside.folder / "key").stat().st_mode & 0o777 == 0o600
    other = json.loads(inside("--json", "checkpoint", "keygen", "other").out)["public_key"]
    assert f"signed by       {key}" in inside(*options, "checkpoint", "create", "file", "--sign", "key").out
    inside(*options, "checkpoint", "create", "unsigned")
    assert (
        f"signed by       {key}" in inside("checkpoint", "show", "file", "--trust", other, "--trust", key).out
    )
    refused = inside("checkpoint", "show", "file", "--trust", other, code=1)
    assert "valid           NO" in refused.out
    assert f"signed only by {key}, not by a trusted key" in refused.err
    (inside.folder / "virtualchain.toml").write_text(f'[virtualchain]\ntrust = ["{other}"]\n')
    refused = inside(*APP, *options, "checkpoint", "apply", "unsigned", code=1)
    assert refused.err.count("\n") == 1
    assert "signed by nobody" in refused.err
    (inside.folder / "virtualchain.toml").write_text('[virtualchain]\ntrust = ["key.pub"]\n')
    (inside.folder / "key.pub").write_text(key)
    inside(*APP, *options, "checkpoint", "apply", "file")
    inside.set(VIRTUALCHAIN_TRUST=f"{other}, {key}")
    inside("checkpoint", "show", "file")
    inside("checkpoint", "show", "unsigned", code=1)


def test_a_mistake_gets_one_line(
    inside: Inside, fake_node: FakeNode, options: tuple[str, ...], database_url: str
) -> None:
    """A failed verification ends with exit code 1, wrong usage with 2."""
    say(fake_node, "one two")
    inside(*APP, *options, "sync")
    inside(*options, "checkpoint", "create", "file")

    def change(members: dict[str, bytes]) -> None:
        members["projections/2.words"] = members["projections/2.words"].replace(b"one", b"eno", 1)

    forge(inside.folder / "file", inside.folder / "forged", change)
    shown = inside("--json", "checkpoint", "show", "forged", code=1)
    assert json.loads(shown.out)["valid"] is False
    for arguments, code, complaint in (
        (("checkpoint", "show", "forged"), 1, "its rows have the state hash"),
        (("checkpoint", "show", "words.py"), 1, "not a checkpoint"),
        (("checkpoint", "show", "nothing"), 2, "nothing cannot be read: No such file or directory"),
        ((*APP, *options, "checkpoint", "apply", "forged"), 1, "its rows have the state hash"),
        ((*options, "checkpoint", "apply", "file"), 2, "name an app to run"),
        (("--app", "apps", *options, "checkpoint", "apply", "file"), 2, "the checkpoint is of app words"),
        ((*options, "checkpoint", "create", "no/file"), 2, "cannot be written: No such file or directory"),
        ((*options, "checkpoint", "create", "x", "--block", 99), 2, "reaches back to block 101"),
        ((*options, "checkpoint", "create", "x", "--sign", "words.py"), 2, "holds no usable private key"),
        ((*APP, *options, "checkpoint", "apply", "file", "--migrate"), 2, "leave out --migrate"),
        ((*APP, *options, "checkpoint", "apply", "file", "--rollback", 500), 2, "nothing above block 500"),
    ):
        err = inside(*arguments, code=code).err
        assert err.count("\n") == 1
        assert complaint in err


def test_a_deep_fork_that_asks_for_a_checkpoint(
    inside: Inside,
    fake_node: FakeNode,
    options: tuple[str, ...],
    database_server: DatabaseServer,
    database_url: str,
) -> None:
    """The sync stops and names the command; with a checkpoint of the new branch it continues."""
    (inside.folder / "virtualchain.toml").write_text('[[apps]]\nuse = "words"\non_deep_fork = "checkpoint"\n')
    say(fake_node, "one", "two", "three", "four")
    inside(*options, "sync")
    fake_node.reorg(3)
    say(fake_node, "new", "newer")
    fork = fake_node.height - 6
    stopped = inside(*options, "sync", code=4).err
    assert f"`virtualchain checkpoint apply FILE --rollback {fork}` continues" in stopped
    other = database_server.create()
    theirs = ("--bitcoin", fake_node.url, "--database", other, "--confirmations", "0")
    inside(*theirs, "sync")
    inside(*theirs, "checkpoint", "create", "file", "--block", fake_node.height - 4)
    refused = inside(*options, "checkpoint", "apply", "file", code=2).err
    assert "the tape has another block there" in refused
    done = inside(*options, "checkpoint", "apply", "file", "--rollback", fork)
    assert done.err.startswith("virtualchain: undone: 3 blocks, 3 ops, 6 rows")
    inside(*options, "sync")
    assert content(database_url) == content(other)
    assert words_in(database_url) == {"one", "new", "newer"}
    database_server.drop(other)


@pytest.mark.node
def test_from_one_network_to_another(
    inside: Inside,
    bitcoind_factory: Callable[..., Bitcoind],
    database_server: DatabaseServer,
    tmp_path: Path,
) -> None:
    """On two real nodes, inputs of the old chain that are copied to the new one are rejected there."""
    chains = ChainBuilder(), ChainBuilder(premine=1)
    chains[1].reorg(1, 120)
    nodes = [bitcoind_factory() for _ in chains]
    urls = [database_server.create() for _ in chains]
    old, new = (
        ("--bitcoin", node.url, "--cookie", node.cookie, "--database", url, "--confirmations", "0")
        for node, url in zip(nodes, urls, strict=True)
    )

    def consensus(where: tuple[object, ...], block: int) -> str:
        [app] = json.loads(inside(*where, "--json", "consensus", block).out)["apps"]
        return str(app["consensus_hash"])

    say(chains[0], "one two", "three")
    deliver(chains[0], nodes[0])
    inside(*APP, *old, "sync")
    at = chains[0].height
    say(chains[0], f"{consensus(old, at)}:fresh")
    deliver(chains[0], nodes[0])
    inside(*APP, *old, "sync")
    at += 1
    inside(*old, "checkpoint", "create", "file")
    say(chains[0], f"{consensus(old, at)}:late")
    deliver(chains[0], nodes[0])
    inside(*APP, *old, "sync")
    late = consensus(old, at + 1)
    assert words_in(urls[0]) == {"one", "two", "three", "fresh", "late"}

    inside(*APP, *new, "checkpoint", "apply", "file", "--migrate")
    say(chains[1], f"{consensus(old, at)}:moved {late}:replayed")
    deliver(chains[1], nodes[1])
    inside(*APP, *new, "sync")
    own = consensus(new, chains[1].height)
    say(chains[1], f"{own}:own {late}:again")
    deliver(chains[1], nodes[1])
    inside(*APP, *new, "sync")
    assert words_in(urls[1]) == {"one", "two", "three", "fresh", "moved", "own"}
    refused = json.loads(inside(*new, "--json", "ops", "--rejected").out)
    assert [row["reason"] for row in refused] == ["the hash is not fresh"] * 2
    say(chains[0], f"{own}:foreign")
    deliver(chains[0], nodes[0])
    inside(*APP, *old, "sync")
    assert "foreign" not in words_in(urls[0])
    for url in urls:
        database_server.drop(url)


def deliver(chain: ChainBuilder, node: Bitcoind) -> None:
    """Submit a chain's blocks to a real node, which makes the chain its active one."""
    for stored in chain.tree.chain[1:]:
        assert node.rpc("submitblock", stored.raw.hex()) in {None, "duplicate", "inconclusive"}
    assert node.rpc("getbestblockhash") == chain.tip
