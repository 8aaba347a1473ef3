"""Scripts as this protocol reads them: no push is too long, and none needs to be the shortest.

The reader is the protocol's own. It differs from `virtualchain.bitcoin.script`, which follows Bitcoin Core in
what OP_1 to OP_16 push: here they push nothing.
"""

from collections.abc import Iterator
from typing import Final

_OP_PUSHDATA1: Final = 0x4C
_OP_PUSHDATA4: Final = 0x4E
_OP_RETURN: Final = 0x6A
_LONGEST_PUSH: Final = 520
_TAPROOT_PREFIX: Final = b"\x51\x20"
_TAPROOT_SIZE: Final = 34


class TruncatedScript(ValueError):
    """A script that ends within a push."""


def instructions(script: bytes) -> Iterator[bytes | None]:
    """Walk a script: yield the bytes of each push, and None for every other opcode.

    Raises TruncatedScript at a push for which there are not enough bytes.
    """
    at = 0
    while at < len(script):
        opcode = script[at]
        at += 1
        if opcode > _OP_PUSHDATA4:
            yield None
            continue
        size = opcode
        if opcode >= _OP_PUSHDATA1:
            width = 1 << (opcode - _OP_PUSHDATA1)
            size = int.from_bytes(script[at : at + width], "little")
            if at + width > len(script):
                raise TruncatedScript
            at += width
        if at + size > len(script):
            raise TruncatedScript
        yield script[at : at + size]
        at += size


def write_pushes(data: bytes) -> bytes:
    """Write data as pushes in their shortest form, none longer than Bitcoin allows on a stack."""
    return b"".join(
        _push_start(min(_LONGEST_PUSH, len(data) - at)) + data[at : at + _LONGEST_PUSH]
        for at in range(0, len(data), _LONGEST_PUSH)
    )


def _push_start(size: int) -> bytes:
    if size < _OP_PUSHDATA1:
        return bytes([size])
    if size < 1 << 8:
        return bytes([_OP_PUSHDATA1, size])
    return bytes([_OP_PUSHDATA1 + 1]) + size.to_bytes(2, "little")


def pushes(script: bytes) -> Iterator[bytes]:
    """Yield what a script pushes, up to a push that is truncated."""
    try:
        for data in instructions(script):
            if data is not None:
                yield data
    except TruncatedScript:
        return


def is_op_return(script: bytes) -> bool:
    """Check whether an output's script begins with OP_RETURN, so that runes in it are burned."""
    return script[:1] == bytes([_OP_RETURN])


def is_taproot(script: bytes) -> bool:
    """Check whether an output's script is pay-to-taproot."""
    return len(script) == _TAPROOT_SIZE and script.startswith(_TAPROOT_PREFIX)
