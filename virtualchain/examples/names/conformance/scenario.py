"""Recorded scenarios: the format of their files, and how they are read.

A file is JSON, plain or compressed with gzip: one scenario, a list of them, or an object with `scenarios`. A
scenario has `blocks`, each with `block_id`, `txs` (`txindex`, `txid`, `raw`, `verdict`), `ops` (`opcode`,
`fields`: pairs of name and text), `ops_hash` and `consensus_hash`. It may have `first_block`,
`initial_snapshots`, `params` and `parent_txs`; the defaults are those of the network's test runs. Everything
else is ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from virtualchain.errors import MalformedBlock
from virtualchain.examples.names.params import (
    DEFAULT_EPOCH1_END,
    DEFAULT_FIRST_BLOCK,
    DEFAULT_REVEAL_EXPIRE,
    Params,
    regtest,
)
from virtualchain.testing.conformance.files import JsonObject, MalformedScenario, excerpt, read_json
from virtualchain.testing.wire import read_transaction

N = TypeVar("N", int, float)

_ACCEPTED: Final = "ACCEPT"
_MAX_TXINDEX: Final = 19_999
"""No block has more transactions; a larger txindex would only fill memory."""
_MAX_HEIGHTS: Final = 200_000
"""The same limit for blocks."""


@dataclass(frozen=True, slots=True)
class RecordedTx:
    """A transaction of a recorded block."""

    txindex: int
    txid: str
    raw: bytes
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class RecordedOp:
    """An accepted operation: its opcode, and its hashed fields as (name, text) in order."""

    opcode: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RecordedBlock:
    """A block, and what the network made of it."""

    block_id: int
    txs: tuple[RecordedTx, ...]
    ops: tuple[RecordedOp, ...]
    ops_hash: str
    consensus_hash: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """One recorded run."""

    name: str
    params: Params
    blocks: tuple[RecordedBlock, ...]
    """In order of height; a missing height is an empty block of which nothing was recorded."""
    parents: Mapping[str, bytes]
    """Raw transactions that recorded ones spend, by txid."""

    def block_contents(self) -> list[dict[int, bytes]]:
        """Return the raw transactions by txindex, for each height from the first to the last recorded one."""
        recorded = {block.block_id: block.txs for block in self.blocks}
        heights = range(self.params.first_block, self.blocks[-1].block_id + 1)
        return [{tx.txindex: tx.raw for tx in recorded.get(height, ())} for height in heights]


def read_file(path: Path) -> list[Any]:
    """Read the scenarios of a file without validating them; raises MalformedScenario."""
    parsed = read_json(path)
    scenarios = parsed.get("scenarios", [parsed]) if isinstance(parsed, dict) else parsed
    if not isinstance(scenarios, list) or not scenarios:
        raise MalformedScenario("the file contains no scenarios")
    return scenarios


def scenario_name(content: object, number: int) -> str:
    """Return a scenario's name; without one, its position in the file."""
    parts = [content.get(key) for key in ("log_set", "scenario")] if isinstance(content, dict) else []
    name = " ".join(part for part in parts if isinstance(part, str))
    return name if name.isprintable() and name else f"scenario {number}"


def read_scenario(content: object, name: str) -> Scenario:
    """Read one scenario; raises MalformedScenario."""
    scenario = JsonObject(content, "the scenario")
    first_block = scenario.get_or("first_block", int, DEFAULT_FIRST_BLOCK)
    blocks = _read_blocks(scenario.get("blocks", list), first_block)
    params = JsonObject(scenario.get_or("params", dict, {}), "params")
    return Scenario(
        name=name,
        params=regtest(
            first_block=first_block,
            initial_snapshots=_read_snapshots(scenario.get_or("initial_snapshots", dict, {})) or None,
            epoch1_end=params.get_or("epoch1_end", int, DEFAULT_EPOCH1_END),
            lifetime_multiplier=_read_pair(params.get_or("lifetime_multiplier", list, [1, 2]), int),
            price_multiplier=_read_pair(params.get_or("price_multiplier", list, [1.0, 1.0]), float),
            namespace_reveal_expire=params.get_or("namespace_reveal_expire", int, DEFAULT_REVEAL_EXPIRE),
        ),
        blocks=blocks,
        parents=_read_parents(scenario.get_or("parent_txs", dict, {})),
    )


def read_canonical(canonical: bytes) -> RecordedOp:
    """Split a serialized operation into its fields, which have no names in this form."""
    opcode, rest = canonical[:1], canonical[2:]
    fields = []
    while rest:
        length, _, rest = rest.partition(b":")
        fields.append(("", rest[: int(length)].decode()))
        rest = rest[int(length) + 1 :]
    return RecordedOp(opcode.decode("latin-1"), tuple(fields))


def _read_blocks(items: Sequence[object], first_block: int) -> tuple[RecordedBlock, ...]:
    blocks = [_read_block(JsonObject(item, f"blocks, index {index}")) for index, item in enumerate(items)]
    heights = sorted(block.block_id for block in blocks)
    if not heights or len(set(heights)) < len(heights) or heights[0] < first_block:
        raise MalformedScenario(f"blocks: heights must be unique and not below {first_block}")
    if heights[-1] - first_block > _MAX_HEIGHTS:
        raise MalformedScenario(
            f"blocks: the last one is {heights[-1] - first_block} heights above the first, "
            f"more than {_MAX_HEIGHTS}"
        )
    return tuple(sorted(blocks, key=lambda block: block.block_id))


def _read_block(block: JsonObject) -> RecordedBlock:
    block_id = block.get("block_id", int)
    location = f"block {block_id}"
    txs = [_read_tx(JsonObject(tx, f"{location}, txs")) for tx in block.get("txs", list)]
    txindexes = {tx.txindex for tx in txs}
    if len(txindexes) < len(txs) or not all(0 < txindex <= _MAX_TXINDEX for txindex in txindexes):
        raise MalformedScenario(f"{location}: every txindex must be unique and from 1 to {_MAX_TXINDEX}")
    return RecordedBlock(
        block_id,
        tuple(sorted(txs, key=lambda tx: tx.txindex)),
        tuple(_read_op(JsonObject(op, f"{location}, ops")) for op in block.get("ops", list)),
        block.get("ops_hash", str),
        block.get("consensus_hash", str),
    )


def _read_tx(tx: JsonObject) -> RecordedTx:
    txindex, txid = tx.get("txindex", int), tx.get("txid", str)
    raw = _read_raw(tx.get("raw", str), txid, tx.location)
    return RecordedTx(txindex, txid, raw, tx.get("verdict", str) == _ACCEPTED)


def _read_op(op: JsonObject) -> RecordedOp:
    fields = op.get("fields", list)
    for field in fields:
        if not isinstance(field, list) or [type(part) for part in field] != [str, str]:
            raise MalformedScenario(
                f"{op.location}: {excerpt(field)} is not a pair of a field's name and text"
            )
    return RecordedOp(op.get("opcode", str), tuple((name, text) for name, text in fields))


def _read_snapshots(snapshots: Mapping[str, object]) -> dict[int, str]:
    try:
        return {int(block_id): str(consensus_hash) for block_id, consensus_hash in snapshots.items()}
    except ValueError as error:
        raise MalformedScenario(f"initial_snapshots: {error}") from error


def _read_parents(parents: Mapping[str, object]) -> dict[str, bytes]:
    return {
        txid: _read_raw(raw if isinstance(raw, str) else "", txid, "parent_txs")
        for txid, raw in parents.items()
    }


def _read_raw(text: str, txid: str, location: str) -> bytes:
    """Read a serialized transaction, which must have the txid that it is recorded under."""
    try:
        raw = bytes.fromhex(text)
        actual_txid = read_transaction(raw).txid[::-1].hex()
    except (ValueError, MalformedBlock) as error:
        raise MalformedScenario(f"{location}: transaction {txid} cannot be read: {error}") from error
    if actual_txid != txid:
        raise MalformedScenario(f"{location}: transaction {txid} has the txid {actual_txid}")
    return raw


def _read_pair(items: Sequence[Any], kind: type[N]) -> tuple[N, N]:
    if len(items) != 2 or not all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in items
    ):
        raise MalformedScenario(f"params: {excerpt(items)} is not a pair of numbers")
    return kind(items[0]), kind(items[1])
