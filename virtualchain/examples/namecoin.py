"""Namecoin's names, read from output scripts: an example of a payload rule beyond OP_RETURN.

Namecoin puts an operation in front of an ordinary output script. A number says which one, pushes are its
arguments, and drops take them off the stack again, so that whoever can satisfy the rest owns the output:

    OP_1 HASH              name_new          reserves a name; HASH is HASH160(SALT + NAME)
    OP_2 NAME SALT VALUE   name_firstupdate  reveals and registers it, at least 12 blocks later
    OP_3 NAME VALUE        name_update       sets another value, or gives it to another owner

A name belongs to an output, and each later operation spends the output before it. A name that is not updated
for 36,000 blocks expires: anybody may register it again. docs/namecoin.md says what is not checked.
"""

from pathlib import Path
from typing import Any, Final

from virtualchain import App, Rejected, State
from virtualchain.bitcoin.script import OP_1, OP_PUSHDATA1, OP_PUSHDATA4, operations
from virtualchain.bitcoin.transaction import read_number, write_count
from virtualchain.consensus.hashing import hash160

VERSION: Final = 0x7100
"""The version of transactions whose outputs may hold a name operation."""
NEW, FIRST_UPDATE, UPDATE = b"\x01", b"\x02", b"\x03"
MATURITY: Final = 12
"""Blocks from `name_new` to `name_firstupdate`."""
EXPIRY: Final = 36_000
"""Blocks after a name's last operation in which it is its owner's."""
_ARGUMENTS: Final = {NEW: 1, FIRST_UPDATE: 3, UPDATE: 2}
_LONGEST: Final = {"name": 255, "salt": 20, "value": 1023}
_DROPS: Final = {0x61, 0x6D, 0x75}
"""OP_NOP, OP_2DROP and OP_DROP."""


def read_script(script: bytes) -> tuple[bytes, list[bytes], bytes] | None:
    """Split an output script into operation, arguments, and the rest, which owns it; None without operation.

    The arguments may be taken off the stack by any row of drops (Namecoin Core, `CNameScript`).
    """
    code, arguments, at = b"", list[bytes](), 0
    has_dropped = False
    for opcode, data in operations(script):
        if not code:
            code = bytes([max(0, opcode - OP_1 + 1)])
        elif opcode in _DROPS:
            has_dropped = True
        elif has_dropped or data is None or opcode > OP_PUSHDATA4:
            break
        else:
            arguments.append(data)
            at += len(data) + (0 if opcode < OP_PUSHDATA1 else 1 << (opcode - OP_PUSHDATA1))
        at += 1
    is_one = has_dropped and len(arguments) == _ARGUMENTS.get(code)
    return (code, arguments, script[at:]) if is_one else None


def name_operation(outputs: list[dict[str, Any]], version: int) -> bytes | None:
    """Find the name operation of a transaction: the payload rule. A transaction with several has none.

    The payload is the operation's number, then the number of its output, the arguments and the script that
    owns it, each of these after its length.
    """
    if version != VERSION:
        return None
    operations_at = [
        (vout, operation)
        for vout, output in enumerate(outputs)
        if (operation := read_script(bytes.fromhex(output["script_pubkey"]))) is not None
    ]
    if len(operations_at) != 1:
        return None
    ((vout, (code, arguments, rest)),) = operations_at
    parts = (*arguments, rest)
    return code + write_count(vout) + b"".join(write_count(len(part)) + part for part in parts)


name_operation.patterns = (VERSION.to_bytes(4, "little"),)  # type: ignore[attr-defined]

app = App(
    "namecoin",
    magic=b"",
    payload_rule=name_operation,
    tracks="coins",
    projections=str(Path(__file__).with_suffix(".sql")),
)


def read_arguments(payload: bytes, *names: str) -> dict[str, Any]:
    """Read a payload after its operation: `vout`, the arguments of these names, and `owner`, all in hex."""
    vout, at = read_number(payload, 0)
    op: dict[str, Any] = {"vout": vout}
    for name in (*names, "owner"):
        size, at = read_number(payload, at)
        op[name] = payload[at : at + size].hex()
        at += size
    return op


def spent_coins(op: dict[str, Any], state: State) -> list[dict[str, Any]]:
    """Return the reservations and names whose outputs a transaction spends."""
    spent = [op["virtualchain_senders"][n] for n in op["virtualchain_spends"]]
    return [row for sender in spent for row in state.tracked(sender["txid"], sender["vout"])]


def take(op: dict[str, Any], state: State) -> list[dict[str, Any]]:
    """Remove what a transaction spends, and its names, which are free unless it goes on with them."""
    coins = spent_coins(op, state)
    for coin in coins:
        state.table("coins").delete((coin["txid"], coin["vout"]))
        if coin["name"] is not None:
            row = state.table("names").get((coin["name"],))
            if row is not None and (row["txid"], row["vout"]) == (coin["txid"], coin["vout"]):
                state.table("names").delete((coin["name"],))
    return coins


def problem(op: dict[str, Any], state: State, block_id: int) -> str | None:
    """Return why an operation that registers or updates a name is invalid; None if it is valid."""
    for argument, longest in _LONGEST.items():
        if len(op.get(argument, "")) > 2 * longest:
            return f"the {argument} is longer than {longest} bytes"
    coins = spent_coins(op, state)
    if len(coins) != 1:
        return f"it spends {len(coins)} names and reservations, not one"
    age = block_id - coins[0]["block_id"]
    if "salt" in op:
        return _registering(op, coins[0]["hash"], age, state, block_id)
    if coins[0]["name"] != op["name"]:
        return "it spends another name, or a reservation"
    return "the name has expired" if age >= EXPIRY else None


def _registering(
    op: dict[str, Any], reserved: str | None, age: int, state: State, block_id: int
) -> str | None:
    if reserved != hash160(bytes.fromhex(op["salt"] + op["name"])).hex():
        return "it spends no reservation of this name"
    if age < MATURITY:
        return f"the reservation is younger than {MATURITY} blocks"
    row = state.table("names").get((op["name"],))
    return "somebody has the name" if row is not None and block_id - row["block_id"] < EXPIRY else None


class _Operation:
    """What the operations have in common.

    An invalid one is rejected, unless it spends a name: then it is accepted, as the loss of that name.
    """

    def check(self, op: dict[str, Any], state: State, block_id: int) -> bool | Rejected:
        """Find out whether it is valid."""
        op["problem"] = problem(op, state, block_id)
        return op["problem"] is None or bool(op["virtualchain_spends"]) or Rejected(op["problem"])

    def commit(self, op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
        """Move the name to the new output."""
        (before, *_) = [*take(op, state), None]
        if op["problem"] is not None:
            return
        assert before is not None, "a valid operation spends one"
        place = {"txid": txid, "vout": op["vout"], "block_id": block_id}
        since = block_id if "salt" in op else before["since"]
        state.table("coins").put({**place, "hash": None, "name": op["name"], "since": since})
        row = {name: op[name] for name in ("name", "value", "owner")}
        state.table("names").put({**row, **place, "since": since, "label": readable(op["name"])})


@app.opcode(NEW)
class New:
    """Reserve a name that only its hash is known of."""

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Read the hash."""
        return read_arguments(payload, "hash")

    def check(self, op: dict[str, Any], _state: State) -> bool | Rejected:
        """Reject what is not a hash."""
        op["problem"] = None if len(op["hash"]) == 40 else "its argument is not a hash of 20 bytes"
        return op["problem"] is None or bool(op["virtualchain_spends"]) or Rejected(op["problem"])

    def commit(self, op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
        """Record the reservation, and give up names that are spent."""
        take(op, state)
        if op["problem"] is None:
            place = {"txid": txid, "vout": op["vout"], "block_id": block_id}
            state.table("coins").put({**place, "hash": op["hash"], "name": None, "since": block_id})


@app.opcode(FIRST_UPDATE)
class FirstUpdate(_Operation):
    """Register the name of a reservation."""

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Read name, salt and value."""
        return read_arguments(payload, "name", "salt", "value")


@app.opcode(UPDATE)
class Update(_Operation):
    """Change a name's value or owner."""

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Read name and value."""
        return read_arguments(payload, "name", "value")


@app.spend
class Spend:
    """A transaction that spends a name or a reservation, and goes on with neither."""

    def parse(self, _payload: None) -> dict[str, Any]:
        """There is nothing to read."""
        return {}

    def commit(self, op: dict[str, Any], state: State) -> None:
        """Remove what it spends."""
        take(op, state)


def readable(name: str) -> str | None:
    """Read a name in hex as text; None if it is not UTF-8, or has a NUL, which no column of text takes."""
    try:
        text = bytes.fromhex(name).decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
