"""`check_reorgs`: apps that come out of forks as if they had not been, and those that do not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.rides import rides_app
from virtualchain import App, State
from virtualchain.app.declarations import read_contract
from virtualchain.errors import UsageError
from virtualchain.examples import notary
from virtualchain.testing import check_reorgs, op_return, scenario
from virtualchain.testing.cases import CaseWriter, Place
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.differences import Side
from virtualchain.testing.machines import Ran
from virtualchain.testing.reorgs import ReorgDiffers, _describe_history, _Walk

SAMPLES = [b"wdohello", b"wdoworld"]
WORDS = "CREATE TABLE words (id bigint PRIMARY KEY, word text NOT NULL, number bigint)"
Commit = Callable[[dict[str, Any], State, int], None]


def an_app(commit: Commit | None = None, parse: Callable[[bytes], dict[str, Any]] | None = None) -> App:
    """Make an app that keeps words, with what is planted in it."""

    def keep(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
        row = block_id * 1000 + vtxindex
        state.execute("INSERT INTO words VALUES (%s, %s, 0)", [row, op["word"]])
        if commit is not None:
            commit(op, state, row)

    app = App("words", magic=b"wd", projections=WORDS)
    app.add(b"o", parse=parse or (lambda payload: {"word": payload.hex()}), commit=keep)
    return app


def test_an_app_whose_state_is_in_its_tables(database_url: str, database_server: DatabaseServer) -> None:
    """It is replayed in another process after each fork, and no database is left."""
    document = bytes(32)
    samples = [b"nt" + opcode + document for opcode in (b"c", b"t", b"r")]
    report = check_reorgs(notary.app, samples, database_url=database_url, forks=4, seed=5)
    assert (report.seed, report.forks, report.is_elsewhere) == (5, 4, True)
    assert report.inputs > 5
    assert report.blocks > 10
    with psycopg.connect(database_server.url) as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'reorgs%'")
        assert left.fetchall() == []


def test_an_app_that_tracks_outputs_and_cannot_be_sent(database_url: str, tmp_path: Path) -> None:
    """Its outputs are spent on one branch and not on another; the report says where it was replayed."""
    with (tmp_path / "log").open("w") as log:
        app = rides_app()
        app.proceed(lambda block_id, consensus_hash: print(block_id, file=log))
        report = check_reorgs(app, [b"rim5"], database_url=database_url, forks=3)
    assert not report.is_elsewhere
    assert report.inputs > 5


def a_counter() -> App:
    """Count in a variable."""
    seen: list[int] = []

    def commit(op: dict[str, Any], state: State, row: int) -> None:
        seen.append(row)
        state.execute("UPDATE words SET number = %s WHERE id = %s", [len(seen), row])

    return an_app(commit)


def a_file(folder: Path) -> App:
    """Count in a file."""
    file = folder / "count"

    def commit(op: dict[str, Any], state: State, row: int) -> None:
        number = int(file.read_text()) + 1 if file.exists() else 1
        file.write_text(str(number))
        state.execute("UPDATE words SET number = %s WHERE id = %s", [number, row])

    return an_app(commit)


def in_order_of_hashes(payload: bytes) -> dict[str, Any]:
    """Let the hash seed order letters."""
    return {"word": " ".join({f"{payload.hex()} {number}" for number in range(30)})}


class Lasting:
    """An app with a state of its own that is not loaded, so that nothing undoes it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "words"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 0

    def get_magic_bytes(self) -> bytes:
        """Return the magic."""
        return b"wd"

    def get_opcodes(self) -> bytes:
        """Return the opcode."""
        return b"o"

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Return what is in memory, whatever was saved."""
        return self.counts

    def db_parse(self, *arguments: Any) -> dict[str, Any]:
        """Return the word."""
        return {"word": arguments[2].hex()}

    def db_check(self, *arguments: Any) -> bool:
        """Accept a word three times."""
        return int(arguments[6].get(arguments[2]["word"], 0)) < 3

    def db_commit(self, *arguments: Any) -> None:
        """Count the word."""
        counts, word = arguments[5], arguments[2]["word"]
        counts[word] = counts.get(word, 0) + 1

    def db_save(self, block_id: int, filename: str, db_state: dict[str, int]) -> None:
        """Save the counts."""
        Path(filename).write_text(json.dumps(db_state, sort_keys=True))


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, object]:
    """Return apps with a mistake each."""
    return {
        "variable": a_counter(),
        "file": a_file(tmp_path),
        "hashes": an_app(parse=in_order_of_hashes),
        "lasting": Lasting(),
    }


@pytest.mark.parametrize(
    ("which", "shown"),
    [
        ("variable", r"- table words, row \(\d+\): .*\n.*\n  1. 6 new blocks\n  2. .*replaced"),
        ("file", r"even before a fork:.*UPDATE words SET number = %s"),
        ("hashes", r"- verdict: accepted 0 "),
        ("lasting", r"- (digests|verdict)"),
    ],
)
def test_a_planted_mistake(database_url: str, planted: dict[str, object], which: str, shown: str) -> None:
    """The first difference is named, with the steps that led there and the call that repeats them."""
    with pytest.raises(ReorgDiffers, match=f"(?s){shown}") as raised:
        check_reorgs(planted[which], SAMPLES, database_url=database_url, guard=False)
    message = str(raised.value)
    assert message.startswith("app words is other than in a fresh replay, ")
    assert "- the app after these steps and a fresh replay of the chain differ first in block 2" in message
    assert "check_reorgs(…, seed=1, forks=" in message
    assert "Instead, keep state in the app's tables alone: " in message


def test_a_seed_repeats_its_steps() -> None:
    """Another seed has others; each chain is the same to the last byte."""

    def walked(seed: int) -> tuple[list[str], str]:
        contract = read_contract(an_app(), "regtest")
        walk = _Walk(seed, Place.of(contract), CaseWriter(contract, SAMPLES, op_return), has_samples=True)
        with walk.node:
            return list(walk.steps(12)), walk.node.tip

    steps, tip = walked(3)
    assert walked(3) == (steps, tip)
    assert walked(4)[0] != steps
    assert len(steps) == 13
    assert any("wins again" in step for step in steps)
    assert any("(not looked at)" in step for step in steps)
    assert not steps[-1].endswith("(not looked at)")


def test_a_difference_in_history_alone(database_url: str, database_server: DatabaseServer) -> None:
    """Rows as they were are compared, too: here somebody has changed one, unseen."""

    def commit(op: dict[str, Any], state: State, row: int) -> None:
        state.execute("UPDATE words SET number = %s WHERE word = %s", [row, op["word"]])

    def side(name: str, url: str) -> Side:
        with scenario(an_app(commit), url, replays=False) as story:
            story.block(story.send(b"wdoone"))
            story.block(story.send(b"wdoone"))
        return Side(name, url, Ran())

    other_url = database_server.clone()
    one, other = side("one", database_url), side("the other", other_url)
    assert _describe_history("words", one, other) == []
    with psycopg.connect(other_url) as connection:
        connection.execute("SELECT set_config('virtualchain.block_id', 'undo', true)")
        connection.execute("UPDATE words__1.words_history SET number = 7")
    lines = _describe_history("words", one, other)
    assert lines[0] == "one and the other have other changes"
    assert '"number": ' in lines[1]
    database_server.drop(other_url)


def test_what_cannot_be_tried(database_url: str) -> None:
    """An app that halts anyway, one that no input reaches, and no fork at all."""
    halting = an_app(parse=lambda payload: {"word": payload.decode()[9]})
    with pytest.raises(UsageError, match=r"words halts in block 21, in a fresh replay, too; check_poison"):
        check_reorgs(halting, SAMPLES, database_url=database_url, forks=1)
    nothing = App("nothing", magic=b"no", payload_rule=lambda outputs: None)
    nothing.add(b"o", parse=lambda payload: {})
    with pytest.raises(UsageError, match="no input reaches app nothing: pass samples"):
        check_reorgs(nothing, [b"noo"], database_url=database_url, forks=1)
    with pytest.raises(UsageError, match="at least one fork, not 0"):
        check_reorgs(nothing, forks=0)
