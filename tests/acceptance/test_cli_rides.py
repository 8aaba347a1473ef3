"""What the commands show of apps that track outputs: no payload, no opcode, a second payload."""

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Commands, Inside
from tests.acceptance.test_cli_read import lines_until, watching
from tests.support.ride_story import ride, ride_apps
from virtualchain import BlockEvent, StateEngine, watch
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer


@pytest.fixture(scope="module")
def url(database_server: DatabaseServer) -> Iterator[str]:
    """Return a deployment of the apps of the story."""
    database = database_server.clone()
    with FakeNode() as node:
        ride(node)
        with StateEngine(*ride_apps(), database=database, source=node.url, confirmations=0) as engine:
            engine.build()
    yield database
    database_server.drop(database)


@pytest.fixture
def read(inside: Inside, url: str) -> Inside:
    """Provide the command line with the deployment as its settings."""
    inside.set(VIRTUALCHAIN_DATABASE=url, VIRTUALCHAIN_BITCOIN="http://user:password@127.0.0.1:1")
    return inside


def test_ops_without_payload_or_opcode(read: Inside) -> None:
    """JSON has null and empty bytes; people read `spend` and `none`."""
    rows = json.loads(read("ops", "--json", "--app", "several", "--from", 106, "--to", 107).out)
    assert [(row["opcode"], row["payload"], row["payload_index"], row["vtxindex"]) for row in rows] == [
        ("", b"0".hex(), 0, 0),
        ("", b"3".hex(), 0, 1),
        ("", b"4".hex(), 2, 2),
        ("", b"0".hex(), 0, 0),
        ("", None, 0, 1),
    ]
    lines = read("ops", "--app", "several", "--block", 107).out.splitlines()
    assert [line.split()[3] for line in lines[-2:]] == ["none", "spend"]
    lines = read("ops", "--app", "rides", "--block", 105).out.splitlines()
    assert [line.split()[3] for line in lines[-2:]] == ["m", "m"]


@pytest.mark.parametrize(
    ("opcode", "places"),
    [
        ("none", [(106, 0), (106, 1), (106, 1), (107, 0), (107, 2)]),
        ("spend", [(107, 2)]),
        ("m", []),
    ],
)
def test_ops_without_are_selected(read: Inside, opcode: str, places: list[tuple[int, int]]) -> None:
    """`--opcode none` lists ops without an opcode, `spend` those without a payload."""
    options = ("--json", "--app", "several", "--from", 106, "--to", 107, "--opcode", opcode)
    rows = json.loads(read("ops", *options).out)
    assert [(row["block_id"], row["txindex"]) for row in rows] == places


@pytest.mark.parametrize("opcode", ["none", "spend"])
def test_rejections_say_which_payload(read: Inside, opcode: str) -> None:
    """The fourth payload was rejected; whether there was one, a rejection does not say."""
    [row] = json.loads(read("ops", "--rejected", "--json", "--opcode", opcode).out)
    assert (row["app"], row["block_id"], row["txindex"], row["payload_index"]) == ("several", 106, 1, 3)
    assert (row["opcode"], row["step"], row["reason"]) == ("", "parse", "we do not mint that")
    assert read("ops", "--rejected", "--opcode", opcode).out.splitlines()[-1].split()[3] == "none"


def test_ops_of_one_transaction_keep_their_order(read: Inside) -> None:
    """Two ops of one transaction are in the order of its payloads, or the other way round."""
    for options, expected in (((), [1, 2]), (("--newest-first",), [2, 1])):
        rows = json.loads(read("ops", "--json", "--app", "several", "--block", 106, *options).out)
        assert [row["vtxindex"] for row in rows if row["vtxindex"]] == expected


def test_status_and_consensus_and_sql(read: Inside) -> None:
    """The other commands read such apps like any."""
    assert [app["status"] for app in json.loads(read("status", "--json").out)["apps"]] == ["running"] * 3
    digests = json.loads(read("consensus", "107", "--json").out)["apps"]
    assert [row["name"] for row in digests] == ["rides", "several", "stones"]
    query = "SELECT opcode, payload, heights, tracked_by FROM ops JOIN inputs USING (block_id, txindex) "
    where = "WHERE app = 'rides' AND block_id = 103"
    assert json.loads(read("sql", query + where, "--json").out) == [
        {"opcode": "", "payload": None, "heights": [102], "tracked_by": ["rides"]}
    ]


def test_watch_reports_them(cli: Commands, url: str) -> None:
    """People read `spend`; programs get null, and the number of each payload."""
    with watching(cli, "--database", url, "--from", "106", "--app", "several") as for_people:
        lines = lines_until(for_people, "block 108")
    assert [line.split()[2] for line in lines if " op " in line] == ["none"] * 4 + ["spend"]
    with watching(cli, "--database", url, "--from", "107", "--app", "several", "--json") as for_programs:
        event = json.loads(lines_until(for_programs, '"block_id": 107')[-1])
    assert [(op["opcode"], op["payload"], op["payload_index"]) for op in event["ops"]] == [
        ("", "30", 0),
        ("", None, 0),
    ]
    with watch(url, "several", 106) as events:
        block = next(events)
    assert isinstance(block, BlockEvent)
    assert [(op.payload, op.payload_index) for op in block.ops] == [(b"0", 0), (b"3", 0), (b"4", 2)]
