"""`check_poison`: what it finds in apps with bugs, and that correct apps survive it."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from virtualchain import App, Sender, State, Text
from virtualchain.errors import UsageError
from virtualchain.examples import notary
from virtualchain.model import Json
from virtualchain.testing import cases, check_poison
from virtualchain.testing.poison import Poisoned

DOCUMENT = hashlib.sha256(b"a document").digest()


def test_the_notary_survives(database_url: str) -> None:
    """Every case is accepted, refused, or ignored."""
    other = hashlib.sha256(DOCUMENT).digest()
    samples = [b"ntc" + DOCUMENT, b"ntt" + DOCUMENT, b"ntc" + other, b"ntr" + other]
    report = check_poison(notary.app, samples, database_url=database_url)
    assert report.cases > 500
    assert report.accepted > 50
    assert report.refused > 300
    assert report.cases == report.accepted + report.refused + report.ignored


class Tally:
    """An app in the published form, with its own state and a first block that is too high for mining."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "tally"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the height of the first block."""
        return 373601

    def get_initial_snapshots(self) -> dict[int, str]:
        """Return the consensus hash before it."""
        return {373600: "6e09e252e893d4f40fb988cdab2a88e2"}

    def get_confirmations(self) -> int:
        """Return two confirmations."""
        return 2

    def get_magic_bytes(self) -> tuple[str, str]:
        """Return two magics."""
        return "ta", "ly"

    def get_opcodes(self) -> bytes:
        """Return five opcodes."""
        return bytes(range(5))

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Create the state, or load it."""
        loaded: dict[str, int] = {} if filename is None else json.loads(Path(filename).read_text())
        return loaded

    def db_parse(self, *arguments: Any) -> dict[str, Any]:
        """Return the payload's size."""
        return {"size": len(arguments[2])}

    def db_check(self, *arguments: Any) -> bool:
        """Accept every op."""
        return True

    def db_commit(self, *arguments: Any) -> None:
        """Add the size to the total."""
        state = arguments[5]
        state["total"] = state.get("total", 0) + arguments[2]["size"]

    def db_save(self, block_id: int, filename: str, db_state: dict[str, int]) -> None:
        """Save the state."""
        Path(filename).write_text(json.dumps(db_state))


def test_an_app_with_its_own_state_survives(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed as a class, restarted, started below its first block, and has opcodes above the limit."""
    monkeypatch.setattr(cases, "_FULLY_TESTED_OPCODES", 2)
    report = check_poison(Tally, database_url=database_url)
    assert report.accepted > 200


def careless() -> App:
    """Build an app with a bug in each opcode."""
    app = App("careless", magic=b"ca", projections="CREATE TABLE seen (word text PRIMARY KEY)")

    def keep(op: dict[str, Any], state: State) -> None:
        state.execute("INSERT INTO seen VALUES (%s)", [op["word"]])

    def find(op: dict[str, Any], state: State) -> bool:
        return state.one("SELECT word FROM seen WHERE word = %s", [op["word"]]) is None

    app.add(b"i", parse=lambda payload: {"word": str(payload[0])})
    app.add(b"u", parse=lambda payload: {"word": payload.hex()[:40]}, commit=keep)
    app.add(b"j", parse=lambda payload: {"word": json.loads(payload).get("word")}, check=find, fields=[])
    return app


def test_bugs_are_found_and_named(database_url: str) -> None:
    """A short payload, a repeated word, and a boolean in place of text are reported with their cases."""
    app = careless()
    with pytest.raises(Poisoned, match="app careless does not survive hostile input") as raised:
        check_poison(app, [b"cai ", b"cauxyz", b'caj{"word":"x"}'], database_url=database_url)
    message = str(raised.value)
    assert "sample b'cauxyz' by alice: db_commit fails with UniqueViolation" in message
    assert "b'cai ' cut off at 0: db_parse fails with IndexError" in message
    assert "as True: db_check fails with UndefinedFunction" in message
    assert "Instead, look in `check` for the row in the way" in message
    assert "Instead, in `parse`, return None or `Rejected`" in message
    assert "Instead, check in `parse` that what a payload says has the type you expect" in message


def test_a_hook_that_sees_the_whole_block_is_tested_case_by_case(database_url: str) -> None:
    """Its error names no transaction, so each case gets its own block until the culprit is known."""
    app = App("final", magic=b"fi")
    app.add(b"o", parse=lambda payload: {"size": len(payload)})

    @app.final
    def final(ops: list[dict[str, Any]], state: State) -> None:
        assert all(op["size"] != 9_000 for op in ops)

    with pytest.raises(Poisoned, match="9000 random bytes after opcode b'o': db_final fails with Assertion"):
        check_poison(app, database_url=database_url)


def test_differences_between_two_runs_are_found() -> None:
    """Here the cause is a counter that a restart does not reset; the check starts its own server."""
    numbers = itertools.count()
    app = App("chance", magic=b"ch")
    app.add(b"o", parse=lambda payload: {"number": next(numbers)})
    with pytest.raises(Poisoned, match=r"(?s)two runs differ: .*\"number\""):
        check_poison(app, guard=False)


def test_cases_that_cannot_reach_the_app_are_a_usage_error(database_url: str) -> None:
    """The causes are another app's sample, and a payload rule that finds no payload in any case."""
    app = App("nothing", magic=b"no", payload_rule=lambda outputs: None)
    app.add(b"o", parse=lambda payload: {})
    with pytest.raises(UsageError, match="sample b'xxo' does not start with a magic and an opcode"):
        check_poison(app, [b"xxo"], database_url=database_url)
    with pytest.raises(UsageError, match=r"none of \d+ cases reaches app nothing"):
        check_poison(app, database_url=database_url)


def test_a_sample_that_is_never_accepted_is_named(database_url: str) -> None:
    """A field that is misspelled refuses every input, and then the reducer is not tried at all."""
    app = App("letters", magic=b"le")
    app.add(b"a", parse=lambda payload: {"letter": "a"}, fields={"letter": Text(9)})
    app.add(b"b", parse=lambda payload: {"letter": "b"}, fields={"leter": Text(9)})
    with pytest.warns(
        UserWarning, match=r"never accepts the samples b'leb' \(in block 21 parse: .*leter"
    ) as warned:
        check_poison(app, [b"lea", b"leb"], database_url=database_url)
    assert len(warned) == 1


def test_strangers_send_hostile_payloads_too(database_url: str) -> None:
    """An app that takes one input of each sender still gets to see digits that `int` does not read."""
    app = App("votes", magic=b"vo", projections="CREATE TABLE votes (voter text PRIMARY KEY, number bigint)")

    @app.opcode(b"v")
    class Vote:
        def parse(self, payload: bytes, senders: list[Sender]) -> Json | None:
            voter = senders[0]["addresses"][:1]
            return {"voter": voter[0], "number": payload.decode()} if voter and len(payload) < 9 else None

        def check(self, op: Json, state: State) -> bool:
            return state.table("votes").get(op["voter"]) is None

        def commit(self, op: Json, state: State) -> None:
            number = int(op["number"]) if op["number"].isdigit() else 0
            state.table("votes").put({"voter": op["voter"], "number": number})

    with pytest.raises(Poisoned, match=r"the word ² .* by stranger .*ValueError.*\n.*\n.*return `Rejected`"):
        check_poison(app, [b"vov1"], database_url=database_url)
