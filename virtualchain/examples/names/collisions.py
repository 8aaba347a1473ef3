"""Operations of one block that want the same thing (`names.md` §3).

Two rightful registrations of one name in one block are both refused, whatever their order, and so are two
reveals of one namespace: the block is scanned first, as if nothing in it had been accepted yet. Where a
name is renewed twice, or a hash preordered twice, the first one wins.
"""

from collections.abc import Callable, Sequence
from typing import Final

from virtualchain.examples.names.refusal import Refused
from virtualchain.model import Json

_KEYS: Final = {
    "?": "preorder_hash",
    "*": "preorder_hash",
    ":": "name",
    "::": "name",
    ";": "name",
    "&": "namespace_id",
}
"""The field that must be one operation's only, by what the operation is in the end."""
_NEVER_COLLIDES: Final = ";"
_SCANNED: Final = frozenset(":;&")

Judge = Callable[[Json, Sequence[Json]], Json]
"""Judges an operation behind others of its block: gives its row, or raises Refused."""


def collides(op: Json, accepted: Sequence[Json]) -> bool:
    """Whether the scan marked an operation, or one accepted before it in the block has its key."""
    if op["op"] not in _KEYS or op["op"] == _NEVER_COLLIDES:
        return False
    taken = {_key(other) for other in accepted if other["op"] in _KEYS and other["op"] != _NEVER_COLLIDES}
    return bool(op.get("is_marked")) or _key(op) in taken


def mark(ops: Sequence[Json], judge: Judge) -> None:
    """Find what collides in a block before any of it is accepted: `is_marked` says so in each operation.

    `judge` leaves names, namespaces and preorders as they are; a namespace's keyring it may make.
    """
    scanned = [op for op in ops if op["op"] in _SCANNED]
    marked = _marked_keys(scanned, judge)
    for op in scanned:
        op["is_marked"] = _key(op) in marked


def _marked_keys(scanned: Sequence[Json], judge: Judge) -> set[str]:
    listed: list[Json] = []  # as they would be accepted, or, where they would not, as they were read
    table: set[str] = set()
    marked: set[str] = set()
    for op in scanned:
        try:
            entry = judge(dict(op), listed)
        except Refused:
            entry = op
        else:
            if op["op"] != _NEVER_COLLIDES:
                if _key(op) in table:
                    marked |= {_key(other) for other in listed if _is_marked_by(op, other)}
                    entry = op
                table.add(_key(op))
        listed.append(entry)
    return marked


def _is_marked_by(op: Json, other: Json) -> bool:
    """Whether a collision refuses an operation listed before it: not where that turned out a renewal."""
    kinds = {"&"} if op["op"] == "&" else {":", ";"}
    return other["op"] in kinds and _key(other) == _key(op)


def _key(op: Json) -> str:
    key: str = op[_KEYS[op["op"]]]
    return key
