"""One app in two forms: this module of functions, and `builder`, an `App`.

It accepts every op with the magic `id`, whatever its opcode, and stores the arguments of its callbacks.
"""

from typing import Any

from virtualchain import App, State

Op = dict[str, Any]

MAGIC = b"id"
OPCODES = [bytes([code]) for code in range(256)]
FIELDS = ["payload", "fee", "senders", "vtxindex"]
PROJECTIONS = """
    CREATE TABLE seen (
        block_id integer, vtxindex integer, txid text NOT NULL UNIQUE, payload text NOT NULL,
        fee bigint NOT NULL,
        PRIMARY KEY (block_id, vtxindex)
    );
"""


def pairs(items: list[Op]) -> list[list[Any]]:
    """Return scripts and values in the form in which the generator records them."""
    return [[item["script_pubkey"], item["value"]] for item in items]


def parse(payload: bytes, senders: list[Op], inputs: list[Op], outputs: list[Op], fee: int) -> Op:
    """Keep everything; the senders' values are what is hashed of them."""
    assert [(item["txid"], item["vout"]) for item in inputs] == [(s["txid"], s["vout"]) for s in senders]
    return {
        "payload": payload.hex(),
        "fee": fee,
        "senders": [sender["value"] for sender in senders],
        "spends": pairs(senders),
        "outputs": pairs(outputs),
    }


def check(op: Op, state: State, vtxindex: int) -> bool:
    """Accept the op, and add its vtxindex to the hashed fields."""
    op["vtxindex"] = vtxindex
    return bool(state.block_id)


def commit(op: Op, state: State, block_id: int, txid: str, vtxindex: int) -> None:
    """Insert a row."""
    state.execute(
        "INSERT INTO seen (block_id, vtxindex, txid, payload, fee) VALUES (%s, %s, %s, %s, %s)",
        [block_id, vtxindex, txid, op["payload"], op["fee"]],
    )


builder = App("builder", magic=MAGIC, projections=PROJECTIONS)
for code in OPCODES:
    builder.add(code, parse=parse, check=check, commit=commit, fields=FIELDS)


# The same app as published callbacks


def get_virtual_chain_name() -> str:
    """Return the app's name."""
    return "module"


def get_virtual_chain_version() -> str:
    """Return its version."""
    return "1"


def get_first_block_id() -> int:
    """Start at the genesis block."""
    return 0


def get_magic_bytes() -> str:
    """Return the magic as ASCII text."""
    return MAGIC.decode()


def get_opcodes() -> list[bytes]:
    """Accept any opcode."""
    return OPCODES


def get_opfields() -> dict[bytes, list[str]]:
    """Hash the same fields of every op."""
    return dict.fromkeys(OPCODES, FIELDS)


def get_projections() -> str:
    """Declare the table of ops."""
    return PROJECTIONS


def db_parse(
    block_id: int,
    opcode: bytes,
    op_payload: bytes,
    senders: list[Op],
    inputs: list[Op],
    outputs: list[Op],
    fee: int,
    db_state: State,
) -> Op:
    """Keep everything."""
    return parse(op_payload, senders, inputs, outputs, fee)


def db_scan_block(block_id: int, op_list: list[Op], db_state: State) -> None:
    """Check that the parsed ops come in transaction order."""
    places = [op["virtualchain_txindex"] for op in op_list]
    assert places == sorted(places)


def db_check(
    block_id: int, opcode: bytes, op: Op, txid: str, vtxindex: int, checked: list[Op], db_state: State
) -> bool:
    """Accept the op, as every op before it."""
    assert len(checked) == vtxindex
    return check(op, db_state, vtxindex)


def db_commit(block_id: int, opcode: bytes, op: Op, txid: str, vtxindex: int, db_state: State) -> None:
    """Insert a row."""
    commit(op, db_state, block_id, txid, vtxindex)
