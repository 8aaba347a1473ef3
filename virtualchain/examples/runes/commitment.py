"""Commitments: a name can only be etched by who promised it blocks before, in a taproot output."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from virtualchain.examples.runes.params import COMMIT_CONFIRMATIONS
from virtualchain.examples.runes.script import is_taproot, pushes

_ANNEX: Final = 0x50
"""The first byte of a witness's last item if that is an annex (BIP 341)."""


class Spend(NamedTuple):
    """An input: its witness, the script that it spends, and the height of the block that holds that."""

    witness: Sequence[bytes]
    script: bytes
    height: int


def commitment(number: int) -> bytes:
    """Return the bytes that commit to a name: its number, the lowest byte first, without zeros at the end."""
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


def leaf_script(witness: Sequence[bytes]) -> bytes | None:
    """Return the script that an input discloses if it spends a taproot leaf; None if there is none.

    It precedes the control block, which is the last item but for an annex. Nothing else is looked at.
    """
    has_annex = len(witness) >= 2 and witness[-1][:1] == bytes([_ANNEX])
    position = 3 if has_annex else 2
    return witness[-position] if len(witness) >= position else None


def commits(number: int, spends: Iterable[Spend], height: int) -> bool:
    """Check whether a transaction in a block at `height` commits to a name.

    Some input's leaf script pushes the commitment, and spends a taproot output that is old enough.
    """
    expected = commitment(number)
    newest = height + 1 - COMMIT_CONFIRMATIONS
    return any(
        is_taproot(spend.script)
        and spend.height <= newest
        and (script := leaf_script(spend.witness)) is not None
        and expected in pushes(script)
        for spend in spends
    )
