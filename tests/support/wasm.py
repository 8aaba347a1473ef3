"""Small modules and a state without a database, to try what a module may do."""

from typing import Any, Final

from virtualchain.app.wasm.host import Candidate, Host, Verdict
from virtualchain.app.wasm.module import IMPORTS, Module
from virtualchain.model import Json
from virtualchain.store.columns import Column, Shape

FUEL: Final = 5_000_000

SHAPES: Final = {
    "accounts": Shape(
        "accounts",
        (
            Column("id", "int8", -1, "bigint", is_required=True),
            Column("note", "varchar", 14, "varchar", is_required=False),
        ),
        (0,),
        ((1,),),
    ),
    "names": Shape(
        "names",
        (
            Column("name", "text", -1, "text", is_required=True),
            Column("n", "int2", -1, "smallint", is_required=False),
        ),
        (0,),
        ((0,),),
    ),
}


class Table:
    """A table in memory."""

    def __init__(self, shape: Shape, rows: dict[Any, Json]) -> None:
        self.shape = shape
        self.rows = rows

    def get(self, key: object) -> Json | None:
        """Return a row."""
        return self.rows.get(key)


class State:
    """Tables in memory, and a block."""

    block_id = 7
    block_time = 1_700_000_000

    def __init__(self, **rows: dict[Any, Json]) -> None:
        self._tables = {name: Table(shape, rows.get(name, {})) for name, shape in SHAPES.items()}
        self.rows = self
        self.read: list[Any] = []

    def table(self, name: str) -> Table:
        """Return a table, or raise as the engine does."""
        from virtualchain.errors import UsageError

        if name not in self._tables:
            raise UsageError(f"state.table({name!r}): the app has no such table")
        return self._tables[name]

    def read_ahead(self, keys: Any) -> None:
        """Note what would be read."""
        self.read.append(keys)


def wat(body: str, *, memory: str = '(memory (export "memory") 1 1)', extra: str = "", keys: str = "") -> str:
    """Write a module whose function `block` has this body; `extra` are further parts."""
    imports = "".join(
        f'(import "virtualchain" "{name}" (func ${name} (param{" i32" * takes}){" (result i32)" * returns}))'
        for name, (takes, returns) in IMPORTS.items()
    )
    named = f'(func (export "keys") (param i32 i64 i32) {keys})' if keys else ""
    data = '(data (i32.const 0) "accounts") (data (i32.const 8) "names") (data (i32.const 16) "why")'
    return (
        f"(module {imports} {memory} {data} {extra} {named} "
        f'(func (export "block") (param $block i32) (param $time i64) (param $count i32) {body}))'
    )


def compiled(text: str) -> bytes:
    """Translate a module from text."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(text))


def run(text: str, inputs: int = 1, *, state: State | None = None, fuel: int = FUEL) -> list[Verdict]:
    """Return a module's verdicts of some inputs, each a record of its number."""
    records = [Candidate(f"{number:064x}", bytes([number]) * 32, ("a", "b")) for number in range(inputs)]
    return Host(Module.of(compiled(text), "it.wasm"), state or State(), records, fuel).verdicts()
