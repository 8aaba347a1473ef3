"""The columns of a projection as Python sees them: what fits, what the server makes of it, and its text.

A value that is checked here has the effect that it has in a statement: one that does not fit rejects the
input, and one of another type is an error of the app (docs/determinism.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cached_property
from operator import is_
from typing import Any, Final

from virtualchain.consensus.state_hash import row_json
from virtualchain.errors import UsageError
from virtualchain.store.failures import ValueDoesNotFit
from virtualchain.store.projections import MOST_BYTES
from virtualchain.store.values import base_value, to_database

Values = tuple[Any, ...]
"""The values of a row, or of a key, in the order of the columns."""

_INTEGERS: Final = {f"int{size}": range(-(1 << 8 * size - 1), 1 << 8 * size - 1) for size in (2, 4, 8)}
"""The values of each type."""
_KINDS: Final = {
    "bool": bool,
    "int2": int,
    "int4": int,
    "int8": int,
    "numeric": Decimal,
    "text": str,
    "varchar": str,
    "bytea": bytes,
}
_NUMBERS: Final = (int, Decimal)
_EXACT: Final = Context(prec=4200)
"""Room for the sum of two numbers of as many digits as may cross to the database."""
_OWN_TEXT: Final = frozenset({int, str})
"""Types whose values are as Python writes them."""
_FIXED_SIZES: Final = {"bool": 1, "int2": 2, "int4": 4, "int8": 8}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of one of the types that `Table` takes."""

    name: str
    kind: str
    """The type as the catalog names it."""
    modifier: int
    """Its length, or precision and scale, as the catalog encodes them; -1 if it has none."""
    type: str
    """The type as statements name it."""
    is_required: bool
    default: object = None

    @property
    def is_known(self) -> bool:
        """Whether it has one of the types that Python can handle as the server does."""
        return self.kind in _KINDS

    @property
    def has_one_text(self) -> bool:
        """Whether equal values have the same text, unlike 1.0 and 1.00."""
        return self.kind != "numeric" or self.modifier >= 0

    @property
    def is_integer(self) -> bool:
        """Whether it holds whole numbers of up to 64 bits."""
        return self.kind in _INTEGERS

    def fit(self, value: object) -> Any:  # noqa: ANN401 - what the column holds
        """Return what the server would store of a value.

        Raises TypeError for a value of another type, ValueDoesNotFit and Unserializable for one that does
        not fit.
        """
        kind = type(value)
        if kind is int and value in _INTEGERS.get(self.kind, ()):
            return value  # nearly always
        if kind is str and self.kind == "text" and value.isascii() and "\0" not in value:  # type: ignore[attr-defined,operator] # it is text
            return value  # nearly always, too
        value = base_value(value)
        if value is None:
            return None
        expected = _KINDS[self.kind]
        kind = type(value)
        if kind is not expected and not (expected in _NUMBERS and kind in _NUMBERS):
            raise TypeError(f"column {self.name} has the type {self.type}: {value!r} does not")
        to_database(value, self.name)
        match value:
            case str():
                return self._text(value)
            case int() | Decimal() if kind in _NUMBERS:
                return self._number(value)
        return value

    def add(self, value: object, amount: object) -> Any:  # noqa: ANN401 - as above
        """Return the sum of a stored value, or of 0 in place of null, and an amount."""
        if type(value) is int and type(amount) is int and value + amount in _INTEGERS.get(self.kind, ()):
            return value + amount  # nearly always
        return self.fit(_sum(0 if value is None else value, self._number_of(amount)))

    def fit_amount(self, amount: object) -> Any:  # noqa: ANN401 - as above
        """Return an amount as the column would store it: rounded to its scale."""
        return self.fit(self._number_of(amount))

    def _number_of(self, amount: object) -> object:
        if type(amount) is int and self.kind in _INTEGERS and amount in _INTEGERS["int8"]:
            return amount  # nearly always
        amount = base_value(amount)
        if type(amount) not in _NUMBERS or _KINDS[self.kind] not in _NUMBERS:
            raise TypeError(f"column {self.name} has the type {self.type}: {amount!r} cannot be added to it")
        to_database(amount, self.name)
        return amount

    def text(self, value: object) -> str | None:
        """Return the text of a stored value, as the type's output function writes it."""
        match value:
            case None:
                return None
            case bool():
                return "t" if value else "f"
            case bytes():
                return f"\\x{value.hex()}"
            case Decimal():
                return f"{value:f}"
        return str(value)

    def size(self, value: object) -> int:
        """Return how many bytes a stored value takes in an index, as the trigger of the table counts."""
        if self.kind in _FIXED_SIZES:
            return _FIXED_SIZES[self.kind]
        match value:
            case None:
                return 0
            case bytes():
                return len(value)
        return len((self.text(value) or "").encode())

    def _text(self, value: str) -> str:
        longest = self.modifier - 4
        if self.kind == "varchar" and self.modifier >= 0 and len(value) > longest:
            if value[longest:].strip(" "):
                raise ValueDoesNotFit
            return value[:longest]
        return value

    def _number(self, value: int | Decimal) -> int | Decimal:
        if self.kind == "numeric":
            return self._numeric(Decimal(value))
        if isinstance(value, Decimal):  # as an assignment rounds it
            value = int(value.quantize(Decimal(1), ROUND_HALF_UP, _EXACT))
        if value not in _INTEGERS[self.kind]:
            raise ValueDoesNotFit
        return value

    def _numeric(self, value: Decimal) -> Decimal:
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int), "to_database refuses what is not finite"
        if self.modifier >= 0:
            precision = ((self.modifier - 4) >> 16) & 0xFFFF
            scale = (((self.modifier - 4) & 0x7FF) ^ 1024) - 1024
            value = value.quantize(Decimal(1).scaleb(-scale, _EXACT), ROUND_HALF_UP, _EXACT)
            if value and value.adjusted() >= precision - scale:
                raise ValueDoesNotFit
            exponent = -scale
        if exponent > 0:
            value = value.quantize(Decimal(1), context=_EXACT)
        return value or value.copy_abs()


@dataclass(frozen=True)
class Shape:
    """The columns of a table, which of them are its key, and which make up each index of varying size."""

    table: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    """Places of the key's columns, in the order of the key."""
    indexes: tuple[tuple[int, ...], ...]
    """Places of the columns of each index with entries of different sizes."""
    has_computed_check: bool = False
    """Whether a check computes something, which may not fit although the row's values do."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def of_varying_size(self) -> tuple[int, ...]:
        """Places of the columns whose values may be of any size."""
        return tuple(n for n, column in enumerate(self.columns) if column.kind not in _FIXED_SIZES)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def place(self, name: str) -> int:
        """Return the place of a column; raise UsageError if there is none."""
        if name not in self._places:
            raise UsageError(f"table {self.table} has no column {name}; it has {', '.join(self.names)}")
        return self._places[name]

    def key_of(self, row: Values) -> Values:
        """Return the key of a row."""
        return tuple(row[place] for place in self.key)

    def fit_key(self, key: object) -> Values:
        """Return a key as the server would store it; raise as `Column.fit` does."""
        if type(key) is int and key in self._integer_keys:
            return (key,)
        return self._fit(self._parts(key))

    def find_key(self, key: object) -> Values | None:
        """Return a key by which to look for a row; None if no row can have it."""
        if type(key) is int and key in self._integer_keys:
            return (key,)
        return self._find(self._parts(key))

    def find_prefix(self, prefix: tuple[object, ...], *, may_be_empty: bool = False) -> Values | None:
        """Return the beginning of a key by which to look for rows; None if no row can have it."""
        if not (0 if may_be_empty else 1) <= len(prefix) < len(self.key):
            raise UsageError(f"keys of table {self.table} do not begin with {len(prefix)} values: {prefix!r}")
        return self._find(prefix)

    def row(self, values: Mapping[str, object]) -> Values:
        """Return a row as the server would store it; what is left out gets its default."""
        for name in values:
            self.place(name)
        row = tuple(
            column.fit(values[column.name]) if column.name in values else column.default
            for column in self.columns
        )
        self.check(row)
        return row

    def default_row(self, key: Values) -> Values:
        """Return a row with this key, and defaults for all else."""
        row = [column.default for column in self.columns]
        for place, part in zip(self.key, key, strict=True):
            row[place] = part
        return tuple(row)

    def check(self, row: Sequence[object]) -> None:
        """Raise UsageError if a column is null that may not be."""
        if None not in row:
            return
        for column, value in zip(self.columns, row, strict=True):
            if value is None and column.is_required:
                raise UsageError(f"column {column.name} of table {self.table} may not be null")

    def check_sizes(self, before: Values | None, row: Values) -> None:
        """Raise ValueDoesNotFit if a new entry is too long for an index; an older one may stay."""
        for index in self.indexes:
            is_new = before is None or any(before[place] != row[place] for place in index)
            if is_new and sum(self.columns[place].size(row[place]) for place in index) > MOST_BYTES:
                raise ValueDoesNotFit

    def as_json(self, row: Values) -> bytes:
        """Write a row as digests hash it: the table's name, and the text of each column."""
        columns = zip(self.columns, row, strict=True)
        return row_json(self.table, [str(v) if type(v) in _OWN_TEXT else c.text(v) for c, v in columns])

    @cached_property
    def _key_columns(self) -> tuple[Column, ...]:
        return tuple(self.columns[place] for place in self.key)

    @cached_property
    def _integer_keys(self) -> Sequence[int]:
        """The keys that are one integer; none if keys are anything else."""
        return _INTEGERS.get(self._key_columns[0].kind, ()) if len(self.key) == 1 else ()

    def _fit(self, parts: tuple[object, ...]) -> Values:
        """Return values of the key's columns, or the first of them, as the server would store them."""
        return tuple([column.fit(part) for column, part in zip(self._key_columns, parts, strict=False)])

    def _find(self, parts: tuple[object, ...]) -> Values | None:
        """Return what `_fit` does; None if no row can have these values."""
        try:
            fitted = self._fit(parts)
        except ValueDoesNotFit:
            return None
        is_same = all(map(is_, fitted, parts)) or fitted == tuple(map(base_value, parts))
        return fitted if is_same and None not in fitted else None

    def _parts(self, key: object) -> tuple[object, ...]:
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) != len(self.key):
            names = ", ".join(self.columns[place].name for place in self.key)
            raise UsageError(f"a key of table {self.table} consists of {names}: {key!r} does not")
        return parts


def _sum(value: object, amount: object) -> int | Decimal:
    if isinstance(value, int) and isinstance(amount, int):
        return value + amount
    return _EXACT.add(Decimal(value), Decimal(amount))  # type: ignore[arg-type]  # numbers both
