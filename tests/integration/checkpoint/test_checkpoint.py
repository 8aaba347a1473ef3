"""Checkpoints: an app that continues from a file derives the same state as one with all blocks."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.integration.engine.test_opaque_state import Forgetful, Ledger
from tests.integration.engine.test_opaque_state import mine as count
from tests.support.checkpoints import (
    TABLES,
    content,
    contracts,
    create_checkpoint,
    forge,
    manifest_in,
    say,
    words,
)
from tests.support.tables import tables
from virtualchain import StateEngine
from virtualchain.checkpoint import apply as apply_module
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.apply import Applied
from virtualchain.checkpoint.apply import apply as apply_to
from virtualchain.checkpoint.create import copy_loaded
from virtualchain.checkpoint.verify import RowVerifier, verify
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Options
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.engine.versions import build_beside
from virtualchain.errors import DeepFork, InvalidCheckpoint, StoreError, UsageError
from virtualchain.store.projections import Projection
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]
Apply = Callable[..., Applied | None]


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def apply(database_url: str, tmp_path: Path) -> Apply:
    """Return a function that applies a file to the test's database, without a node."""

    def put(file: Path, *apps: object, database: str = database_url, **options: Any) -> Applied | None:
        apps = apps or (words(),)
        settings = Options(state_folder=tmp_path)
        return apply_to(database, file, contracts(*apps), options=settings, **options)

    return put


def story(node: FakeNode) -> None:
    """Mine blocks with words: some are repeated, some are deleted."""
    say(node, "one two", "two \u00fcber", "", "-one two\\n", "three", "one", "-two four")


def test_an_app_that_continues_from_a_checkpoint_derives_the_same_state(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """A new deployment without the earlier blocks has the same tables and digests, at once and later."""
    story(fake_node)
    run(words(), database=other_url)
    made = create_checkpoint(other_url, tmp_path / "file")
    apply(tmp_path / "file")
    assert content(database_url)["words.words"] == content(other_url)["words.words"]
    story(fake_node)
    run(words(), database=other_url)
    run(words())
    ours, theirs = content(database_url), content(other_url)
    assert len(ours["words.words"]) > 3
    snapshots = "virtualchain.snapshots"
    assert [row[3:] for row in ours.pop(snapshots)] == [row[3:] for row in theirs.pop(snapshots)]
    assert ours == theirs
    assert made.block_id == fake_node.height - 7


@pytest.mark.parametrize("has_own_rule", [False, True])
def test_a_checkpoint_with_a_fingerprint_of_the_first_version(
    fake_node: FakeNode, run: Run, apply: Apply, other_url: str, tmp_path: Path, has_own_rule: bool
) -> None:
    """It is accepted if the payload rule, which that fingerprint did not cover, is not the app's own."""
    described = f"{TABLES}; COMMENT ON TABLE words IS 'Words.'"
    app = words(projections=described, payload_rule=(lambda outputs: None) if has_own_rule else None)
    story(fake_node)
    run(app, database=other_url)
    [contract] = contracts(app)
    assert contract.former_fingerprint() != contract.fingerprint()
    with psycopg.connect(other_url) as connection:
        connection.execute(
            "UPDATE vc.apps SET fingerprint = decode(%s, 'hex')", [contract.former_fingerprint()]
        )
    create_checkpoint(other_url, tmp_path / "file")
    if has_own_rule:
        with pytest.raises(UsageError, match="declares other rules or projections: use the code"):
            apply(tmp_path / "file", app)
    else:
        apply(tmp_path / "file", app)
        run(app)


def test_the_same_state_yields_the_same_file(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """A checkpoint has the same bytes if it is created later, or by a deployment that began with one."""
    story(fake_node)
    at = run(words())
    create_checkpoint(database_url, tmp_path / "first")
    apply(tmp_path / "first", database=other_url)
    story(fake_node)
    run(words())
    create_checkpoint(database_url, tmp_path / "later", block_id=at)
    run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "theirs", block_id=at)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "later").read_bytes()
    assert (tmp_path / "first").read_bytes() == (tmp_path / "theirs").read_bytes()
    create_checkpoint(database_url, tmp_path / "tip")
    create_checkpoint(other_url, tmp_path / "their tip")
    assert (tmp_path / "tip").read_bytes() == (tmp_path / "their tip").read_bytes()


INDEXED = (
    TABLES
    + """
    CREATE INDEX by_times ON words (times DESC NULLS FIRST) WITH (fillfactor = 70);
    CREATE UNIQUE INDEX short_words ON words (word) WHERE length(word) < 4;
    CREATE INDEX lengths ON pairs ((length(a)), b) INCLUDE (a);
    CREATE INDEX sampled ON pairs ((a || 'x'));
    ALTER INDEX sampled ALTER COLUMN 1 SET STATISTICS 500;
    COMMENT ON INDEX lengths IS 'how long \\ it''s';
    ALTER TABLE words ADD CONSTRAINT one_hash UNIQUE (hash, word) DEFERRABLE;
    CREATE UNIQUE INDEX referenced ON words (word, times);
    CREATE TABLE more (
        a text COLLATE "C" PRIMARY KEY, b integer,
        FOREIGN KEY (a, b) REFERENCES words (word, times) DEFERRABLE
    );
"""
)


def test_indexes_are_built_last_and_are_the_same(
    fake_node: FakeNode,
    run: Run,
    apply: Apply,
    database_url: str,
    other_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every index is there afterwards as the app declared it, and what is unique is checked.

    The rows are compared as they are stored: nothing is sorted.
    """
    indexes = (
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident, "
        "obj_description(i.indexrelid), (SELECT min(attstattarget) FROM pg_attribute "
        "WHERE attrelid = i.indexrelid AND attstattarget >= 0), "
        "(SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conindid = i.indexrelid AND contype <> 'f') "
        "FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid "
        "WHERE c.relnamespace = 'words__1'::regnamespace ORDER BY 1"
    )
    story(fake_node)
    app = words(projections=INDEXED)
    run(app)
    create_checkpoint(database_url, tmp_path / "file")
    while_filled: list[int] = []

    def fill(self: Any, *arguments: Any) -> str:
        while_filled.append(len(self._connection.execute(indexes).fetchall()))
        return str(filled(self, *arguments))

    filled = apply_module._Load._fill
    monkeypatch.setattr(apply_module._Load, "_fill", fill)
    monkeypatch.setattr(apply_module, "copy_rows", None)
    apply(tmp_path / "file", app, database=other_url)
    with psycopg.connect(database_url) as here, psycopg.connect(other_url) as there:
        declared = here.execute(indexes).fetchall()
        assert there.execute(indexes).fetchall() == declared
    assert {count - len(declared) for count in while_filled} == {-3}
    assert any(row[4] == "how long \\ it's" for row in declared)


def test_rows_that_are_stored_in_another_order(
    fake_node: FakeNode,
    run: Run,
    apply: Apply,
    database_url: str,
    other_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are sorted then; the order in which the server stores rows decides nothing."""
    story(fake_node)
    run(words())
    create_checkpoint(database_url, tmp_path / "file")

    def reverse(connection: psycopg.Connection, projection: Projection) -> list[bytes]:
        return list(copy_loaded(connection, projection))[::-1]

    monkeypatch.setattr(apply_module, "copy_loaded", reverse)
    apply(tmp_path / "file", database=other_url)
    with psycopg.connect(database_url) as here, psycopg.connect(other_url) as there:
        for table in ("words", "pairs"):
            read = f"SELECT * FROM words.{table} AS t ORDER BY t".encode()
            assert there.execute(read).fetchall() == here.execute(read).fetchall() != []


@pytest.mark.parametrize("migrates", [False, True])
def test_a_file_that_changes_while_it_is_read(
    migrates: bool,
    fake_node: FakeNode,
    run: Run,
    apply: Apply,
    database_url: str,
    other_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that are not those of the digests, which were checked before, are refused; nothing is kept."""
    story(fake_node)
    run(words())
    create_checkpoint(database_url, tmp_path / "file")
    forge(
        tmp_path / "file",
        tmp_path / "other",
        lambda members: members.update(
            {"projections/2.words": members["projections/2.words"].replace(b"three", b"thref")}
        ),
    )
    if migrates:
        monkeypatch.setattr(apply_module, "_check_chain", lambda *_, **_options: None)
    whole = archive.Reader.whole_lines
    with archive.reading(tmp_path / "other") as other:
        monkeypatch.setattr(archive.Reader, "whole_lines", lambda _, name: whole(other, name))
        monkeypatch.setattr(RowVerifier, "finish", lambda _: b"")
        with pytest.raises(InvalidCheckpoint, match="was changed while it was read"):
            apply(tmp_path / "file", database=other_url, migrates=migrates)
    with psycopg.connect(other_url) as connection:
        assert connection.execute("SELECT count(*) FROM virtualchain.apps").fetchone() == (0,)


def test_the_file_is_a_tar_with_a_manifest(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path, query: Query
) -> None:
    """Any tar reads it, and its manifest has the app's version, block and digests."""
    story(fake_node)
    run(words())
    made = create_checkpoint(database_url, tmp_path / "file")
    with tarfile.open(tmp_path / "file") as tar:
        assert tar.getnames() == ["snapshots", "projections/1.pairs", "projections/2.words", "manifest.json"]
    assert manifest_in(tmp_path / "file") == made
    [app] = query("SELECT * FROM virtualchain.apps")
    for name in ("version", "block_id", "block_hash", "consensus_hash", "state_hash", "first_block_id"):
        assert getattr(made, name) == app[name]
    with archive.reading(tmp_path / "file") as reader:
        assert verify(reader).manifest == made
    assert not list(tmp_path.glob(".*"))


def test_only_blocks_that_history_covers(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """A block above the last one or below the kept history is refused, and no file is left behind."""
    fake_node.mine(n=30)
    last = run(words(), history=10)
    for at, message in ((last + 1, "is at block"), (last - 25, "reaches back to block")):
        with pytest.raises(UsageError, match=message):
            create_checkpoint(database_url, tmp_path / "file", block_id=at)
    assert list(tmp_path.iterdir()) == []


def test_applied_to_the_deployment_that_runs_the_app(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, query: Query
) -> None:
    """The new build replaces the old one under the same views, and catches up along the tape."""
    story(fake_node)
    at = run(words())
    create_checkpoint(database_url, tmp_path / "file")
    blocks = "SELECT word, since_block FROM words__{}.words ORDER BY word"
    written = query(blocks.format(1))
    story(fake_node)
    run(words(), history=3)
    before = content(database_url)
    apply(tmp_path / "file")
    assert query("SELECT build, block_id, base_block_id, history_from FROM virtualchain.apps") == [
        {"build": "2", "block_id": at, "base_block_id": at, "history_from": at}
    ]
    assert query(blocks.format(2)) == written
    assert len({row["since_block"] for row in written}) > 2
    run(words())
    assert content(database_url) == before
    assert query("SELECT to_regnamespace('words__1') AS gone") == [{"gone": None}]
    [row] = query("SELECT *, encode(state_hash, 'hex') AS state FROM vc.checkpoints")
    assert (row["block_id"], row["is_migration"], row["signers"]) == (at, False, [])


def test_rolled_back_to_the_checkpoint_and_not_below(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """Forks above its block are undone; a deeper one stops with a message, and changes nothing."""
    story(fake_node)
    at = run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    fake_node.mine(n=3)
    apply(tmp_path / "file")
    say(fake_node, "five six")
    run(words())
    fake_node.reorg(4)
    say(fake_node, "seven")
    run(words())
    run(words(), database=other_url)
    assert content(database_url)["words.words"] == content(other_url)["words.words"]
    before = tables(database_url)
    fake_node.reorg(fake_node.height - at + 1)
    with pytest.raises(
        DeepFork, match=rf"can be rolled back to block {at} at the lowest, not to block {at - 1}"
    ):
        run(words())
    with closing(Deployment(database_url, [], None, Options(state_folder=tmp_path))) as deployment:
        tip = deployment.tape.tip()
        assert tip is not None
        with pytest.raises(UsageError, match="can be rolled back to block"):
            roll_back(deployment, operators_reorg(deployment.tape, at - 1))
    assert tables(database_url) == before


def test_a_rollback_below_the_checkpoint_of_an_app_that_has_taken_nothing_since(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """It stays as it is until the tape has the checkpoint's block again, and stops at another one."""
    story(fake_node)
    at = run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    run(words("early"))
    apply(tmp_path / "file")
    before = content(database_url)["words.words"]

    def undo() -> None:
        options = Options(state_folder=tmp_path)
        with closing(Deployment(database_url, [], None, options)) as deployment:
            roll_back(deployment, operators_reorg(deployment.tape, at - 2))

    undo()
    assert content(database_url)["words.words"] == before
    say(fake_node, "five six")
    assert run(words(), words("early")) == at + 1
    run(words(), database=other_url)
    assert content(database_url)["words.words"] == content(other_url)["words.words"] != before

    apply(tmp_path / "file", rollback=at)
    undo()
    fake_node.reorg(3, 6)
    with pytest.raises(DeepFork, match="another block there"):
        run(words(), words("early"))
    assert content(database_url)["words.words"] == before


def test_a_fork_below_its_history_needs_another_checkpoint(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """The app cannot be rebuilt, because the tape does not hold the blocks before its checkpoint."""
    story(fake_node)
    run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    apply(tmp_path / "file")
    fake_node.mine(n=20)
    run(words(), history=5)
    fake_node.reorg(10)
    with pytest.raises(DeepFork, match="continues from another checkpoint of it"):
        run(words(), history=5)


def test_a_chain_without_the_checkpoints_block_is_refused(
    fake_node: FakeNode,
    run: Run,
    apply: Apply,
    database_url: str,
    tmp_path: Path,
    other_url: str,
    query: Query,
) -> None:
    """The checkpoint's block must be the right one, whether the tape begins after it or reaches it."""
    story(fake_node)
    at = run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    apply(tmp_path / "file")
    fake_node.reorg(3, 6)
    with pytest.raises(DeepFork, match=rf"began with a checkpoint of block {at} \("):
        run(words())
    assert query("SELECT * FROM vc.blocks") == []
    with pytest.raises(DeepFork, match="another block there"):
        run(words(), words("early"))
    assert query("SELECT max(block_id) AS last FROM vc.blocks") == [{"last": at - 1}]


def test_another_block_on_the_tape_is_refused(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, other_url: str
) -> None:
    """Nothing changes, and the message names the options."""
    story(fake_node)
    run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    fake_node.reorg(3)
    run(words())
    before = tables(database_url)
    with pytest.raises(UsageError, match=r"another block there .*--rollback BLOCK.*--migrate"):
        apply(tmp_path / "file")
    with pytest.raises(UsageError, match="there is nothing above block"):
        apply(tmp_path / "file", rollback=10_000)
    assert tables(database_url) == before


def test_an_app_that_demands_a_checkpoint_continues_with_it(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, other_url: str
) -> None:
    """After a deep fork and a checkpoint of the new branch, the app has the same state as on that branch."""
    story(fake_node)
    old = run(words(), words("beside"), on_deep_fork={"words": "checkpoint"})
    fake_node.reorg(4)
    say(fake_node, "new branch")
    with pytest.raises(DeepFork, match=rf"checkpoint apply FILE --rollback {old - 4}`"):
        run(words(), words("beside"))
    run(words(), words("beside"), database=other_url)
    create_checkpoint(other_url, tmp_path / "file", block_id=old - 1)
    done = apply(tmp_path / "file", rollback=old - 4)
    assert done is not None
    assert done.undone is not None
    assert done.undone.blocks == 4
    assert run(words(), words("beside")) == fake_node.height
    ours, theirs = content(database_url), content(other_url)
    assert ours == theirs


def test_other_apps_that_are_undone_too_deep_are_rebuilt(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, other_url: str
) -> None:
    """They are rebuilt in the same transaction by their code; if that is not named, nothing is applied."""
    story(fake_node)
    fake_node.mine(n=20)
    old = run(words(), words("beside"), history=5)
    fake_node.reorg(15)
    run(words(), words("beside"), database=other_url)
    create_checkpoint(other_url, tmp_path / "file", block_id=old - 1)
    before = tables(database_url)
    with pytest.raises(UsageError, match="the history of app beside begins at block"):
        apply(tmp_path / "file", rollback=old - 15)
    assert tables(database_url) == before
    apply(tmp_path / "file", words(), words("beside"), rollback=old - 15)
    run(words(), words("beside"))
    assert content(database_url) == content(other_url)


def test_a_version_beside_that_is_undone_too_deep_is_dropped(
    fake_node: FakeNode,
    run: Run,
    apply: Apply,
    database_url: str,
    tmp_path: Path,
    other_url: str,
    query: Query,
) -> None:
    """A build beside the live one is dropped, as by any rollback, because it can be built again."""
    fake_node.mine(n=20)
    old = run(words())
    [contract] = contracts(words())
    build_beside(database_url, contract, "v2", Options(state_folder=tmp_path, history=3))
    fake_node.reorg(15)
    run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file", block_id=old - 1)
    apply(tmp_path / "file", rollback=old - 15)
    assert query("SELECT build FROM vc.apps") == [{"build": "2"}]


def test_other_code_is_refused(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, other_url: str
) -> None:
    """Another app, version or rules are refused, and the database does not change."""
    story(fake_node)
    run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    before = tables(database_url)
    for app, message in (
        (words("strange"), "of app words: name it with --app"),
        (words(version="2"), "version 1, but version 2 here"),
        (words(valid_transaction_window=9), "declares other rules"),
    ):
        with pytest.raises(UsageError, match=message):
            apply(tmp_path / "file", app)
    assert tables(database_url) == before


def test_a_tape_that_was_not_searched_for_the_app(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, other_url: str
) -> None:
    """Blocks after the checkpoint's are searched for the app's inputs, and none before."""
    story(fake_node)
    at = run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    say(fake_node, "five", "six")
    run(Ledger())
    apply(tmp_path / "file")
    story(fake_node)
    run(Ledger(), words())
    run(words(), database=other_url)
    assert content(database_url)["words.words"] == content(other_url)["words.words"]
    with psycopg.connect(database_url) as connection:
        [row] = connection.execute(
            "SELECT min(block_id) FROM vc.inputs WHERE magics @> ARRAY['wd'::bytea]"
        ).fetchall()
    assert row[0] == at + 1


def test_an_opaque_app(
    fake_node: FakeNode, run: Run, apply: Apply, tmp_path: Path, other_url: str, query: Query
) -> None:
    """An opaque app continues from its state file; one that cannot load it is refused."""
    options = {"state_folder": tmp_path / "there"}
    count(fake_node, "a", "b", "a")
    run(Ledger(), database=other_url, **options)
    create_checkpoint(other_url, tmp_path / "file", "ledger")
    with pytest.raises(UsageError, match="cannot load a state file"):
        apply(tmp_path / "file", Forgetful())
    apply(tmp_path / "file", Ledger())
    count(fake_node, "a", "a", "c")
    run(Ledger(), database=other_url, **options)
    app = Ledger()
    run(app, state_folder=tmp_path)
    assert app.loads == [str(tmp_path / "ledger.state")]
    assert (tmp_path / "ledger.state").read_text() == '{"a": 3, "b": 1, "c": 1}'
    fake_node.reorg(1)
    run(app, state_folder=tmp_path)
    assert (tmp_path / "ledger.state").read_text() == '{"a": 2, "b": 1}'


def test_a_damaged_app_creates_no_checkpoint_and_is_repaired_by_one(
    fake_node: FakeNode, run: Run, apply: Apply, database_url: str, tmp_path: Path, query: Query
) -> None:
    """A row that no block wrote is noticed while the file is written; a good file repairs it."""
    story(fake_node)
    run(words())
    create_checkpoint(database_url, tmp_path / "good")
    before = content(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("SET virtualchain.block_id = 'undo'")
        connection.execute("UPDATE words__1.words SET times = 9 WHERE word = 'four'")
    with pytest.raises(StoreError, match="app words is damaged"):
        create_checkpoint(database_url, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    apply(tmp_path / "good")
    run(words())
    assert content(database_url) == before


def test_hashes_before_the_checkpoint_are_fresh(
    fake_node: FakeNode, apply: Apply, run: Run, other_url: str, tmp_path: Path, database_url: str
) -> None:
    """The engine knows the whole series of consensus hashes, which the file contains."""
    story(fake_node)
    at = run(words(), database=other_url)
    create_checkpoint(other_url, tmp_path / "file")
    apply(tmp_path / "file")
    with StateEngine(words(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        assert engine.get_current_block() == at
        assert len(engine.get_valid_consensus_hashes(at)) == 7
