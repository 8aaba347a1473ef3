"""The app of the soak: accounts, of which a fixed number is changed again and again."""

from typing import Any, Final

from virtualchain import App, Rejected, State

ACCOUNTS: Final = 500
"""How many accounts there are."""

app = App(
    "ledger",
    magic=b"sk",
    projections="""
        CREATE TABLE accounts (
            id integer PRIMARY KEY, balance bigint NOT NULL DEFAULT 0 CHECK (balance >= 0)
        );
        CREATE TABLE totals (kind text PRIMARY KEY, times bigint NOT NULL);
    """,
)
app.first_block_id = 102


@app.opcode(b"p", fields=["account", "amount"])
class PayIn:
    """An amount for an account."""

    def parse(self, payload: bytes) -> dict[str, int]:
        """Read both as decimal text."""
        account, amount = map(int, payload.split(b","))
        return {"account": account % ACCOUNTS, "amount": amount}

    def commit(self, op: dict[str, Any], state: State) -> None:
        """Add it with the table helper, and count it with a statement."""
        state.table("accounts").add(op["account"], balance=op["amount"])
        state.execute(
            "INSERT INTO totals VALUES ('in', 1) ON CONFLICT (kind) DO UPDATE SET times = totals.times + 1"
        )


@app.opcode(b"t", fields=["account", "to", "amount"])
class Transfer:
    """An amount from an account for another one."""

    def parse(self, payload: bytes) -> dict[str, int]:
        """Read all three as decimal text."""
        account, to, amount = map(int, payload.split(b","))
        return {"account": account % ACCOUNTS, "to": to % ACCOUNTS, "amount": amount}

    def check(self, op: dict[str, Any], state: State) -> bool | Rejected:
        """Refuse what the account does not have."""
        row = state.one("SELECT balance FROM accounts WHERE id = %s", [op["account"]])
        if row is None or row["balance"] < op["amount"]:
            return Rejected("the account does not have that much")
        return True

    def commit(self, op: dict[str, Any], state: State) -> None:
        """Move it with a statement and with the table helper."""
        state.execute(
            "UPDATE accounts SET balance = balance - %s WHERE id = %s", [op["amount"], op["account"]]
        )
        state.table("accounts").add(op["to"], balance=op["amount"])
