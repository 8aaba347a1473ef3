"""Blocks with so many ops that what was decoded of one is not kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import psycopg
import pytest

from virtualchain import App, Rejected, State
from virtualchain.engine.candidates import Candidate
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

ENGINE_KEYS = [f"virtualchain_{name}" for name in ("txid", "txindex", "opcode", "senders", "fee")]
MOST_AN_OP = 2_200
"""Bytes of memory that an op may take; the tests' transactions have 214."""


def an_app(seen: list[Any], *, looks_back: bool) -> App:
    """Make an app that notes what its callbacks see; some inputs are rejected, and some after they wrote."""
    app = App("large", magic=b"lb", projections="CREATE TABLE marks (text text PRIMARY KEY, n integer)")

    def parse(payload: bytes, senders: list[Any]) -> dict[str, Any] | Rejected:
        seen.append(["parse", payload, senders])
        return Rejected("no") if payload == b"no" else {"text": payload.decode(), "n": len(senders)}

    def keys(op: dict[str, Any]) -> dict[str, list[str]]:
        seen.append(["keys", deepcopy(op)])
        if op["text"] == "b":
            op["note"] = "keys"
        if op["text"] == "c":
            op["virtualchain_senders"][0]["value"] = 1
        return {"marks": [op["text"]]}

    def check(op: dict[str, Any], state: State) -> bool:
        seen.append(["check", deepcopy(op), list(op)])
        op["virtualchain_fee"] += 1  # commit sees it
        return bool(op["text"] != "false")

    def check_with_others(op: dict[str, Any], state: State, checked: list[Any]) -> bool:
        seen.append(["checked", deepcopy(checked)])
        return check(op, state)

    def commit(op: dict[str, Any], state: State) -> bool | None:
        seen.append(["commit", deepcopy(op)])
        state.table("marks").put({"text": op["text"], "n": op["n"]})
        return False if op["text"] == "undo" else None

    app.add(
        b"o",
        parse=parse,
        keys=keys,
        check=check_with_others if looks_back else check,
        commit=commit,
        fields=["text", "n"],
    )
    if looks_back:
        app.scan(lambda ops, state: seen.append(["scan", deepcopy(ops)]))
        app.final(lambda ops, state: seen.append(["final", deepcopy(ops)]))
    return app


def outcome(url: str) -> list[Any]:
    """Read what the app made of the chain."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2".encode()).fetchall()
            for table in ("vc.ops", "vc.rejections", "vc.snapshots", "large.marks")
        ]


@pytest.mark.parametrize("looks_back", [False, True])
def test_callbacks_and_log_are_as_in_a_small_block(
    fake_node: FakeNode, fresh_index: Callable[..., str], monkeypatch: pytest.MonkeyPatch, looks_back: bool
) -> None:
    """Callbacks see every op whole, in the same order, and the same is logged, hashed and stored."""
    texts = [b"a", b"no", b"false", b"b", b"undo", b"a", b"c"]
    for count in (len(texts), 3):
        fake_node.mine([fake_node.send(b"lbo" + text) for text in texts[:count]])
    shed: list[Candidate] = []
    shed_as_is = Candidate.shed

    def note(candidate: Candidate) -> None:
        shed_as_is(candidate)
        if not candidate.is_whole:
            shed.append(candidate)

    monkeypatch.setattr(Candidate, "shed", note)
    outcomes = []
    for limit in (10**9, 0):
        assert not shed
        monkeypatch.setattr("virtualchain.engine.judge.MOST_KEPT", limit)
        monkeypatch.setattr("virtualchain.bitcoin.block.MOST_KEPT", limit)
        seen: list[Any] = []
        outcomes.append((outcome(fresh_index(an_app(seen, looks_back=looks_back))), seen))
    assert outcomes[0] == outcomes[1]
    assert bool(shed) != looks_back  # whoever looks back needs all ops whole
    ops = [each[1] for each in seen if each[0] in {"keys", "check"}]
    for op in ops:
        assert [name for name in op if name.startswith("virtualchain_")] == ENGINE_KEYS
    assert all(op["virtualchain_senders"][0]["addresses"] for op in ops)


def test_a_block_of_many_ops_takes_little_memory(database_server: DatabaseServer) -> None:
    """It takes little more than its transactions: neither what they decode to nor its rows are kept."""
    peaks = []
    for ops in ("1", "20000"):
        url = database_server.clone()
        command = [sys.executable, "-m", "tests.benchmarks.apply", "--worker", "helper", "--database", url]
        done = subprocess.run([*command, "--ops", ops, "--total", ops], stdout=subprocess.PIPE, check=True)
        peaks.append(json.loads(done.stdout)["peak"])
        database_server.drop(url)
    assert peaks[1] - peaks[0] < 20_000 * MOST_AN_OP
