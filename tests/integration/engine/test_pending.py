"""Pending inputs: what the views show of unconfirmed transactions, and of blocks with few confirmations."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Query
from tests.support.rides import rides_app
from tests.support.traffic import fund, make, mine, send
from virtualchain import App, Rejected, StateEngine, preview
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

    def __init__(self, url: str, ended: Callable[[], list[BaseException | None]]) -> None:
        self._ended = ended
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def rows(self, statement: str) -> Rows:
        """Run a query."""
        return self.connection.execute(statement.encode()).fetchall()

    def pending(self) -> dict[str, str]:
        """Return the verdicts by letter."""
        rows = self.rows("SELECT payload, verdict FROM virtualchain.pending ORDER BY place")
        return {bytes(row["payload"]).decode("latin-1"): row["verdict"] for row in rows}

    def letters(self, view: str = "letters_pending") -> dict[str, int]:
        """Return the app's rows, as a view shows them."""
        rows = self.rows(f"SELECT letter, n FROM letters.{view}")
        return {row["letter"]: row["n"] for row in rows}

    def wait(self, holds: Callable[[], bool], seconds: float = 20.0) -> float:
        """Wait until something holds; return the seconds that it took."""
        began = time.monotonic()
        while not holds():
            if self._ended():
                pytest.fail(f"the engine has ended: {self._ended()}")
            if time.monotonic() - began > seconds:
                pytest.fail(f"it does not come to hold: {self.rows('SELECT * FROM virtualchain.pending')}")
            time.sleep(0.01)
        return time.monotonic() - began


@contextmanager
def following(
    app: App | Sequence[object], url: str, node: Bitcoind | Sequence[str], k: int = 1, **options: Any
) -> Iterator[Reader]:
    """Follow a node, or several by their URLs, with pending inputs in a thread."""
    apps = [app] if isinstance(app, App) else app
    source = node.url if isinstance(node, Bitcoind) else node
    with StateEngine(*apps, **options, database=url, source=source, confirmations=k, pending=True) as engine:
        ended: list[BaseException | None] = []

        def follow() -> None:
            error: BaseException | None = None
            try:
                engine.follow()
            except BaseException as raised:  # noqa: BLE001 - raised in the test's thread
                error = raised
            ended.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
        reader = Reader(url, lambda: ended)
        try:
            yield reader
        finally:
            engine.stop()
            thread.join()
            reader.connection.close()
        if ended[0] is not None:
            raise ended[0]


def test_the_mempool_is_that_of_the_node_that_is_asked(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """If another node takes over, what it has is pending, and nothing else."""
    first, second = bitcoind_factory(), bitcoind_factory()
    first.mine(101)
    for block_id in range(1, 102):
        second.rpc("submitblock", first.rpc("getblock", first.rpc("getblockhash", block_id), 0))
    with following(tokens(), database_url, [first.url, second.url]) as reader:
        raw = first.rpc("getrawtransaction", first.send(b"lea7"))
        reader.wait(lambda: reader.pending() == {"7": "accepted"})
        first.stop()
        reader.wait(lambda: reader.pending() == {})
        second.rpc("sendrawtransaction", raw)
        reader.wait(lambda: reader.pending() == {"7": "accepted"})


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


def raw_with(node: Bitcoind, payload: bytes, coin: dict[str, Any], *, fee: float = 0.0001) -> str:
    """Sign a transaction that spends one coin and carries a payload; return it in hex."""
    wallet = node.rpc("listwallets")[0]
    address = node.rpc("getnewaddress", "", "bech32m", wallet=wallet)
    raw = node.rpc(
        "createrawtransaction",
        [{"txid": coin["txid"], "vout": coin["vout"], "sequence": 0xFFFFFFFD}],
        [{"data": payload.hex()}, {address: f"{float(coin['amount']) - fee:.8f}"}],
    )
    return str(node.rpc("signrawtransactionwithwallet", raw, wallet=wallet)["hex"])


def coins(node: Bitcoind) -> list[dict[str, Any]]:
    """Return coins that the wallet can spend."""
    return list(node.rpc("listunspent", 1, wallet=node.rpc("listwallets")[0]))


def change_of(node: Bitcoind, raw: str) -> dict[str, Any]:
    """Return the coin that a transaction of `raw_with` makes."""
    decoded = node.rpc("decoderawtransaction", raw)
    return {"txid": decoded["txid"], "vout": 1, "amount": decoded["vout"][1]["value"]}


def test_what_leaves_the_mempool_leaves_the_views(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """A replacement takes an input's place, with what depends on it; so does a conflict in a block."""
    node = bitcoind_factory()
    node.mine(103)
    node.send(b"lea0")  # makes the wallet
    node.mine(2)
    with following(tokens(), database_url, node) as reader:
        coin, other = coins(node)[:2]
        first = raw_with(node, b"leaa", coin)
        node.rpc("sendrawtransaction", first)
        child = raw_with(node, b"leab", change_of(node, first))
        node.rpc("sendrawtransaction", child)
        reader.wait(lambda: reader.pending() == {"a": "accepted", "b": "accepted"})
        node.rpc("sendrawtransaction", raw_with(node, b"leac", coin, fee=0.01))
        reader.wait(lambda: reader.pending() == {"c": "accepted"})
        assert reader.letters().keys() == {"0", "c"}
        address = node.rpc("getnewaddress", wallet=node.rpc("listwallets")[0])
        node.rpc("generateblock", address, [raw_with(node, b"lead", coin, fee=0.02)])
        reader.wait(lambda: reader.pending() == {"d": "accepted"})
        node.rpc("sendrawtransaction", raw_with(node, b"lead", other))
        reader.wait(lambda: len(reader.rows("SELECT FROM virtualchain.pending")) == 2)
        verdicts = reader.rows(
            "SELECT verdict, block_id IS NULL AS is_unconfirmed FROM virtualchain.pending ORDER BY place"
        )
        assert verdicts == [
            {"verdict": "accepted", "is_unconfirmed": False},
            {"verdict": "refused", "is_unconfirmed": True},
        ]


def test_a_reorganization_returns_inputs(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """What a block held is unconfirmed again, also if the writer had taken the block."""
    node = bitcoind_factory()
    node.mine(101)
    with following(tokens(), database_url, node) as reader:
        txid = node.send(b"leax")
        (held,) = node.mine()
        node.mine()
        reader.wait(lambda: reader.letters("letters") == {"x": 1} and reader.pending() == {})
        node.rpc("invalidateblock", held)
        reader.wait(lambda: reader.pending() == {"x": "accepted"})
        (row,) = reader.rows("SELECT txid, block_id FROM virtualchain.pending")
        assert row == {"txid": txid, "block_id": None}
        node.mine(3)
        reader.wait(lambda: reader.letters("letters") == {"x": 1} and reader.pending() == {})


def test_an_input_that_would_halt_the_app_is_shown(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """It is left out, and the others are judged."""
    node = bitcoind_factory()
    node.mine(101)
    with following(tokens(), database_url, node) as reader:
        node.send(b"lea!")
        node.send(b"leax")
        reader.wait(lambda: len(reader.rows("SELECT FROM virtualchain.pending")) == 2)
        rows = reader.rows("SELECT verdict, step, reason FROM virtualchain.pending ORDER BY place")
        assert rows == [
            {"verdict": "accepted", "step": None, "reason": None},
            {"verdict": "halts", "step": "db_check", "reason": "RuntimeError: an error of the app"},
        ]
        assert reader.letters() == {"x": 1}


def test_without_a_writer_nothing_is_pending(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, query: Query
) -> None:
    """What a killed writer has left is not shown for long, and the next writer removes it."""
    node = bitcoind_factory()
    node.mine(101)
    with following(tokens(), database_url, node) as reader:
        node.send(b"leax")
        reader.wait(lambda: reader.pending() == {"x": "accepted"})
        with psycopg.connect(database_url) as connection:  # as if it were killed now, and time went by
            connection.execute("CREATE TABLE kept AS SELECT * FROM vc.pending")
            connection.execute("CREATE TABLE kept_rows AS SELECT * FROM vc.pending_rows")
            connection.execute("CREATE TABLE kept_state AS SELECT * FROM vc.pending_state")
    with psycopg.connect(database_url) as connection:
        for name in ("", "_rows", "_state"):
            connection.execute(f"INSERT INTO vc.pending{name} SELECT * FROM kept{name}".encode())
    assert len(query("SELECT FROM letters.letters_pending")) == 1
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.pending_state SET judged_at = now() - interval '2 minutes'")
    assert query("SELECT FROM letters.letters_pending") == query("SELECT FROM virtualchain.pending") == []
    with StateEngine(tokens(), database=database_url, source=node.url, confirmations=1) as engine:
        engine.build()
    assert query("SELECT FROM vc.pending") == query("SELECT FROM vc.pending_rows") == []


def test_previews_count_what_is_pending(bitcoind_factory: Callable[..., Bitcoind], database_url: str) -> None:
    """An input is judged after the unconfirmed ones, unless it replaces them."""
    node = bitcoind_factory()
    node.mine(103)
    node.send(b"lea0")
    node.mine(2)
    app = tokens()

    def verdict_on(raw: str) -> tuple[bool, int | None]:
        verdict = preview(app, tx=raw, database=database_url, bitcoin=node.url)
        rows = [change.new["n"] for change in verdict.changes if change.new is not None]
        return verdict.is_accepted, rows[0] if rows else None

    with following(app, database_url, node) as reader:
        coin, other = coins(node)[:2]
        first = raw_with(node, b"lea7", coin)
        reader.wait(lambda: reader.letters("letters") == {"0": 1})
        assert verdict_on(first) == (True, 1)
        node.rpc("sendrawtransaction", first)
        reader.wait(lambda: reader.pending() == {"7": "accepted"})
        assert verdict_on(first) == (True, 1)
        assert verdict_on(raw_with(node, b"lea7", other)) == (True, 2)
        assert verdict_on(raw_with(node, b"lea7", change_of(node, first))) == (True, 2)
        assert verdict_on(raw_with(node, b"lea7", coin, fee=0.01)) == (True, 1)
        node.rpc("sendrawtransaction", raw_with(node, b"leax", other))
        reader.wait(lambda: len(reader.pending()) == 2)
        assert verdict_on(raw_with(node, b"leax", change_of(node, first))) == (False, None)
        assert verdict_on(raw_with(node, b"leax", other, fee=0.01)) == (True, 1)
        node.mine()
        assert verdict_on(raw_with(node, b"leax", coins(node)[0])) == (False, None)


def test_what_spends_a_tracked_output_is_pending(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """Also if it carries no payload, and if the output is of a transaction that is pending itself."""
    node = bitcoind_factory("-acceptnonstdtxn=1")
    app = rides_app(by_statements=False)
    coins_ = fund(node, 5)
    with following(app, database_url, node) as reader:

        def pending() -> list[tuple[str, bool]]:
            rows = reader.rows(
                "SELECT txid, block_id IS NULL AS is_new FROM virtualchain.pending ORDER BY place"
            )
            return [(row["txid"], row["is_new"]) for row in rows]

        minted = send(node, make([coins_[0]], 1_000, payload=b"rim7"))
        send(node, make([coins_[1]], 1_000))
        reader.wait(lambda: pending() == [(minted.txid, True)])
        moved = send(node, make([minted.coins[0]], 2_000))
        reader.wait(lambda: pending() == [(minted.txid, True), (moved.txid, True)])
        mine(node)
        reader.wait(lambda: pending() == [(minted.txid, False), (moved.txid, False)])
        again = send(node, make([moved.coins[0]], 2_000))
        reader.wait(lambda: pending() == [(minted.txid, False), (moved.txid, False), (again.txid, True)])
        shown = reader.rows("SELECT txid, vout, amount FROM rides.rides_pending")
        mine(node, 2)
        reader.wait(lambda: pending() == [])
        assert reader.rows("SELECT txid, vout, amount FROM rides.rides") == shown
        last = send(node, make([again.coins[0]], 2_000))
        reader.wait(lambda: pending() == [(last.txid, True)])


def test_a_block_does_not_wait_for_what_is_pending(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """A block that comes while inputs are judged is taken first."""
    node = bitcoind_factory()
    app = App("slow", magic=b"sl")
    sent, began, may_end = threading.Event(), threading.Event(), threading.Event()

    @app.opcode(b"w")
    class Wait:
        """Wait for the test, and then for a while."""

        def parse(self, payload: bytes) -> Any:
            """Accept everything."""
            return {}

        def check(self, op: Any, state: Any) -> bool:
            """Take long if it is not in a block."""
            if state.block_id == 106 and sent.is_set():  # the block after the node's last one
                began.set()
                may_end.wait(20)
                time.sleep(0.2)
            return True

    *coins_, last = fund(node, 100)
    with following(app, database_url, node) as reader:
        height = node.rpc("getblockcount")
        node.rpc("generatetodescriptor", 105 - height, "raw(51)")
        reader.wait(lambda: reader.rows("SELECT FROM virtualchain.blocks WHERE block_id = 104") != [])
        for coin in coins_:
            send(node, make([coin], 1_000, payload=b"slw"))
        reader.wait(lambda: len(reader.rows("SELECT FROM virtualchain.pending")) == len(coins_))
        sent.set()
        node.rpc("sendrawtransaction", make([last], 1_000, payload=b"slw").raw.hex())
        assert began.wait(20)
        node.rpc("generateblock", "raw(51)", [])
        may_end.set()
        seconds = reader.wait(
            lambda: reader.rows("SELECT FROM virtualchain.blocks WHERE block_id = 105") != []
        )
        assert seconds < 10, "a hundred inputs take twenty seconds"
