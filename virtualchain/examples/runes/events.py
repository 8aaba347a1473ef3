"""What a transaction did, as rows of `rune_events`, and their digest."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from virtualchain.examples.runes.execution import Outcome
from virtualchain.examples.runes.registry import Holding
from virtualchain.examples.runes.runestone import Cenotaph, Runestone
from virtualchain.model import Json

_COLUMNS = ("kind", "rune", "amount", "vin", "vout", "address", "flaw")


def events_of(
    artifact: Runestone | Cenotaph | None,
    spent: Iterable[Holding],
    outcome: Outcome,
    addresses: Sequence[str | None],
) -> Iterator[Json]:
    """Yield what a transaction did, in the order in which it did it.

    For each rune, what is spent, etched and minted is as much as what is transferred and burned.
    """
    if isinstance(artifact, Cenotaph):
        yield {"kind": "cenotaph", "flaw": artifact.flaw.value}
    for holding in spent:
        yield {
            "kind": "spent",
            "rune": str(holding.rune),
            "amount": holding.amount,
            "vin": holding.vin,
            "address": holding.address,
        }
    if outcome.minted is not None:
        yield {"kind": "minted", "rune": str(outcome.minted.id), "amount": outcome.minted_amount}
    if outcome.etched is not None:
        yield {"kind": "etched", "rune": str(outcome.etched.id), "amount": outcome.etched.premine}
    for vout, rune_id, amount in outcome.received:
        event = {"kind": "transferred", "rune": str(rune_id), "amount": amount, "vout": vout}
        yield {**event, "address": addresses[vout]}
    for output, rune_id, amount in outcome.burned:
        yield {"kind": "burned", "rune": str(rune_id), "amount": amount, "vout": output}


def digest_of(events: Iterable[Json]) -> str:
    """Return the SHA-256 (hex) of events, a line each: seven values with a space between, `-` for none.

    It enters an op, so that two nodes whose balances differ have different consensus hashes.
    """
    digest = hashlib.sha256()
    for event in events:
        values = (event.get(column) for column in _COLUMNS)
        digest.update(" ".join("-" if value is None else str(value) for value in values).encode() + b"\n")
    return digest.hexdigest()
