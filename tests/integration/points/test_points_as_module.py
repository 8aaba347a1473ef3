"""The example as a module: op by op and hash by hash what the same rules in SQL and in Python lead to."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Run
from virtualchain import App, Rejected, State, wasm_app
from virtualchain.errors import AppHalted
from virtualchain.examples import points
from virtualchain.examples.points import wasm
from virtualchain.testing import FakeNode, check_poison

FOLDER = Path(wasm.__file__).parent
ISSUE = wasm.app.build_input("i", name="gold", amount=100)
PASS = wasm.app.build_input("t", name="gold", amount=60)
COMPLETE = {"ALL", "DEFAULT"}
PEOPLE = ("alice", "bob", "carol")


def python_app() -> App:  # noqa: C901 - it is all of the rules
    """Write the same rules in Python, with `state.table`."""
    app = App("points", magic=b"pt", projections=(FOLDER.parent / "points.sql").read_text())

    def read(payload: bytes, senders: list[dict[str, Any]], owner: str) -> dict[str, Any]:
        if len(payload) < 1 or payload[0] > 20 or len(payload) != payload[0] + 5:
            raise ValueError("malformed")
        sender = senders[0]
        if not sender["addresses"] or not COMPLETE.issuperset(sender["sighash"]):
            raise ValueError("the sender did not sign everything")
        name = payload[1:-4].decode()
        return {owner: sender["addresses"][0], "name": name, "amount": int.from_bytes(payload[-4:])}

    @app.opcode(b"i", fields=["issuer", "name", "amount"])
    class Issue:
        """The sender issues points."""

        def parse(self, payload: bytes, senders: list[dict[str, Any]]) -> dict[str, Any]:
            return read(payload, senders, "issuer")

        def check(self, op: dict[str, Any], state: State) -> bool:
            return bool(op["name"]) and op["name"] not in state.table("points")

        def commit(self, op: dict[str, Any], state: State, block_id: int) -> None:
            fields = {name: op[name] for name in ("name", "issuer", "amount")}
            state.table("points").put(fields | {"issued_at": block_id})
            state.table("balances").put({"name": op["name"], "owner": op["issuer"], "balance": op["amount"]})

    @app.opcode(b"t", fields=["sender", "recipient", "name", "amount"])
    class Transfer:
        """The sender passes points on."""

        def parse(
            self, payload: bytes, senders: list[dict[str, Any]], outputs: list[dict[str, Any]]
        ) -> dict[str, Any] | Rejected:
            paid = [output for output in outputs if output["addresses"] and output["type"] != "anchor"]
            if not paid:
                return Rejected("nobody is paid")
            return read(payload, senders, "sender") | {"recipient": paid[0]["addresses"][0]}

        def check(self, op: dict[str, Any], state: State) -> bool:
            row = state.table("balances").get((op["name"], op["sender"]))
            return row is not None and row["balance"] >= op["amount"]

        def commit(self, op: dict[str, Any], state: State) -> None:
            balances, name = state.table("balances"), op["name"]
            giver, taker = (name, op["sender"]), (name, op["recipient"])
            held = balances.get(taker, {"name": name, "owner": op["recipient"], "balance": 0})
            if giver == taker:
                return
            balances.spend(giver, balance=op["amount"])
            balances.put(held | {"balance": held["balance"] + op["amount"]})

    return app


def random_payload(dice: random.Random) -> bytes:
    """Make an input, now and then a malformed one."""
    name = dice.choice((*("gold", "zo\u00eb") * 3, "x" * 20))
    amount = dice.choice((*(1, 7, 60) * 3, 0, 2**32 - 1))
    payload = wasm.app.build_input(dice.choice("itttt"), name=name, amount=amount)
    match dice.randrange(12):
        case 0:
            return payload[: dice.randrange(3, len(payload))]
        case 1:
            return payload[:4] + dice.choice((b"\xff", b"\0")) + payload[5:]
        case 2:
            return payload + b"\0"
    return payload


def kept(url: str) -> dict[str, Any]:
    """Return what must not depend on how the rules are written."""
    with psycopg.connect(url) as connection:
        return {
            name: connection.execute(query).fetchall()
            for name, query in {
                "ops": "SELECT block_id, txindex, opcode, fields FROM vc.ops ORDER BY 1, 2",
                "rejected": "SELECT block_id, txindex FROM vc.rejections ORDER BY 1, 2",
                "digests": "SELECT block_id, consensus_hash, state_hash FROM vc.snapshots ORDER BY 1",
                "history": "SELECT DISTINCT r::text FROM points__1.balances_history AS r ORDER BY 1",
            }.items()
        }


def test_a_module_comes_to_the_ops_and_hashes_of_the_same_rules(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """In SQL, in Python and as a module, and after a fork still."""
    dice = random.Random(3)

    def mine(blocks: int) -> None:
        for _ in range(blocks):
            fake_node.mine(
                [
                    fake_node.send(
                        random_payload(dice), sender=dice.choice(PEOPLE), to=[(dice.choice(PEOPLE), 1000)]
                    )
                    for _ in range(dice.choice((0, 1, 40)))
                ]
            )

    mine(6)
    run(wasm.app)
    fake_node.reorg(2, 3)
    mine(4)
    run(wasm.app)
    expected = kept(fresh_index(points.app))
    assert len(expected["ops"]) > 10
    assert len(expected["rejected"]) > 10
    assert kept(database_url) == expected
    assert kept(fresh_index(python_app())) == expected


def test_no_input_halts_it(database_url: str) -> None:
    """Hostile payloads are refusals, with the module as well."""
    check_poison(wasm.app, samples=[ISSUE, PASS], database_url=database_url)


def test_a_module_that_comes_to_no_end_halts_its_app(fake_node: FakeNode, run: Run) -> None:
    """The record names the module and what it did, and nothing of the block is kept."""
    app = wasm_app(
        (FOLDER / "points.wasm").read_bytes(),
        "points",
        magic=b"pt",
        projections=(FOLDER.parent / "points.sql").read_text(),
        opcodes={b"i": ["issuer", "name", "amount"]},
        fuel=10_000,
    )
    fake_node.mine([fake_node.send(ISSUE)])
    with pytest.raises(AppHalted, match="the module of app points has used up its fuel") as halted:
        run(app)
    assert halted.value.record["callback"] == "db_scan_block"
    assert halted.value.record["file"] is None  # no line of Python's has to do with it


def test_the_source_is_that_of_the_module(tmp_path: Path) -> None:
    """Compiled again as its page says, it is the same module, or by another compiler one that may run."""
    if shutil.which("clang") is None or shutil.which("wasm-ld") is None:
        pytest.skip("needs clang and lld")
    lines = [line.strip() for line in (wasm.__doc__ or "").splitlines() if line.startswith("    ")]
    command = " ".join(lines).replace("\\", "").split()
    target = tmp_path / "points.wasm"
    command[command.index("-o") + 1] = str(target)
    subprocess.run(command, cwd=FOLDER, check=True)
    wasm_app(target.read_bytes(), "points", magic=b"pt", opcodes={b"i": ["issuer", "name", "amount"]})
    version = subprocess.run(["clang", "--version"], capture_output=True, check=True, text=True).stdout
    if "version 14." in version:
        assert target.read_bytes() == (FOLDER / "points.wasm").read_bytes()
