"""An app whose digests are not those that are expected stops before it takes another block, and says so."""

from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, StateEngine
from virtualchain.engine import expectations
from virtualchain.engine.deployment import Deployment, Landed
from virtualchain.errors import AppHalted, InvalidApp, UnreadableList
from virtualchain.model import Expected
from virtualchain.testing import FakeNode

WRONG = "00" * 16
_APPS = "SELECT name, status, block_id, unexpected, error FROM virtualchain.apps ORDER BY name"


def notes(name: str = "notes", magic: bytes = b"nt", **declared: Any) -> App:
    """Return an app that keeps texts."""
    app = App(name, magic=magic, projections="CREATE TABLE notes (text text PRIMARY KEY)", **declared)

    def commit(op: dict[str, Any], state: Any) -> None:
        state.execute("INSERT INTO notes VALUES (%s) ON CONFLICT DO NOTHING", [op["text"]])

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit, fields=["text"])
    return app


def saying(*expected: Expected) -> Any:
    """Return what says that these digests of the app notes are expected."""
    return lambda: {"notes": expected}


def _digest(query: Query, block_id: int, name: str = "consensus_hash") -> str:
    statement = f"SELECT {name} FROM virtualchain.snapshots WHERE block_id = {block_id} AND app = 'notes'"
    return str(query(statement)[0][name])


@pytest.mark.parametrize("has_input", [True, False])
@pytest.mark.parametrize("after", [0, 1, 40])
def test_a_mismatch_stops_the_app_after_that_block(
    fake_node: FakeNode, run: Run, query: Query, has_input: bool, after: int
) -> None:
    """The block is taken, nothing above it is, and the other app goes on; far from the tip as at it."""
    at = fake_node.height + 1
    fake_node.mine([fake_node.send(b"ntoHi")] if has_input else [])
    if after:
        fake_node.mine(n=after)
    run(notes(expected_snapshots={at: WRONG}), notes("others", b"ot"))
    mine, other = query(_APPS)
    assert (other["status"], other["block_id"], other["unexpected"]) == ("running", fake_node.height, None)
    assert (mine["status"], mine["block_id"]) == ("halted", at)
    actual = _digest(query, at)
    assert mine["unexpected"] == {
        "block_id": at,
        "digest": "consensus_hash",
        "expected": WRONG,
        "found": actual,
        "origin": "the app",
    }
    assert mine["error"]["block_id"] == at + 1
    assert (
        f"the consensus hash at block {at} is {actual}, but the app expects {WRONG}" in mine["error"]["error"]
    )


def test_blocks_in_flight_do_not_carry_the_app_further(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the server has not answered for the block yet, the next one is not taken."""
    landed, land = Deployment._landed, Deployment.land
    monkeypatch.setattr(Deployment, "_landed", lambda _: iter(()))

    def land_all(deployment: Deployment) -> list[Landed]:
        with monkeypatch.context() as patch:
            patch.setattr(Deployment, "_landed", landed)
            return land(deployment)

    monkeypatch.setattr(Deployment, "land", land_all)
    at = fake_node.height + 1
    fake_node.mine([fake_node.send(b"ntoHi")], 30)
    run(notes(expected_snapshots={at: WRONG}), notes("others", b"ot"))
    assert [row["block_id"] for row in query(_APPS)] == [at, fake_node.height]


def test_a_lone_app_that_differs_ends_the_build(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The error names both hashes; an app that is resumed is compared again first."""
    fake_node.mine(n=3)
    app = notes(expected_snapshots={fake_node.height - 1: WRONG})
    for _ in range(2):
        with pytest.raises(AppHalted, match=f"but the app expects {WRONG}"):
            run(app)
        query("UPDATE vc.apps SET status = 'running', error = NULL RETURNING 1")  # as `resume` does
    assert query(_APPS)[0]["block_id"] == fake_node.height - 1
    run(notes())
    assert query(_APPS)[0] == {
        "name": "notes",
        "status": "running",
        "block_id": fake_node.height,
        "unexpected": None,
        "error": None,
    }


def test_what_fits_changes_nothing(fake_node: FakeNode, run: Run, query: Query, fresh_index: Any) -> None:
    """All three digests of blocks with and without inputs are compared; future ones are not missed."""
    fake_node.mine([fake_node.send(b"ntoHi")])
    fake_node.mine(n=2)
    run(notes())
    names = ("block_hash", "consensus_hash", "state_hash")
    blocks = range(fake_node.height - 2, fake_node.height + 1)
    expected = [
        Expected(block_id, **{name: _digest(query, block_id, name) for name in names}) for block_id in blocks
    ]
    beyond = Expected(fake_node.height + 100, consensus_hash=WRONG)
    declared = {block_id: _digest(query, block_id) for block_id in blocks}
    app = notes(expected_snapshots=declared)
    fresh_index(app, expect=saying(*expected, beyond))
    run(app, expect=saying(*expected, beyond))
    assert query(_APPS)[0]["unexpected"] is None


@pytest.mark.parametrize("name", ["block_hash", "consensus_hash", "state_hash"])
def test_every_digest_is_compared_when_it_is_taken_and_afterwards(
    fake_node: FakeNode, run: Run, query: Query, name: str
) -> None:
    """Blocks that were taken before anybody expected something are compared at the start."""
    fake_node.mine([fake_node.send(b"ntoHi")])
    lies: dict[str, Any] = {name: "00" * (16 if name == "consensus_hash" else 32), "origin": "a friend"}
    lie = Expected(fake_node.height, **lies)
    run(notes(), to=fake_node.height - 1)
    with pytest.raises(AppHalted, match="but a friend expects"):
        run(notes(), expect=saying(lie))
    assert query(_APPS)[0]["unexpected"]["digest"] == name
    query("UPDATE vc.apps SET status = 'running', error = NULL RETURNING 1")
    run(notes())
    fake_node.mine()
    with pytest.raises(AppHalted, match="but a friend expects"):
        run(notes(), expect=saying(lie))
    assert query(_APPS)[0]["block_id"] == fake_node.height - 1


def test_who_is_told_to_continues_but_says_so(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The mismatch stays on record until nobody expects that any more."""
    fake_node.mine(n=3)
    messages: list[str] = []
    app = notes(expected_snapshots={fake_node.height - 2: WRONG})
    run(app, on_unexpected="continue", on_wait=messages.append)
    row = query(_APPS)[0]
    assert (row["status"], row["block_id"]) == ("running", fake_node.height)
    assert row["unexpected"]["block_id"] == fake_node.height - 2
    assert sum("but the app expects" in line for line in messages) == 1
    run(notes())
    assert query(_APPS)[0]["unexpected"] is None


def test_an_app_that_catches_up_stops_too(fake_node: FakeNode, run: Run, query: Query) -> None:
    """It joins late, and takes the blocks from the tape."""
    fake_node.mine(n=5)
    run(notes("others", b"ot"))
    run(notes("others", b"ot"), notes(expected_snapshots={fake_node.height - 3: WRONG}))
    assert [(row["status"], row["block_id"]) for row in query(_APPS)] == [
        ("halted", fake_node.height - 3),
        ("running", fake_node.height),
    ]


def test_a_rollback_below_the_mismatch_takes_it_back(fake_node: FakeNode, run: Run, query: Query) -> None:
    """What was expected of blocks that are gone is expected of those that replace them."""
    fake_node.mine([fake_node.send(b"ntoHi")])
    fake_node.mine(n=2)
    at = fake_node.height
    other = Expected(at, block_hash="11" * 32)
    run(notes(), expect=saying(other), on_unexpected="continue")
    assert query(_APPS)[0]["unexpected"]["block_id"] == at
    hashes = fake_node.reorg(3)
    there = Expected(at, block_hash=hashes[2])
    run(notes(), expect=saying(there), on_unexpected="continue")
    assert query(_APPS)[0]["unexpected"] is None


def test_expectations_are_by_network(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Those of other networks do not count here."""
    fake_node.mine()
    at = fake_node.height
    run(notes(expected_snapshots={"mainnet": {at: WRONG}, "regtest": {}}))
    with pytest.raises(AppHalted):
        run(notes(expected_snapshots={"mainnet": {}, "regtest": {at: WRONG}}))
    assert query(_APPS)[0]["unexpected"]["expected"] == WRONG


@pytest.mark.parametrize(
    "declared", [[], {1: "no"}, {"x": WRONG}, {1: WRONG, "regtest": {}}, {"regtest": {"1": WRONG}}, {1: 7}]
)
def test_what_is_not_a_list_of_hashes_is_refused(declared: Any) -> None:
    """A mistake in a declaration shows at the start, not at that block."""
    from virtualchain.app.declarations import read_contract

    with pytest.raises(InvalidApp, match="get_expected_snapshots"):
        read_contract(notes(expected_snapshots=declared))


def test_a_follower_asks_again(
    fake_node: FakeNode, database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is expected may become known later; while it cannot be read, what was expected before counts."""
    monkeypatch.setattr(expectations, "AGAIN", 0.0)
    fake_node.mine()
    answers: list[Mapping[str, Sequence[Expected]] | None] = [
        {},
        None,
        {"notes": [Expected(fake_node.height, consensus_hash=WRONG)]},
    ]
    messages: list[str] = []

    def expect() -> Mapping[str, Sequence[Expected]]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            raise UnreadableList("nobody is there")
        fake_node.mine()  # so that the engine looks at once
        return answer

    with (
        StateEngine(
            notes(),
            database=database_url,
            source=fake_node.url,
            confirmations=0,
            on_wait=messages.append,
            expect=expect,
        ) as engine,
        pytest.raises(AppHalted, match="but the app expects"),
    ):
        engine.follow()
    assert any("nobody is there" in line for line in messages)
    assert query(_APPS)[0]["status"] == "halted"


def test_no_block_waits_for_a_list(
    fake_node: FakeNode, database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is read again, however long that takes, blocks are taken; then it counts."""
    monkeypatch.setattr(expectations, "AGAIN", 0.0)
    fake_node.mine()
    asked, taken = Event(), Event()
    at = fake_node.height + 1

    def expect() -> Mapping[str, Sequence[Expected]]:
        if not started:
            return {}
        asked.set()
        assert taken.wait(30)
        return {"notes": [Expected(at, consensus_hash=WRONG)]}

    def mine() -> None:
        assert asked.wait(30)
        fake_node.mine()

    started: list[bool] = []
    with StateEngine(
        notes(),
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        on_block=lambda progress: taken.set() if progress.block.block_id == at else None,
        expect=expect,
    ) as engine:
        started.append(True)
        miner = Thread(target=mine)
        miner.start()
        with pytest.raises(AppHalted, match=f"expects {WRONG}"):
            engine.follow()
        miner.join()
    assert query(_APPS)[0]["block_id"] == at
