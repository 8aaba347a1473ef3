"""Decipher a transaction: find its runestone output, and read what that says."""

from collections.abc import Iterable
from typing import Final

from virtualchain.examples.runes import varint
from virtualchain.examples.runes.message import Message, read_message
from virtualchain.examples.runes.params import (
    KNOWN_FLAGS,
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
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Etching, Flaw, Runestone, Terms
from virtualchain.examples.runes.script import TruncatedScript, instructions

PREFIX: Final = b"\x6a\x5d"
"""OP_RETURN OP_13: how the script of a runestone output begins."""


def decipher_outputs(scripts: Iterable[bytes]) -> Runestone | Cenotaph | None:
    """Decipher a transaction, given the scripts of its outputs; None if it has no runestone output."""
    outputs = list(scripts)
    payload = next((script[len(PREFIX) :] for script in outputs if script.startswith(PREFIX)), None)
    return None if payload is None else decipher(payload, len(outputs))


def decipher(payload: bytes, output_count: int) -> Runestone | Cenotaph:
    """Decipher what follows OP_RETURN OP_13 in a runestone output's script.

    `output_count` is the number of the transaction's outputs, which edicts and pointer refer to.
    """
    pushed = []
    try:
        for data in instructions(payload):
            if data is None:
                return Cenotaph(Flaw.OPCODE)
            pushed.append(data)
        integers = varint.decode_all(b"".join(pushed))
    except TruncatedScript:
        return Cenotaph(Flaw.INVALID_SCRIPT)
    except varint.InvalidVarint:
        return Cenotaph(Flaw.VARINT)
    return _interpret(read_message(integers, output_count), output_count)


def _interpret(message: Message, output_count: int) -> Runestone | Cenotaph:
    """Take the fields out of a message; what is left over decides whether it is a cenotaph."""
    flags = message.take(Tag.FLAGS) or 0
    etching = None
    if flags & Flag.ETCHING:
        etching = _take_etching(message, flags)
        flags &= ~KNOWN_FLAGS
    mint = _take_mint(message)
    pointer = message.take(Tag.POINTER, lambda output: output <= U32_MAX and output < output_count)
    flaw = message.flaw
    if flaw is None and etching is not None and etching.supply > U128_MAX:
        flaw = Flaw.SUPPLY_OVERFLOW
    if flaw is None and flags:
        flaw = Flaw.UNRECOGNIZED_FLAG
    if flaw is None and message.has_even_tag():
        flaw = Flaw.UNRECOGNIZED_EVEN_TAG
    if flaw is not None:
        return Cenotaph(flaw, None if etching is None else etching.rune, mint)
    return Runestone(tuple(message.edicts), etching, mint, pointer)


def _take_etching(message: Message, flags: int) -> Etching:
    return Etching(
        divisibility=message.take(Tag.DIVISIBILITY, lambda digits: digits <= MAX_DIVISIBILITY),
        premine=message.take(Tag.PREMINE),
        rune=message.take(Tag.RUNE),
        spacers=message.take(Tag.SPACERS, lambda spacers: spacers <= MAX_SPACERS),
        symbol=message.take(Tag.SYMBOL, _is_character),
        terms=_take_terms(message) if flags & Flag.TERMS else None,
        turbo=bool(flags & Flag.TURBO),
    )


def _take_terms(message: Message) -> Terms:
    return Terms(
        cap=message.take(Tag.CAP),
        amount=message.take(Tag.AMOUNT),
        height_start=message.take(Tag.HEIGHT_START, _is_u64),
        height_end=message.take(Tag.HEIGHT_END, _is_u64),
        offset_start=message.take(Tag.OFFSET_START, _is_u64),
        offset_end=message.take(Tag.OFFSET_END, _is_u64),
    )


def _take_mint(message: Message) -> RuneId | None:
    values = message.take_many(Tag.MINT, 2, lambda values: RuneId(*values).is_valid)
    return None if values is None else RuneId(*values)


def _is_u64(value: int) -> bool:
    return value <= U64_MAX


def _is_character(code_point: int) -> bool:
    return code_point <= MAX_SYMBOL and code_point not in SURROGATES
