"""Recorded scenarios: what their files must look like, and what is read from them.

A file is JSON, plain or compressed with gzip: one scenario, a list of them, or an object with
`scenarios`. A scenario has `blocks`, each with `block_id`, `txs` (`txindex`, `txid`, `raw`, `verdict`), `ops`
(`opcode`, `fields`: pairs of name and text), `ops_hash` and `consensus_hash`; and where they differ from the
network's test runs `first_block`, `initial_snapshots`, `params` and `parent_txs`. Nothing else is looked at.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.examples.names.params import (
    DEFAULT_EPOCH1_END,
    DEFAULT_FIRST_BLOCK,
    DEFAULT_REVEAL_EXPIRE,
    Params,
    regtest,
)
from virtualchain.testing.wire import read_transaction

T = TypeVar("T")
N = TypeVar("N", int, float)

_GZIP: Final = b"\x1f\x8b"
_ACCEPTED: Final = "ACCEPT"
_MOST_PLACES: Final = 20_000
"""No block has more transactions: a larger place would only fill memory."""
_MOST_HEIGHTS: Final = 200_000
"""The same for blocks."""


class MalformedScenario(UsageError):
    """A file that holds no scenarios, or a scenario that cannot be replayed; the message says where."""


@dataclass(frozen=True, slots=True)
class RecordedTx:
    """A transaction of a recorded block."""

    txindex: int
    txid: str
    raw: bytes
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class RecordedOp:
    """An accepted operation: its opcode, and the hashed fields as (name, text) in order."""

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
    """In order of height; heights that are not there are empty blocks that nothing is known of."""
    parents: Mapping[str, bytes]
    """Raw transactions that recorded ones spend, by their ids."""


def read_file(path: Path) -> list[Any]:
    """Read the scenarios of a file as they stand there; raises MalformedScenario."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        found = json.loads(content)
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedScenario(f"the file cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedScenario(f"the file is no JSON: {error}") from error
    scenarios = found.get("scenarios", [found]) if isinstance(found, dict) else found
    if not isinstance(scenarios, list) or not scenarios:
        raise MalformedScenario("the file holds no scenarios")
    return scenarios


def name_of(found: object, place: int) -> str:
    """Give a scenario's name, or its place in the file where it has none."""
    parts = [found.get(key) for key in ("log_set", "scenario")] if isinstance(found, dict) else []
    told = " ".join(part for part in parts if isinstance(part, str))
    return told if told.isprintable() and told else f"scenario {place}"


def read_scenario(found: object, name: str) -> Scenario:
    """Read one scenario; raises MalformedScenario."""
    scenario = _Fields(found, "the scenario")
    first_block = scenario.get_or("first_block", int, DEFAULT_FIRST_BLOCK)
    blocks = _read_blocks(scenario.get("blocks", list), first_block)
    params = _Fields(scenario.get_or("params", dict, {}), "params")
    return Scenario(
        name=name,
        params=regtest(
            first_block=first_block,
            initial_snapshots=_read_snapshots(scenario.get_or("initial_snapshots", dict, {})) or None,
            epoch1_end=params.get_or("epoch1_end", int, DEFAULT_EPOCH1_END),
            lifetime_multiplier=_pair(params.get_or("lifetime_multiplier", list, [1, 2]), int),
            price_multiplier=_pair(params.get_or("price_multiplier", list, [1.0, 1.0]), float),
            namespace_reveal_expire=params.get_or("namespace_reveal_expire", int, DEFAULT_REVEAL_EXPIRE),
        ),
        blocks=blocks,
        parents=_read_parents(scenario.get_or("parent_txs", dict, {})),
    )


class _Fields:
    """A JSON object whose fields are read with their types; complaints name the place."""

    def __init__(self, found: object, place: str) -> None:
        if not isinstance(found, dict):
            raise MalformedScenario(f"{place}: it is no object")
        self._found = found
        self.place = place

    def get(self, key: str, kind: type[T]) -> T:
        """Give a field that must be there."""
        value: object = self._found.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise MalformedScenario(f"{self.place}: {key} is {_told(value)}, not of type {kind.__name__}")
        return value

    def get_or(self, key: str, kind: type[T], default: T) -> T:
        """Give a field, or what counts where it is not there."""
        return default if self._found.get(key) is None else self.get(key, kind)


def _read_blocks(found: Sequence[object], first_block: int) -> tuple[RecordedBlock, ...]:
    blocks = [_read_block(_Fields(block, f"blocks, at {place}")) for place, block in enumerate(found)]
    heights = sorted(block.block_id for block in blocks)
    if not heights or len(set(heights)) < len(heights) or heights[0] < first_block:
        raise MalformedScenario(f"blocks: their heights should differ and not be below {first_block}")
    if heights[-1] - first_block > _MOST_HEIGHTS:
        raise MalformedScenario(f"blocks: there are {heights[-1] - first_block} heights up to the last")
    return tuple(sorted(blocks, key=lambda block: block.block_id))


def _read_block(block: _Fields) -> RecordedBlock:
    block_id = block.get("block_id", int)
    place = f"block {block_id}"
    txs = [_read_tx(_Fields(tx, f"{place}, txs")) for tx in block.get("txs", list)]
    places = {tx.txindex for tx in txs}
    if len(places) < len(txs) or not all(0 < txindex < _MOST_PLACES for txindex in places):
        raise MalformedScenario(f"{place}: txs should stand at places of their own, from 1 on")
    return RecordedBlock(
        block_id,
        tuple(sorted(txs, key=lambda tx: tx.txindex)),
        tuple(_read_op(_Fields(op, f"{place}, ops")) for op in block.get("ops", list)),
        block.get("ops_hash", str),
        block.get("consensus_hash", str),
    )


def _read_tx(tx: _Fields) -> RecordedTx:
    txindex, txid = tx.get("txindex", int), tx.get("txid", str)
    raw = _read_raw(tx.get("raw", str), txid, tx.place)
    return RecordedTx(txindex, txid, raw, tx.get("verdict", str) == _ACCEPTED)


def _read_op(op: _Fields) -> RecordedOp:
    fields = op.get("fields", list)
    for field in fields:
        if not isinstance(field, list) or [type(part) for part in field] != [str, str]:
            raise MalformedScenario(f"{op.place}: {_told(field)} is no pair of a field's name and text")
    return RecordedOp(op.get("opcode", str), tuple((name, text) for name, text in fields))


def _read_snapshots(found: Mapping[str, object]) -> dict[int, str]:
    try:
        return {int(block_id): str(consensus_hash) for block_id, consensus_hash in found.items()}
    except ValueError as error:
        raise MalformedScenario(f"initial_snapshots: {error}") from error


def _read_parents(found: Mapping[str, object]) -> dict[str, bytes]:
    return {
        txid: _read_raw(raw if isinstance(raw, str) else "", txid, "parent_txs")
        for txid, raw in found.items()
    }


def _read_raw(text: str, txid: str, place: str) -> bytes:
    """Read a serialised transaction, which must have the id that it is recorded under."""
    try:
        raw = bytes.fromhex(text)
        found = read_transaction(raw).txid[::-1].hex()
    except (ValueError, MalformedBlock) as error:
        raise MalformedScenario(f"{place}: transaction {txid} cannot be read: {error}") from error
    if found != txid:
        raise MalformedScenario(f"{place}: transaction {txid} has the id {found}")
    return raw


def _pair(found: Sequence[Any], kind: type[N]) -> tuple[N, N]:
    if len(found) != 2 or not all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in found
    ):
        raise MalformedScenario(f"params: {_told(found)} is no pair of numbers")
    return kind(found[0]), kind(found[1])


def _told(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 80 else f"{told[:80]}…"


def places(blocks: tuple[RecordedBlock, ...], first: int) -> Iterator[tuple[int, tuple[RecordedTx, ...]]]:
    """Give every height from `first` to the last recorded one, with what is recorded there."""
    recorded = {block.block_id: block.txs for block in blocks}
    for height in range(first, blocks[-1].block_id + 1):
        yield height, recorded.get(height, ())
