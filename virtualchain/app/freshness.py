"""Fresh hashes: which field of an op must be the consensus hash of a recent block, and why one is not.

What is fresh is in docs/protocol/consensus.md, Staleness.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final, TypeGuard

_DEFAULT_FIELD: Final = "consensus_hash"
_HASH: Final = re.compile(r"[0-9a-f]{32}")
_LARGEST: Final = 2**31 - 1

FreshFields = Mapping[bytes, tuple[tuple[int, str | None], ...]]
"""By opcode, from which block on which field must be a fresh hash (None: none must), in order."""


def is_hash(value: object) -> TypeGuard[str]:
    """Return whether a value is written as consensus hashes are: text of 32 lower-case hex digits."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def fresh_field(value: object) -> str | None:
    """Read `requires_fresh_hash`: the field that must be a fresh hash; None if none must.

    Raises TypeError for anything but True, False and the name of a field.
    """
    if isinstance(value, bool):
        return _DEFAULT_FIELD if value else None
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is not True, False or the name of a field")
    return value


def read_fresh_fields(value: object, opcodes: Iterable[bytes]) -> FreshFields:
    """Read what `get_requires_fresh_hash` returns; raises TypeError, with the reason, if it is invalid.

    It is what `fresh_field` reads, for all opcodes; or that by opcode, and others need none; or either of
    these by the block from which it applies.
    """
    known = sorted(opcodes)
    rules: dict[bytes, list[tuple[int, str | None]]] = {opcode: [] for opcode in known}
    for from_block, declared in sorted(_by_block(value), key=itemgetter(0)):
        for opcode, field in _by_opcode(declared, known):
            before = rules[opcode][-1][1] if rules[opcode] else None
            if field != before:  # what changes nothing must not change the fingerprint
                rules[opcode].append((from_block, field))
    return {opcode: tuple(fields) for opcode, fields in rules.items() if fields}


def _by_block(value: object) -> Iterator[tuple[int, object]]:
    if not isinstance(value, Mapping) or not any(isinstance(key, int) for key in value):
        yield 0, value
        return
    for from_block, declared in value.items():
        if not isinstance(from_block, int) or isinstance(from_block, bool) or not 0 <= from_block <= _LARGEST:
            raise TypeError(f"{from_block!r} is not a height")
        yield from_block, declared


def _by_opcode(declared: object, opcodes: Collection[bytes]) -> Iterator[tuple[bytes, str | None]]:
    if not isinstance(declared, Mapping):
        field = fresh_field(declared)
        yield from ((opcode, field) for opcode in opcodes)
        return
    for key, value in declared.items():
        opcode = key.encode() if isinstance(key, str) else key
        if opcode not in opcodes:
            raise TypeError(f"{key!r} is not one of its opcodes")
        yield opcode, fresh_field(value)


def malformed(field: str, op: Mapping[str, object]) -> str | None:
    """Return why a field of an op is not written as a consensus hash; None if it is."""
    if field not in op:
        return f"field {field!r} is missing; it must be the consensus hash of a recent block"
    value = op[field]
    if is_hash(value):
        return None
    problem = "not that" if isinstance(value, str) else f"a value of type {type(value).__name__}"
    return f"field {field!r}: {problem}; it must be a consensus hash, as 32 lower-case hex digits"


def staleness(consensus_hash: str, known_at: int | None, block_id: int, window: int) -> str | None:
    """Return why a hash is not fresh at a block; None if it is.

    `known_at` is the newest block before it with this hash; None: there is none. `window` is S.
    """
    if known_at is None:
        return f"unknown: no block before this one has the consensus hash {consensus_hash}"
    age = block_id - known_at
    if age <= window:
        return None
    return (
        f"stale: {consensus_hash} is the consensus hash of block {known_at}, {age} blocks ago; "
        f"the window is {window}"
    )
