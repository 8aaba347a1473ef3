"""Migration: a checkpoint starts its app on another chain, where its later inputs are not fresh."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Rows
from tests.support.checkpoints import content, contracts, create_checkpoint, manifest_in, say, words, words_in
from tests.support.easy_signet import easy_signet
from tests.support.tables import tables
from virtualchain.checkpoint.apply import Applied
from virtualchain.checkpoint.apply import apply as apply_to
from virtualchain.engine.options import Options
from virtualchain.errors import DeepFork, StoreError, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]
Apply = Callable[..., Applied | None]


@pytest.fixture
def new_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of the deployment on the new chain."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def new_node() -> Iterator[FakeNode]:
    """Return a node of another network, whose chain is longer."""
    with easy_signet(130) as node:
        yield node


@pytest.fixture
def apply(new_url: str, tmp_path: Path) -> Apply:
    """Return a function that applies a file to the new deployment, without a node."""

    def put(file: Path, **options: Any) -> Applied | None:
        settings = Options(state_folder=tmp_path)
        return apply_to(new_url, file, contracts(words()), options=settings, **options)

    return put


def hashes(query: Query) -> dict[int, str]:
    """Return the consensus hashes of the old deployment."""
    rows = query("SELECT block_id, consensus_hash FROM virtualchain.snapshots")
    return {row["block_id"]: row["consensus_hash"] for row in rows}


@pytest.fixture
def old(fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path, query: Query) -> dict[int, str]:
    """Run the app on the old chain, with a checkpoint at block 120; return its consensus hashes."""
    say(fake_node, "one two", "three")
    fake_node.mine(n=17)
    assert run(words()) == 120
    create_checkpoint(database_url, tmp_path / "file")
    say(fake_node, "four")
    run(words())
    return hashes(query)


def test_an_app_continues_on_another_chain(
    new_node: FakeNode, run: Run, apply: Apply, new_url: str, tmp_path: Path, old: dict[int, str]
) -> None:
    """It starts with only the checkpoint's hash; a later hash of the old chain is not fresh."""
    apply(tmp_path / "file", migrates=True)
    say(new_node, f"{old[120]}:taken {old[121]}:later {old[119]}:older")
    new = {"database": new_url, "source": new_node.url}
    run(words(), **new)
    assert words_in(new_url) == {"one", "two", "three", "taken"}
    digests = content(new_url)["virtualchain.snapshots"]
    assert [row[1] for row in digests] == list(range(120, 132))
    assert digests[0][4] == old[120]
    assert old[121] not in {row[4] for row in digests}
    say(new_node, f"{digests[-1][4]}:new")
    run(words(), **new)
    assert "new" in words_in(new_url)


def test_a_migrated_app_creates_checkpoints_of_its_own(
    new_node: FakeNode,
    run: Run,
    apply: Apply,
    new_url: str,
    database_server: DatabaseServer,
    tmp_path: Path,
    old: dict[int, str],
) -> None:
    """Their series begins with the hash that it started with; later hashes are the same everywhere."""
    apply(tmp_path / "file", migrates=True)
    new = {"database": new_url, "source": new_node.url}
    run(words(), **new, to=125)
    made = create_checkpoint(new_url, tmp_path / "theirs")
    assert (made.network, made.first_block_id) == ("signet", 120)
    third = database_server.clone()
    apply_to(third, tmp_path / "theirs", contracts(words()), options=Options(state_folder=tmp_path))
    say(new_node, f"{old[120]}:taken", "five")
    run(words(), **new)
    run(words(), database=third, source=new_node.url)
    ours, theirs = content(third), content(new_url)
    assert ours["words.words"] == theirs["words.words"]
    assert [row[3:] for row in ours["virtualchain.snapshots"]][6:] == [
        row[3:] for row in theirs["virtualchain.snapshots"]
    ][6:]
    database_server.drop(third)


def test_migration_must_be_requested(
    new_node: FakeNode, run: Run, apply: Apply, new_url: str, tmp_path: Path, old: dict[int, str]
) -> None:
    """A deployment on another chain refuses the file, and the message names the option."""
    run(words("other", first_block_id=131), database=new_url, source=new_node.url)
    before = tables(new_url)
    with pytest.raises(UsageError, match=r"of regtest .* this database follows signet .*--migrate"):
        apply(tmp_path / "file")
    assert tables(new_url) == before


def test_a_new_database_follows_the_checkpoints_chain(
    new_node: FakeNode, run: Run, apply: Apply, new_url: str, tmp_path: Path, old: dict[int, str]
) -> None:
    """Without --migrate, a new database is bound to the file's chain and refuses nodes of another one."""
    apply(tmp_path / "file")
    with pytest.raises(StoreError, match="this database follows regtest"):
        run(words(), database=new_url, source=new_node.url)


def test_migration_to_its_own_chain_is_refused(
    run: Run, database_url: str, tmp_path: Path, old: dict[int, str]
) -> None:
    """It would discard the series without need."""
    with pytest.raises(UsageError, match="on the checkpoint's own chain: leave out --migrate"):
        apply_to(
            database_url,
            tmp_path / "file",
            contracts(words()),
            migrates=True,
            options=Options(state_folder=tmp_path),
        )


def test_forks_of_the_new_chain(
    new_node: FakeNode, run: Run, apply: Apply, new_url: str, tmp_path: Path, old: dict[int, str]
) -> None:
    """Forks are undone down to the app's first block, which restores rows of the checkpoint; not below."""
    apply(tmp_path / "file", migrates=True)
    other = words("other", first_block_id=110)
    new = {"database": new_url, "source": new_node.url}
    say(new_node, f"{old[120]}:taken -one two")
    run(words(), other, **new)
    new_node.reorg(11)
    run(words(), other, **new)
    assert words_in(new_url) == {"one", "two", "three"}
    new_node.reorg(13)
    before = tables(new_url)
    with pytest.raises(DeepFork, match="can be rolled back to block 120 at the lowest, not to block 119"):
        run(words(), other, **new)
    assert tables(new_url) == before
    assert manifest_in(tmp_path / "file").block_id == 120
