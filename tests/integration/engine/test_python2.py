"""Implementations in the shapes that the Python 2 library had, run by `virtualchain.lib.python2`.

They follow the chains that were recorded from that library, and must have its hashes.
"""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.integration.engine.test_recorded_chains import EXCERPT, check_log, holds_nul
from tests.support.recorded_source import RecordedSource
from virtualchain import Rejected, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.errors import AppHalted, InvalidApp
from virtualchain.lib.python2 import adapt
from virtualchain.loading import load_app
from virtualchain.testing import FakeNode

Json = dict[str, Any]
Verdicts = Callable[..., list[Any]]


class Shape:
    """What both shapes share: declarations and rules, with a state of its own."""

    def __init__(self, chain: Json) -> None:
        self._chain = chain
        self.txs = {tx["txid"]: tx for block in chain["blocks"] for tx in block["txs"]}
        self.scanned = 0

    def get_virtual_chain_name(self, testset: bool = False) -> str:
        """Return the name."""
        return "state"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "20.0.1.0"

    def get_first_block_id(self) -> int:
        """Return the recorded first block."""
        first: int = self._chain["first_block_id"]
        return first

    def get_magic_bytes(self) -> str:
        """Return the recorded magic."""
        magic: str = self._chain["magic"]
        return magic

    def get_opcodes(self) -> list[str]:
        """Return the opcodes, as Python 2 had them."""
        return list(self._chain["opfields"])

    def get_opfields(self) -> Json:
        """Return the hashed fields."""
        fields: Json = self._chain["opfields"]
        return fields

    def get_initial_snapshots(self) -> dict[str, str]:
        """Return the consensus hashes that the chain starts from; heights are text."""
        snapshots: dict[str, str] = self._chain["initial_snapshots"]
        return snapshots

    def get_valid_transaction_window(self) -> int:
        """Return S."""
        window: int = self._chain["valid_transaction_window"]
        return window

    def get_blockchain(self) -> str:
        """Return what nobody asks for any more."""
        return "bitcoin"

    def get_db_state(self, filename: str | None = None) -> list[Any]:
        """Create a state, or load the saved one."""
        loaded: list[Any] = [] if filename is None else json.loads(Path(filename).read_text())
        return loaded

    def db_scan_block(self, block_id: int, op_list: list[Json], db_state: list[Any]) -> None:
        """Change what would disturb, if these ops were not copies."""
        for op in op_list:
            op.clear()
        self.scanned = len(op_list)

    def parsed(self, txid: str, opcode: str, payload: str, senders: list[Json], outputs: list[Json]) -> Any:
        """Return what the recording parsed, with what the old library's names hold."""
        tx = self.txs[senders[0]["txid"]]
        assert tx["nulldata"] == f"{self.get_magic_bytes()}{opcode}{payload}".encode("latin-1").hex()
        assert senders[0]["nulldata_vin_outpoint"] == 0
        assert outputs[0]["script"] == "51"
        if tx["db_parse"] is None:
            return None
        kept = {name: value for name, value in tx["db_parse"].items() if name != "ignored_extra"}
        as_bytes = {name: latin(value) for name, value in kept.items()}
        return {**as_bytes, "__tx__": {"txid": txid}, "virtualchain_opcode": "ignored"}

    def committed(self, op: Json, recorded: Json, opcode: str) -> Any:
        """Return what the recorded implementation returned."""
        second = {name: 2 if name == "n" else "2nd" for name in self.get_opfields()[opcode]}
        results = {"accept": op, "none": None, "false": False, "list": [op], "two": [op, second]}
        return {**results, "mixed": [False, op, None]}[recorded["verdict"]]


class OfTheLastVersions(Shape):
    """The shape of 2018: hints, ops of the block at its end, and nothing of its own to save."""

    def db_parse(
        self,
        block_id: int,
        txid: str,
        vtxindex: int,
        op: str,
        data: str,
        senders: list[Json],
        inputs: list[Json],
        outputs: list[Json],
        fee: int,
        db_state: Any = None,
        **virtualchain_hints: Any,
    ) -> Any:
        """Parse, and keep which recorded transaction it is."""
        assert inputs[0]["outpoint"] == {"hash": senders[0]["txid"], "index": 0}
        fields = self.parsed(txid, op, data, senders, outputs)
        return fields and {**fields, "recorded": senders[0]["txid"], "vtxindex": vtxindex}

    def db_check(
        self,
        block_id: int,
        new_ops: Json,
        op: str,
        op_data: Json,
        txid: str,
        vtxindex: int,
        checked_ops: list[Json],
        db_state: Any = None,
    ) -> bool:
        """Reject what was rejected, and note something in the op."""
        assert (op_data["vtxindex"], op_data["__tx__"]["txid"]) == (vtxindex, txid)
        assert [each["virtualchain_opcode"] for each in new_ops["virtualchain_ordered"]].count(
            op.encode()
        ) == len(new_ops[op])
        assert len(new_ops["virtualchain_all_ops"]) == self.scanned
        assert len(checked_ops) == len(new_ops["virtualchain_ordered"])
        op_data["noted"] = True
        return bool(self.txs[op_data["recorded"]]["verdict"] != "reject")

    def db_commit(
        self,
        block_id: int,
        op: str,
        op_data: Any,
        txid: str | None,
        vtxindex: int | None,
        db_state: Any = None,
    ) -> Any:
        """Return what was recorded; at the end of the block, nothing."""
        if op == "virtualchain_final":
            db_state.append(
                [block_id, [each["virtualchain_txid"] for each in op_data["virtualchain_ordered"]]]
            )
            return None
        assert op_data["noted"]
        return self.committed(op_data, self.txs[op_data["recorded"]], op)

    def db_save(self, block_id: int, filename: str, db_state: Any) -> bool:
        """Save the state."""
        return bool(Path(filename).write_text(json.dumps(db_state)))


class OfTheYear2016(Shape):
    """The shape of 2016: it saves with the ops, and knows the end of a block by an op that is None."""

    def db_parse(
        self,
        block_id: int,
        txid: str,
        txind: int,
        opcode: str,
        op_payload: str,
        senders: list[Json],
        inputs: list[Json],
        outputs: list[Json],
        fee: int,
        db_state: Any = None,
    ) -> Any:
        """Parse, and keep which recorded transaction it is."""
        fields = self.parsed(txid, opcode, op_payload, senders, outputs)
        return fields and {**fields, "recorded": senders[0]["txid"]}

    def db_check(
        self,
        block_id: int,
        new_ops: Json,
        opcode: str,
        op: Json,
        txid: str,
        vtxindex: int,
        checked: list[Json],
        db_state: Any = None,
    ) -> bool:
        """Reject what was rejected."""
        return bool(self.txs[op["recorded"]]["verdict"] != "reject")

    def db_commit(
        self,
        block_id: int,
        opcode: str,
        op: Any,
        txid: str | None,
        vtxindex: int | None,
        db_state: Any = None,
    ) -> Any:
        """Return what was recorded."""
        if op is None:
            return op
        db_state.append([block_id, vtxindex, txid])
        return self.committed(op, self.txs[op["recorded"]], opcode)

    def db_save(
        self,
        block_id: int,
        consensus_hash: str | None,
        pending_ops: Json,
        filename: str,
        db_state: Any = None,
    ) -> bool:
        """Save the state, and check that all accepted ops are there."""
        assert len(pending_ops["virtualchain_ordered"]) == sum(
            len(pending_ops[code]) for code in self.get_opcodes()
        )
        return bool(Path(filename).write_text(json.dumps(db_state)))


def latin(value: Any) -> Any:
    """Return text as Python 2 had it: one character for each byte."""
    return value.encode().decode("latin-1") if isinstance(value, str) else value


@pytest.fixture(params=["first-0", "no-initial-snapshots"], scope="module")
def chain(request: pytest.FixtureRequest) -> Json:
    """Return a recorded chain, up to the first text that PostgreSQL cannot store."""
    chains = json.loads(gzip.decompress(EXCERPT.read_bytes()))["chains"]
    selected: Json = next(chain for chain in chains if chain["label"] == request.param)
    blocks = selected["blocks"]
    end = next((place for place, block in enumerate(blocks) if holds_nul(block)), len(blocks))
    assert end > 15
    return {**selected, "blocks": blocks[:end]}


@pytest.mark.parametrize("shape", [OfTheLastVersions, OfTheYear2016])
def test_a_recorded_chain_has_its_recorded_hashes(
    shape: type[Shape], chain: Json, database_url: str, tmp_path: Path
) -> None:
    """Over a restart, the adapted implementation has the ops and the hashes of the old library."""
    source = RecordedSource(chain["blocks"])
    for stop in (chain["blocks"][9]["height"], None):
        app = adapt(shape(chain))
        with StateEngine(
            app, database=database_url, source=source, confirmations=0, state_folder=tmp_path
        ) as engine:
            engine.build(stop)
            assert not engine.halted()
    with psycopg.connect(database_url) as connection:
        check_log(connection, "state", chain)


PAGE = Path(__file__).parents[3] / "docs" / "python2.md"


def test_the_example_of_the_page(
    fake_node: FakeNode, query: Query, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found as the page names it, and runs; a fork is undone."""
    (code, *_) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "words.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    app = load_app("./words.py")
    fake_node.mine([fake_node.send(b"worhi", sender="alice"), fake_node.send(b"worhi", sender="bob")])
    fake_node.mine([fake_node.send(b"wodhi", sender="bob"), fake_node.send(b"worho", sender="bob")])
    with StateEngine(app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
        fake_node.reorg(1, 2)
        engine.build()
    assert [row["word"] for row in query("SELECT word FROM words.words")] == ["hi"]
    (op,) = query("SELECT block_id, fields FROM virtualchain.ops")
    assert (op["block_id"], op["fields"]["word"]) == (102, "hi")


# Refusals


def old_module(**changes: Any) -> Any:
    """Make a module in the shape of the published example: without ids, with bytes or text."""
    module = SimpleNamespace(
        __name__="letters",
        get_virtual_chain_name=lambda: "letters",
        get_virtual_chain_version=lambda: "v0.01-beta",
        get_first_block_id=lambda: 102,
        get_magic_bytes=lambda: "vv",
        get_opcodes=lambda: ["a", "b"],
        get_opfields=lambda: {"a": ["text"], "b": ["text"]},
        get_projections=lambda: "CREATE TABLE letters (place integer PRIMARY KEY, text text NOT NULL)",
        db_parse=lambda block_id, opcode, op_payload, senders, inputs, outputs, fee, db_state=None: (
            {"text": op_payload} if op_payload else None
        ),
        db_check=lambda block_id, opcode, op, txid, vtxindex, checked, db_state=None: len(checked) < 3,
        db_commit=lambda block_id, opcode, op, txid, vtxindex, db_state=None: op,
    )
    vars(module).update(changes)
    return module


@pytest.fixture
def verdicts(database_url: str, fake_node: FakeNode, query: Query) -> Verdicts:
    """Return a function that runs a module on payloads in one block, and reads what became of them."""

    def run(module: Any, *payloads: bytes) -> list[Any]:
        fake_node.mine([fake_node.send(payload) for payload in payloads])
        with StateEngine(
            adapt(module), database=database_url, source=fake_node.url, confirmations=0
        ) as engine:
            engine.build()
        ops = query("SELECT txindex, fields, canonical FROM virtualchain.ops")
        refused = query("SELECT txindex, step, reason FROM virtualchain.rejections")
        rows = sorted([*ops, *refused], key=lambda row: row["txindex"])
        return [tuple(row.values())[1:] for row in rows]

    return run


def test_bytes_are_hashed_as_they_are(verdicts: Verdicts) -> None:
    """Bytes are stored as the text whose UTF-8 they are; what is not UTF-8 is rejected, and nothing halts."""
    assert verdicts(old_module(), b"vva\xc3\xa9", b"vvb\xff", b"vva", b"vvbx", b"vvby", b"vvbz") == [
        ({"text": "é"}, [b"a:2:\xc3\xa9"]),
        ("commit", "a field's bytes are not UTF-8: invalid start byte"),
        ("check", "not parsed"),
        ({"text": "x"}, [b"b:1:x"]),
        ({"text": "y"}, [b"b:1:y"]),
        ("check", "refused"),
    ]


def test_an_op_may_stand_without_being_hashed(verdicts: Verdicts) -> None:
    """None from db_commit lets what it wrote stand, and the op has nothing to hash."""
    assert verdicts(old_module(db_commit=commit_nothing), b"vvax") == [([], [])]


def test_reasons_can_be_given(verdicts: Verdicts) -> None:
    """What this library's apps return to reject with a reason is understood, at each step."""

    def give(payload: str) -> Any:
        return Rejected(payload) if payload == "no" else {"text": payload}

    module = old_module(
        db_parse=lambda block_id, opcode, op_payload, senders, inputs, outputs, fee, db_state=None: give(
            op_payload
        ),
        db_check=lambda block_id, opcode, op, txid, vtxindex, checked, db_state=None: (
            Rejected("never") if op["text"] == "never" else True
        ),
        db_commit=lambda block_id, opcode, op, txid, vtxindex, db_state=None: op and Rejected("later"),
    )
    assert verdicts(module, b"vvano", b"vvanever", b"vvax") == [
        ("check", "no"),
        ("check", "never"),
        ("commit", "later"),
    ]


def test_no_op_follows_the_last_one(verdicts: Verdicts) -> None:
    """What db_commit returns at the end of a block has no transaction: the app halts, and it says why."""
    with pytest.raises(AppHalted, match="only ops of transactions enter a consensus hash here"):
        verdicts(old_module(db_commit=commit_at_the_end), b"vvax")


def commit_nothing(
    block_id: int, opcode: str, op: Any, txid: Any, vtxindex: Any, db_state: Any = None
) -> None:
    """Accept everything, and show nothing."""


def commit_at_the_end(
    block_id: int, opcode: str, op: Any, txid: Any, vtxindex: Any, db_state: Any = None
) -> Any:
    """Return an op at the end of a block."""
    return op or {"text": "final"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"db_parse": lambda block_id, op: None}, r"db_parse\(block_id, op\): it must take 7 or 9 arguments"),
        ({"db_check": lambda op, db_state=None: True}, "db_check.*: it must take 6 or 7 arguments"),
        ({"db_commit": None}, "the app letters lacks db_commit"),
        ({"db_save": lambda block_id: True}, "db_save.* 2 or 4 or 5 arguments and db_state"),
        (
            {"get_db_state": lambda working_dir: 1},
            r"get_db_state\(working_dir\): write get_db_state\(filename=None\)",
        ),
    ],
)
def test_what_cannot_be_called_is_refused(changes: Json, message: str) -> None:
    """The message names the callback, what it takes, and what it should take."""
    with pytest.raises(InvalidApp, match=message):
        adapt(old_module(**changes))


def test_the_code_of_the_old_module_counts() -> None:
    """Another rule in the module is other code of the app."""
    digests = {
        read_contract(adapt(module)).code_digest()
        for module in (old_module(), old_module(), old_module(db_commit=commit_nothing))
    }
    assert len(digests) == 2
