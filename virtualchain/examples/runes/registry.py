"""The state in the database: what the rules ask of it, and what a transaction writes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from virtualchain.examples.runes.edicts import Balance
from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.execution import Outcome
from virtualchain.examples.runes.names import name_of, number_of
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Terms
from virtualchain.model import Json
from virtualchain.store.sql import queries
from virtualchain.store.state import State

_Q = queries("runes")
RUNES: Final = "runes"
"""The counter of the runes that were etched."""
_TERMS: Final = {
    "amount": "mint_amount",
    "cap": "mint_cap",
    "height_start": "height_start",
    "height_end": "height_end",
    "offset_start": "offset_start",
    "offset_end": "offset_end",
}
"""The columns of the terms."""


class Holding(NamedTuple):
    """An amount of a rune that an input spends."""

    vin: int
    rune: RuneId
    amount: int
    address: str | None


class Registry:
    """The runes and their balances, as one transaction sees them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._runes = state.table("runes")
        self._outputs = state.table("outputs")
        self._events = state.table("rune_events")
        self._counters = state.table("counters")

    # What the rules ask.

    def entry(self, rune_id: RuneId) -> Entry | None:
        """Return a rune that was etched."""
        row = self._runes.get(str(rune_id))
        return None if row is None else read_entry(row)

    def has_name(self, number: int) -> bool:
        """Return whether a name is taken."""
        return self._state.one(_Q["has_name"], {"name": name_of(number)}) is not None

    def count(self) -> int:
        """Return how many runes there are."""
        row = self._counters.get(RUNES)
        return 0 if row is None else int(row["value"])

    # What a transaction does.

    def spend(self, spends: Iterable[tuple[int, str, int]]) -> list[Holding]:
        """Remove outputs, given as input, txid and vout; return what they hold, in the order of inputs."""
        holdings = []
        for vin, txid, vout in spends:
            for row in self._state.tracked(txid, vout):
                self._outputs.delete((txid, vout, row["rune"]))
                holdings.append(Holding(vin, RuneId.parse(row["rune"]), int(row["amount"]), row["address"]))
        return sorted(holdings)

    def record(self, outcome: Outcome, txid: str, addresses: Sequence[str | None]) -> None:
        """Write what a transaction mints, etches and burns, and what its outputs hold."""
        if outcome.minted is not None:
            self._runes.add(str(outcome.minted.id), mints=1)
        if outcome.etched is not None:
            self.add_entry(outcome.etched)
        for rune_id, amount in outcome.burned_by_rune().items():
            self._runes.add(str(rune_id), burned=amount)
        for vout, rune_id, amount in outcome.received:
            output = {"txid": txid, "vout": vout, "rune": str(rune_id)}
            self._outputs.put({**output, "amount": amount, "address": addresses[vout]})

    def add_entry(self, entry: Entry) -> None:
        """Add a rune."""
        self._runes.put(write_entry(entry))
        self._counters.add(RUNES, value=1)

    def add_events(self, txindex: int, txid: str, events: Iterable[Json]) -> None:
        """Record what a transaction did, in order."""
        position = {"block_id": self._state.block_id, "txindex": txindex, "txid": txid}
        for number, event in enumerate(events):
            self._events.put({**position, "event": number, **event})


def sum_up(holdings: Iterable[Holding]) -> Balance:
    """Return what inputs bring in all."""
    totals: defaultdict[RuneId, int] = defaultdict(int)
    for holding in holdings:
        totals[holding.rune] += holding.amount
    return totals


def read_entry(row: Json) -> Entry:
    """Read a row of `runes`."""
    terms = {field: _integer(row[column]) for field, column in _TERMS.items()}
    return Entry(
        id=RuneId(row["block"], row["tx"]),
        etching=row["etching"],
        number=row["number"],
        rune=number_of(row["name"]),
        timestamp=row["timestamp"],
        spacers=row["spacers"],
        divisibility=row["divisibility"],
        symbol=row["symbol_code"],
        terms=Terms(**terms) if row["has_terms"] else None,
        premine=int(row["premine"]),
        mints=int(row["mints"]),
        burned=int(row["burned"]),
        turbo=row["turbo"],
    )


def write_entry(entry: Entry) -> Json:
    """Make a row of `runes`."""
    return {
        "id": str(entry.id),
        "block": entry.id.block,
        "tx": entry.id.tx,
        "number": entry.number,
        "name": entry.name,
        "spaced_name": entry.spaced_name,
        "spacers": entry.spacers,
        "divisibility": entry.divisibility,
        "symbol": chr(entry.symbol) if entry.symbol else None,
        "symbol_code": entry.symbol,
        "premine": entry.premine,
        "has_terms": entry.terms is not None,
        **{column: getattr(entry.terms, field, None) for field, column in _TERMS.items()},
        "mints": entry.mints,
        "burned": entry.burned,
        "turbo": entry.turbo,
        "etching": entry.etching,
        "timestamp": entry.timestamp,
    }


def _integer(value: object) -> int | None:
    return None if value is None else int(value)  # type: ignore[call-overload]  # a number
