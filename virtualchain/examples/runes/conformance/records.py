"""Messages, entries and balances as the files have them."""

from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Etching, Runestone, Terms
from virtualchain.model import Json


def artifact_record(artifact: Runestone | Cenotaph | None) -> Json | None:
    """Return what a transaction says, as a vector has it."""
    match artifact:
        case None:
            return None
        case Cenotaph():
            return {
                "type": "cenotaph",
                "flaw": artifact.flaw.value,
                "etching": artifact.etching,
                "mint": _id(artifact.mint),
            }
    return {
        "type": "runestone",
        "edicts": [
            {"id": str(edict.id), "amount": edict.amount, "output": edict.output} for edict in artifact.edicts
        ],
        "etching": _etching(artifact.etching),
        "mint": _id(artifact.mint),
        "pointer": artifact.pointer,
    }


def entry_record(entry: Entry) -> Json:
    """Return a rune, as a scenario has it."""
    return {
        "block": entry.id.block,
        "etching": entry.etching,
        "number": entry.number,
        "rune": entry.rune,
        "spacers": entry.spacers,
        "spaced_name": entry.spaced_name,
        "divisibility": entry.divisibility,
        "symbol": entry.symbol,
        "terms": _terms(entry.terms),
        "premine": entry.premine,
        "mints": entry.mints,
        "burned": entry.burned,
        "turbo": entry.turbo,
        "timestamp": entry.timestamp,
    }


def plain(value: object) -> object:
    """Return a value in one form: numbers as text, and no fields that are absent, empty or false."""
    match value:
        case bool() | None:
            return value or None
        case int():
            return str(value)
        case list() | tuple():
            items = [plain(item) for item in value]
            return items if any(item is not None for item in items) else None
        case dict():
            fields = {key: plain(item) for key, item in value.items()}
            return {key: item for key, item in fields.items() if item is not None}
    return value


def _id(rune_id: RuneId | None) -> str | None:
    return None if rune_id is None else str(rune_id)


def _etching(etching: Etching | None) -> Json | None:
    if etching is None:
        return None
    return {
        "divisibility": etching.divisibility,
        "premine": etching.premine,
        "rune": etching.rune,
        "spacers": etching.spacers,
        "symbol": etching.symbol,
        "terms": _terms(etching.terms),
        "turbo": etching.turbo,
    }


def _terms(terms: Terms | None) -> Json | None:
    if terms is None:
        return None
    return {
        "amount": terms.amount,
        "cap": terms.cap,
        "height": [terms.height_start, terms.height_end],
        "offset": [terms.offset_start, terms.offset_end],
    }
