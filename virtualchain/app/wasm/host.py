"""One call of a module for one block: what its imports do, and the verdicts that it comes to."""

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from virtualchain.app.fields import to_json
from virtualchain.app.wasm.module import IMPORTS, Module, ModuleFailed
from virtualchain.app.wasm.packing import pack, unpack
from virtualchain.consensus import text_of
from virtualchain.consensus.values import text_problem
from virtualchain.errors import Unserializable, UsageError
from virtualchain.model import Json

_CALL: Final = 5_000
_BYTE: Final = 10
"""Fuel that a call of the engine costs, and each byte that it reads or writes; an instruction costs 1."""
_MOST_KEPT: Final = 256 << 20
"""Bytes of rows, keys and ops that the engine keeps for a module until the end of the block."""
_OVERHEAD: Final = 500
"""What it takes to keep a small one."""
_LARGEST_ROW: Final = 64 * 1024
_AT_ONCE: Final = 1_000
"""Rows that are read ahead together."""
_NO_ROW: Final = -1
_LONGEST_REASON: Final = 1_000
_UNSIGNED: Final = 0xFFFFFFFF

_Place = tuple[str, tuple[Any, ...]]
"""A row by table and key."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An input as the module gets it."""

    txid: str
    record: bytes
    fields: Sequence[str]
    """The fields of the op that it may become."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a module says of an input: a reason to refuse it, or an op and the rows that it changes."""

    reason: str | None
    op: Json
    writes: tuple[tuple[str, tuple[Any, ...], Mapping[str, Any] | None], ...]
    """By table and key, the row, or None for a row to delete."""


class Host:
    """The engine's side of one block; a new instance of the module has no memory of any other."""

    def __init__(self, module: Module, state: Any, inputs: Sequence[Candidate], fuel: int) -> None:  # noqa: ANN401 - a `State`
        self._module = module
        self._state = state
        self._inputs = inputs
        self._fuel = fuel
        self._at = -1
        self._verdicts: list[Verdict] = []
        self._places_ahead: list[_Place] = []
        self._kept = 0
        self._stored: dict[_Place, tuple[Any, ...] | None] = {}
        """Rows as they were before the block, as far as they were asked for."""
        self._rows: dict[_Place, tuple[Any, ...] | None] = {}
        """What the inputs before have changed."""
        self._pending: dict[_Place, tuple[Any, ...] | None] = {}
        """What the current input has."""
        self._error: BaseException | None = None
        self._is_judging = False

    def verdicts(self) -> list[Verdict]:
        """Return what the module says of each input; raises ModuleFailed, and what the database raises."""
        if self._module.wants_keys:
            self._call("keys")
            self._read_ahead()
        self._is_judging = True
        self._call("block")
        if len(self._verdicts) < len(self._inputs):
            raise self._failed(f"has decided {len(self._verdicts)} of {len(self._inputs)} inputs")
        return self._verdicts

    def _read_ahead(self) -> None:
        for start in range(0, len(self._places_ahead), _AT_ONCE):
            part = self._places_ahead[start : start + _AT_ONCE]
            keys_by_table: dict[str, list[object]] = {}
            for name, key in part:
                keys_by_table.setdefault(name, []).append(key)
            self._state.rows.read_ahead(keys_by_table)
            for name, key in part:
                self._keep(_size((self._state.table(name).get(key) or {}).values()))

    def _call(self, export: str) -> None:
        import wasmtime  # noqa: PLC0415 - the module was compiled with it

        self._at, self._error = -1, None
        self._store = store = self._module.store(self._fuel)
        i32 = wasmtime.ValType.i32()
        imports = []
        for item in self._module.compiled[1].imports:
            name = str(item.name)
            takes, returns = IMPORTS[name]
            kind = wasmtime.FuncType([i32] * takes, [i32] * returns)
            imports.append(wasmtime.Func(store, kind, self._guarded(getattr(self, f"_{name}"))))
        try:
            instance = wasmtime.Instance(store, self._module.compiled[1], imports)
            exports = instance.exports(store)
            memory = exports["memory"]
            assert isinstance(memory, wasmtime.Memory), "it was checked"
            self._size = memory.data_len(store)
            self._base = ctypes.addressof(memory.data_ptr(store).contents)
            function = exports[export]
            assert isinstance(function, wasmtime.Func), "as above"
            function(store, self._state.block_id, self._state.block_time, len(self._inputs))
        except BaseException as error:
            if isinstance(self._error, ModuleFailed):  # it says itself where; wasmtime's lines say nothing
                raise self._error.with_traceback(None) from None
            if self._error is not None:
                raise self._error from None
            if not isinstance(error, wasmtime.Trap | wasmtime.WasmtimeError):
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise self._failed(lines[-1] if lines else type(error).__name__) from error
        finally:
            store.close()

    def _guarded(self, function: Callable[..., int | None]) -> Callable[..., int | None]:
        """Let a function of the engine cost fuel, and keep the error that it ends with."""

        def call(*arguments: int) -> int | None:
            try:
                if self._error is not None:
                    raise self._error
                self._pay(_CALL)
                return function(*(argument & _UNSIGNED for argument in arguments))
            except BaseException as error:
                self._error = error
                raise

        return call

    # What a module imports.

    def _next(self, room: int, size: int) -> int:
        """Go to the next input, and write it; return its length, or 0 after the last one."""
        if self._is_judging and len(self._verdicts) <= self._at < len(self._inputs):
            raise self._failed("asks for the next input, and has neither accepted nor refused this one")
        self._at = min(self._at + 1, len(self._inputs))
        if self._at == len(self._inputs):
            return 0
        record = self._inputs[self._at].record
        if len(record) > size:
            raise self._failed(f"has room for {size} bytes; the input has {len(record)}")
        self._write(room, record)
        return len(record)

    def _get(self, table: int, table_size: int, key: int, key_size: int, room: int, size: int) -> int:
        """Write the values of a row; return their length, and write nothing if there is too little room."""
        name = self._table_name(table, table_size)
        place = self._key(name, self._read(key, key_size))
        row = None if place is None else self._row(name, place)
        if row is None:
            return _NO_ROW
        values = pack(row)
        if len(values) <= size:
            self._write(room, values)
        else:
            self._pay(_BYTE * len(values))  # it was read all the same
        return len(values)

    def _put(self, table: int, table_size: int, row: int, size: int) -> None:
        """Insert a row, or replace the one with its key, if the input is accepted."""
        self._require_turn("put")
        name = self._table_name(table, table_size)
        shape = self._state.table(name).shape
        packed = self._read(row, size)
        try:
            if size > _LARGEST_ROW:
                raise ValueError(f"{size} bytes; the most are {_LARGEST_ROW}")
            values = unpack(packed)
            if len(values) != len(shape.names):
                raise TypeError(f"{len(values)} values for {len(shape.names)} columns")
            fitted = shape.row(dict(zip(shape.names, values, strict=True)))
            shape.check_sizes(None, fitted)
        except Exception as error:
            raise self._failed(f"puts a row that table {name} cannot have: {error}") from error
        self._keep(size)
        self._pending[name, shape.key_of(fitted)] = fitted

    def _delete(self, table: int, table_size: int, key: int, size: int) -> None:
        """Delete a row, if there is one and the input is accepted."""
        self._require_turn("delete")
        name = self._table_name(table, table_size)
        place = self._key(name, self._read(key, size))
        if place is not None:
            self._keep(size)
            self._pending[name, place] = None

    def _accept(self, values: int, size: int) -> None:
        """Accept the current input, as an op with these values of its fields."""
        candidate = self._require_turn("accept")
        packed = self._read(values, size)
        try:
            fields = unpack(packed)
            if len(fields) != len(candidate.fields):
                raise ValueError(f"{len(fields)} values for {', '.join(candidate.fields) or 'no fields'}")
            op = dict(zip(candidate.fields, fields, strict=True))
            to_json(op)
            for name, value in op.items():
                text_of(value, name)
        except Exception as error:
            raise self._failed(
                f"accepts with values that are not those of the op's fields: {error}"
            ) from error
        self._keep(size)
        self._rows |= self._pending
        writes = [
            (
                table,
                key,
                None if row is None else dict(zip(self._state.table(table).shape.names, row, strict=True)),
            )
            for (table, key), row in self._pending.items()
        ]
        self._decide(Verdict(None, op, tuple(writes)))

    def _refuse(self, reason: int, size: int) -> None:
        """Refuse the current input, for a reason; what it has changed is dropped."""
        self._require_turn("refuse")
        text = self._read(reason, min(size, _LONGEST_REASON)).decode(errors="replace")
        self._decide(Verdict(text or "refused", {}, ()))

    def _want(self, table: int, table_size: int, key: int, size: int) -> None:
        """Have a row read together with others, before the block is judged."""
        if self._is_judging:
            raise self._failed("calls want outside of keys")
        name = self._table_name(table, table_size)
        place = self._key(name, self._read(key, size))
        if place is not None:
            self._keep(size)
            self._places_ahead.append((name, place))

    def _is_text(self, text: int, size: int) -> int:
        """Return whether bytes are text that a field or a column can hold."""
        try:
            return int(text_problem(self._read(text, size).decode()) is None)
        except UnicodeDecodeError:
            return 0

    # What these have in common.

    def _require_turn(self, what: str) -> Candidate:
        if not self._is_judging or not len(self._verdicts) == self._at < len(self._inputs):
            raise self._failed(f"calls {what}, and there is no input to be decided")
        return self._inputs[self._at]

    def _decide(self, verdict: Verdict) -> None:
        self._verdicts.append(verdict)
        self._pending = {}

    def _table_name(self, table: int, size: int) -> str:
        name = self._read(table, size).decode(errors="replace")
        try:
            self._state.table(name)
        except UsageError as error:
            raise self._failed(str(error)) from error
        return name

    def _key(self, table: str, packed: bytes) -> tuple[Any, ...] | None:
        """Return a key as the table has it; None if no row can have it, because a value does not fit."""
        try:
            values = unpack(packed)
        except UnicodeDecodeError:
            return None
        except ValueError as error:
            raise self._failed(f"writes a key that cannot be read: {error}") from error
        try:
            key: tuple[Any, ...] | None = self._state.table(table).shape.find_key(tuple(values))
        except Unserializable:
            return None
        except (TypeError, UsageError) as error:
            raise self._failed(str(error)) from error
        return key

    def _row(self, table: str, key: tuple[Any, ...]) -> tuple[Any, ...] | None:
        place = table, key
        for rows in (self._pending, self._rows, self._stored):
            if place in rows:
                return rows[place]
        row = self._state.table(table).get(key)
        self._stored[place] = None if row is None else tuple(row.values())
        self._keep(_size((*key, *(self._stored[place] or ()))))
        return self._stored[place]

    def _read(self, at: int, size: int) -> bytes:
        if at + size > self._size:
            raise self._failed(f"names {size} bytes at {at}, and its memory has {self._size}")
        self._pay(_BYTE * size)
        return ctypes.string_at(self._base + at, size)

    def _write(self, at: int, data: bytes) -> None:
        if at + len(data) > self._size:
            raise self._failed(f"names {len(data)} bytes at {at}, and its memory has {self._size}")
        self._pay(_BYTE * len(data))
        ctypes.memmove(self._base + at, data, len(data))

    def _keep(self, size: int) -> None:
        """Count what is kept until the end of the block."""
        self._kept += _OVERHEAD + size
        if self._kept > _MOST_KEPT:
            raise self._failed(f"has more than {_MOST_KEPT >> 20} MiB of rows, keys and ops in one block")

    def _pay(self, fuel: int) -> None:
        left = self._store.get_fuel() - fuel
        if left < 0:
            raise self._failed("has used up its fuel")
        self._store.set_fuel(left)

    def _failed(self, what: str) -> ModuleFailed:
        place = ""
        if 0 <= self._at < len(self._inputs):
            place = f" (at the block's input {self._at}, transaction {self._inputs[self._at].txid})"
        return ModuleFailed(f"{vars(self._module)['file']} {what}{place}")


def _size(values: Iterable[object]) -> int:
    return sum(len(value) for value in values if isinstance(value, str | bytes))
