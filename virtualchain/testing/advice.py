"""How to write correctly what a check found to be wrong."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_TYPES: Final = (
    "check in `parse` that what a payload says has the type you expect, and return `Rejected` if not; fields "
    "with types, as in `fields={'word': Text(64)}`, have the engine do that"
)
_PARSE: Final = (
    "in `parse`, return None or `Rejected`, or raise ValueError, for a payload that is not well-formed "
    "(docs/mistakes.md#payloads)"
)
_CONSTRAINT: Final = (
    "look in `check` for the row in the way, and return `Rejected`; or write INSERT … ON CONFLICT DO NOTHING"
)
_TEXT: Final = (
    "read text in Python, in `parse`, and pass the value as a parameter of its own type: what a cast of text "
    "means depends on the server's version, clock and settings"
)
_SIZE: Final = (
    "reject in `parse` what is longer than 2,000 bytes, the limit of a key, or store its hash as the key"
)
_REFUSE: Final = (
    "return `Rejected` for an input that is to be refused, or False in `check`: a ValueError refuses it only "
    "in `parse`, and any other exception halts the app"
)
_ROWS: Final = 'write row["name"]: rows, ops and senders are dicts; name what SQL computes with AS'
_STATE: Final = (
    "ask `state` for what it has: execute, query, one, table, consensus_hash, is_fresh, block_id and "
    "block_time; the transaction is the engine's (docs/apps.md#the-state)"
)
_RANGE: Final = "check the range in `parse`, or declare it: `fields={'n': Integer(0, 2**63 - 1)}`"

_BY_ERROR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AmbiguousFunction": _TYPES,
        "DatatypeMismatch": _TYPES,
        "UndefinedFunction": _TYPES,
        "TypeError": _TYPES,
        "AttributeError": _TYPES,
        "IndexError": _PARSE,
        "KeyError": _PARSE,
        "AssertionError": _PARSE,
        "ValueError": _REFUSE,
        "UniqueViolation": _CONSTRAINT,
        "ExclusionViolation": _CONSTRAINT,
        "NotNullViolation": "give the column a value, or return `Rejected` in `check` if there is none",
        "CheckViolation": "check the same condition in `check`, and return `Rejected` if it does not hold",
        "ForeignKeyViolation": "look in `check` for the row that it refers to, or return `Rejected`",
        "RecursionError": "parse JSON with `virtualchain.parse_json`, which allows 64 levels on every node "
        "(docs/mistakes.md#json)",
        "ProgramLimitExceeded": _SIZE,
        "StatementTooComplex": "parse nested values in Python, and limit how deep they are",
        "InvalidTextRepresentation": _TEXT,
        "InvalidDatetimeFormat": _TEXT,
        "DatetimeFieldOverflow": _TEXT,
        "UntranslatableCharacter": "reject text with a NUL in `parse`: no column can hold it",
        "NumericValueOutOfRange": _RANGE,
        "OverflowError": _RANGE,
    }
)

_BY_MESSAGE: Final = (
    (r"docs/mistakes\.md#|positional argument|keyword argument|is not callable|values are passed", None),
    (r"exceptions must derive from BaseException", "write `return Rejected(…)`, not `raise`"),
    (r"'State' object has no attribute", _STATE),
    (r"'int' object has no attribute 'fetch", "read with `state.query` or `state.one`; execute counts rows"),
    (r"'dict' object has no attribute|KeyError: \d+$", _ROWS),
)
"""What to write instead of an error whose class says too little; None if its text says it."""
_VAGUE: Final = frozenset({"AttributeError", "KeyError", "TypeError"})

SAME_EVERYWHERE: Final = (
    "let a verdict depend only on the chain and on the app's tables: add ORDER BY to a query that returns "
    "several rows, sort sets, and use no clock, chance, environment variable or state outside the tables "
    "(docs/mistakes.md#order-by)"
)

UNDONE_WITH_ITS_BLOCK: Final = (
    "keep state in the app's tables alone: what a variable, an attribute or a file keeps is not undone with "
    "its block when the chain forks"
)


def advice_for(error: str) -> str | None:
    """Return how to avoid an error, given as its class and text."""
    kind = error.partition(":")[0].strip()
    if kind in _VAGUE:
        for message, advice in _BY_MESSAGE:
            if re.search(message, error):
                return advice
    return _BY_ERROR.get(kind)
