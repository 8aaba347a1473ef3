"""An app whose balances ride on outputs, in two spellings, and transactions that move them.

`m` and a decimal number make an amount; it and whatever the transaction spends go to its first output that is
not an OP_RETURN, or are burned if there is none.
"""

from collections.abc import Sequence
from typing import Any

from virtualchain import App, State
from virtualchain.testing.transactions import Key, OwnedCoin, Tx, key, op_return, sign
from virtualchain.testing.wire import outpoint, read_transaction

TABLES = """
CREATE TABLE rides (txid text, vout integer, kind text, amount bigint NOT NULL, owner text,
    PRIMARY KEY (txid, vout, kind));
CREATE TABLE moves (block_id integer, txindex integer, spends text NOT NULL, amount bigint NOT NULL,
    PRIMARY KEY (block_id, txindex));
"""


def rides_app(name: str = "rides", *, by_statements: bool = False, **options: Any) -> App:
    """Make the app; its reducers use the table helper, or statements."""
    settings = {"magic": b"ri", "projections": TABLES, "tracks": "rides", **options}
    app = App(name, **settings)
    take, give, note = (_taken, _given, _noted) if by_statements else (_take, _give, _note)

    class Spend:
        def parse(self, payload: bytes | None, outputs: list[dict[str, Any]]) -> dict[str, Any]:
            assert payload is None
            return {"amount": 0, "to": _receiver(outputs)}

        def commit(self, op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
            amount = op["amount"] + sum(
                take(state, op["virtualchain_senders"][n]["txid"], op["virtualchain_senders"][n]["vout"])
                for n in op["virtualchain_spends"]
            )
            if op["to"] is not None and amount:
                give(state, txid, op["to"], amount, op["virtualchain_senders"][0]["addresses"])
            note(state, block_id, op["virtualchain_txindex"], str(op["virtualchain_spends"]), amount)

    class Mint(Spend):
        def parse(self, payload: bytes, outputs: list[dict[str, Any]]) -> dict[str, Any]:  # type: ignore[override]
            return {"amount": int(payload) if payload.isdigit() else 0, "to": _receiver(outputs)}

    if settings.get("opcodes", ()) is None:
        app.opcode()(Mint)
    else:
        app.opcode(b"m")(Mint)
    app.spend(Spend)
    return app


def _receiver(outputs: Sequence[dict[str, Any]]) -> int | None:
    return next((output["n"] for output in outputs if not output["script_pubkey"].startswith("6a")), None)


def _take(state: State, txid: str, vout: int) -> int:
    rows = state.tracked(txid, vout)
    for row in rows:
        state.table("rides").delete((txid, vout, row["kind"]))
    return sum(row["amount"] for row in rows)


def _give(state: State, txid: str, vout: int, amount: int, owner: Sequence[str]) -> None:
    row = {"txid": txid, "vout": vout, "kind": "a", "amount": amount, "owner": ",".join(owner)}
    state.table("rides").put(row)


def _note(state: State, block_id: int, txindex: int, spends: str, amount: int) -> None:
    row = {"block_id": block_id, "txindex": txindex, "spends": spends, "amount": amount}
    state.table("moves").put(row)


def _taken(state: State, txid: str, vout: int) -> int:
    rows = state.query("DELETE FROM rides WHERE txid = %s AND vout = %s RETURNING amount", (txid, vout))
    return sum(row["amount"] for row in rows)


def _given(state: State, txid: str, vout: int, amount: int, owner: Sequence[str]) -> None:
    state.execute("INSERT INTO rides VALUES (%s, %s, 'a', %s, %s)", (txid, vout, amount, ",".join(owner)))


def _noted(state: State, block_id: int, txindex: int, spends: str, amount: int) -> None:
    state.execute("INSERT INTO moves VALUES (%s, %s, %s, %s)", (block_id, txindex, spends, amount))


ALICE = key("alice")


def coin(tx: Tx, vout: int = 0, owner: Key = ALICE) -> OwnedCoin:
    """Return an output of a transaction as a coin that can be spent."""
    parsed = read_transaction(tx.raw)
    return OwnedCoin(owner, outpoint(tx.txid, vout), parsed.outputs[vout][0])


def spending(
    coins: Sequence[OwnedCoin], payload: bytes | None = None, outputs: int = 1, *, first: bool = True
) -> Tx:
    """Spend coins into equal outputs of alice's; the payload comes last, or first if `first` is False."""
    value = (sum(each.value for each in coins) - 1_000) // max(1, outputs)
    paid = [(ALICE.script_pubkey, value)] * outputs
    carried = [] if payload is None else [(op_return(payload), 0)]
    raw = sign(coins, [*paid, *carried] if first else [*carried, *paid])
    return Tx(raw, read_transaction(raw).txid[::-1].hex())
