"""`wasm_app`: an `App` whose rules are a module, which is called once a block and decides all its inputs."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from virtualchain.app.author import author
from virtualchain.app.builder import App
from virtualchain.app.handlers import Rejected
from virtualchain.app.layout import COMPLETE, OWNED, ReadLayout, WriteLayout
from virtualchain.app.wasm.host import Candidate, Host, Verdict
from virtualchain.app.wasm.module import Module, ModuleFailed
from virtualchain.errors import InvalidApp
from virtualchain.model import Json

_HEAD: Final = struct.Struct("<BBBxIq")
"""Opcode, number of senders and of outputs, length of the payload, fee."""
_VALUE: Final = struct.Struct("<q")
MOST_SENDERS: Final = 16
MOST_OUTPUTS: Final = 32
"""Of each transaction, the module sees so many of the first ones."""
_INPUT: Final = "input"
_VERDICT: Final = "verdict"
_FUEL: Final = 5_000_000
_MAX_PAYLOAD: Final = 1_000


@dataclass(frozen=True)
class WasmParse:  # the names of these classes, and of their fields, are in the code digests of apps
    """Hand on what the module needs of a transaction, as bytes."""

    def __call__(
        self, payload: bytes, opcode: bytes, senders: list[Json], outputs: list[Json], fee: int
    ) -> Json:
        """Write the record of an input but for its txid (docs/wasm.md)."""
        some, paid = senders[:MOST_SENDERS], outputs[:MOST_OUTPUTS]
        parts = [_HEAD.pack(opcode[0] if opcode else 0, len(some), len(paid), len(payload), fee), payload]
        for sender in some:
            has_signed = bool(sender["sighash"]) and COMPLETE.issuperset(sender["sighash"])
            parts.append(_address(sender["addresses"] if has_signed else ()))
        for output in paid:
            owned = output["addresses"] if output["type"] in OWNED else ()
            parts += [_VALUE.pack(output["value"]), _address(owned)]
        return {_INPUT: b"".join(parts).hex()}


@dataclass(frozen=True)
class WasmScan:
    """Call the module for a block's inputs, and give each op its verdict."""

    module: Module
    fields: tuple[tuple[bytes, tuple[str, ...]], ...]
    """The fields of ops, by opcode."""
    fuel: int
    """What a block has, and again for each input."""

    def __call__(self, ops: list[Json], state: Any) -> None:  # noqa: ANN401 - a `State`, which this room does not know
        """Raise ModuleFailed if the module does what it may not."""
        if not ops:
            return
        fields = dict(self.fields)
        inputs = [
            Candidate(
                op["virtualchain_txid"],
                bytes.fromhex(op["virtualchain_txid"]) + bytes.fromhex(op[_INPUT]),
                fields[op["virtualchain_opcode"]],
            )
            for op in ops
        ]
        verdicts = Host(self.module, state, inputs, self.fuel * (1 + len(ops))).verdicts()
        for op, verdict in zip(ops, verdicts, strict=True):
            op[_VERDICT] = verdict


@dataclass(frozen=True)
class WasmCheck:
    """Accept or refuse as the module has said."""

    def __call__(self, op: Json, state: Any) -> bool | Rejected:  # noqa: ANN401, ARG002 - as above
        """Return its verdict."""
        reason = op[_VERDICT].reason
        return True if reason is None else Rejected(reason)


@dataclass(frozen=True)
class WasmCommit:
    """Write the rows that the module has said, and return its op."""

    def __call__(self, op: Json, state: Any) -> Json:  # noqa: ANN401 - as above
        """Raise ModuleFailed if the engine refuses them: what follows in the block was judged with them."""
        verdict: Verdict = op[_VERDICT]
        try:
            for name, key, row in verdict.writes:
                if row is None:
                    state.table(name).delete(key)
                else:
                    state.table(name).put(row)
        except Exception as error:
            if type(error).__module__.startswith("psycopg"):
                raise
            raise ModuleFailed(f"a row that the module has put cannot be written: {error}") from error
        return dict(verdict.op)


def wasm_app(
    module: str | Path | bytes,
    name: str,
    *,
    magic: bytes | str | Sequence[bytes | str],
    opcodes: Mapping[bytes, Sequence[str]],
    projections: str | None = None,
    layouts: Mapping[bytes, str] | None = None,
    version: str = "1",
    max_payload: int = _MAX_PAYLOAD,
    fuel: int = _FUEL,
    **options: Any,  # noqa: ANN401 - those of `App`
) -> App:
    """Make an app whose rules are a WebAssembly module (docs/wasm.md).

    `module` is its bytes, or its path from the folder of the calling module. `opcodes` are those of its
    inputs, each with the names of its op's fields, in the order in which the module passes them and they are
    hashed. `layouts` say how `build_input` writes payloads. `fuel` is what one block has, and again for each
    input. The module's SHA-256 is added to the version. `options` are those of `App`, except for `opcodes`,
    `tracks` and `requires_fresh_hash`.

    Raises InvalidApp if the module is not one that may run, or if wasmtime is missing.
    """
    unfit = sorted({"tracks", "requires_fresh_hash", "needs"} & set(options))
    if unfit:
        raise InvalidApp(f"app {name}: a module cannot have {unfit[0]}: it decides alone about every input")
    loaded = _load(module, name)
    app = App(
        name,
        magic=magic,
        projections=projections,
        version=f"{version} wasm:{loaded.sha256}",
        max_payload=max_payload,
        **options,
    )
    for opcode, fields in opcodes.items():
        layout = (layouts or {}).get(opcode)
        app.add(
            opcode,
            parse=WasmParse(),
            check=WasmCheck(),
            commit=WasmCommit(),
            fields=list(fields),
            encode=None if layout is None else WriteLayout(ReadLayout.of(layout)),
        )
    app.scan(WasmScan(loaded, tuple((code, tuple(fields)) for code, fields in sorted(opcodes.items())), fuel))
    setattr(app.db_scan_block, "is_sandboxed", True)  # noqa: B010 - a function has no such attribute by itself
    return app


def _load(module: str | Path | bytes, app: str) -> Module:
    if isinstance(module, bytes):
        return Module.of(module, f"the module of app {app}")
    path = Path(author()[0]).parent / module
    try:
        return Module.of(path.read_bytes(), path.name)
    except OSError as error:
        raise InvalidApp(f"app {app}: cannot read the module {str(module)!r}: {error}") from error


def _address(addresses: Sequence[str]) -> bytes:
    address = addresses[0].encode() if addresses else b""
    return bytes([len(address)]) + address
