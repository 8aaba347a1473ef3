"""Recorded scenarios: the format of their files, and how they are read.

A scenario has a `network`, the state before its first block (`initial`), `blocks` and, if it forks,
`branches` on top of them. A block has `height`, `time`, `txs` (raw, the coinbase first), `prevouts` (what its
inputs spend: satoshi, script and height, by `txid:vout`) and `expect`: the `entries` that are new or changed,
and the outputs that hold runes since (`added`) or no longer do (`removed`). Amounts are text. Everything else
is ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.examples.runes.conformance.records import entry_record, plain
from virtualchain.examples.runes.conformance.vectors import network_name
from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.hardcoded import initial_entries
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Terms
from virtualchain.testing.conformance.files import JsonObject, MalformedScenario, excerpt

_MAX_HEIGHT: Final = 2**31 - 2
"""The engine's heights end here."""
_MAX_TIME: Final = 2**32 - 1


class Prevout(NamedTuple):
    """An output that an input spends, and the height of the block that holds it."""

    value: int
    script: bytes
    height: int


@dataclass(frozen=True, slots=True)
class RecordedBlock:
    """A block, what its inputs spend, and how the reference's state changed."""

    height: int
    time: int
    txs: tuple[bytes, ...]
    """Raw transactions, the coinbase first."""
    prevouts: Mapping[tuple[str, int], Prevout]
    """By txid and vout."""
    change: "Change | None" = None
    """None: it was not recorded."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a block changes the state."""

    entries: Mapping[str, object]
    """Runes that are new or changed, by id."""
    added: Mapping[str, object]
    """What outputs hold that are new, by `txid:vout`."""
    removed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state after a block, in the form of `plain`."""

    entries: Mapping[str, object] = field(default_factory=dict)
    """By id."""
    balances: Mapping[str, object] = field(default_factory=dict)
    """By `txid:vout`: pairs of id and amount, ordered by id."""

    def after(self, change: Change | None) -> "Snapshot | None":
        """Return the state that a change leads to; None if it is not known."""
        if change is None:
            return None
        added = {outpoint: plain(sorted_by_id(amounts)) for outpoint, amounts in change.added.items()}
        removed = set(change.removed)
        kept = {outpoint: amounts for outpoint, amounts in self.balances.items() if outpoint not in removed}
        entries = {rune_id: plain(entry) for rune_id, entry in change.entries.items()}
        return Snapshot({**self.entries, **entries}, {**kept, **added})


@dataclass(frozen=True, slots=True)
class Scenario:
    """One recorded run."""

    name: str
    network: str
    initial: tuple[Entry, ...]
    """The runes before the first block."""
    blocks: tuple[RecordedBlock, ...]
    """In order of height, without gaps."""
    branches: tuple[tuple[RecordedBlock, ...], ...]
    """Chains on top of the last block, one after the other."""

    @property
    def first_block(self) -> int:
        """The height at which it starts."""
        return next(chain[0].height for chain in (self.blocks, *self.branches) if chain)

    def expected(self, chain: Sequence[RecordedBlock]) -> list[Snapshot | None]:
        """Return the state before a chain's first block, and after each of its blocks."""
        state: Snapshot | None = Snapshot(
            {str(entry.id): plain(entry_record(entry)) for entry in self.initial}
        )
        states = [state]
        for block in chain:
            state = None if state is None else state.after(block.change)
            states.append(state)
        return states


def sorted_by_id(amounts: object) -> list[list[object]]:
    """Return pairs of id and amount, ordered by id; raises MalformedScenario for anything else."""
    if not isinstance(amounts, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in amounts
    ):
        raise MalformedScenario(f"{excerpt(amounts)} is not a list of pairs of id and amount")
    return sorted(amounts, key=lambda pair: _rune_id(pair[0]))


def scenario_name(content: object, number: int) -> str:
    """Return a scenario's name; without one, its position in the file."""
    name = content.get("name") if isinstance(content, dict) else None
    return name if isinstance(name, str) and name.isprintable() and name else f"scenario {number}"


def read_scenario(content: object, name: str) -> Scenario:
    """Read one scenario; raises MalformedScenario."""
    scenario = JsonObject(content, "the scenario")
    try:
        network = network_name(scenario.get("network", str))
    except UsageError as error:
        raise MalformedScenario(f"the scenario: {error}") from error
    blocks = _without_genesis(_read_blocks(scenario.get_or("blocks", list, []), "blocks"))
    branches = tuple(
        _read_blocks(branch, f"branch {number}")
        for number, branch in enumerate(scenario.get_or("branches", list, []))
    )
    if not any((blocks, *branches)):
        raise MalformedScenario("the scenario has no block")
    for branch in branches:
        if blocks and branch and branch[0].height != blocks[-1].height + 1:
            raise MalformedScenario(f"a branch starts with block {branch[0].height}, not on the last one")
    return Scenario(name, network, _read_initial(scenario, network), blocks, branches)


def _read_initial(scenario: JsonObject, network: str) -> tuple[Entry, ...]:
    if scenario.content.get("initial") is None:
        return tuple(initial_entries(network))
    initial = JsonObject(scenario.content["initial"], "initial")
    if initial.get_or("balances", dict, {}):
        raise MalformedScenario("initial: balances before the first block cannot be replayed")
    entries = initial.get_or("entries", dict, {})
    return tuple(
        _read_entry(_rune_id(rune_id), JsonObject(entry, f"entry {rune_id}"))
        for rune_id, entry in entries.items()
    )


def _read_entry(rune_id: RuneId, entry: JsonObject) -> Entry:
    terms = None
    if entry.content.get("terms") is not None:
        fields = JsonObject(entry.content["terms"], f"{entry.location}, terms")
        height, offset = (fields.get_or(window, list, [None, None]) for window in ("height", "offset"))
        terms = Terms(
            _optional(fields, "amount"),
            _optional(fields, "cap"),
            *(
                _integer(limit, fields.location) if limit is not None else None
                for limit in (*height, *offset)
            ),
        )
    return Entry(
        id=rune_id,
        etching=entry.get("etching", str),
        number=_optional(entry, "number") or 0,
        rune=_integer(entry.content.get("rune"), entry.location),
        timestamp=_optional(entry, "timestamp") or 0,
        spacers=_optional(entry, "spacers") or 0,
        divisibility=_optional(entry, "divisibility") or 0,
        symbol=_optional(entry, "symbol"),
        terms=terms,
        premine=_optional(entry, "premine") or 0,
        mints=_optional(entry, "mints") or 0,
        burned=_optional(entry, "burned") or 0,
        turbo=bool(entry.content.get("turbo")),
    )


def _read_blocks(items: object, location: str) -> tuple[RecordedBlock, ...]:
    if not isinstance(items, list):
        raise MalformedScenario(f"{location}: not a list")
    blocks = tuple(
        _read_block(JsonObject(item, f"{location}, index {index}")) for index, item in enumerate(items)
    )
    for before, block in pairwise(blocks):
        if block.height != before.height + 1:
            raise MalformedScenario(f"{location}: block {block.height} follows block {before.height}")
    return blocks


def _without_genesis(blocks: tuple[RecordedBlock, ...]) -> tuple[RecordedBlock, ...]:
    """Leave out a network's first block, which is always the same and holds no runes."""
    if not blocks or blocks[0].height > 0:
        return blocks
    change = blocks[0].change
    if change is not None and (change.entries or change.added or change.removed):
        raise MalformedScenario("block 0: a genesis block has no runes")
    return blocks[1:]


def _read_block(block: JsonObject) -> RecordedBlock:
    height, time = block.get("height", int), block.get("time", int)
    location = f"block {height}"
    if not 0 <= height <= _MAX_HEIGHT or not 0 <= time <= _MAX_TIME:
        raise MalformedScenario(f"{location}: there is no such height, or no such time as {time}")
    txs = tuple(_read_tx(tx, location) for tx in block.get("txs", list))
    if not txs:
        raise MalformedScenario(f"{location}: it has no coinbase")
    prevouts = {
        _read_outpoint(outpoint, location): _read_prevout(output, location)
        for outpoint, output in block.get_or("prevouts", dict, {}).items()
    }
    expect = block.content.get("expect")
    change = None if expect is None else _read_change(JsonObject(expect, f"{location}, expect"))
    return RecordedBlock(height, time, txs, prevouts, change)


def _read_change(expect: JsonObject) -> Change:
    removed = expect.get_or("removed", list, [])
    if not all(isinstance(outpoint, str) for outpoint in removed):
        raise MalformedScenario(f"{expect.location}: removed is not a list of text")
    return Change(expect.get_or("entries", dict, {}), expect.get_or("added", dict, {}), removed)


def _read_tx(text: object, location: str) -> bytes:
    try:
        raw = bytes.fromhex(text if isinstance(text, str) else "")
        read_outputs(raw)
    except (ValueError, MalformedBlock) as error:
        raise MalformedScenario(
            f"{location}: the transaction {excerpt(text)} cannot be read: {error}"
        ) from error
    return raw


def _read_outpoint(text: str, location: str) -> tuple[str, int]:
    txid, _, vout = text.partition(":")
    if not (vout.isdecimal() and vout.isascii()):
        raise MalformedScenario(f"{location}: {excerpt(text)} is not an outpoint")
    return txid, int(vout)


def _read_prevout(output: object, location: str) -> Prevout:
    if not isinstance(output, list) or len(output) != 3:
        raise MalformedScenario(f"{location}: {excerpt(output)} is not satoshi, script and height")
    value, script, height = output
    try:
        return Prevout(int(value), bytes.fromhex(script), int(height))
    except (TypeError, ValueError) as error:
        raise MalformedScenario(f"{location}: prevout {excerpt(output)}: {error}") from error


def _rune_id(text: object) -> RuneId:
    try:
        return RuneId.parse(str(text))
    except ValueError as error:
        raise MalformedScenario(str(error)) from error


def _optional(fields: JsonObject, key: str) -> int | None:
    value = fields.content.get(key)
    return None if value is None else _integer(value, f"{fields.location}, {key}")


def _integer(value: object, location: str) -> int:
    """Read an integer that may be text."""
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise MalformedScenario(f"{location}: {excerpt(value)} is not an integer")
