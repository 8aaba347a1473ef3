"""Time travel: with virtualchain.as_of every view shows its rows as of one block."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Rows
from tests.support.checkpoints import contracts, create_checkpoint, say, words
from tests.support.moving import an_app, story
from virtualchain import StateEngine
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.options import Options
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]
AsOf = Callable[..., Rows]

QUESTIONS = (
    "SELECT * FROM one.owners ORDER BY name",
    "SELECT * FROM one.marks ORDER BY place",
    "SELECT * FROM one.owners AS o JOIN one.marks AS m USING (name) ORDER BY place",
    """SELECT o.name, count(m.place) FROM one.owners AS o LEFT JOIN one.marks AS m USING (name)
        GROUP BY 1 ORDER BY 1""",
    "SELECT * FROM one.owners FULL JOIN two.owners AS t USING (name) ORDER BY name",
    "SELECT * FROM one.marks WHERE name IN (SELECT name FROM two.owners WHERE rank > 2) ORDER BY place",
    """SELECT m.place, o.txid, o.fields FROM two.marks AS m JOIN virtualchain.ops AS o
        ON o.app = 'two' AND m.note = 'block ' || o.block_id ORDER BY m.place, o.vtxindex""",
    "SELECT max(rank), min(name), count(*) FROM one.owners",
    "SELECT * FROM one.marks ORDER BY place DESC LIMIT 2",
    "SELECT name, block_id, block_hash, consensus_hash, state_hash FROM virtualchain.apps ORDER BY name",
    "SELECT * FROM virtualchain.snapshots ORDER BY app, block_id",
    "SELECT * FROM virtualchain.ops ORDER BY app, block_id, vtxindex",
    "SELECT * FROM virtualchain.rejections ORDER BY app, block_id, txindex",
    "SELECT max(block_id), max(hash), count(*) FROM virtualchain.blocks",
    "SELECT count(*), max(txid) FROM virtualchain.inputs",
    'SELECT app, "table", block_id, action, key, old, new FROM virtualchain.changes ORDER BY 3, 1, 2, 5',
)


@pytest.fixture
def as_of(database_url: str) -> Iterator[AsOf]:
    """Return a function that queries the test's database as of a block."""
    with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection:

        def ask(block: object, statement: str) -> Rows:
            with connection.transaction():
                connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
                return connection.execute(statement.encode()).fetchall()

        yield ask


def test_as_of_equals_an_index_that_stopped_there(
    fake_node: FakeNode, run: Run, as_of: AsOf, database_server: DatabaseServer
) -> None:
    """Tables, joins within and across apps, and the log are shown as they were at fifty random blocks."""
    for seed in range(8):
        story(fake_node, seed, 10)
    apps = an_app("one"), an_app("two", first_block_id=110)
    run(*apps, history=None)
    blocks = sorted(random.Random(7).sample(range(101, fake_node.height + 1), 50))
    other = database_server.clone()
    with (
        psycopg.connect(other, row_factory=dict_row, autocommit=True) as stopped,
        StateEngine(*apps, database=other, source=fake_node.url, confirmations=0, history=None) as engine,
    ):
        for block in blocks:
            assert engine.build(block) == block
            [tip] = stopped.execute("SELECT hash FROM virtualchain.blocks WHERE block_id = %s", [block])
            asked = tip["hash"] if block % 2 else block
            for question in QUESTIONS:
                expected = stopped.execute(question.encode()).fetchall()
                assert as_of(asked, question) == expected, (block, question)
    database_server.drop(other)


def test_unset_or_empty_is_now(fake_node: FakeNode, run: Run, as_of: AsOf, query: Query) -> None:
    """An empty setting has no effect, and SET LOCAL ends with its transaction, as a pooler needs."""
    story(fake_node, 1, 20)
    run(an_app())
    now = query("SELECT * FROM plain.marks ORDER BY place")
    assert as_of("", "SELECT * FROM plain.marks ORDER BY place") == now
    assert as_of(fake_node.height, "SELECT * FROM plain.marks ORDER BY place") == now
    assert as_of(fake_node.height - 15, "SELECT * FROM plain.marks ORDER BY place") != now
    assert as_of("", "SELECT * FROM plain.marks ORDER BY place") == now


ERRORS: list[tuple[Any, str]] = [
    ("nonsense", r"virtualchain\.as_of is no(t a)? block: 'nonsense'"),
    ("-1", r"virtualchain\.as_of is no(t a)? block: '-1'"),
    ("1.5", r"virtualchain\.as_of is no(t a)? block"),
    ("99999999999999999999", r"virtualchain\.as_of is no(t a)? block"),
    ("9999999999", r"block 9999999999 is not here: the blocks here are 50 to 101"),
    ("100000", "block 100000 is not here: the blocks here are 50 to"),
    ("0", "block 0 is not here"),
    ("ab" * 32, "no block here has the hash (ab){32}"),
]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM plain.owners",
        "SELECT count(*) FROM plain.owners",
        "SELECT * FROM plain.owners WHERE name = 'x'",
        "SELECT * FROM plain.owners ORDER BY name LIMIT 1",
        "SELECT EXISTS (SELECT FROM plain.owners)",
        "SELECT * FROM plain.owners JOIN plain.marks USING (name)",
        "SELECT * FROM plain.owners LEFT JOIN plain.marks USING (name)",
        "SELECT * FROM generate_series(1, 3) AS n LEFT JOIN plain.marks ON place = n",
        "SELECT * FROM virtualchain.rejections",
        "SELECT * FROM virtualchain.ops WHERE app = 'plain' ORDER BY block_id LIMIT 1",
        "SELECT * FROM virtualchain.changes",
        "SELECT * FROM virtualchain.apps",
        "SELECT * FROM virtualchain.blocks",
    ],
)
def test_an_invalid_block_is_an_error_even_on_an_empty_table(empty_deployment: str, statement: str) -> None:
    """The error names the blocks that there are, even if no row is read."""
    with psycopg.connect(empty_deployment, autocommit=True) as connection:
        for asked, message in ERRORS:
            connection.execute("SELECT set_config('virtualchain.as_of', %s, false)", [asked])
            with pytest.raises(psycopg.Error, match=message):
                connection.execute(statement.encode())


@pytest.fixture(scope="module")
def empty_deployment(database_server: DatabaseServer) -> Iterator[str]:
    """Return a deployment whose app has taken blocks, but no op."""
    url = database_server.clone()
    node = FakeNode()
    with StateEngine(an_app(first_block_id=50), database=url, source=node.url, confirmations=0) as engine:
        engine.build()
    yield url
    node.close()
    database_server.drop(url)


def test_below_the_kept_history_and_above_an_apps_last_block(
    fake_node: FakeNode, run: Run, as_of: AsOf, query: Query
) -> None:
    """The error names the blocks that an app can show; the log still shows all blocks."""
    story(fake_node, 1, 30)
    run(an_app("one"), history=10)
    last = fake_node.height
    story(fake_node, 2, 5)
    broken = an_app("two")
    broken.db_final = lambda block_id, ops, state: 1 // 0 if block_id > last else None
    run(an_app("one"), broken, history=10)
    rows = query("SELECT name, history_from AS lowest, block_id FROM virtualchain.apps ORDER BY name")
    lowest = rows[0]["lowest"]
    assert rows[0]["lowest"] > 101
    with pytest.raises(
        psycopg.Error, match=f"app one cannot show block {lowest - 1}: it has blocks {lowest} to "
    ):
        as_of(lowest - 1, "SELECT * FROM one.marks")
    assert as_of(lowest, "SELECT count(*) FROM one.marks")
    with pytest.raises(psycopg.Error, match=f"app two cannot show block {last + 1}: .* to {last}\n"):
        as_of(last + 1, "SELECT * FROM two.marks")
    with pytest.raises(psycopg.Error, match="app two cannot show"):
        as_of(last + 1, "SELECT * FROM one.owners AS o LEFT JOIN two.owners AS t USING (name)")
    assert as_of(last + 1, "SELECT count(*) FROM one.marks")
    assert as_of(lowest - 1, "SELECT max(block_id) AS n FROM virtualchain.blocks") == [{"n": lowest - 1}]


def test_a_block_that_was_rolled_back_is_not_shown(
    fake_node: FakeNode, run: Run, as_of: AsOf, query: Query
) -> None:
    """Its hash is unknown, and its height means the block that replaced it."""
    story(fake_node, 1, 12)
    run(an_app())
    gone, height = fake_node.tip, fake_node.height
    marks = as_of(height - 3, "SELECT * FROM plain.marks ORDER BY place")
    fake_node.reorg(3)
    story(fake_node, 2, 3)
    run(an_app())
    with pytest.raises(psycopg.Error, match=f"no block here has the hash {gone}"):
        as_of(gone, "SELECT * FROM plain.marks")
    assert as_of(height - 3, "SELECT * FROM plain.marks ORDER BY place") == marks


def test_a_late_app_is_empty_before_its_first_block(fake_node: FakeNode, run: Run, as_of: AsOf) -> None:
    """If nothing was pruned, an app that begins late has no rows before its first block."""
    story(fake_node, 1, 20)
    run(an_app("early"), an_app("late", first_block_id=115))
    assert as_of(112, "SELECT * FROM late.marks") == []
    assert as_of(fake_node.height, "SELECT * FROM late.marks") != []


def test_views_of_older_deployments_are_brought_up_to_date(
    fake_node: FakeNode, run: Run, as_of: AsOf, query: Query, database_url: str
) -> None:
    """Migrating replaces views of an earlier version, and locks nothing if there are none."""
    from virtualchain.store.migrate import migrate

    story(fake_node, 1, 20)
    run(an_app())
    expected = as_of(110, "SELECT * FROM plain.marks ORDER BY place")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW plain.marks AS SELECT place, name, note, raw FROM plain__1.marks"
        )
        connection.execute("DELETE FROM vc.published")
    assert as_of(110, "SELECT * FROM plain.marks ORDER BY place") != expected
    migrate(database_url)
    assert as_of(110, "SELECT * FROM plain.marks ORDER BY place") == expected
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT * FROM plain.marks")
        before = query("SELECT oid, xmin::text FROM pg_class WHERE relname IN ('marks', 'owners')")
        migrate(database_url)  # a lock would wait for the reader
        assert query("SELECT oid, xmin::text FROM pg_class WHERE relname IN ('marks', 'owners')") == before


def words_as_of(url: str, block: int) -> list[tuple[Any, ...]]:
    """Return the rows of the app words as of a block."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
        return connection.execute("SELECT to_jsonb(w)::text FROM words.words AS w ORDER BY 1").fetchall()


def test_after_a_checkpoint_each_block_is_shown(
    fake_node: FakeNode, run: Run, database_url: str, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """An app that began with a checkpoint shows every later block, and an error for earlier ones."""
    whole = database_server.clone()
    say(fake_node, "one two", "two", "three", "one", "-two four")
    run(words(), database=whole)
    base = create_checkpoint(whole, tmp_path / "file").block_id
    apply(database_url, tmp_path / "file", contracts(words()), options=Options(state_folder=tmp_path))
    say(fake_node, "four one", "-one", "five", "two")
    run(words(), database=whole)
    last = run(words())
    for block in range(base + 1, last + 1):
        assert words_as_of(database_url, block) == words_as_of(whole, block)
    with psycopg.connect(database_url) as connection:
        changed = connection.execute(
            "SELECT min(block_id), max(block_id) FROM virtualchain.changes"
        ).fetchone()
    assert changed == (base + 1, last)
    with pytest.raises(psycopg.Error, match=f"block {base - 3} is not here: the blocks here are"):
        words_as_of(database_url, base - 3)
    database_server.drop(whole)
