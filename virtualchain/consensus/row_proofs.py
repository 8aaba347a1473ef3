"""Proofs that a projection has a row at a block, or has none with a key, for whoever trusts a state root.

The state root is a hash over an app's digests at a block and, for each projection, the root of a tree over
its rows in the order of their keys. `docs/protocol/proofs.md` defines both, and the format of proofs.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from virtualchain.consensus.proof_file import LONGEST, hexadecimal, items, record, text, whole, write_proof
from virtualchain.consensus.row_tree import Path, RowTree, root_of_path
from virtualchain.consensus.state_hash import element, row_json
from virtualchain.errors import InvalidProof, UsageError, quoted
from virtualchain.model import Json

FORMAT: Final = "virtualchain-row-proof-1"
_KEYS: Final = {"format", "state", "table", "key", "rows"}
_TABLE_KEYS: Final = {"columns", "key", "name", "root", "rows"}
_ROW_KEYS: Final = {"index", "values", "path"}
_HASHES: Final = {"block_hash": 64, "consensus_hash": 32, "genesis_hash": 64, "state_hash": 64}
"""The hashes of a state, and their digits."""
_STATE_KEYS: Final = {"app", "block_id", "tables", *_HASHES}
_MOST_ROWS: Final = 2**53 - 1

Values = list[str | None]
"""The text of each of a row's columns, in column order."""


class OrderedRows:
    """The rows of one table in the order of their keys: their part of the state, and a key's neighbors."""

    def __init__(
        self, name: str, columns: Sequence[str], key: Sequence[str], sought: Sequence[str] | None = None
    ) -> None:
        """Begin without rows; `sought` is the key of which a proof is to be made, if any."""
        self.name = name
        self._columns = tuple(columns)
        self._key = tuple(key)
        self._places = [self._columns.index(column) for column in key]
        self._sought = None if sought is None else tuple(sought)
        self._tree = RowTree()
        self._last: tuple[str, ...] = ()
        self._near: list[tuple[Path, Values]] = []

    def add(self, values: Values) -> int:
        """Add the next row, and return its number for the state hash.

        Raises ValueError if its key does not come after that of the row before.
        """
        key = tuple(text for place in self._places if (text := values[place]) is not None)
        if len(key) < len(self._places):
            raise ValueError("its key has a null")
        if self._tree.size and key <= self._last:
            raise ValueError("its key does not come after that of the row before")
        row = row_json(self.name, values)
        self._tree.add(row)
        if self._sought is not None:
            self._follow(key, values)
        self._last = key
        return element(row)

    def _follow(self, key: tuple[str, ...], values: Values) -> None:
        """Keep the last row up to the sought key, and the first one after it unless that row has the key."""
        assert self._sought is not None, "only then rows are followed"
        if key <= self._sought:
            self._near = []
        elif self._last >= self._sought and self._tree.size > 1:
            return
        self._near.append((self._tree.last(), values))
        self._tree.followed = [path for path, _ in self._near]

    def summary(self) -> Json:
        """Return what the state says of the table."""
        return table_summary(self.name, self._columns, self._key, self._tree)

    def neighbors(self) -> list[Json]:
        """Return the rows of a proof: the one with the sought key, or else the rows next to its place."""
        return [
            {
                "index": path.index,
                "values": values,
                "path": [node.hex() for node in self._tree.siblings(path)],
            }
            for path, values in self._near
        ]


def table_summary(name: str, columns: Iterable[str], key: Iterable[str], tree: RowTree) -> Json:
    """Return what a state says of a table."""
    return {
        "columns": list(columns),
        "key": list(key),
        "name": name,
        "root": tree.root.hex(),
        "rows": tree.size,
    }


def state_root(state: Json) -> str:
    """Compute the state root of a state, 64 hex digits."""
    written = json.dumps(state, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return sha256(b"\x02" + written.encode()).hexdigest()


def make_row_proof(state: Json, table: str, key: Sequence[str], rows: Iterable[Json]) -> Json:
    """Make the proof of a key of a table from a state and the rows that `OrderedRows.neighbors` returned.

    Raises UsageError if it were longer than any checker accepts.
    """
    proof = {"format": FORMAT, "state": state, "table": table, "key": list(key), "rows": list(rows)}
    if len(write_proof(proof)) >= LONGEST:
        raise UsageError(f"the rows are too long for a proof, which has at most {LONGEST:,} bytes")
    check_row_proof(proof, state_root(state))
    return proof


class RowClaim(NamedTuple):
    """What a row proof shows."""

    app: str
    """The app's name."""
    block_id: int
    """The block after which it is so."""
    block_hash: str
    """That block's hash."""
    genesis_hash: str
    """The hash of the network's first block."""
    table: str
    """The projection."""
    key: dict[str, str]
    """The key in question, by column."""
    row: dict[str, str | None] | None
    """The text of each column of the row with that key; None: there is no such row."""


def check_row_proof(proof: object, trusted_root: str) -> RowClaim:
    """Check a proof (as `read_proof` returns it) against a trusted state root; return what it shows.

    Raises InvalidProof for any flaw.
    """
    parts = record(proof, _KEYS, "the proof")
    if parts["format"] != FORMAT:
        raise InvalidProof(f"the proof's format is not {quoted(FORMAT)}")
    state = record(parts["state"], _STATE_KEYS, "the state")
    app = text(state["app"], "the app's name")
    block_id = whole(state["block_id"], "block_id")
    hashes = {name: hexadecimal(state[name], digits, name) for name, digits in _HASHES.items()}
    tables = [_read_table(item) for item in items(state["tables"], "tables")]
    names = [table.name for table in tables]
    if names != sorted(set(names)):
        raise InvalidProof("the tables are not in the order of their names")
    if state_root(state) != hexadecimal(trusted_root, 64, "the trusted root"):
        raise InvalidProof("the state does not have the trusted root")
    table = next((item for item in tables if item.name == parts["table"]), None)
    if table is None:
        raise InvalidProof(f"the state has no table {quoted(parts['table'])}")
    key = tuple(text(item, "a text of the key") for item in items(parts["key"], "key"))
    if len(key) != len(table.key):
        raise InvalidProof(f"the key must have {len(table.key)} texts, but has {len(key)}")
    rows = [_read_row(item, table) for item in items(parts["rows"], "rows")]
    shown = None
    if len(rows) == 1 and rows[0].key == key:
        shown = dict(zip(table.columns, rows[0].values, strict=True))
    else:
        _check_absence(table, key, rows)
    return RowClaim(
        app=app,
        block_id=block_id,
        block_hash=hashes["block_hash"],
        genesis_hash=hashes["genesis_hash"],
        table=table.name,
        key=dict(zip(table.key, key, strict=True)),
        row=shown,
    )


class _Table(NamedTuple):
    name: str
    columns: list[str]
    key: list[str]
    root: bytes
    rows: int


class _Row(NamedTuple):
    place: int
    values: Values
    key: tuple[str, ...]


def _check_absence(table: _Table, key: tuple[str, ...], rows: Sequence[_Row]) -> None:
    """Check that the rows are the neighbors of a key that no row has."""
    match rows:
        case []:
            is_shown = table.rows == 0
        case [row] if row.key > key:
            is_shown = row.place == 0
        case [row]:
            is_shown = row.place == table.rows - 1
        case [before, after]:
            is_shown = after.place == before.place + 1 and before.key < key < after.key
        case _:
            is_shown = False
    if not is_shown:
        raise InvalidProof(f"table {quoted(table.name)}: the rows shown are not the neighbors of the key")


def _read_table(item: object) -> _Table:
    parts = record(item, _TABLE_KEYS, "a table")
    name = text(parts["name"], "a table's name")
    what = f"table {quoted(name)}"
    columns, key = (
        [text(column, f"{what}: a column") for column in items(parts[part], f"{what}: {part}")]
        for part in ("columns", "key")
    )
    if len(set(columns)) < len(columns) or len(set(key)) < len(key):
        raise InvalidProof(f"{what} has a column twice")
    if not set(key) <= set(columns):
        raise InvalidProof(f"{what}: its key has a column that it has not")
    root = bytes.fromhex(hexadecimal(parts["root"], 64, f"{what}: root"))
    rows = whole(parts["rows"], f"{what}: rows", _MOST_ROWS)
    return _Table(name, columns, key, root, rows)


def _read_row(item: object, table: _Table) -> _Row:
    parts = record(item, _ROW_KEYS, "a row")
    index = whole(parts["index"], "index", _MOST_ROWS)
    values = [
        None if value is None else text(value, "a value of a row")
        for value in items(parts["values"], "values")
    ]
    if len(values) != len(table.columns):
        raise InvalidProof(f"row {index} has {len(values)} values, not {len(table.columns)}")
    path = [bytes.fromhex(hexadecimal(node, 64, "a hash of a path")) for node in items(parts["path"], "path")]
    if root_of_path(row_json(table.name, values), index, table.rows, path) != table.root:
        raise InvalidProof(f"the path of row {index} does not lead to the root of table {quoted(table.name)}")
    texts = [values[table.columns.index(column)] for column in table.key]
    key = tuple(value for value in texts if value is not None)
    if len(key) < len(texts):
        raise InvalidProof(f"row {index} has a null in its key")
    return _Row(index, values, key)
