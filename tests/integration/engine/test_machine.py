"""The steps of a block, with apps that exercise one callback each, on a fake node and a real database."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, Rejected, State, VirtualchainError, consensus
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

COUNTERS = """
    CREATE TABLE counters (name text PRIMARY KEY, value integer NOT NULL);
    CREATE TABLE marks (
        name text NOT NULL REFERENCES counters DEFERRABLE, place integer NOT NULL, PRIMARY KEY (name, place)
    );
"""


def parse_text(payload: bytes) -> dict[str, str]:
    """Parse a payload as text."""
    return {"text": payload.decode()}


def an_app(**steps: Any) -> App:
    """Make an app with one opcode, `o`, and these steps."""
    app = App("steps", magic=b"st", projections=COUNTERS)
    app.add(b"o", **{"parse": parse_text, **steps})
    return app


def outcome(query: Query) -> tuple[list[Any], list[Any]]:
    """Read the texts of the accepted ops, and step and reason of the rejections."""
    ops = query("SELECT fields FROM virtualchain.ops ORDER BY block_id, vtxindex")
    rejections = query("SELECT step, reason FROM virtualchain.rejections ORDER BY block_id, txindex")
    return [op["fields"]["text"] for op in ops], [(row["step"], row["reason"]) for row in rejections]


def mine(node: FakeNode, *texts: bytes) -> None:
    """Mine a block with an op for each text."""
    node.mine([node.send(b"sto" + item) for item in texts])


def test_a_rejected_commit_leaves_nothing(fake_node: FakeNode, run: Run, query: Query) -> None:
    """If commit returns False, its writes are undone, and those before and after it stay."""

    def commit(op: dict[str, Any], state: State) -> bool | None:
        state.execute("INSERT INTO counters VALUES (%s, 1)", [op["text"]])
        return False if op["text"] == "bad" else None

    mine(fake_node, b"one", b"bad", b"two")
    run(an_app(commit=commit))
    assert outcome(query) == (["one", "two"], [("commit", "refused")])
    assert query("SELECT name FROM steps.counters ORDER BY name") == [{"name": "one"}, {"name": "two"}]


@pytest.mark.parametrize("step", ["parse", "check"])
def test_what_a_rejecting_call_wrote_is_undone(
    fake_node: FakeNode, run: Run, query: Query, step: str
) -> None:
    """As the writes of a commit that refuses are; those of a check that accepts stay."""

    def write(op: dict[str, Any], state: State) -> Any:
        state.execute("INSERT INTO counters VALUES (%s, 1)", [op["text"]])
        return Rejected("not this one") if op["text"] == "bad" else op if step == "parse" else True

    def parse(payload: bytes, state: State) -> Any:
        op = {"text": payload.decode()}
        return write(op, state) if step == "parse" else op

    def commit(op: dict[str, Any], state: State) -> bool | None:
        return None if op["text"] != "undone" else False

    mine(fake_node, b"bad", b"undone", b"good")
    run(an_app(parse=parse, commit=commit, **({"check": write} if step == "check" else {})))
    assert outcome(query) == (["good"], [(step, "not this one"), ("commit", "refused")])
    assert [row["name"] for row in query("SELECT name FROM steps.counters ORDER BY name")] == [
        "good",
        "undone",
    ]


@pytest.mark.parametrize("hidden", [False, True], ids=["raised", "hidden by the app"])
@pytest.mark.parametrize("step", ["check", "commit"])
def test_a_data_error_is_a_rejection(
    fake_node: FakeNode, run: Run, query: Query, step: str, *, hidden: bool
) -> None:
    """If the database refuses a number, the op is undone and rejected, and the block continues."""

    def write(op: dict[str, Any], state: State) -> bool | None:
        try:
            state.execute("INSERT INTO counters VALUES (%s, %s)", [op["text"], int(op["text"])])
        except Exception:
            if not hidden:
                raise
        return True if step == "check" else None

    mine(fake_node, b"1", b"99999999999", b"2")
    run(an_app(**{step: write}))
    assert outcome(query) == (["1", "2"], [(step, "a value is out of range, too long, or divided by zero")])
    assert [row["value"] for row in query("SELECT value FROM steps.counters ORDER BY value")] == [1, 2]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("a\x00b", "field 'text' contains a NUL character"),
        ("\ud800", "field 'text' contains a lone surrogate"),
        (float("nan"), "field 'text': nan is not a number that JSON can hold"),
        (2**4000, "field 'text': an int of more than 2048 bits"),
        ({"a": 1}, "field 'text': a dict cannot be hashed"),
        ([1, "a"], "field 'text': a list may contain ints only"),
    ],
    ids=["nul", "surrogate", "nan", "huge", "dict", "list"],
)
def test_a_field_that_cannot_be_stored_is_rejected_at_parse(
    fake_node: FakeNode, run: Run, query: Query, field: object, reason: str
) -> None:
    """If no database or digest can hold a field, the op is rejected with a reason that names it."""
    mine(fake_node, b"x")
    run(an_app(parse=lambda payload: {"text": field} if payload else None))
    ((step, recorded),) = outcome(query)[1]
    assert step == "parse"
    assert recorded.startswith(reason)


def test_nesting_and_invalid_utf8_are_rejected(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Lists nested deeper than 64 and invalid UTF-8 are rejected at parse."""

    def parse(payload: bytes) -> dict[str, Any]:
        nested: list[Any] = []
        for _ in range(payload[0]):
            nested = [nested]
        return {"text": payload.decode(), "nested": nested}

    app = App("steps", magic=b"st")
    app.add(b"o", parse=parse, fields=["text"])
    mine(fake_node, bytes([63]), bytes([64]), b"\xff")
    run(app)
    accepted, rejected = outcome(query)
    assert accepted == ["?"]
    assert [reason[:30] for _, reason in rejected] == [
        "field 'nested' is nested deepe",
        "'utf-8' codec can't decode byt",
    ]


def test_a_payload_over_the_limit_is_not_parsed(fake_node: FakeNode, run: Run, query: Query) -> None:
    """`max_payload` counts the bytes after magic and opcode."""
    app = an_app()
    app.max_payload = 3
    mine(fake_node, b"abc", b"abcd")
    run(app)
    assert outcome(query) == (["abc"], [("parse", "a payload of 4 bytes; the app takes 3")])


def test_a_raising_app_halts_alone(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Its block is undone for it, callback and traceback are recorded, and the other app continues."""

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute("INSERT INTO counters VALUES (%s, 1)", [op["text"]])
        if op["text"] == "bomb":
            raise RuntimeError("boom")

    other = App("other", magic=b"st")
    other.add(b"o", parse=parse_text)
    mine(fake_node, b"fine")
    mine(fake_node, b"before", b"bomb")
    mine(fake_node, b"after")
    last = run(an_app(commit=commit), other)
    halted, running = query("SELECT name, status, block_id, error FROM virtualchain.apps ORDER BY name DESC")
    assert (halted["status"], halted["block_id"]) == ("halted", last - 2)
    assert halted["error"]["callback"] == "db_commit"
    assert "RuntimeError: boom" in halted["error"]["traceback"]
    assert (running["status"], running["block_id"]) == ("running", last)
    assert query("SELECT name FROM steps.counters") == [{"name": "fine"}]
    with pytest.raises(AppHalted, match="boom"):
        run(an_app(commit=commit))


def test_a_violated_deferred_constraint_halts(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A foreign key may be violated within a block; if it is still violated at the end, the app halts."""

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute("INSERT INTO marks VALUES (%s, 1)", [op["text"]])
        if op["text"] == "closed":
            state.execute("INSERT INTO counters VALUES (%s, 1)", [op["text"]])

    mine(fake_node, b"closed")
    height = run(an_app(commit=commit))
    assert query("SELECT name FROM steps.marks") == [{"name": "closed"}]
    mine(fake_node, b"open")
    with pytest.raises(AppHalted, match="a deferred constraint failed with ForeignKeyViolation"):
        run(an_app(commit=commit))
    assert query("SELECT block_id FROM virtualchain.apps") == [{"block_id": height}]


def test_commit_may_replace_or_multiply_an_op(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A returned dict replaces the op, a list stands for several, and later checks see them in `checked`."""
    seen: list[list[str]] = []

    def check(op: dict[str, Any], state: State, checked: list[dict[str, Any]]) -> bool:
        seen.append([item["text"] for item in checked])
        return bool(op) and bool(state)

    def commit(op: dict[str, Any], state: State) -> Any:
        assert state.block_id
        return {"text": "other"} if op["text"] == "one" else [{"text": "a"}, {"text": "b"}]

    mine(fake_node, b"one", b"two")
    run(an_app(check=check, commit=commit))
    first, second = query("SELECT fields, canonical FROM virtualchain.ops ORDER BY vtxindex")
    assert first == {"fields": {"text": "other"}, "canonical": [b"o:5:other"]}
    assert second == {"fields": [{"text": "a"}, {"text": "b"}], "canonical": [b"o:1:a", b"o:1:b"]}
    assert seen == [[], ["other"]]


def test_scan_and_final_see_the_block(fake_node: FakeNode, run: Run) -> None:
    """Scan sees the parsed ops and final the committed ones, with the engine's own keys in each."""
    app = an_app(check=lambda op, state: op["text"] != "no" and bool(state))
    seen: list[Any] = []

    @app.scan
    def scan(ops: list[dict[str, Any]], state: State, block_id: int) -> None:
        seen.append(("scan", block_id, state.block_id, [op["text"] for op in ops]))

    @app.final
    def final(ops: list[dict[str, Any]], state: State) -> None:
        seen.append(("final", state.block_id, [(op["text"], op["virtualchain_opcode"]) for op in ops]))

    mine(fake_node, b"yes", b"no")
    last = run(app)
    assert seen[-2:] == [("scan", last, last, ["yes", "no"]), ("final", last, [("yes", b"o")])]


def test_vtxindex_counts_parsed_candidates(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Candidates that parse drops have no vtxindex; those that check rejects have one."""
    mine(fake_node, b"a", b"", b"b", b"c")
    run(
        an_app(
            parse=lambda payload: {"text": payload.decode()} if payload else None,
            check=lambda op, state: op["text"] != "b" and bool(state),
        )
    )
    rows = query("SELECT fields ->> 'text' AS text, vtxindex FROM virtualchain.ops ORDER BY vtxindex")
    assert rows == [{"text": "a", "vtxindex": 0}, {"text": "c", "vtxindex": 2}]


def test_a_module_of_functions_is_an_app(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Functions with the published names suffice; state is passed if a signature has room for it."""
    module = SimpleNamespace(
        __name__="plain",
        get_virtual_chain_name=lambda: "Plain App",
        get_virtual_chain_version=lambda: 3,
        get_first_block_id=lambda: 101,
        get_magic_bytes=lambda: "st",
        get_opcodes=lambda: "op",
        get_opfields=lambda: {"o": ["text", "vtxindex"]},
        db_parse=lambda block, opcode, payload, senders, inputs, outputs, fee, db_state: {
            "text": payload.decode(),
            "fee": fee,
            "vtxindex": None,
        },
        db_check=lambda block, opcode, op, txid, vtxindex, checked: op.update(vtxindex=vtxindex) or True,
        db_commit=lambda block, opcode, op, txid, vtxindex, db_state: None,
    )
    mine(fake_node, b"x")
    run(module)
    (op,) = query("SELECT app, fields, canonical FROM virtualchain.ops")
    assert (op["app"], op["canonical"]) == ("Plain App", [b"o:1:x,1:0"])
    assert op["fields"]["fee"] > 0
    assert query("SELECT schema, version FROM virtualchain.apps") == [{"schema": "plain_app", "version": "3"}]


def test_db_continue_stops_an_app(fake_node: FakeNode, run: Run, query: Query) -> None:
    """If db_continue returns False, the app stops after that block, and so does an otherwise empty engine."""
    app = App("steps", magic=b"st")
    app.add(b"o", parse=parse_text)
    app.proceed(lambda block_id, consensus_hash: block_id < 3 and len(consensus_hash) == 32)
    fake_node.mine(n=10)
    assert run(app) == 3
    assert query("SELECT status, block_id FROM virtualchain.apps") == [{"status": "stopped", "block_id": 3}]


@pytest.mark.parametrize("statement", ["/* now */ -- then\n COMMIT", "SET LOCAL TimeZone = 'Asia/Tokyo'"])
def test_reducers_must_not_end_the_transaction(fake_node: FakeNode, run: Run, statement: Any) -> None:
    """Transaction control is refused, also after comments, and so are settings."""
    app = an_app(commit=lambda op, state: state.execute(statement) or op)
    mine(fake_node, b"x")
    with pytest.raises(AppHalted, match="may not run"):
        run(app)


def test_fresh_hashes_are_those_of_the_window(fake_node: FakeNode, run: Run, query: Query) -> None:
    """At block h, the hashes of [h - S, h) are fresh, and the block's own does not exist yet."""
    seen: dict[str, bool] = {}
    hashes: dict[int, str | None] = {}

    def check(op: dict[str, Any], state: State) -> bool:
        for back in (0, 1, 8, 9, 2**40):
            known = state.consensus_hash(state.block_id - back)
            hashes[back] = known
            seen[f"{back}"] = known is not None and state.is_fresh(known)
        seen["nonsense"] = state.is_fresh("nonsense")
        return bool(op)

    app = an_app(check=check)
    app.valid_transaction_window = 8
    fake_node.mine(n=12)
    mine(fake_node, b"x")
    run(app)
    del seen[f"{2**40}"]
    assert seen == {"0": False, "1": True, "8": True, "9": False, "nonsense": False}
    assert hashes[0] is None
    assert hashes[9] is not None
    assert hashes[2**40] is None


def test_a_consensus_hash_follows_from_ops_and_prior_hashes(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """Every snapshot can be recomputed from the log with the pure functions of `consensus`."""
    for number in range(20):
        mine(fake_node, *[f"{number}-{i}".encode() for i in range(number % 4)])
    run(an_app())
    known: dict[int, str] = {}
    for row in query("SELECT * FROM virtualchain.snapshots ORDER BY block_id"):
        ops = query("SELECT canonical FROM vc.ops WHERE block_id = %s", [row["block_id"]])
        ops_hash = consensus.ops_hash(text for op in ops for text in op["canonical"])
        prior = [known[item] for item in consensus.prior_block_ids(row["block_id"], 0)]
        assert row["ops_hash"] == ops_hash
        assert row["consensus_hash"] == consensus.consensus_hash(ops_hash, prior)
        known[row["block_id"]] = row["consensus_hash"]


def test_initial_snapshots_replace_their_blocks(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Below the first block they are only fresh; from it on, they also enter later consensus hashes."""
    below, at = "11" * 16, "22" * 16
    app = App("steps", magic=b"st", first_block_id=5, initial_snapshots={4: below, 5: at})
    app.add(b"o", parse=parse_text)
    fake_node.mine(n=8)
    run(app, to=6)
    rows = query("SELECT block_id, consensus_hash FROM virtualchain.snapshots ORDER BY block_id")
    expected = consensus.consensus_hash(consensus.ops_hash([]), [at])
    assert [tuple(row.values()) for row in rows] == [(4, below), (5, at), (6, expected)]
    assert query("SELECT min(block_id) FROM virtualchain.blocks") == [{"min": 6}]


def test_a_changed_app_is_refused(fake_node: FakeNode, run: Run) -> None:
    """An app whose declared rules differ from those that built its tables is refused."""
    run(an_app())
    changed = an_app()
    changed.version = "2"
    with pytest.raises(VirtualchainError, match="was installed as version 1"):
        run(changed)


def test_rules_change_at_their_activation_height(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Old blocks are judged by old rules, and an opcode is valid from its activation height on."""
    start = fake_node.height + 1
    app = App("epochs", magic=b"st", projections=COUNTERS)
    app.add(b"o", parse=parse_text, fields=["text"])
    app.add(b"o", parse=lambda payload: {"text": payload.decode(), "n": 2}, from_block=start + 2)
    app.add(b"n", parse=parse_text, from_block=start + 1)
    seen: list[tuple[str, int]] = []

    @app.final
    def old(ops: Any, state: State, block_id: int) -> None:
        seen.append(("old", block_id))

    @app.final(from_block=start + 2)
    def new(ops: Any, state: State, block_id: int) -> None:
        seen.append(("new", block_id))

    for _ in range(3):
        fake_node.mine([fake_node.send(b"stox"), fake_node.send(b"stny")])
    run(app)
    ops = query("SELECT block_id, fields, canonical FROM vc.ops ORDER BY block_id, vtxindex")
    assert [(op["block_id"] - start, op["canonical"]) for op in ops] == [
        (0, [b"o:1:x"]),
        (1, [b"o:1:x"]),
        (1, [b"n:1:y"]),
        (2, [b"o:1:2,1:x"]),
        (2, [b"n:1:y"]),
    ]
    assert query("SELECT step, reason FROM virtualchain.rejections") == [
        {"step": "parse", "reason": f"this opcode is valid from block {start + 1} on"}
    ]
    assert seen[-3:] == [("old", start), ("old", start + 1), ("new", start + 2)]
