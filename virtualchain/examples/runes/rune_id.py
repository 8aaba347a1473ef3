"""The id of a rune: the block and the position of the transaction that etched it."""

from typing import NamedTuple, Self

from virtualchain.examples.runes.params import U32_MAX, U64_MAX


class RuneId(NamedTuple):
    """`block:tx`; `tx` is the position in the block, with the coinbase at 0."""

    block: int
    tx: int

    def __str__(self) -> str:
        return f"{self.block}:{self.tx}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `block:tx`; raises ValueError for anything else."""
        block, separator, tx = text.partition(":")
        if not (separator and block.isdecimal() and tx.isdecimal() and text.isascii()):
            raise ValueError(f"{text!r} is not the id of a rune")
        return cls(int(block), int(tx))

    @property
    def is_valid(self) -> bool:
        """Whether a message may name it: block 0 has no runes, but 0:0 stands for the rune being etched."""
        return self.block <= U64_MAX and self.tx <= U32_MAX and (self.block > 0 or self.tx == 0)

    def after(self, block_delta: int, tx: int) -> Self:
        """Return the id that an edict writes as a difference to the edict's before it.

        Within a block, `tx` is a difference, too.
        """
        return type(self)(self.block + block_delta, self.tx + tx if block_delta == 0 else tx)


THIS_RUNE = RuneId(0, 0)
"""How an edict names the rune that its own transaction etches."""
