"""What a scenario expects of an app, compared with what the app has, and the difference for people."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.app.contract import Contract
from virtualchain.app.encoding import find_opcode
from virtualchain.app.fields import opcode_text
from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.store.builds import live_build
from virtualchain.store.database import connect_reader
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.sql import queries
from virtualchain.testing.tracing import shortened
from virtualchain.testing.transactions import Key

_Q = queries("testing")
_AROUND: Final = 60
"""Characters before and after the first difference of long values."""
_MOST_LED: Final = 40
"""Lines that are shown of what led to a difference."""
_PLAIN: Final = (bool, int, float, Decimal, str, bytes, bytearray)
"""Types whose values are checked against the column's; anything else may compare as it likes."""
_TAKES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "bool": ((bool,), "True or False"),
    "bytea": ((bytes, bytearray), "bytes"),
    "numeric": ((int, Decimal), "an int or a Decimal"),
    **dict.fromkeys(("int2", "int4", "int8"), ((int,), "an int")),
    **dict.fromkeys(("text", "varchar", "bpchar"), ((str,), "text")),
}
"""The types of values that columns of a type have, and what they are called."""
_HINTS: Final[Mapping[tuple[bool, type], str]] = {
    (True, str): "; bytes.fromhex(…) makes bytes of hex",
    (False, bytes): "; .hex() makes text of bytes",
}

E = TypeVar("E")
A = TypeVar("A")


class Unexpected(VirtualchainError, AssertionError):
    """An app has not what the test expects; the message shows what differs, and what led there."""


@dataclass(slots=True)
class Names:
    """What transactions, scripts and addresses are called in a story."""

    transactions: dict[str, str] = field(default_factory=dict)
    """By txid."""
    _keys: dict[bytes, Key] = field(default_factory=dict)
    _addresses: dict[str, str] = field(default_factory=dict)

    def add_key(self, owner: Key) -> None:
        """Add a key that somebody has."""
        if owner.script_pubkey not in self._keys:
            self._keys[owner.script_pubkey] = owner
            self._addresses[owner.address("regtest")] = owner.name

    def owner_of(self, script: bytes) -> Key | None:
        """Return the key that owns an output script."""
        return self._keys.get(script)

    def show(self, value: object) -> str:
        """Write a value for people, with names after the addresses in it."""
        text = repr(value)
        for address, name in self._addresses.items():
            text = text.replace(address, f"{address} ({name})")
        return shortened(text)

    def show_both(self, actual: object, expected: object) -> str:
        """Write two values that differ; of long ones, what is around the first difference."""
        shown, other_text = self.show(actual), self.show(expected)
        if shown == other_text:
            one, other = repr(actual), repr(expected)
            pairs = enumerate(zip(one, other, strict=False))
            at = next((place for place, (mine, its) in pairs if mine != its), min(len(one), len(other)))
            cut = slice(max(0, at - _AROUND), at + _AROUND)
            shown, other_text = f"…{one[cut]}…", f"…{other[cut]}… (from character {cut.start} on)"
        return f"{shown}, expected {other_text}"

    def show_fields(self, fields: Mapping[str, object]) -> str:
        """Write an op or a row."""
        return " ".join(f"{name}={self.show(value)}" for name, value in fields.items()) or "no fields"


@dataclass(frozen=True, slots=True)
class Op:
    """An op that was accepted."""

    block_id: int
    txid: str
    opcode: bytes
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An input that was rejected."""

    block_id: int
    txid: str
    step: str
    reason: str


class Book:
    """What an app has in a database, as of its last block."""

    def __init__(self, url: str, contract: Contract, names: Names, block_id: int) -> None:
        self.contract = contract
        self.names = names
        self.block_id = block_id
        self._url = url

    def ops(self) -> list[Op]:
        """Return all ops, in order."""
        ops = []
        for block_id, txid, opcode, fields in self._read("ops_of_app"):
            several = fields if isinstance(fields, list) else [fields]
            ops += [Op(block_id, txid, bytes(opcode), each) for each in several]
        return ops

    def rejections(self) -> list[Rejection]:
        """Return all rejections, in order."""
        return [Rejection(*row) for row in self._read("rejections_of_app")]

    def state_hash(self) -> str | None:
        """Return the state hash at the last block."""
        return self._hash("state_hash")

    def consensus_hash(self) -> str | None:
        """Return the consensus hash at the last block."""
        return self._hash("consensus_hash")

    def tables(self) -> "dict[str, Table]":
        """Return the tables with their rows."""
        with closing(connect_reader(self._url)) as connection:
            live = live_build(connection, self.contract.name)
            installed = [] if live is None else projections(connection, build_schema(live.schema, live.name))
            return {item.name: Table.read(connection, item) for item in installed}

    def opcode(self, code: bytes) -> str:
        """Return an opcode as people read it: its handler's name, if it has one."""
        names = [name for name, codes in self.contract.opcode_names.items() if codes == {code}]
        return min(names, key=len) if names else opcode_text(code) if code else "payload"

    def course(self, first: int) -> list[str]:
        """Describe, block by block, what became of the inputs in the blocks from the `first` one on."""
        verdicts: dict[int, dict[str, list[str]]] = {}
        for op in self.ops():
            verdicts.setdefault(op.block_id, {}).setdefault(op.txid, []).append("accepted")
        for item in self.rejections():
            verdict = f"rejected in {item.step}: {item.reason}"
            verdicts.setdefault(item.block_id, {}).setdefault(item.txid, []).append(verdict)
        lines = [
            f"block {block_id}: {self.names.transactions.get(txid, txid)}: {', '.join(of_tx)}"
            for block_id, txs in sorted(verdicts.items())
            if block_id >= first
            for txid, of_tx in txs.items()
        ]
        left_out = len(lines) - _MOST_LED
        return lines if left_out <= 0 else [f"({left_out} earlier inputs)", *lines[left_out:]]

    def _hash(self, name: str) -> str | None:
        rows = self._read("hashes_of_app")
        return None if not rows else rows[0][("consensus_hash", "state_hash").index(name)]

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with closing(connect_reader(self._url)) as connection:
            return connection.execute(_Q[query], {"app": self.contract.name}).fetchall()


@dataclass(frozen=True, slots=True)
class Table:
    """A projection, with the type of each column, and all rows."""

    name: str
    key: tuple[str, ...]
    types: Mapping[str, str]
    rows: Sequence[Mapping[str, object]]

    @classmethod
    def read(cls, connection: psycopg.Connection, item: Projection) -> "Table":
        """Read a table, in the order of its key."""
        columns, key = (sql.SQL(", ").join(map(sql.Identifier, names)) for names in (item.columns, item.key))
        statement = sql.SQL(_Q["rows"]).format(columns=columns, table=item.table, key=key)
        with connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement)
            types = {
                column.name: _type_name(connection, column.type_code) for column in cursor.description or ()
            }
            return cls(item.name, item.key, types, cursor.fetchall())

    def check(self, expected: Sequence[Mapping[str, object]]) -> None:
        """Raise UsageError if no row of the table can be as expected."""
        for row in expected:
            if not isinstance(row, Mapping):
                raise UsageError(f"rows of {self.name}: a row is a dict of its columns, not {row!r}")
            for column, value in row.items():
                if column not in self.types:
                    known = ", ".join(self.types)
                    raise UsageError(f"table {self.name} has no column {column!r}: it has {known}")
                problem = _problem(self.types[column], value)
                if problem is not None:
                    raise UsageError(f"column {self.name}.{column} is {self.types[column]}: {problem}")


def _type_name(connection: psycopg.Connection, oid: int) -> str:
    known = connection.adapters.types.get(oid)
    if known is None:
        return "another type"
    return known.name if known.oid == oid else f"{known.name}[]"


def _problem(kind: str, value: object) -> str | None:
    """Return why a column of this type never has such a value; None if it may."""
    if value is None or type(value) not in _PLAIN or kind not in _TAKES:
        return None
    types, called = _TAKES[kind]
    if isinstance(value, types) and (kind == "bool" or not isinstance(value, bool)):
        return None
    hint = _HINTS.get((kind == "bytea", type(value)), "")
    return f"expect {called}, not the {type(value).__name__} {shortened(repr(value))}{hint}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an app should have; None if it does not matter."""

    rows: Mapping[str, Sequence[Mapping[str, object]]] | None
    ops: Sequence[Mapping[str, object]] | None
    rejections: Sequence[tuple[str, str]] | None
    consensus_hash: str | None
    state_hash: str | None

    def is_empty(self) -> bool:
        """Return whether nothing matters."""
        parts = (self.rows or None, self.ops, self.rejections, self.consensus_hash, self.state_hash)
        return all(part is None for part in parts)

    def compare(self, book: Book) -> list[str]:
        """Describe what differs; nothing if all is as expected. Raises UsageError as `Story.expect`."""
        lines: list[str] = []
        if self.rows is not None:
            lines += self._compare_rows(book, self.rows)
        if self.ops is not None:
            lines += _compare_ops(book, self.ops)
        if self.rejections is not None:
            lines += _compare_rejections(book, self.rejections)
        for name, expected in (("consensus_hash", self.consensus_hash), ("state_hash", self.state_hash)):
            actual = getattr(book, name)() if expected is not None else None
            if actual != expected:
                lines.append(f"{name}: is {actual}, expected {expected}")
        return lines

    @staticmethod
    def _compare_rows(book: Book, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Iterator[str]:
        tables = book.tables()
        for name, expected in rows.items():
            if name not in tables:
                known = ", ".join(tables) or "none"
                raise UsageError(f"app {book.contract.name} has no table {name!r}: its tables are {known}")
            tables[name].check(expected)
            yield from _compare_table(book.names, tables[name], expected)


def _compare_table(names: Names, table: Table, expected: Sequence[Mapping[str, object]]) -> Iterator[str]:
    extra, missing = _unmatched(table.rows, expected)
    if not extra and not missing:
        return
    yield f"table {table.name} has {_count(len(table.rows), 'row')}, expected {len(expected)}:"
    for row in list(missing):
        match = _nearest(table, row, extra)
        if match is not None:
            missing.remove(row)
            extra.remove(match)
            key = {column: match[column] for column in table.key}
            yield f"  differs: {names.show_fields(key)}"
            for column, value in row.items():
                if not _same(match[column], value):
                    yield f"    {column} is {names.show_both(match[column], value)}"
    for row in missing:
        yield f"  missing: {names.show_fields(row)}"
    shown = {column for row in expected for column in row} | set(table.key)
    for row in extra:
        of_interest = {column: value for column, value in row.items() if not expected or column in shown}
        yield f"  extra: {names.show_fields(of_interest)}"


def _unmatched(
    rows: Sequence[Mapping[str, object]], expected: Sequence[Mapping[str, object]]
) -> tuple[list[Mapping[str, object]], list[Mapping[str, object]]]:
    """Pair as many rows as possible with what is expected, in any order; return both lists without the pairs.

    An expected row with few columns may agree with several rows: it gives one up to another that needs it.
    """
    agreeing = [[place for place, row in enumerate(rows) if _agrees(each, row)] for each in expected]
    taken: dict[int, int] = {}
    """Which expected row has each row, by their places."""
    for number in range(len(expected)):
        came_from: dict[int, int] = {}
        """By which expected row each row was reached first."""
        waiting = deque([number])
        while waiting:
            asking = waiting.popleft()
            for place in agreeing[asking]:
                if place not in came_from:
                    came_from[place] = asking
                    if place in taken:
                        waiting.append(taken[place])
                        continue
                    waiting.clear()
                    _hand_over(place, number, came_from, taken)
                    break
    pairs = set(taken.values())
    extra = [row for place, row in enumerate(rows) if place not in taken]
    return extra, [each for number, each in enumerate(expected) if number not in pairs]


def _hand_over(free: int, number: int, came_from: Mapping[int, int], taken: dict[int, int]) -> None:
    """Pass a free row to the expected one that reached it, the row which that had to the next, and so on."""
    place = free
    while True:
        asking = came_from[place]
        before = next((each for each, owner in taken.items() if owner == asking), None)
        taken[place] = asking
        if asking == number or before is None:
            return
        place = before


def _agrees(expected: Mapping[str, object], actual: Mapping[str, object]) -> bool:
    return all(_same(actual[column], value) for column, value in expected.items())


def _same(actual: object, expected: object) -> bool:
    """Compare two values; Python takes True for 1, which no column and no op does."""
    return actual == expected and {type(actual), type(expected)} != {bool, int}


def _nearest(
    table: Table, expected: Mapping[str, object], rows: Sequence[Mapping[str, object]]
) -> Mapping[str, object] | None:
    """Return the row that was probably meant: that with the key, or with the most equal columns."""
    if set(table.key) <= expected.keys():
        return next((row for row in rows if all(row[name] == expected[name] for name in table.key)), None)
    scores = [sum(_same(row[name], value) for name, value in expected.items()) for row in rows]
    best = max(scores, default=0)
    return rows[scores.index(best)] if best or len(rows) == 1 else None


def _compare_ops(book: Book, expected: Sequence[Mapping[str, object]]) -> Iterator[str]:
    expectations = [_Expected.read(book, op) for op in expected]
    actual = book.ops()
    pairs = _aligned(
        expectations, actual, lambda one, other: one.is_of_kind(other) and not one.differs(other, book)
    )
    yield from _listed_pairs(
        "ops",
        pairs,
        lambda op: f"{book.opcode(op.opcode)} {book.names.show_fields(op.fields)} (block {op.block_id})",
        lambda op: op.text(book),
        lambda one, other: one.differs(other, book) if one.is_of_kind(other) else None,
    )


@dataclass(frozen=True, slots=True)
class _Expected:
    """An op that is expected."""

    opcode: bytes | None
    fields: Mapping[str, object]

    @classmethod
    def read(cls, book: Book, op: Mapping[str, object]) -> "_Expected":
        if not isinstance(op, Mapping):
            raise UsageError(f"ops: an op is a dict of its fields, and of its opcode, not {op!r}")
        fields = dict(op)
        opcode = fields.pop("opcode", None)
        if not isinstance(opcode, str | bytes | None):
            raise UsageError(f"ops: an opcode is text or a byte, not {opcode!r}")
        return cls(None if opcode is None else find_opcode(book.contract, opcode), fields)

    def is_of_kind(self, op: Op) -> bool:
        return self.opcode in {None, op.opcode}

    def differs(self, op: Op, book: Book) -> list[str]:
        lines = []
        for name, value in self.fields.items():
            if name not in op.fields:
                known = ", ".join(op.fields) or "none"
                lines.append(f"{name} is none of its fields ({known}), expected {book.names.show(value)}")
            elif not _same(op.fields[name], value):
                lines.append(f"{name} is {book.names.show_both(op.fields[name], value)}")
        return lines

    def text(self, book: Book) -> str:
        opcode = "" if self.opcode is None else f"{book.opcode(self.opcode)} "
        return f"{opcode}{book.names.show_fields(self.fields)}"


def _compare_rejections(book: Book, expected: Sequence[tuple[str, str]]) -> Iterator[str]:
    for item in expected:
        if isinstance(item, str) or len(item) != 2:
            raise UsageError(f"rejections: each is a step and a reason, as in ('check', 'why'), not {item!r}")
        if item[0] not in {"parse", "check", "commit"}:
            raise UsageError(f"rejections: the steps are parse, check and commit, not {item[0]!r}")
    pairs = _aligned(
        list(expected),
        book.rejections(),
        lambda one, other: one[0] == other.step and one[1] == other.reason,
    )
    yield from _listed_pairs(
        "rejections",
        pairs,
        lambda item: f"in {item.step}: {item.reason} ({_place(book, item)})",
        lambda item: f"in {item[0]}: {item[1]}",
        lambda one, other: [
            f"{what} is {book.names.show_both(is_, should_be)}"
            for what, is_, should_be in (("step", other.step, one[0]), ("reason", other.reason, one[1]))
            if is_ != should_be
        ],
    )


def _place(book: Book, item: Op | Rejection) -> str:
    return f"block {item.block_id}, {book.names.transactions.get(item.txid, item.txid)}"


def _aligned(
    expected: Sequence[E], actual: Sequence[A], agrees: Callable[[E, A], bool]
) -> list[tuple[E | None, A | None]]:
    """Pair two lists in order, so that as many as possible agree; between these, one by one."""
    lengths = [[0] * (len(actual) + 1) for _ in range(len(expected) + 1)]
    same = [[agrees(one, other) for other in actual] for one in expected]
    for i in reversed(range(len(expected))):
        for j in reversed(range(len(actual))):
            skipped = max(lengths[i + 1][j], lengths[i][j + 1])
            lengths[i][j] = lengths[i + 1][j + 1] + 1 if same[i][j] else skipped
    pairs: list[tuple[E | None, A | None]] = []
    i = j = 0
    ones: list[E] = []
    others: list[A] = []

    def flush() -> None:
        both = min(len(ones), len(others))
        pairs.extend(zip(ones[:both], others[:both], strict=True))
        pairs.extend((one, None) for one in ones[both:])
        pairs.extend((None, other) for other in others[both:])
        ones.clear()
        others.clear()

    while i < len(expected) or j < len(actual):
        if i < len(expected) and j < len(actual) and same[i][j]:
            flush()
            pairs.append((expected[i], actual[j]))
            i, j = i + 1, j + 1
        elif j == len(actual) or (i < len(expected) and lengths[i + 1][j] >= lengths[i][j + 1]):
            ones.append(expected[i])
            i += 1
        else:
            others.append(actual[j])
            j += 1
    flush()
    return pairs


def _listed_pairs(
    what: str,
    pairs: Sequence[tuple[E | None, A | None]],
    show_actual: Callable[[A], str],
    show_expected: Callable[[E], str],
    differ: Callable[[E, A], list[str] | None],
) -> Iterator[str]:
    """Write both lists as one, if they differ; `differ` returns None for two of different kinds."""
    lines, is_different = [], False
    for number, (one, other) in enumerate(pairs, 1):
        if one is None or other is None:
            is_different = True
            if other is not None:
                lines.append(f"  {number}. extra: {show_actual(other)}")
            if one is not None:
                lines.append(f"  {number}. missing: {show_expected(one)}")
            continue
        unlike = differ(one, other)
        lines.append(f"  {number}. {show_actual(other)}")
        if unlike is None:
            unlike = [f"expected {show_expected(one)}"]
        is_different |= bool(unlike)
        lines += [f"       {line}" for line in unlike]
    if is_different:
        ones, others = (sum(pair[side] is not None for pair in pairs) for side in (0, 1))
        yield f"{what}: {others}, expected {ones}:"
        yield from lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
