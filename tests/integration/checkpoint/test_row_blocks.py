"""The blocks that wrote the rows: reducers see the same ones on every node, however it began."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Rows
from tests.support.checkpoints import contracts, create_checkpoint, forge
from tests.support.easy_signet import easy_signet
from virtualchain import App, State
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.apply import apply as apply_to
from virtualchain.checkpoint.verify import verify
from virtualchain.engine.options import Options
from virtualchain.errors import InvalidCheckpoint, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]
ROWS = "projections/1.rows"


def ages() -> App:
    """Return an app whose reducers read since_block: into an op's hashed fields, and into another row."""
    app = App(
        "ages",
        magic=b"ag",
        first_block_id=102,
        projections="CREATE TABLE rows (key text PRIMARY KEY, seen bigint, body text)",
    )

    def commit(op: dict[str, Any], state: State) -> dict[str, Any]:
        verb, key = op["text"][0], op["text"][1:]
        row = state.one("SELECT * FROM rows WHERE key = %s", [key])
        before = -1 if row is None else row["since_block"]
        if verb == "+":
            state.execute(
                """INSERT INTO rows VALUES (%s, %s, '') ON CONFLICT (key)
                    DO UPDATE SET seen = excluded.seen, body = rows.body || 'x'""",
                [key, before],
            )
        elif verb == "-":
            state.execute("DELETE FROM rows WHERE key = %s", [key])
        return {"text": op["text"], "before": before}

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit, fields=["text", "before"])
    return app


def do(node: FakeNode, *blocks: str) -> None:
    """Mine a block for each text, with an op for each of its words."""
    for block in blocks:
        node.mine([node.send(b"ago" + word.encode()) for word in block.split()])


def story(node: FakeNode) -> None:
    """Mine blocks in which rows are made, changed, removed, made again, and only looked at."""
    do(node, "+a +b +c", "+b", "", "-c +d", "+c ?a ?b", "+d -d +d", "?a ?b ?c ?d", "+e")


def seen(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows with their blocks, and the digests."""
    with psycopg.connect(url) as connection:
        [(tables,)] = connection.execute("SELECT schema || '__' || build FROM virtualchain.apps").fetchall()
        rows = f"SELECT * FROM {tables}.rows ORDER BY key"
        digests = """SELECT block_id, consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY 1"""
        return {
            "rows": connection.execute(rows.encode()).fetchall(),
            "digests": connection.execute(digests.encode()).fetchall(),
        }


@pytest.fixture
def urls(database_server: DatabaseServer) -> Iterator[list[str]]:
    """Return the databases of further deployments."""
    made = [database_server.clone() for _ in range(2)]
    yield made
    for url in made:
        database_server.drop(url)


def put(url: str, file: Path, **options: Any) -> None:
    """Apply a file to a deployment."""
    apply_to(url, file, contracts(ages()), options=Options(state_folder=file.parent), **options)


def test_reducers_see_the_same_blocks_on_a_node_begun_by_a_checkpoint(
    fake_node: FakeNode, run: Run, database_url: str, urls: list[str], tmp_path: Path
) -> None:
    """Rows, hashes and files are those of a node with all blocks: one that undid some, and a new one."""
    begun, fresh = urls
    story(fake_node)
    run(ages())
    create_checkpoint(database_url, tmp_path / "file", "ages", block_id=fake_node.height - 2)
    put(begun, tmp_path / "file")
    story(fake_node)
    run(ages())
    run(ages(), database=begun)
    assert seen(begun) == seen(database_url)
    fake_node.reorg(5)
    do(fake_node, "?a ?b +a", "-b ?e", "+b ?d")
    for url in (database_url, begun, fresh):
        run(ages(), database=url)
    assert seen(begun) == seen(database_url) == seen(fresh)
    assert len({row[-1] for row in seen(begun)["rows"]}) > 2
    files = []
    for number, url in enumerate((database_url, begun, fresh)):
        create_checkpoint(url, tmp_path / str(number), "ages", block_id=fake_node.height - 1)
        files.append((tmp_path / str(number)).read_bytes())
    assert files[0] == files[1] == files[2]


def test_the_file_has_the_block_of_each_row(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """It is the last column, which the state hash does not cover."""
    story(fake_node)
    last = run(ages())
    made = create_checkpoint(database_url, tmp_path / "file", "ages", block_id=last - 3)
    with archive.reading(tmp_path / "file") as reader:
        assert [line.split(b"\t")[0::3] for line in reader.lines(ROWS)] == [
            [b"a", b"102\n"],
            [b"b", b"103\n"],
            [b"c", b"106\n"],
            [b"d", b"105\n"],
        ]
    forge(tmp_path / "file", tmp_path / "later", _change(b"\t103\n", b"\t104\n"))
    with archive.reading(tmp_path / "later") as reader:
        assert verify(reader).manifest.state_hash == made.state_hash


def _change(old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        assert old in members[ROWS]
        members[ROWS] = members[ROWS].replace(old, new, 1)

    return change


IMPOSSIBLE = (
    *(b"101", b"107", b"0", b"-1", b"2147483648", b"4294967399", b"0103", b"+103", b" 103", b"103 "),
    *(b"1e2", b"", b"\\N", b"103.0", b"x", "\uff11\uff10\uff13".encode(), b"0x67", b"1_03"),
)
"""What is not a block from 102 to 106 as the database writes it."""


def test_impossible_blocks_are_refused(
    fake_node: FakeNode, run: Run, database_url: str, urls: list[str], tmp_path: Path
) -> None:
    """A block outside the app's, or spelled as the database does not, is noticed without a database."""
    story(fake_node)
    last = run(ages())
    create_checkpoint(database_url, tmp_path / "file", "ages", block_id=last - 3)
    message = "row 2 of table rows is invalid: its block is not one from 102 to 106"
    for block in IMPOSSIBLE:
        forge(tmp_path / "file", tmp_path / "forged", _change(b"\t103\n", b"\t" + block + b"\n"))
        with pytest.raises(InvalidCheckpoint, match=message), archive.reading(tmp_path / "forged") as reader:
            verify(reader)
        for migrates in (False, True):
            with pytest.raises(InvalidCheckpoint, match=message):
                put(urls[0], tmp_path / "forged", migrates=migrates)


def test_a_row_without_a_block_is_refused(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """The rows of the first format are not accepted under the new one's name."""
    story(fake_node)
    run(ages())
    create_checkpoint(database_url, tmp_path / "file", "ages")
    forge(tmp_path / "file", tmp_path / "forged", _change(b"\t103\n", b"\n"))
    with pytest.raises(InvalidCheckpoint, match="row 2 of table rows is invalid"):
        put(database_url, tmp_path / "forged")


def test_on_another_chain_all_rows_have_the_checkpoints_block(
    fake_node: FakeNode, run: Run, database_url: str, urls: list[str], tmp_path: Path
) -> None:
    """There the file's blocks mean nothing; every node that migrates with the file has the same rows."""
    story(fake_node)
    last = run(ages())
    create_checkpoint(database_url, tmp_path / "file", "ages")
    with easy_signet(last) as other:
        do(other, "?a +a", "-b")
        for url in urls:
            put(url, tmp_path / "file", migrates=True)
            assert {row[-1] for row in seen(url)["rows"]} == {last}
            run(ages(), database=url, source=other.url)
        assert seen(urls[0]) == seen(urls[1])
        create_checkpoint(urls[0], tmp_path / "theirs", "ages")
        create_checkpoint(urls[1], tmp_path / "others", "ages")
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "others").read_bytes()
    with archive.reading(tmp_path / "theirs") as reader:
        verify(reader)


def test_a_deployment_that_began_with_a_file_of_the_first_format(
    fake_node: FakeNode, run: Run, database_url: str, urls: list[str], tmp_path: Path
) -> None:
    """It does not know who wrote its rows, so it creates no checkpoint until a new one was applied."""
    story(fake_node)
    run(ages(), database=urls[0])
    create_checkpoint(urls[0], tmp_path / "file", "ages")
    put(database_url, tmp_path / "file")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.checkpoints SET has_row_blocks = false")
    with pytest.raises(UsageError, match="began with a checkpoint of the first format"):
        create_checkpoint(database_url, tmp_path / "again", "ages")
    put(database_url, tmp_path / "file")
    create_checkpoint(database_url, tmp_path / "again", "ages")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("size", [2_000, 2_001, 2_690])
def test_a_row_that_no_block_could_write(
    fake_node: FakeNode, run: Run, database_url: str, urls: list[str], tmp_path: Path, size: int
) -> None:
    """A key that is longer than reducers may write is refused, because it could never be deleted."""
    do(fake_node, "+a", "+b")
    run(ages())
    create_checkpoint(database_url, tmp_path / "file", "ages")
    change = _change(b"b\t-1", b"b" * size + b"\t-1")
    forge(tmp_path / "file", tmp_path / "forged", change, is_careful=True)
    if size <= 2_000:
        put(urls[0], tmp_path / "forged")
        return
    with pytest.raises(InvalidCheckpoint, match="a row of its table rows is too long for an index"):
        put(urls[0], tmp_path / "forged")
