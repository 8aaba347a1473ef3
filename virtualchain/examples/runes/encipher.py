"""Encipher a runestone: write what `decipher` reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from virtualchain.examples.runes import varint
from virtualchain.examples.runes.names import parse_spaced
from virtualchain.examples.runes.params import (
    MAX_DIVISIBILITY,
    MAX_SPACERS,
    MAX_SYMBOL,
    SURROGATES,
    U32_MAX,
    U64_MAX,
    U128_MAX,
    Flag,
    Tag,
)
from virtualchain.examples.runes.rune_id import THIS_RUNE, RuneId
from virtualchain.examples.runes.runestone import Edict, Etching, Runestone, Terms
from virtualchain.examples.runes.script import write_pushes

_LARGEST: Final[Mapping[Tag, int]] = {
    Tag.DIVISIBILITY: MAX_DIVISIBILITY,
    Tag.SPACERS: MAX_SPACERS,
    Tag.SYMBOL: MAX_SYMBOL,
    Tag.HEIGHT_START: U64_MAX,
    Tag.HEIGHT_END: U64_MAX,
    Tag.OFFSET_START: U64_MAX,
    Tag.OFFSET_END: U64_MAX,
    Tag.POINTER: U32_MAX,
}
"""The largest values of fields; of the others it is the largest integer of 128 bits."""


def encipher(runestone: Runestone) -> bytes:
    """Write what follows OP_RETURN OP_13 in a runestone output's script.

    Edicts are sorted by rune, in which form alone they can be written; those of one rune keep their order.
    Raises ValueError, with the field, for a runestone that no message can be.
    """
    integers = [integer for tag, value in _fields(runestone) for integer in (tag, _checked(tag, value))]
    return write_pushes(b"".join(map(varint.encode, [*integers, *_body(runestone.edicts)])))


def _fields(runestone: Runestone) -> Iterator[tuple[Tag, int]]:
    if runestone.etching is not None:
        yield from _etching(runestone.etching)
    if runestone.mint is not None:
        if not _is_valid(runestone.mint):
            raise ValueError(f"mint: {runestone.mint} is not the id of a rune")
        yield Tag.MINT, runestone.mint.block
        yield Tag.MINT, runestone.mint.tx
    if runestone.pointer is not None:
        yield Tag.POINTER, runestone.pointer


def _etching(etching: Etching) -> Iterator[tuple[Tag, int]]:
    if etching.supply > U128_MAX:
        raise ValueError(f"the premine and all mints are {etching.supply}, more than {U128_MAX}")
    terms = etching.terms
    flags = Flag.ETCHING | (0 if terms is None else Flag.TERMS) | (Flag.TURBO if etching.turbo else 0)
    yield Tag.FLAGS, flags
    yield from _present(
        {
            Tag.RUNE: etching.rune,
            Tag.DIVISIBILITY: etching.divisibility,
            Tag.SPACERS: etching.spacers,
            Tag.SYMBOL: etching.symbol,
            Tag.PREMINE: etching.premine,
        }
    )
    if terms is not None:
        yield from _present(
            {
                Tag.AMOUNT: terms.amount,
                Tag.CAP: terms.cap,
                Tag.HEIGHT_START: terms.height_start,
                Tag.HEIGHT_END: terms.height_end,
                Tag.OFFSET_START: terms.offset_start,
                Tag.OFFSET_END: terms.offset_end,
            }
        )


def _present(fields: Mapping[Tag, int | None]) -> Iterator[tuple[Tag, int]]:
    return ((tag, value) for tag, value in fields.items() if value is not None)


def _body(edicts: Sequence[Edict]) -> Iterator[int]:
    if edicts:
        yield Tag.BODY
    before = THIS_RUNE
    for edict in sorted(edicts, key=lambda edict: edict.id):
        if not _is_valid(edict.id):
            raise ValueError(f"edicts: {edict.id} is not the id of a rune")
        block_delta = edict.id.block - before.block
        yield block_delta
        yield edict.id.tx if block_delta else edict.id.tx - before.tx
        yield _within("edicts: the amount", edict.amount, U128_MAX)
        yield _within("edicts: the output", edict.output, U32_MAX)
        before = edict.id


def _checked(tag: Tag, value: int) -> int:
    if tag == Tag.SYMBOL and value in SURROGATES:
        raise ValueError(f"symbol: {value} is not a character")
    return _within(tag.name.lower(), value, _LARGEST.get(tag, U128_MAX))


def _within(name: str, value: int, largest: int) -> int:
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must be from 0 to {largest}, not {value}")
    return value


def _is_valid(rune_id: RuneId) -> bool:
    return min(rune_id) >= 0 and rune_id.is_valid


# From the fields that people write.


def runestone_of(
    edicts: Iterable[Sequence[str | int]], mint: str | None, pointer: int | None, etching: Etching | None
) -> Runestone:
    """Make a runestone; each edict is the id of a rune (`0:0` for the one that is etched), amount, output.

    Raises ValueError for what is not an id or not an edict.
    """
    return Runestone(
        tuple(map(_edict, edicts)), etching, None if mint is None else RuneId.parse(mint), pointer
    )


def _edict(parts: Sequence[str | int]) -> Edict:
    if len(parts) != 3:
        raise ValueError(f"edicts: {list(parts)} is not the id of a rune, an amount and an output")
    rune_id, amount, output = parts
    return Edict(RuneId.parse(str(rune_id)), int(amount), int(output))


def etching_of(
    rune: str | None,
    symbol: str | None,
    *,
    divisibility: int | None,
    premine: int | None,
    terms: Terms,
    turbo: bool,
) -> Etching:
    """Make an etching from a name with its spacers, the character of its symbol, and its other fields.

    Terms that have no field are none. Raises ValueError for what is not a name, or not one character.
    """
    number, spacers = (None, 0) if rune is None else parse_spaced(rune)
    if symbol is not None and len(symbol) != 1:
        raise ValueError(f"symbol: {symbol!r} is not one character")
    return Etching(
        divisibility=divisibility,
        premine=premine,
        rune=number,
        spacers=spacers or None,
        symbol=None if symbol is None else ord(symbol),
        terms=None if terms == Terms() else terms,
        turbo=turbo,
    )
