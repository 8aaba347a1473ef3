"""Pending inputs: what the views show of unconfirmed transactions, and of blocks with few confirmations."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Query
from virtualchain import App, Rejected, StateEngine
from virtualchain.testing.bitcoind import Bitcoind

Rows = list[dict[str, Any]]


def tokens(*, by_statements: bool = False) -> App:
    """Make an app that counts letters; a letter can be taken once, and `!` fails."""
    app = App(
        "letters",
        magic=b"le",
        projections="CREATE TABLE letters (letter text PRIMARY KEY, n integer NOT NULL)",
    )

    @app.opcode(b"a", fields=["letter"])
    class Add:
        """Add a letter that is not there yet; with a digit, count it."""

        def parse(self, payload: bytes) -> Any:
            """Read a letter."""
            return {"letter": payload.decode("ascii")}

        def encode(self, letter: str) -> bytes:
            """Write it."""
            return letter.encode("ascii")

        def check(self, op: Any, state: Any) -> Any:
            """Require that it is new, unless it is a digit."""
            if op["letter"] == "!":
                raise RuntimeError("an error of the app")
            known = state.one("SELECT n FROM letters WHERE letter = %s", [op["letter"]])
            return known is None or op["letter"].isdigit() or Rejected("it is there already")

        def commit(self, op: Any, state: Any) -> None:
            """Count it."""
            if by_statements:
                state.execute(
                    "INSERT INTO letters AS l VALUES (%s, 1) ON CONFLICT (letter) DO UPDATE SET n = l.n + 1",
                    [op["letter"]],
                )
            else:
                state.table("letters").add(op["letter"], n=1)

    return app


class Reader:
    """Reads what is pending."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def rows(self, statement: str) -> Rows:
        """Run a query."""
        return self.connection.execute(statement.encode()).fetchall()

    def pending(self) -> dict[str, str]:
        """Return the verdicts by letter."""
        rows = self.rows("SELECT payload, verdict FROM virtualchain.pending ORDER BY place")
        return {bytes(row["payload"]).decode(): row["verdict"] for row in rows}

    def letters(self, view: str = "letters_pending") -> dict[str, int]:
        """Return the app's rows, as a view shows them."""
        rows = self.rows(f"SELECT letter, n FROM letters.{view}")
        return {row["letter"]: row["n"] for row in rows}

    def wait(self, holds: Callable[[], bool], seconds: float = 20.0) -> float:
        """Wait until something holds; return the seconds that it took."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > seconds:
                pytest.fail(f"it does not come to hold: {self.rows('SELECT * FROM virtualchain.pending')}")
            time.sleep(0.01)
        return time.monotonic() - began


@contextmanager
def following(app: App, url: str, node: Bitcoind, k: int = 1) -> Iterator[Reader]:
    """Follow a node with pending inputs in a thread."""
    with StateEngine(app, database=url, source=node.url, confirmations=k, pending=True) as engine:
        errors: list[BaseException] = []

        def follow() -> None:
            try:
                engine.follow()
            except BaseException as error:  # noqa: BLE001 - raised in the test's thread
                errors.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        reader = Reader(url)
        try:
            yield reader
        finally:
            engine.stop()
            thread.join()
            reader.connection.close()
        if errors:
            raise errors[0]


@pytest.mark.parametrize("by_statements", [False, True], ids=["helper", "statements"])
def test_pending_inputs_are_shown_until_they_are_in_the_log(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, query: Query, by_statements: bool
) -> None:
    """Unconfirmed, then with too few confirmations, then in the log and no longer pending."""
    node = bitcoind_factory()
    node.mine(101)
    with following(tokens(by_statements=by_statements), database_url, node) as reader:
        first = node.send(b"leax")
        node.send(b"lea7")
        reader.wait(lambda: reader.pending() == {"x": "accepted", "7": "accepted"})
        assert reader.letters() == {"x": 1, "7": 1}
        assert reader.letters("letters") == {}
        node.mine()
        again = node.send(b"lea7")
        node.send(b"leax")
        reader.wait(lambda: len(reader.rows("SELECT FROM virtualchain.pending")) == 4)
        rows = reader.rows("SELECT txid, block_id, verdict, step, reason, changes FROM virtualchain.pending")
        by_txid = {row["txid"]: row for row in rows}
        assert by_txid[first]["block_id"] == 102
        assert by_txid[again]["block_id"] is None
        assert by_txid[again]["changes"] == [
            {
                "table": "letters",
                "action": "update",
                "key": {"letter": "7"},
                "old": {"letter": "7", "n": 1},
                "new": {"letter": "7", "n": 2},
            }
        ]
        assert [row["reason"] for row in rows if row["verdict"] == "refused"] == ["it is there already"]
        assert reader.letters() == {"x": 1, "7": 2}
        node.mine(2)
        reader.wait(lambda: reader.pending() == {} and reader.letters("letters") == {"x": 1, "7": 2})
        assert reader.letters() == {"x": 1, "7": 2}
    assert query("SELECT FROM vc.pending") == []
