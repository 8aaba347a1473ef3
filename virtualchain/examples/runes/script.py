"""Scripts as this protocol reads them: no push is too long, and none needs to be the shortest.

The reader is the protocol's own. It differs from `virtualchain.bitcoin.script`, which follows Bitcoin Core in
what OP_1 to OP_16 push: here they push nothing.
"""

from collections.abc import Iterator
from typing import Final

_OP_PUSHDATA1: Final = 0x4C
_OP_PUSHDATA4: Final = 0x4E
_OP_RETURN: Final = 0x6A
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
