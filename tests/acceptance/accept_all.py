"""One app twice: as a plain module of functions, which is this one, and as an `App`, `builder`.

It accepts every op of the magic `id`, whatever its opcode, and keeps what its callbacks were given.
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
    """Give scripts and values, as the generator writes them down."""
    return [[item["script_pubkey"], item["value"]] for item in items]


def parse(payload: bytes, senders: list[Op], inputs: list[Op], outputs: list[Op], fee: int) -> Op:
    """Keep everything; of the senders, what is hashed is their values."""
    assert [(item["txid"], item["vout"]) for item in inputs] == [(s["txid"], s["vout"]) for s in senders]
    return {
        "payload": payload.hex(),
        "fee": fee,
        "senders": [sender["value"] for sender in senders],
        "spends": pairs(senders),
        "outputs": pairs(outputs),
    }


def check(op: Op, state: State, vtxindex: int) -> bool:
    """Accept, and let the place be hashed."""
    op["vtxindex"] = vtxindex
    return bool(state.block_id)


def commit(op: Op, state: State, block_id: int, txid: str, vtxindex: int) -> None:
    """Keep a row."""
    state.execute(
        "INSERT INTO seen (block_id, vtxindex, txid, payload, fee) VALUES (%s, %s, %s, %s, %s)",
        [block_id, vtxindex, txid, op["payload"], op["fee"]],
    )


builder = App("builder", magic=MAGIC, projections=PROJECTIONS)
for code in OPCODES:
    builder.add(code, parse=parse, check=check, commit=commit, fields=FIELDS)


# The same by the published callbacks.


def get_virtual_chain_name() -> str:
    """Name the app."""
    return "module"


def get_virtual_chain_version() -> str:
    """Tell its version."""
    return "1"


def get_first_block_id() -> int:
    """Start at the genesis block."""
    return 0


def get_magic_bytes() -> str:
    """Give the magic, as ASCII text."""
    return MAGIC.decode()


def get_opcodes() -> list[bytes]:
    """Take any byte."""
    return OPCODES


def get_opfields() -> dict[bytes, list[str]]:
    """Hash the same fields for all."""
    return dict.fromkeys(OPCODES, FIELDS)


def get_projections() -> str:
    """Declare the table."""
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
    """See what was parsed, in transaction order."""
    places = [op["virtualchain_txindex"] for op in op_list]
    assert places == sorted(places)


def db_check(
    block_id: int, opcode: bytes, op: Op, txid: str, vtxindex: int, checked: list[Op], db_state: State
) -> bool:
    """Accept; every op before this one was accepted, too."""
    assert len(checked) == vtxindex
    return check(op, db_state, vtxindex)


def db_commit(block_id: int, opcode: bytes, op: Op, txid: str, vtxindex: int, db_state: State) -> None:
    """Keep a row."""
    commit(op, db_state, block_id, txid, vtxindex)
