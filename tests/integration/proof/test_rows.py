"""State roots and row proofs of a deployment: any type of key, any block, any server, and nothing damaged."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.integration.engine.test_opaque_state import Forgetful, Ledger
from tests.integration.engine.test_opaque_state import mine as count
from tests.integration.store.test_locale import OLDER, OTHERS
from tests.integration.store.test_postgresql_versions import running
from tests.support import key_kinds
from tests.support.checkpoints import contracts, create_checkpoint, manifest_in, say, words
from tests.support.easy_signet import easy_signet
from tests.support.key_kinds import KINDS, feed, naive_state_root
from virtualchain import App, StateEngine
from virtualchain.checkpoint.apply import apply
from virtualchain.consensus.row_proofs import RowClaim, check_row_proof, state_root
from virtualchain.engine.options import Options
from virtualchain.errors import DamagedTables, StoreError, UsageError
from virtualchain.proof.rows import prove_row, read_state
from virtualchain.reading import views
from virtualchain.store.database import connect_migrator
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer, installations


def root(url: str, app: str = "kinds", block_id: int | None = None) -> str:
    """Return the state root of an app in a database."""
    with views.snapshot(url) as connection:
        return state_root(read_state(connection, app, block_id))


def proof(url: str, table: str, *key: str, app: str = "kinds", at: int | None = None) -> Any:
    """Make a proof of a row from a database."""
    with views.snapshot(url) as connection:
        return prove_row(connection, app, table, key, at)


def claim(url: str, table: str, *key: str, app: str = "kinds", at: int | None = None) -> RowClaim:
    """Make a proof of a row, and check it against the root that is computed on its own."""
    return check_row_proof(proof(url, table, *key, app=app, at=at), root(url, app, at))


def test_keys_of_every_type_at_random_blocks(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """The root is that of the page, and each key is proved to be there or not, as the database says."""
    feed(fake_node, 1, 30)
    last = run(key_kinds.app(), history=None)
    dice = random.Random(3)
    counts = {True: 0, False: 0}
    for block in [*dice.sample(range(102, last), 5), last]:
        with views.snapshot(database_url) as connection:
            expected = naive_state_root(connection, block)
        assert root(database_url, block_id=block) == expected
        for table in dice.sample(sorted(KINDS), 6):
            key = dice.choice(KINDS[table][1])
            with views.snapshot(database_url) as connection:
                shown = check_row_proof(prove_row(connection, "kinds", table, [key], block), expected)
                row = connection.execute(
                    f"SELECT format('%s', key), note FROM kinds.{table} WHERE key = '{key}'".encode()
                ).fetchone()
            assert shown.block_id == block
            assert shown.row == (row and {"key": row[0], "note": row[1]})
            counts[row is not None] += 1
    assert min(counts.values()) > 3
    assert claim(database_url, "nothing", "at all").row is None


EQUAL = {
    ("amounts", "1.5"): "1.50",
    ("amounts", " -2 "): "-2.000",
    ("codes", "ab"): "ab  ",
    ("ids", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"): "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ("flags", "yes"): "t",
    ("lists", "{ 1, 2 }"): "{1,2}",
    ("moments", "1/1/2000"): "2000-01-01 00:00:00+00",
    ("prices", "1"): "1.00",
    ("ranks", "2.5"): "2.5",
    ("raws", r"\001"): r"\x01",
    ("smalls", "+009"): "9",
    ("spans", "30 days"): "P1M",
}
NOT_THERE = {
    ("amounts", "1.51"): "1.51",
    ("bits", "1010"): "1010",
    ("codes", "abcdx"): "abcdx",
    ("codes", "z"): "z   ",
    ("days", "2/1/2020"): "2020-02-01",
    ("moods", "bad"): "bad",
    ("prices", "1.004"): "1.004",
    ("prices", "7"): "7.00",
    ("ranks", "2.51"): "2.51",
    ("ranks", "-3"): "-3.0",
    ("shorts", "abcd"): "abcd",
    ("texts", "abcd'; --\\"): "abcd'; --\\",
}


def test_the_database_decides_which_text_means_which_row(
    fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """The proof has the stored text; a text that the column would round, cut or fill is not another row's."""
    rows = App("kinds", magic=b"ki", projections=key_kinds.TABLES)

    def commit(op: dict[str, Any], state: Any) -> None:
        for (table, _), stored in EQUAL.items():
            key_kinds._write(state, table, ["key"], [stored], "there", is_delete=False)
        for table, stored in (("codes", "abcd"), ("shorts", "abc"), ("texts", "abcd")):
            key_kinds._write(state, table, ["key"], [stored], "cut off", is_delete=False)

    rows.add(b"o", parse=lambda payload: {}, commit=commit)
    fake_node.mine([fake_node.send(b"kio")])
    run(rows)
    for (table, text), stored in EQUAL.items():
        shown = claim(database_url, table, text)
        assert (shown.key, shown.row) == ({"key": stored}, {"key": stored, "note": "there"}), (table, text)
    for (table, text), own in NOT_THERE.items():
        shown = claim(database_url, table, text)
        assert (shown.key, shown.row) == ({"key": own}, None), (table, text)
    expected = root(database_url)
    assert check_row_proof(proof(database_url, "pairs", "1", "a"), expected).key == {"b": "1", "a": "a"}


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        ("smalls", ["nine"], "not a value of its column: invalid input syntax"),
        ("smalls", ["99999"], "not a value of its column: .*out of range"),
        ("ids", [""], "not a value of its column"),
        ("moods", ["better"], "not a value of its column: invalid input value for enum"),
        ("texts", ["a\0"], "not a value of its column: .*NUL"),
        ("texts", ["\ud800"], "not a value of its column"),
        ("texts", [], "the key of table texts has 1 columns: key"),
        ("pairs", ["a"], "the key of table pairs has 2 columns: b, a"),
        ("pairs", ["a", "1", "2"], "the key of table pairs has 2 columns: b, a"),
        ("pairs_history", ["a", "1"], "has no table pairs_history: its tables are amounts, "),
        ("kinds.texts", ["a"], "has no table kinds.texts"),
    ],
)
def test_what_is_no_table_or_key(
    fake_node: FakeNode, run: Run, database_url: str, table: str, key: list[str], message: str
) -> None:
    """One line says what is wrong."""
    feed(fake_node, 1, 2)
    run(key_kinds.app())
    with pytest.raises(UsageError, match=message) as refused:
        proof(database_url, table, *key)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_shown(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """Apps and blocks without rows or history are refused, each with its reason."""
    feed(fake_node, 1, 10)
    count(fake_node, "a", "b")
    idle, bare = App("idle", magic=b"id", first_block_id=10**6), App("bare", magic=b"ba")
    for app in (idle, bare):
        app.add(b"o", parse=lambda payload: {}, commit=lambda op, state: None)
    last = run(key_kinds.app(), Ledger(), idle, bare, history=4)
    for name, block, message in (
        ("other", None, "has no app other"),
        ("idle", None, "app idle has taken no block"),
        ("ledger", None, "app ledger has an opaque state"),
        ("kinds", last + 1, f"app kinds is at block {last}"),
        ("kinds", last - 5, f"app kinds cannot show block {last - 5}: it has blocks {last - 4} to {last}"),
        ("kinds", 3, f"app kinds cannot show block 3: it has blocks {last - 4} to {last}"),
    ):
        with pytest.raises(UsageError, match=message) as refused:
            root(database_url, name, block)
        assert "\n" not in str(refused.value)
    assert root(database_url, "kinds", last - 4)
    with views.snapshot(database_url) as connection:
        assert read_state(connection, "bare")["tables"] == []


def test_an_opaque_app_without_a_state_hash(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """Without db_save nothing is known of its state."""
    count(fake_node, "a")
    run(Forgetful())
    with pytest.raises(UsageError, match="opaque state"):
        root(database_url, Forgetful().get_virtual_chain_name())


def test_a_rollback_restores_the_roots(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """Below the fork they stay, and above it they are those of a deployment that saw only the new branch."""
    feed(fake_node, 5, 12)
    last = run(key_kinds.app())
    before = {block: root(database_url, block_id=block) for block in range(last - 8, last + 1)}
    fake_node.reorg(5)
    feed(fake_node, 6, 6)
    run(key_kinds.app())
    fresh = fresh_index(key_kinds.app())
    for block in range(last - 8, fake_node.height + 1):
        after = root(database_url, block_id=block)
        assert after == root(fresh, block_id=block)
        assert (after == before.get(block)) == (block <= last - 5)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE kinds__1.pairs SET note = 'mine'",
        "DELETE FROM kinds__1.pairs WHERE ctid = (SELECT min(ctid) FROM kinds__1.pairs)",
        "INSERT INTO kinds__1.nothing VALUES ('mine', 110)",
        "UPDATE kinds__1.pairs SET a = a || '+'",
        "UPDATE vc.snapshots SET state_hash = sha256('mine')",
    ],
)
def test_nothing_damaged_is_proved(fake_node: FakeNode, run: Run, database_url: str, damage: str) -> None:
    """Whatever table or digest was changed by hand, no root and no proof of any table is made."""
    feed(fake_node, 1, 10)
    run(key_kinds.app())
    root(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("SET virtualchain.block_id = 'undo'")
        assert connection.execute(damage.encode()).rowcount
    with pytest.raises(DamagedTables, match="app kinds is damaged, so nothing is proved: its state hash"):
        root(database_url)
    for table, key in (("pairs", ["1", "a"]), ("texts", ["a"])):
        with pytest.raises(DamagedTables, match="nothing is proved"):
            proof(database_url, table, *key)


def test_damaged_history_is_not_proved(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """A row as of an earlier block comes from the history, which may be damaged as well."""
    feed(fake_node, 1, 10)
    last = run(key_kinds.app())
    [row] = query("SELECT max(until_block) - 1 AS block FROM kinds__1.pairs_history")
    root(database_url, block_id=row["block"])
    with psycopg.connect(database_url) as connection:
        changed = "UPDATE kinds__1.pairs_history SET note = 'mine' WHERE until_block = %s"
        connection.execute(changed, [row["block"] + 1])
    root(database_url, block_id=last)
    with pytest.raises(DamagedTables, match="nothing is proved"):
        root(database_url, block_id=row["block"])


def test_a_reader_proves_the_rows_that_it_may_read(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """The role of a reader suffices, for every type of key; another app's rows are refused."""
    feed(fake_node, 1, 10)
    say(fake_node, "one")
    last = run(key_kinds.app(), words())
    role = f"{urlsplit(database_url).path[1:]}:reader"
    with connect_migrator(database_url) as connection:
        reader = grant_reader(connection, role, ["kinds"], login=True)
    parts = urlsplit(database_url)
    place = f"{quote(role, safe='')}:{reader.password}@{parts.netloc.rpartition('@')[2]}"
    url = parts._replace(netloc=place).geturl()
    for block in (last, last - 4):
        assert root(url, block_id=block) == root(database_url, block_id=block)
        for table, (_, keys) in KINDS.items():
            for key in keys[:2]:
                assert proof(url, table, key, at=block) == proof(database_url, table, key, at=block)
    with pytest.raises(StoreError, match=r"permission denied.*grant-reader"):
        root(url, "words")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, EmbeddedServer]]:
    """Run a server of the oldest and one of the newest version that is installed."""
    programs = installations()
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(running(programs[version]))
            for version in {min(programs), max(programs)}
        }


def create_sorted_database(superuser: psycopg.Connection) -> None:
    """Create a database that sorts text otherwise than by its bytes, or has another locale at least."""
    for case in ("ICU", "libc en_US", "libc C.UTF-8"):
        options = f"{OTHERS[case]} ENCODING 'UTF8' TEMPLATE template0"
        with suppress(*OLDER):
            superuser.execute(f"CREATE DATABASE sorted OWNER virtualchain {options}".encode())
            return
    raise AssertionError("the server has none of these locales")


def test_every_server_and_locale_has_the_same_roots(
    servers: dict[int, EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the oldest and the newest PostgreSQL, and in databases that sort otherwise, proofs are the same."""
    monkeypatch.setattr("virtualchain.store.migrate.require_c_locale", lambda *_: None)
    made: list[Any] = []
    with FakeNode() as node:
        feed(node, 9, 8)
        for server in servers.values():
            with closing(server._connect()) as superuser:
                create_sorted_database(superuser)
            for url in (server.url, server.url_for("sorted")):
                migrate(url)
                with StateEngine(key_kinds.app(), database=url, source=node.url, confirmations=0) as engine:
                    last = engine.build()
                roots = [root(url, block_id=block) for block in (last, last - 3)]
                proofs = [proof(url, table, key) for table, (_, keys) in KINDS.items() for key in keys[:3]]
                made.append((roots, proofs))
    assert len(made) == 2 * len(servers)
    assert all(each == made[0] for each in made)


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def test_a_checkpoint_has_the_state_root(
    fake_node: FakeNode, run: Run, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """It is that of the views, at the last block and before; a deployment that begins with it has it, too."""
    feed(fake_node, 2, 12)
    last = run(key_kinds.app(), history=None)
    for block in (last, last - 5):
        made = create_checkpoint(database_url, tmp_path / "file", "kinds", block_id=block)
        assert made.state_root == root(database_url, block_id=block)
        assert manifest_in(tmp_path / "file") == made
    apply(other_url, tmp_path / "file", contracts(key_kinds.app()), options=Options(state_folder=tmp_path))
    with pytest.raises(UsageError, match=f"block {last - 5} is not on the tape"):
        root(other_url, block_id=last - 5)
    feed(fake_node, 3, 2)
    for url in (database_url, other_url):
        run(key_kinds.app(), database=url)
    for block in range(last - 4, fake_node.height + 1):
        assert root(other_url, block_id=block) == root(database_url, block_id=block)
    with pytest.raises(UsageError, match="not on the tape"):
        root(other_url, block_id=last - 6)


def test_a_checkpoint_of_an_opaque_app_has_no_state_root(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """Its state is one file, in which no row can be proved."""
    count(fake_node, "a", "b", "a")
    run(Ledger())
    assert create_checkpoint(database_url, tmp_path / "file", "ledger").state_root is None


def test_a_migrated_app(
    fake_node: FakeNode, run: Run, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """On another chain the same rows have another root, because it names the chain."""
    say(fake_node, "one two", "three")
    fake_node.mine(n=17)
    run(words())
    made = create_checkpoint(database_url, tmp_path / "file")
    with easy_signet(130) as node:
        options = Options(state_folder=tmp_path)
        apply(other_url, tmp_path / "file", contracts(words()), migrates=True, options=options)
        run(words(), database=other_url, source=node.url)
        say(node, "four")
        run(words(), database=other_url, source=node.url)
        theirs = create_checkpoint(other_url, tmp_path / "theirs")
    with views.snapshot(other_url) as connection:
        there = read_state(connection, "words", made.block_id + 1)
    with views.snapshot(database_url) as connection:
        here = read_state(connection, "words")
    assert there["tables"] == here["tables"]
    assert there["genesis_hash"] != here["genesis_hash"]
    assert claim(other_url, "words", "two", app="words").row is not None
    assert claim(other_url, "words", "four", app="words", at=made.block_id + 1).row is None
    assert theirs.state_root == root(other_url, "words")
