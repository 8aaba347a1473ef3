"""What strangers and users put into the blocks of a simulation."""

from random import Random

from tests.simulation.apps import EARLY_MAGIC, FIRST, MAGIC, VERBS
from virtualchain.testing import FakeNode, Tx

_HOSTILE = (
    b"\x00",
    b"\xff\xfe \x00 \x00",
    b"add \xed\xa0\x80 1",
    b"add a\x00 1",
    b"add a " + b"9" * 300,
    b"add a 99999999999",
    b"note a -1",
    b"swap",
    b"plant  ",
    b"span ' 2147483647",
    b"refuse '); DROP TABLE owners; -- 1",
    "add \U0001f468\u200d\U0001f469 3".encode(),
    b"add %s 4",
)
_NAMES = "abcdef"


def some_ops(dice: Random, block_id: int, most: int = 4, fresh: str | None = None) -> list[bytes]:
    """Return the payloads of one block: ops that meet in few rows, and now and then a hostile one.

    In front of the first block of all apps but one, they are for that one alone.
    """
    magics = (EARLY_MAGIC,) if block_id < FIRST else (MAGIC, MAGIC, EARLY_MAGIC)
    return [
        dice.choice(magics) + b"o" + _payload(dice, fresh) for _ in range(dice.choice((0, 1, 1, 2, 3, most)))
    ]


def _payload(dice: Random, fresh: str | None) -> bytes:
    if dice.random() < 0.1:
        return dice.choice(_HOSTILE)
    verb = dice.choice(VERBS)
    name = fresh if verb == "fresh" and fresh is not None else dice.choice(_NAMES)
    return f"{verb} {name} {dice.randrange(40)}".encode()


def sign(node: FakeNode, payloads: list[bytes]) -> list[Tx]:
    """Put each payload into a transaction."""
    return [node.send(payload) for payload in payloads]
