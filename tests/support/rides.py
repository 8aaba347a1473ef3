"""An app whose balances ride on outputs, in two spellings, and transactions that move them.

`m` and a decimal number make an amount; it and whatever the transaction spends go to its first output that is
not an OP_RETURN, or are burned if there is none. `no` is rejected.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from virtualchain import App, State
from virtualchain.bitcoin.script import op_return
from virtualchain.testing import FakeNode
from virtualchain.testing.transactions import Key, OwnedCoin, Tx, key, sign
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
    take, give, note = (_deleted, _inserted, _recorded) if by_statements else (_take, _give, _note)

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
            if payload == b"no":
                raise ValueError("we do not mint that")
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


def _deleted(state: State, txid: str, vout: int) -> int:
    rows = state.query("DELETE FROM rides WHERE txid = %s AND vout = %s RETURNING amount", (txid, vout))
    return sum(row["amount"] for row in rows)


def _inserted(state: State, txid: str, vout: int, amount: int, owner: Sequence[str]) -> None:
    state.execute(
        """INSERT INTO rides VALUES (%s, %s, 'a', %s, %s)
        ON CONFLICT (txid, vout, kind) DO UPDATE SET amount = EXCLUDED.amount, owner = EXCLUDED.owner""",
        (txid, vout, amount, ",".join(owner)),
    )


def _recorded(state: State, block_id: int, txindex: int, spends: str, amount: int) -> None:
    state.execute(
        """INSERT INTO moves VALUES (%s, %s, %s, %s)
        ON CONFLICT (block_id, txindex) DO UPDATE SET spends = EXCLUDED.spends, amount = EXCLUDED.amount""",
        (block_id, txindex, spends, amount),
    )


ALICE = key("alice")


def careless_app(**options: Any) -> App:
    """Make an app with the name and the tables of `rides_app` that mints and moves nothing."""

    class Nothing:
        def parse(self, payload: bytes | None) -> dict[str, Any]:
            return {"amount": 0, "to": None}

    app = App("rides", magic=b"ri", projections=TABLES, tracks="rides", **options)
    app.opcode(b"m")(Nothing)
    app.spend(Nothing)
    return app


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


class RidesModel:
    """What the app's tables must hold, from the transactions alone, and random blocks that move balances."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.balances: dict[tuple[str, int], int] = {}
        self.moves: list[tuple[int, int, str, int]] = []
        self._coins: list[OwnedCoin] = []

    def block(self, node: FakeNode) -> None:
        """Mine a block of mints, moves, burns and transactions that are nobody's."""
        height = node.height + 1
        if len(self._coins) < 20:
            paid = node.send(to=[("alice", 1_000_000)] * 20)
            node.mine([paid])
            height += 1
            self._coins += [
                coin(paid, vout)
                for vout, (value, _) in enumerate(read_transaction(paid.raw).outputs)
                if value == 1_000_000
            ]
        txs: list[Tx] = []
        for _ in range(self.random.randrange(8)):
            # The last ones are often outputs of this block.
            last = self._coins[-6:] if self.random.random() < 0.5 else self._coins
            if not last:
                break
            chosen = self.random.sample(last, min(len(last), self.random.randrange(1, 4)))
            payload = self.random.choice(
                [None, None, b"rim%d" % self.random.randrange(100), b"rix", b"other"]
            )
            burns = self.random.random() < 0.1
            tx = spending(
                chosen, payload, 0 if burns else self.random.randrange(1, 4), first=payload != b"other"
            )
            txs.append(tx)
            self._coins = [each for each in self._coins if each not in chosen]
            if not burns:
                paid_to_alice = (
                    coin(tx, vout)
                    for vout, (value, script) in enumerate(read_transaction(tx.raw).outputs)
                    if script == ALICE.script_pubkey and value > 10_000
                )
                self._coins += paid_to_alice
        node.mine(txs)
        for txindex, tx in enumerate(txs, 1):
            self._take(height, txindex, tx)

    def _take(self, height: int, txindex: int, tx: Tx) -> None:
        parsed = read_transaction(tx.raw)
        spent = [(each[31::-1].hex(), int.from_bytes(each[32:], "little")) for each in parsed.outpoints]
        spends = [n for n, each in enumerate(spent) if each in self.balances]
        payload = next((script[2:] for _, script in reversed(parsed.outputs) if script[:1] == b"\x6a"), b"")
        is_mint = payload.startswith(b"rim")
        if not spends and not is_mint:
            return
        number = payload[3:] if is_mint else b""
        amount = sum(self.balances.pop(spent[n]) for n in spends) + (int(number) if number.isdigit() else 0)
        receiver = next((n for n, (_, script) in enumerate(parsed.outputs) if script[:1] != b"\x6a"), None)
        if receiver is not None and amount:
            self.balances[tx.txid, receiver] = amount
        self.moves.append((height, txindex, str(spends), amount))
