"""An app as a plain module of functions, written only from the published table of callbacks."""

import json
from pathlib import Path
from typing import Any

calls: list[tuple[str, int]] = []
"""Calls of the callbacks that change nothing: name and block."""


def get_virtual_chain_name() -> str:
    """Return the name."""
    return "plain"


def get_virtual_chain_version() -> str:
    """Return the version."""
    return "0.1"


def get_first_block_id() -> int:
    """Return the first block after those that pay the fake node's senders."""
    return 102


def get_magic_bytes() -> str:
    """Return the magic."""
    return "pm"


def get_opcodes() -> list[str]:
    """Return the three opcodes."""
    return ["+", "-", "?"]


def get_opfields() -> dict[str, list[str]]:
    """Return the hashed fields: the word before its length, and none of a question."""
    return {"+": ["word", "size"], "-": ["word"], "?": []}


def get_initial_snapshots() -> dict[int, str]:
    """Return a hash that an earlier network ended with."""
    return {101: "00112233445566778899aabbccddeeff"}


def get_valid_transaction_window() -> int:
    """Let a consensus hash stay valid for five blocks."""
    return 5


def get_confirmations() -> int:
    """Accept blocks without confirmations."""
    return 0


def get_projections() -> str:
    """Return a table of words."""
    return "CREATE TABLE words (word text PRIMARY KEY, block_id integer NOT NULL)"


def find_payload(outputs: list[dict[str, Any]]) -> bytes | None:
    """Return the payload of the first output that carries data."""
    for output in outputs:
        if output["type"] == "nulldata":
            return bytes.fromhex(output["script_pubkey"])[2:]
    return None


def get_db_state(filename: str | None = None) -> dict[str, int]:
    """Create a state, or load the saved one."""
    loaded: dict[str, int] = {} if filename is None else json.loads(Path(filename).read_text())
    return loaded


def db_parse(
    block_id: int,
    opcode: bytes,
    op_payload: bytes,
    senders: list[dict[str, Any]],
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    fee: int,
    db_state: Any,
) -> dict[str, Any] | None:
    """Parse a word and drop an empty one; invalid UTF-8 raises ValueError."""
    assert len(senders) == len(inputs) >= 1
    assert sum(item["value"] for item in senders) - sum(item["value"] for item in outputs) == fee
    if not op_payload:
        return None
    return {"word": op_payload.decode(), "size": len(op_payload)}


def db_scan_block(block_id: int, op_list: list[dict[str, Any]], db_state: Any) -> None:
    """Record the call."""
    calls.append(("db_scan_block", block_id))


def db_check(
    block_id: int,
    opcode: bytes,
    op: dict[str, Any],
    txid: str,
    vtxindex: int,
    checked: list[dict[str, Any]],
    db_state: Any,
) -> bool:
    """Reject an op that was already accepted in this block."""
    assert op["virtualchain_txid"] == txid
    assert op["virtualchain_opcode"] == opcode
    done = {(item["virtualchain_opcode"], item["word"]) for item in checked}
    return (opcode, op["word"]) not in done


def db_commit(
    block_id: int, opcode: bytes, op: dict[str, Any], txid: str, vtxindex: int, db_state: Any
) -> bool | None:
    """Add or drop a word; a question changes nothing, and one for a missing word is rejected."""
    keep, drop, has = (
        (_keep_in_dict, _drop_from_dict, dict.__contains__)
        if isinstance(db_state, dict)
        else (_keep_in_table, _drop_from_table, _is_in_table)
    )
    if opcode == b"+":
        keep(db_state, op["word"], block_id)
    elif opcode == b"-":
        drop(db_state, op["word"])
    elif not has(db_state, op["word"]):
        return False
    return None


def db_final(block_id: int, ops: list[dict[str, Any]], db_state: Any) -> None:
    """Record the call."""
    calls.append(("db_final", block_id))


def db_save(block_id: int, filename: str, db_state: dict[str, int]) -> None:
    """Save the state."""
    Path(filename).write_text(json.dumps(db_state, sort_keys=True))


def db_continue(block_id: int, consensus_hash: str) -> bool:
    """Record the call, and continue."""
    calls.append(("db_continue", block_id))
    return True


def _keep_in_dict(state: dict[str, int], word: str, block_id: int) -> None:
    state[word] = block_id


def _drop_from_dict(state: dict[str, int], word: str) -> None:
    state.pop(word, None)


def _keep_in_table(state: Any, word: str, block_id: int) -> None:
    state.execute(
        "INSERT INTO words VALUES (%s, %s) ON CONFLICT (word) DO UPDATE SET block_id = EXCLUDED.block_id",
        [word, block_id],
    )


def _drop_from_table(state: Any, word: str) -> None:
    state.execute("DELETE FROM words WHERE word = %s", [word])


def _is_in_table(state: Any, word: str) -> bool:
    return state.one("SELECT FROM words WHERE word = %s", [word]) is not None
