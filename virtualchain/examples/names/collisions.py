"""Collisions: operations of one block that claim the same name, namespace or preorder hash.

If a block holds several valid registrations of one name, all are refused, whatever their order; the same goes
for reveals of one namespace. To find them, the block is scanned first, as if nothing in it had been accepted
yet. If a name is renewed twice, or a hash preordered twice, the first one wins.
"""

from collections.abc import Callable, Sequence
from typing import Final

from virtualchain.examples.names.rules import Refused
from virtualchain.model import Json

_KEY_FIELDS: Final = {
    "?": "preorder_hash",
    "*": "preorder_hash",
    ":": "name",
    "::": "name",
    ";": "name",
    "&": "namespace_id",
}
"""The field that only one operation of a block may claim, by the operation's final `op`."""
_NEVER_COLLIDES: Final = ";"
_SCANNED: Final = frozenset(":;&")

Judge = Callable[[Json, Sequence[Json]], Json]
"""Judges an operation, with the earlier ones of its block; returns its row, or raises Refused."""


def collides(op: Json, accepted: Sequence[Json]) -> bool:
    """Check whether the scan marked an operation, or one accepted earlier in its block has the same key."""
    if op["op"] not in _KEY_FIELDS or op["op"] == _NEVER_COLLIDES:
        return False
    taken = {
        _key(other) for other in accepted if other["op"] in _KEY_FIELDS and other["op"] != _NEVER_COLLIDES
    }
    return bool(op.get("is_marked")) or _key(op) in taken


def mark(ops: Sequence[Json], judge: Judge) -> None:
    """Set `is_marked` in each operation that collides, before any operation of the block is accepted.

    `judge` must not change names, namespaces or preorders; it may create a namespace's keyring.
    """
    scanned = [op for op in ops if op["op"] in _SCANNED]
    marked = _marked_keys(scanned, judge)
    for op in scanned:
        op["is_marked"] = _key(op) in marked


def _marked_keys(scanned: Sequence[Json], judge: Judge) -> set[str]:
    listed: list[Json] = []  # valid operations as they would be accepted, the others as they were read
    claimed: set[str] = set()
    marked: set[str] = set()
    for op in scanned:
        try:
            entry = judge(dict(op), listed)
        except Refused:
            entry = op
        else:
            if op["op"] != _NEVER_COLLIDES:
                if _key(op) in claimed:
                    marked |= {_key(other) for other in listed if _is_marked_by(op, other)}
                    entry = op
                claimed.add(_key(op))
        listed.append(entry)
    return marked


def _is_marked_by(op: Json, other: Json) -> bool:
    """Check whether the collision of `op` also refuses an earlier operation; renewals are spared."""
    kinds = {"&"} if op["op"] == "&" else {":", ";"}
    return other["op"] in kinds and _key(other) == _key(op)


def _key(op: Json) -> str:
    key: str = op[_KEY_FIELDS[op["op"]]]
    return key
