"""`requires_fresh_hash`: the engine rejects inputs whose consensus hash is not of one of the last S blocks.

Verdict and reason depend on the chain alone: they are the same live, replayed, imported, from a checkpoint,
and judged again.
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.conftest import Rows
from tests.support.easy_signet import easy_signet
from virtualchain import App, State, parse_json
from virtualchain.app.declarations import read_contract
from virtualchain.audit.sample import verify_sample
from virtualchain.bitcoin.node.node import open_source
from virtualchain.checkpoint.apply import apply
from virtualchain.checkpoint.create import create
from virtualchain.engine.options import Options
from virtualchain.engine.preview import preview_transactions
from virtualchain.reading import views
from virtualchain.testing import FakeNode, check_poison
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.poison import Poisoned

Query = Callable[..., Rows]
Run = Callable[..., int]

S = 4
FIRST = 102
UNKNOWN = "unknown: no block before this one has the consensus hash "


def an_app(check: Any = None, **options: Any) -> App:
    """Return an app that takes JSON as it is: `a` must be fresh, `b` need not, `c` has bytes."""
    settings: dict[str, Any] = {
        "first_block_id": FIRST,
        "valid_transaction_window": S,
        "requires_fresh_hash": True,
        "projections": "CREATE TABLE t (k text PRIMARY KEY, n integer)",
        **options,
    }
    app = App("fresh", magic=b"fr", **settings)

    def commit(op: Any, state: State) -> None:
        state.table("t").add(str(op.get("k")), n=1)

    app.add(b"a", parse=parse_json, check=check, commit=commit, fields=["k"])
    app.add(b"b", parse=parse_json, requires_fresh_hash=False, fields=["k"])
    app.add(b"c", parse=lambda payload: {"consensus_hash": payload, "k": "c"}, fields=["k"])
    return app


def payload(value: Any = None, k: str = "x", opcode: bytes = b"a", field: str = "consensus_hash") -> bytes:
    """Return an input with a field."""
    return b"fr" + opcode + json.dumps({field: value, "k": k}).encode()


def mine(node: FakeNode, *payloads: bytes) -> None:
    """Mine a block with inputs."""
    node.mine([node.send(each) for each in payloads])


@pytest.fixture
def hashes(query: Query) -> Callable[[], dict[int, str]]:
    """Return a function that reads the consensus hashes by block."""

    def read() -> dict[int, str]:
        rows = query("SELECT block_id, consensus_hash FROM virtualchain.snapshots WHERE app = 'fresh'")
        return {row["block_id"]: row["consensus_hash"] for row in rows}

    return read


Hashes = Callable[[], dict[int, str]]


def reasons(query: Query, block_id: int) -> list[str]:
    """Return why inputs of a block were rejected, all at the step check."""
    rows = query(
        "SELECT step, reason FROM virtualchain.rejections WHERE block_id = %s ORDER BY txindex", [block_id]
    )
    assert {row["step"] for row in rows} <= {"check"}
    return [row["reason"] for row in rows]


def accepted(query: Query, block_id: int) -> list[str]:
    """Return the keys of the ops of a block."""
    rows = query("SELECT fields FROM virtualchain.ops WHERE block_id = %s ORDER BY vtxindex", [block_id])
    return [row["fields"]["k"] for row in rows]


def test_the_window_has_s_blocks(fake_node: FakeNode, run: Run, query: Query, hashes: Hashes) -> None:
    """The last S hashes are fresh; the one before them is stale, and the reason names its block."""
    app = an_app()
    mine(fake_node, payload(opcode=b"b"))
    fake_node.mine(n=10)
    tip = run(app)
    known, h = hashes(), tip + 1
    mine(fake_node, *(payload(known[h - back], f"{back}") for back in range(1, 8)))
    run(app)
    assert accepted(query, h) == ["1", "2", "3", "4"]
    assert reasons(query, h) == [
        f"stale: {known[h - back]} is the consensus hash of block {h - back}, {back} blocks ago; "
        "the window is 4"
        for back in (5, 6, 7)
    ]
    assert query("SELECT k FROM fresh.t ORDER BY k") == [{"k": f"{back}"} for back in range(1, 5)]


MALFORMED = {
    "null": None,
    "a number": 7,
    "a truth value": True,
    "a list": ["00" * 16],
    "empty": "",
    "31 digits": "0" * 31,
    "33 digits": "0" * 33,
    "not hex": "g" * 32,
    "a line feed": "0" * 32 + "\n",
    "other digits": "\u0660" * 32,
}


def test_what_is_not_a_hash_is_rejected(fake_node: FakeNode, run: Run, query: Query, hashes: Hashes) -> None:
    """A missing field, another type, bytes, another length, upper case: all by their values alone."""
    app = an_app()
    mine(fake_node, payload(opcode=b"b"))
    tip = run(app)
    known = next(text for text in hashes().values() if text != text.upper())
    inputs = [payload(value) for value in MALFORMED.values()]
    inputs += [payload(known.upper()), b"frc" + bytes.fromhex(known), b"frc" + known.encode()]
    inputs += [payload(known, field="hash"), payload(known, "right")]
    mine(fake_node, *inputs)
    run(app)
    rejections = reasons(query, tip + 1)
    assert len(rejections) == len(inputs) - 1
    assert rejections[0].startswith(
        "field 'consensus_hash': a value of type NoneType; it must be a consensus hash"
    )
    assert [reason for reason in rejections if "lower-case" not in reason] == [
        "field 'consensus_hash' is missing; it must be the consensus hash of a recent block"
    ]
    assert sum("a value of type bytes" in reason for reason in rejections) == 2
    assert accepted(query, tip + 1) == ["right"]


def test_hashes_of_this_block_and_of_later_ones_are_unknown(
    fake_node: FakeNode, run: Run, query: Query, hashes: Hashes
) -> None:
    """Rejected inputs leave hashes as they are, so an author can guess those to come; they do not count."""
    app = an_app()
    fake_node.mine(n=5)
    run(app)
    known, tip = hashes(), fake_node.height
    guesses = [payload(known[tip - 2]), payload(known[tip - 1]), payload(known[tip])]
    fake_node.reorg(3, 4, [fake_node.send(each) for each in guesses])
    run(app)
    assert hashes().items() >= known.items()
    assert reasons(query, tip - 2) == [UNKNOWN + known[block] for block in (tip - 2, tip - 1, tip)]


def test_the_first_block_has_no_fresh_hash(
    fake_node: FakeNode, run: Run, query: Query, hashes: Hashes
) -> None:
    """Without initial snapshots no hash is there before it; with some, they count for S blocks."""
    first = "ab" * 16
    mine(fake_node, payload("2a9148d8b13939723d2aca16c75c6d68"), payload(first, "initial"))
    mine(fake_node, payload(first, "second"))
    fake_node.mine(n=3)
    mine(fake_node, payload(first, "late"), payload("cd" * 16, "at the first block"))
    run(an_app())
    assert query("SELECT count(*) AS n FROM virtualchain.ops") == [{"n": 0}]
    initial = an_app(initial_snapshots={FIRST - 2: first, FIRST - 1: first}, version="2")
    initial.name = "initial"
    run(initial)
    rows = query("SELECT fields ->> 'k' AS k FROM virtualchain.ops ORDER BY block_id")
    assert [row["k"] for row in rows] == ["initial", "second"]
    (stale,) = query(
        "SELECT reason FROM virtualchain.rejections WHERE app = 'initial' AND reason ~ %s", [first]
    )
    assert f"of block {FIRST - 1}, 6 blocks ago" in stale["reason"]


def story(node: FakeNode, run: Run, hashes: Hashes) -> None:
    """Mine blocks of inputs with hashes of every age, of other chains, and with none; run meanwhile."""
    mine(node, payload(opcode=b"b"))
    for number in range(12):
        tip = run(an_app())
        known = hashes()
        old = [known.get(tip - back, f"{back:032x}") for back in (0, 1, 3, 4, 9)]
        inputs = [payload(text, f"{number}/{place}") for place, text in enumerate(old)]
        mine(node, *inputs, payload("ef" * 16), payload(None), payload(opcode=b"b", k=f"{number}"))
        if number in {5, 8}:
            run(an_app())
            gone = hashes()[node.height]
            node.reorg(2, 3)
            mine(node, payload(gone))


def log(url: str, app: str = "fresh") -> list[Any]:
    """Return all verdicts and digests."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(statement, [app]).fetchall()
            for statement in (
                "SELECT * FROM virtualchain.ops WHERE app = %s ORDER BY block_id, vtxindex",
                "SELECT * FROM virtualchain.rejections WHERE app = %s ORDER BY block_id, txindex",
                "SELECT * FROM virtualchain.snapshots WHERE app = %s ORDER BY block_id",
            )
        ]


def test_every_way_leads_to_the_same_verdicts_and_reasons(
    fake_node: FakeNode,
    run: Run,
    hashes: Hashes,
    database_url: str,
    fresh_index: Callable[..., str],
    tmp_path: Path,
) -> None:
    """Live with forks, in one go, and in stretches judged again."""
    story(fake_node, run, hashes)
    run(an_app())
    live = log(database_url)
    assert {reason.partition(":")[0] for *_, reason, _ in live[1]} >= {"stale", "unknown"}
    assert log(fresh_index(an_app())) == live
    report = verify_sample(
        database_url, 12, 1, [read_contract(an_app())], options=Options(state_folder=tmp_path)
    )
    assert (report.faults, report.notes) == ([], [])
    assert all(stretch.judged_again for stretch in report.stretches)


def test_a_deployment_from_a_checkpoint_gives_the_same_reasons(
    fake_node: FakeNode,
    run: Run,
    hashes: Hashes,
    database_url: str,
    database_server: DatabaseServer,
    tmp_path: Path,
) -> None:
    """A checkpoint has the whole series, so that the block of a stale hash is known there as well."""
    mine(fake_node, payload(opcode=b"b"))
    fake_node.mine(n=8)
    tip = run(an_app())
    with views.snapshot(database_url) as connection:
        create(connection, "fresh", tmp_path / "file")
    known = hashes()
    other = database_server.clone()
    try:
        contracts = [read_contract(an_app())]
        apply(other, tmp_path / "file", contracts, options=Options(state_folder=tmp_path))
        for _ in range(3):
            mine(fake_node, *(payload(known[block], f"{block}") for block in range(FIRST, tip + 1)))
        run(an_app())
        run(an_app(), database=other)
        here, there = log(database_url), log(other)
        assert [row for row in here[0] if row[1] > tip] == there[0]
        assert here[1] == there[1]
        assert any("stale" in row[6] for row in here[1])
        assert [row[4] for row in here[2]] == [row[4] for row in there[2]]
    finally:
        database_server.drop(other)


def test_on_another_chain_only_the_checkpoint_s_hash_is_known(
    fake_node: FakeNode,
    run: Run,
    hashes: Hashes,
    database_url: str,
    database_server: DatabaseServer,
    tmp_path: Path,
) -> None:
    """After a migration, inputs of the old chain are rejected, those that name the checkpoint are not."""
    mine(fake_node, payload(opcode=b"b"))
    fake_node.mine(n=19)
    base = run(an_app())
    with views.snapshot(database_url) as connection:
        create(connection, "fresh", tmp_path / "file")
    mine(fake_node, payload(opcode=b"b"))
    run(an_app())
    old = hashes()
    other = database_server.clone()
    try:
        options = Options(state_folder=tmp_path)
        apply(other, tmp_path / "file", [read_contract(an_app())], options=options, migrates=True)
        with easy_signet(base + S - 1) as node:
            inputs = [payload(old[base], "base"), payload(old[base - 1]), payload(old[base + 1])]
            for _ in range(2):
                mine(node, *inputs)
            run(an_app(), database=other, source=node.url)
        ops, rejections, snapshots = log(other)
        assert [row[1] for row in snapshots] == list(range(base, base + S + 2))
        assert [row[1] for row in ops] == [base + S]
        assert [row[6].partition(":")[0] for row in rejections] == ["unknown"] * 2 + ["stale"] + [
            "unknown"
        ] * 2
        assert f"of block {base}, {S + 1} blocks ago" in rejections[2][6]
    finally:
        database_server.drop(other)


class Opaque:
    """An app without tables, with the published callbacks; it cannot load what it saved."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "fresh"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return FIRST

    def get_magic_bytes(self) -> str:
        """Return the magic."""
        return "fr"

    def get_opcodes(self) -> bytes:
        """Return the opcodes."""
        return b"ab"

    def get_opfields(self) -> dict[str, list[str]]:
        """Return what is hashed."""
        return {"a": ["k"], "b": ["k"]}

    def get_valid_transaction_window(self) -> int:
        """Return S."""
        return S

    def get_requires_fresh_hash(self) -> dict[str, bool]:
        """Return which opcode needs a fresh hash."""
        return {"a": True}

    def get_db_state(self) -> list[str]:
        """Create a state."""
        return []

    def db_parse(self, *arguments: Any) -> Any:
        """Parse JSON."""
        return parse_json(arguments[2])

    def db_check(self, *arguments: Any) -> bool:
        """Accept."""
        return True

    def db_commit(self, *arguments: Any) -> None:
        """Keep it."""
        arguments[5].append(arguments[2]["k"])


def test_an_opaque_app_judges_its_blocks_again_by_what_was_known_then(
    fake_node: FakeNode, run: Run, query: Query, hashes: Hashes, fresh_index: Callable[..., str]
) -> None:
    """When it starts again, its log has later hashes already, which inputs of that time may have guessed."""
    fake_node.mine(n=5)
    run(Opaque())
    known, tip = hashes(), fake_node.height
    guesses = [payload(known[tip - 2]), payload(known[tip])]
    fake_node.reorg(3, 4, [fake_node.send(each) for each in guesses])
    run(Opaque())
    assert hashes().items() >= known.items()
    last = run(Opaque())
    mine(fake_node, payload(known[tip - 4], "late"), payload(known[tip], "in time"))
    run(Opaque())
    assert accepted(query, last + 1) == ["in time"]
    assert "stale" in reasons(query, last + 1)[0]
    run(Opaque())
    url = fresh_index(Opaque())
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT reason FROM virtualchain.rejections ORDER BY block_id, txindex")
        other = [reason for (reason,) in rows]
    assert other == [
        row["reason"]
        for row in query("SELECT reason FROM virtualchain.rejections ORDER BY block_id, txindex")
    ]


def test_a_preview_gives_the_same_reasons(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    hashes: Hashes,
    database_url: str,
    fresh_index: Callable[..., str],
) -> None:
    """It knows the hashes of blocks that the deployment has not taken yet, as these are judged first."""
    mine(fake_node, payload(opcode=b"b"))
    tip = run(an_app())
    fake_node.mine(n=4)
    (newest, *_, oldest) = [row[4] for row in reversed(log(fresh_index(an_app()))[2])]
    inputs = [payload(newest, "newest"), payload(oldest, "oldest"), payload("00" * 16)]
    txs = [fake_node.send(each) for each in [*inputs, payload(hashes()[tip], "known")]]
    funding = dict.fromkeys(tx.funding.raw for tx in txs if tx.funding is not None)
    with closing(open_source(fake_node.url)) as source:
        foreseen = preview_transactions(
            database_url, read_contract(an_app()), [*funding, *(tx.raw for tx in txs)], source=source
        )
    fake_node.mine(txs)
    last = run(an_app())
    assert [each.reason for each in foreseen if each.reason] == reasons(query, last)
    keys = [each.fields["k"] for each in foreseen if isinstance(each.fields, dict) and each.is_accepted]
    assert keys == accepted(query, last) == ["newest"]


def test_it_begins_at_its_activation_height(
    fake_node: FakeNode, run: Run, query: Query, hashes: Hashes
) -> None:
    """Blocks below are judged by the rules that applied to them."""
    app = an_app(requires_fresh_hash=False)
    start = fake_node.height + 3
    app.add(b"a", parse=parse_json, fields=["k"], requires_fresh_hash="seen", from_block=start)
    app.add(b"a", parse=parse_json, fields=["k"], from_block=start + 2)
    mine(fake_node, payload(opcode=b"b"))
    mine(fake_node, payload("old rule", "before"))
    run(app)
    known = hashes()[start - 1]
    for k in ("from there", "last"):
        mine(fake_node, payload(known, k), payload(known, f"{k}, seen", field="seen"))
    mine(fake_node, payload("new rule", "after"))
    run(app)
    rows = query("SELECT fields ->> 'k' AS k FROM virtualchain.ops WHERE opcode = 'a' ORDER BY block_id")
    assert [row["k"] for row in rows] == ["before", "from there, seen", "last, seen", "after"]


def test_a_check_never_sees_a_stale_input(
    fake_node: FakeNode, run: Run, query: Query, hashes: Hashes
) -> None:
    """The engine comes first, and what it rejects costs no call; an app may still change an op."""
    seen: list[str] = []
    later: list[Any] = []

    def check(op: Any, state: State) -> bool:
        seen.append(op["k"])
        assert state.is_fresh(op["consensus_hash"])
        later[-1]["consensus_hash"] = state.consensus_hash(state.block_id - 2)
        return True

    def scan(ops: list[Any], state: State) -> None:
        later[:] = ops
        for op in ops:
            op["consensus_hash"] = op.pop("moved", op.get("consensus_hash"))

    app = an_app(check)
    app.scan(scan)
    mine(fake_node, payload(opcode=b"b"))
    fake_node.mine(n=2)
    tip = run(app)
    fresh = hashes()[tip]
    inputs = [payload("00" * 16, "stale"), payload(fresh, "fresh"), payload(fresh, "moved", field="moved")]
    mine(fake_node, *inputs, payload("11" * 16, "replaced"))
    run(app)
    assert seen == ["fresh", "moved", "replaced"]
    assert reasons(query, tip + 1) == [UNKNOWN + "00" * 16]


def test_undone_calls_change_no_verdict(fake_node: FakeNode, run: Run, query: Query, hashes: Hashes) -> None:
    """A block that is judged again because a call was undone leads to the same reasons."""

    def check(op: Any, state: State) -> bool:
        state.table("t").add("checks", n=1)
        return bool(op["k"] != "refused")

    app = an_app(check)
    mine(fake_node, payload(opcode=b"b"))
    tip = run(app)
    fresh = hashes()[tip]
    stale = payload("00" * 16)
    mine(
        fake_node,
        stale,
        payload(fresh, "refused"),
        stale,
        payload(fresh, "1"),
        payload(fresh, "refused"),
        stale,
    )
    run(app)
    unknown = UNKNOWN + "00" * 16
    assert reasons(query, tip + 1) == [unknown, "refused", unknown, "refused", unknown]
    assert query("SELECT n FROM fresh.t WHERE k = 'checks'") == [{"n": 1}]


def test_a_role_of_an_earlier_version_may_look_hashes_up(
    fake_node: FakeNode, run: Run, query: Query, hashes: Hashes, database_url: str
) -> None:
    """An app's role that was made before there was the function is granted it at the next start."""
    mine(fake_node, payload(opcode=b"b"))
    tip = run(an_app())
    [role] = query("SELECT role FROM virtualchain.apps")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            sql.SQL("REVOKE EXECUTE ON FUNCTION vc.newest_blocks FROM {}").format(
                sql.Identifier(role["role"])
            )
        )
    mine(fake_node, payload(hashes()[tip], "fresh"))
    run(an_app())
    assert accepted(query, tip + 1) == ["fresh"]


def test_a_flood_of_stale_hashes_reads_no_more_than_it_has(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """The hashes of a block are looked up together by an index, however many blocks the app has."""
    mine(fake_node, payload(opcode=b"b"))
    tip = run(an_app())
    mine(fake_node, *(payload(f"{number:032x}") for number in range(300)))
    run(an_app())
    assert len(reasons(query, tip + 1)) == 300
    read = """SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables
        WHERE schemaname = 'vc' AND relname = 'snapshots'"""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """INSERT INTO vc.snapshots (app, build, block_id, consensus_hash)
            SELECT app, build, n, decode(md5(n::text), 'hex')
            FROM (SELECT DISTINCT app, build FROM vc.snapshots) AS s, generate_series(1000, 50000) AS n"""
        )
        connection.execute("SET plan_cache_mode TO force_generic_plan")
        (before,) = connection.execute(read).fetchone() or (0,)
        row = connection.execute(
            """SELECT count(*), min(block_id) FROM vc.newest_blocks('fresh', '1',
                (SELECT array_agg(md5(n::text)) FROM generate_series(901, 1200) AS n), 40000)"""
        ).fetchone()
        (after,) = connection.execute(read).fetchone() or (0,)
        assert row == (201, 1000)
        assert after - before < 1000
        connection.rollback()


def test_the_test_kit_reaches_what_comes_after_the_hash(database_url: str) -> None:
    """No sample can have a hash that will be fresh, so the kit runs the app without that rule."""

    def commit(op: Any, state: State) -> None:
        raise RuntimeError("reached")

    sample = b"fra" + bytes(16)
    for step in (None, commit):
        app = App("typed", magic=b"fr", requires_fresh_hash=True)
        app.add(b"a", parse=lambda payload: {"consensus_hash": payload.hex()}, commit=step)
        if step is None:
            assert check_poison(app, [sample], database_url=database_url).accepted > 0
        else:
            with pytest.raises(Poisoned, match="reached"):
                check_poison(app, [sample], database_url=database_url)
