"""`Table`: one projection as reducers read and write it, row by row, without SQL."""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from virtualchain.errors import UsageError
from virtualchain.store.failures import Refused

if TYPE_CHECKING:
    from virtualchain.store.columns import Shape, Values
    from virtualchain.store.rows import Rows

_MOST_FOUND: Final = 2**62
"""A limit that none reaches, and that fits what the server takes as one."""
Row = TypeVar("Row", bound=Mapping[str, Any])
"""What its rows are for a type checker: a TypedDict, or any dict."""


class Table(Generic[Row]):
    """One projection, row by row. A key is a value, or for a key of several columns a tuple.

    A row is read at most once a block. What is changed is written later, and constraints are checked then. A
    value that does not fit its column rejects the input; one of another type is an error of the app.
    """

    def __init__(self, rows: "Rows") -> None:
        self._rows = rows

    @property
    def name(self) -> str:
        """The table's name."""
        return self._rows.shape.table

    @property
    def shape(self) -> "Shape":
        """Its columns and its key; for the engine."""
        return self._rows.shape

    # Reading.

    @overload
    def get(self, key: object) -> Row | None: ...
    @overload
    def get(self, key: object, default: Row) -> Row: ...
    def get(self, key: object, default: Row | None = None) -> Row | None:
        """Return the row with this key as a dict; if there is none, a copy of `default`, or None."""
        values = self._rows.shape.find_key(key)
        row = None if values is None else self._rows.row(values).now
        if row is not None:
            return self._dict(row)
        return None if default is None else cast("Row", dict(default))

    def __contains__(self, key: object) -> bool:
        """Return whether there is a row with this key."""
        values = self._rows.shape.find_key(key)
        return values is not None and self._rows.row(values).now is not None

    def find(self, *prefix: object, limit: int | None = None, backwards: bool = False) -> list[Row]:
        """Return the rows whose key begins with these values, in the order of their keys, or backwards.

        With a `limit` these are the first so many, and no more are read; then there may be no values at all,
        for the whole table. Raises UsageError for no or too many values, and for a limit below zero.
        """
        if limit is not None and limit < 0:
            raise UsageError(f"table {self.name}: find with a limit of {limit}")
        values = self._rows.shape.find_prefix(prefix, may_be_empty=limit is not None)
        if values is None:
            return []
        if limit is not None:
            most = min(limit, _MOST_FOUND)
            return [self._dict(row) for row in self._rows.edge(values, most, backwards=backwards)]
        rows = self._rows.beginning_with(values)
        return [self._dict(row) for row in (reversed(rows) if backwards else rows)]

    def first(self, *prefix: object) -> Row | None:
        """Return the first row whose key begins with these values, in the order of their keys, or None."""
        return next(iter(self.find(*prefix, limit=1)), None)

    def last(self, *prefix: object) -> Row | None:
        """Return the last row whose key begins with these values, in the order of their keys, or None."""
        return next(iter(self.find(*prefix, limit=1, backwards=True)), None)

    # Writing.

    def put(self, row: Row) -> None:
        """Insert a row, or replace the one with its key; a column that is left out gets its default."""
        values = self._rows.shape.row(row)
        self._rows.change(self._rows.shape.key_of(values), values)

    def append(self, row: Mapping[str, object]) -> int:
        """Insert a row at the end of a list, and return its number, which is the last column of the key.

        The rows that share all other columns of the key are one list. The number is that of its last row and
        1, or 0 in an empty list. Raises UsageError if the row has that column, or if it is no integer.
        """
        shape = self._rows.shape
        column = shape.columns[shape.key[-1]]
        if not column.is_integer or column.name in row:
            raise UsageError(
                f"table {self.name}: append numbers the rows in {column.name}, the last column of the key: "
                + ("leave it out" if column.is_integer else f"its type must be an integer, not {column.type}")
            )
        values = shape.row({**row, column.name: 0})
        last = self._rows.edge(shape.key_of(values)[:-1], 1, backwards=True)
        number: int = last[0][shape.key[-1]] + 1 if last else 0
        values = shape.row({**row, column.name: number})
        self._rows.change(shape.key_of(values), values)
        return number

    def update(self, key: object, /, **columns: object) -> bool:
        """Set columns of the row with this key; return whether there is one. The key itself cannot change."""
        shape = self._rows.shape
        values = shape.find_key(key)
        row = None if values is None else self._rows.row(values).now
        if values is None or row is None:
            return False
        new = list(row)
        for name, value in columns.items():
            place = shape.place(name)
            if place in shape.key:
                raise UsageError(f"table {self.name}: update cannot change {name}, which is of the key")
            new[place] = shape.columns[place].fit(value)
        shape.check(new)
        self._rows.change(values, tuple(new))
        return True

    def add(self, key: object, /, **amounts: object) -> Row:
        """Add amounts to columns of a row, and return it; null counts as 0.

        If there is no such row, they are added to one with the columns' defaults.
        """
        shape = self._rows.shape
        fitted = shape.fit_key(key)
        row = list(self._row_or_default(fitted))
        for name, amount in amounts.items():
            place = shape.place(name)
            row[place] = shape.columns[place].add(row[place], amount)
        shape.check(row)
        self._rows.change(fitted, tuple(row))
        return self._dict(row)

    def spend(self, key: object, reason: str | None = None, /, **amounts: object) -> Row:
        """Take amounts from columns of a row, and return it; if less is there, the input is rejected.

        It is also rejected for an amount below zero; `reason` is recorded. Nothing is written then. Each
        amount is first rounded as its column rounds it. A row that is not there has the columns' defaults.
        """
        fitted = self._rows.shape.fit_key(key)
        row = self._less(fitted, self._amounts(amounts, reason), reason)
        self._rows.change(fitted, row)
        return self._dict(row)

    def move(self, giver: object, taker: object, reason: str | None = None, /, **amounts: object) -> None:
        """Take amounts from columns of one row as `spend` does, and add them to those of another.

        What one row loses, the other gains; nobody gains by a move to themselves. The input is rejected, and
        nothing is written, if `spend` rejects it, or if the sum does not fit the other row.
        """
        shape = self._rows.shape
        from_key, to_key = shape.fit_key(giver), shape.fit_key(taker)
        fitted = self._amounts(amounts, reason)
        lessened = self._less(from_key, fitted, reason)
        taken = list(lessened if from_key == to_key else self._row_or_default(to_key))
        for name, amount in fitted.items():
            place = shape.place(name)
            taken[place] = shape.columns[place].add(taken[place], amount)
        shape.check(taken)
        shape.check_sizes(self._rows.row(from_key).now, lessened)  # before anything is written
        self._rows.change(to_key, tuple(taken))
        if from_key != to_key:
            self._rows.change(from_key, lessened)

    def delete(self, key: object) -> bool:
        """Delete the row with this key; return whether there was one."""
        values = self._rows.shape.find_key(key)
        if values is None or self._rows.row(values).now is None:
            return False
        self._rows.change(values, None)
        return True

    def pop(self, *prefix: object, last: bool = True) -> Row | None:
        """Delete the last row whose key begins with these values, or the first; return it, or None."""
        row = self.last(*prefix) if last else self.first(*prefix)
        if row is not None:
            shape = self._rows.shape
            self._rows.change(shape.key_of(tuple(row.values())), None)
        return row

    def _dict(self, row: "list[Any] | Values") -> Row:
        return dict(zip(self._rows.shape.names, row, strict=True))  # type: ignore[return-value]  # as its caller says

    def _row_or_default(self, key: "Values") -> "Values":
        return self._rows.row(key).now or self._rows.shape.default_row(key)

    def _amounts(self, amounts: Mapping[str, object], reason: str | None) -> dict[str, Any]:
        """Return amounts as their columns would store them; refuse those below zero."""
        shape = self._rows.shape
        fitted: dict[str, Any] = {}
        for name, amount in amounts.items():
            fitted[name] = shape.columns[shape.place(name)].fit_amount(amount)
            if fitted[name] < 0:
                raise Refused(reason or f"{self.name}: {name} cannot be moved by {fitted[name]}, below zero")
        return fitted

    def _less(self, key: "Values", amounts: Mapping[str, Any], reason: str | None) -> "Values":
        """Return the row with a key less some amounts; refuse the input if a column would be below zero."""
        shape = self._rows.shape
        row = list(self._row_or_default(key))
        for name, amount in amounts.items():
            place = shape.place(name)
            taken = amount.copy_negate() if isinstance(amount, Decimal) else -amount  # exact, as - is not
            left = shape.columns[place].add(row[place], taken)
            if left < 0:
                who = ", ".join(map(str, key))
                raise Refused(
                    reason or f"{self.name} {who}: {name} is {row[place] or 0}, and {amount} would be taken"
                )
            row[place] = left
        shape.check(row)
        return tuple(row)
