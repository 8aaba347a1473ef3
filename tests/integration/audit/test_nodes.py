"""Two nodes are compared: the first block, op and row at which they differ, and what diverged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.audit.conftest import Clone
from tests.integration.conftest import Run
from tests.support.moving import an_app, story
from virtualchain import App, Rejected
from virtualchain.app.declarations import read_contract
from virtualchain.audit.nodes import Comparison, compare_nodes
from virtualchain.audit.sample import verify_sample
from virtualchain.consensus import ops_hash
from virtualchain.engine.options import Options
from virtualchain.errors import StoreError, UsageError
from virtualchain.store.database import connect_migrator
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer, other_version

ONE_OP = f"decode('{ops_hash([b't:1:x'])}', 'hex')"
LESS = "UPDATE vc.inputs SET spent = set_byte(spent, 1, get_byte(spent, 1) - 1), fee = fee - 256"
LIE = "substr(sha256('lie'), 1, 16)"


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second node."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def by_name(comparison: Comparison) -> dict[str, Any]:
    """Return what differs first of each app."""
    return {app.name: app.divergence for app in comparison.apps}


def test_equal_nodes(clone: Clone) -> None:
    """Nothing differs, however far back each keeps its history."""
    comparison = compare_nodes(clone(), clone(of="pruned"))
    assert comparison.divergence is None
    assert by_name(comparison) == {"ledger": None, "notes": None}
    assert [(app.first, app.last) for app in comparison.apps] == [(102, 108), (102, 108)]
    assert comparison.notes == []


@pytest.mark.parametrize(
    ("statements", "what", "place"),
    [
        pytest.param(
            [
                f"UPDATE vc.snapshots SET consensus_hash = {LIE} WHERE app = 'notes' AND block_id = 104",
            ],
            "log",
            {"block_id": 104},
            id="one consensus hash, and not those after it",
        ),
        pytest.param(
            ["DELETE FROM vc.snapshots WHERE app = 'notes' AND block_id = 104"],
            "log",
            {"block_id": 104},
            id="digests missing",
        ),
        pytest.param(
            [
                "UPDATE vc.snapshots SET state_hash = sha256('lie') WHERE app = 'notes' AND block_id = 105",
                "UPDATE notes__1.notes_history SET text = 'lie' WHERE key = 'd'",
            ],
            "state",
            {
                "block_id": 105,
                "row": {
                    "table": "notes",
                    "key": {"key": "d"},
                    "here": {"key": "d", "text": "six"},
                    "there": {"key": "d", "text": "lie"},
                },
            },
            id="a state hash that is right again later",
        ),
        pytest.param(
            [
                "UPDATE vc.snapshots SET state_hash = sha256('lie') WHERE app = 'notes' AND block_id > 105",
                "UPDATE notes__1.notes SET text = 'lie' WHERE key = 'd'",
            ],
            "state",
            {
                "block_id": 106,
                "row": {
                    "table": "notes",
                    "key": {"key": "d"},
                    "here": {"key": "d", "text": "seven"},
                    "there": {"key": "d", "text": "lie"},
                },
            },
            id="a row that the block wrote",
        ),
        pytest.param(
            [
                "UPDATE vc.snapshots SET state_hash = sha256('lie') WHERE app = 'ledger' AND block_id > 104",
            ],
            "state",
            {"block_id": 105, "row": None},
            id="an opaque state",
        ),
        pytest.param(
            [
                f"UPDATE vc.snapshots SET consensus_hash = {LIE} WHERE app = 'notes' AND block_id >= 104",
                f"UPDATE vc.snapshots SET ops_hash = {ONE_OP} WHERE app = 'notes' AND block_id = 104",
                "DELETE FROM vc.ops WHERE app = 'notes' AND block_id = 104 AND vtxindex > 0",
                "UPDATE vc.ops SET canonical = ARRAY['t:1:x'::bytea] WHERE app = 'notes' AND block_id = 104",
            ],
            "rules",
            {"block_id": 104, "txindex": 1},
            id="ops with digests of their own",
        ),
        pytest.param(
            ["DELETE FROM vc.inputs WHERE block_id = 104 AND txindex = 1"],
            "tape",
            {"block_id": 104, "txindex": 1},
            id="an input missing",
        ),
        pytest.param(
            [
                f"{LESS} WHERE block_id = 103 AND txindex = 1",
            ],
            "tape",
            {"block_id": 103, "txindex": 1},
            id="an input's value and fee",
        ),
    ],
)
def test_what_differs_is_named_on_either_side(
    clone: Clone, statements: list[str], what: str, place: dict[str, Any]
) -> None:
    """Block, transaction and row are the same whichever of the two was changed."""
    whole, changed = clone(), clone(*statements)
    for sides in ((whole, changed), (changed, whole)):
        comparison = compare_nodes(*sides)
        divergence = comparison.divergence
        assert divergence is not None
        assert divergence.what == what, divergence
        expected = dict(place)
        if expected.get("row") and sides[0] is changed:
            expected["row"] = expected["row"] | {
                "here": expected["row"]["there"],
                "there": expected["row"]["here"],
            }
        assert {name: getattr(divergence, name) for name in expected} == expected
        named = compare_nodes(*sides, apps=[comparison.apps[0].name] * 2)
        assert (len(named.apps), named.notes) == (1, [])


def test_history_that_does_not_reach_back(clone: Clone) -> None:
    """The row is then shown as of the oldest block that both sides still show, and that is said."""
    lie = (
        "UPDATE vc.snapshots SET state_hash = sha256('lie') WHERE app = 'notes' AND block_id > 102",
        "UPDATE notes__1.notes SET text = 'lie' WHERE key = 'a'",
    )
    divergence = compare_nodes(clone(), clone(*lie, of="pruned")).divergence
    assert divergence is not None
    assert (divergence.what, divergence.block_id) == ("state", 103)
    assert "history reaches back to block 106 only" in divergence.message
    assert divergence.row is not None
    assert divergence.row["table"] == "notes"
    assert {"key": "a", "text": "lie"} in (divergence.row["here"], divergence.row["there"]) or (
        {"key": "a", "text": "three"} in (divergence.row["here"], divergence.row["there"])
    )


def test_other_code_under_one_name(fake_node: FakeNode, run: Run, database_url: str, other_url: str) -> None:
    """The first op that is judged differently is named, with both verdicts, and what the apps declare."""

    def notes(version: str, most: int) -> App:
        app = App("notes", magic=b"no", version=version)
        app.add(
            b"t",
            parse=lambda payload: {"text": payload.decode()},
            check=lambda op, state: len(op["text"]) <= most or Rejected("too long"),
        )
        return app

    for text in (b"nota", b"notaa", b"notaaa", b"nota"):
        fake_node.mine([fake_node.send(text)])
    run(notes("1", 9))
    run(notes("2", 2), database=other_url)
    divergence = compare_nodes(database_url, other_url).divergence
    assert divergence is not None
    assert (divergence.what, divergence.block_id, divergence.txindex) == ("rules", fake_node.height - 1, 1)
    assert "accepted here, rejected there" in divergence.message
    assert "version 1 here, 2 there" in divergence.message
    assert divergence.op is not None
    assert divergence.op["there"] == {"rejected": "check", "reason": "too long"}


def test_different_tips_and_different_chains(
    fake_node: FakeNode, run: Run, database_url: str, other_url: str
) -> None:
    """A node that lags is not different; one on another branch is, from the fork on."""
    story(fake_node, 11, 15)
    run(an_app("one"), an_app("two"))
    story(fake_node, 12, 3)
    run(an_app("one"), database=other_url)
    comparison = compare_nodes(database_url, other_url)
    assert comparison.divergence is None
    assert comparison.notes == ["app two is not installed there: it was not compared"]
    [one] = comparison.apps
    assert one.sides["here"]["block_id"] == one.last == fake_node.height - 3
    assert one.sides["there"]["block_id"] == fake_node.height
    fork = fake_node.height - 5
    fake_node.reorg(5, 6)
    run(an_app("one"), database=other_url)
    comparison = compare_nodes(database_url, other_url)
    assert comparison.divergence is comparison.fork is not None
    assert (comparison.fork.what, comparison.fork.block_id) == ("tape", fork + 1)
    assert comparison.apps[0].last == fork
    with pytest.raises(UsageError, match="no app two there"):
        compare_nodes(database_url, other_url, ["two"])


def test_another_network_and_a_database_without_one(clone: Clone, database_url: str) -> None:
    """Neither can be compared, and the message says why."""
    with pytest.raises(UsageError, match=r"different networks: here regtest .* there signet"):
        compare_nodes(clone(), clone("UPDATE vc.deployment SET network = 'signet'"))
    with pytest.raises(UsageError, match="follows no chain yet"):
        compare_nodes(clone(), database_url)
    with pytest.raises(StoreError, match="cannot be opened"):
        compare_nodes(clone(), "postgresql://nobody@127.0.0.1:1/none")


def test_a_reader_on_both_sides(fake_node: FakeNode, run: Run, database_url: str, other_url: str) -> None:
    """The roles of readers suffice; a table that one may not read is named."""
    story(fake_node, 11, 15)
    for url in (database_url, other_url):
        run(an_app("one"), database=url)
    as_reader: list[str] = []
    for url in (database_url, other_url):
        with connect_migrator(url) as connection:
            reader = grant_reader(connection, f"reader_{len(as_reader)}_of_nodes", None, login=True)
        as_reader.append(psycopg.conninfo.make_conninfo(url, user=reader.role, password=reader.password))
    here, there = as_reader
    assert compare_nodes(here, there).divergence is None


def test_other_rules_that_made_no_difference_yet(clone: Clone) -> None:
    """They are noted: the nodes are the same as far as they have come."""
    comparison = compare_nodes(
        clone(), clone("UPDATE vc.apps SET fingerprint = sha256('x'), version = '2' WHERE name = 'notes'")
    )
    assert comparison.divergence is None
    assert comparison.apps[1].notes == [
        "all is the same, but these differ: version 1 here, 2 there, declared rules"
    ]


def test_what_only_tracking_asked_for(clone: Clone) -> None:
    """Inputs that no verdict is on may be there for other code of the app; those with one are compared."""
    more = (
        "INSERT INTO vc.inputs SELECT 105, 9, txid, raw, magics, spent, unusual_keys, fee, evidence, "
        "spent_at, tracked_by FROM vc.inputs WHERE block_id = 103 AND txindex = 1"
    )
    spend = "WHERE block_id = 103 AND txindex = 1"
    whole = clone(of="rides")
    assert compare_nodes(whole, clone(more, of="rides")).divergence is None
    for change, column in ((LESS, "senders"), ("UPDATE vc.inputs SET spent_at = '{100}'", "heights")):
        divergence = compare_nodes(whole, clone(f"{change} {spend}", of="rides")).divergence
        assert divergence is not None
        assert (divergence.what, divergence.block_id, divergence.txindex) == ("tape", 103, 1)
        assert column in divergence.message


def test_another_version_of_postgresql(
    fake_node: FakeNode, run: Run, database_url: str, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """Digests over stretches and the texts of rows are the same there, and samples can be judged again."""
    story(fake_node, 11, 15)
    run(an_app("one"))
    with other_version(database_server) as server:
        if server is None:
            pytest.skip("there is one version of PostgreSQL only")
        url = server.clone()
        run(an_app("one"), database=url)
        assert compare_nodes(database_url, url).divergence is None
        contract = read_contract(an_app("one"))
        report = verify_sample(url, 3, 1, [contract], options=Options(state_folder=tmp_path))
        assert (report.faults, report.notes) == ([], [])
        with psycopg.connect(url) as connection:
            connection.execute("SELECT set_config('virtualchain.block_id', 'undo', true)")
            row = connection.execute("SELECT max(since_block) FROM one__1.marks").fetchone()
            assert row is not None
            connection.execute("UPDATE one__1.marks SET note = 'lie' WHERE since_block = %s", row)
            connection.execute("UPDATE vc.snapshots SET state_hash = sha256('lie') WHERE block_id >= %s", row)
        divergence = compare_nodes(database_url, url).divergence
        assert divergence is not None
        assert (divergence.what, divergence.block_id) == ("state", row[0])
        assert divergence.row is not None
        assert divergence.row["there"]["note"] == "lie"
