"""Runs an implementation that was written for the Python 2 library, once it is Python 3.

`adapt` passes its callbacks the arguments that the library of 2016 to 2018 passed, in that order, and reads
what they return as that library did. docs/python2.md says what remains to be done by hand.
"""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Final

from virtualchain.app.builder import Rejected
from virtualchain.errors import InvalidApp
from virtualchain.model import Json

__all__ = ["Adapted", "adapt"]

_NEEDED: Final = ("get_opcodes", "db_parse", "db_check", "db_commit")
_PASSED_ON: Final = ("db_continue", "db_encode", "find_payload")
_OF_RULES: Final = ("db_parse", "db_scan_block", "db_check", "db_commit", "db_save", "get_db_state")
"""The functions whose code counts for the app's code digest."""
_FINAL: Final = "virtualchain_final"
_RESERVED: Final = "virtualchain_"


def adapt(implementation: object) -> "Adapted":
    """Return an app that runs a module, class or object with the callbacks of the Python 2 library.

    `db_parse` may take the transaction's id and place after the block, and `db_check` the ops accepted so
    far, as since 2016. If the opcodes are `str`, so are opcodes and payloads, with a character for each byte.
    Raises InvalidApp, which names the callback, for one that cannot be called so.
    """
    return Adapted(implementation)


class Adapted:
    """An app made by `adapt`."""

    def __init__(self, implementation: Any) -> None:  # noqa: ANN401 - a module, or anything else
        self._old = implementation
        missing = [name for name in _NEEDED if not callable(getattr(implementation, name, None))]
        if missing:
            raise InvalidApp(f"{_name(implementation)} lacks {', '.join(missing)}")
        opcodes = implementation.get_opcodes()
        self._is_text = isinstance(opcodes, str) or all(isinstance(code, str) for code in opcodes)
        self._opcodes = (
            [opcodes[n : n + 1] for n in range(len(opcodes))] if _is_plain(opcodes) else list(opcodes)
        )
        self._parse_takes_place = self._shape("db_parse", 7, 9) == 9
        self._check_takes_ops = self._shape("db_check", 6, 7) == 7
        self._shape("db_commit", 5)
        self._is_latest = _takes_hints(implementation.db_parse)
        self._saves_last = False
        if getattr(implementation, "db_save", None) is not None:
            size = self._shape("db_save", 2, 4, 5)
            self._saves_last = size == 5
            self.db_save = {2: implementation.db_save, 4: self._save, 5: None}[size]
        if getattr(implementation, "get_db_state", None) is not None:
            self._check_get_db_state()
        self._parsed: list[Json] = []
        self._accepted: list[tuple[Any, Json, Json]] = []
        self._listed: dict[Any, list[Json]] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the implementation has
        if name.startswith("_") or not (name.startswith("get_") or name in _PASSED_ON):
            raise AttributeError(name)
        declared = getattr(self._old, name)
        if name not in {"get_initial_snapshots", "get_expected_snapshots"}:
            return declared
        return lambda: {int(block_id): value for block_id, value in (declared() or {}).items()}

    def __virtualchain_functions__(self) -> Mapping[str, object]:
        """Return the functions whose code the app consists of."""
        functions = {name: getattr(self._old, name, None) for name in _OF_RULES}
        return {name: function for name, function in functions.items() if function is not None}

    # Callbacks

    def db_parse(
        self,
        block_id: int,  # noqa: ARG002 - the published signature
        opcode: bytes,  # noqa: ARG002
        op_payload: bytes,
        senders: list[Json],  # noqa: ARG002
        inputs: list[Json],
        outputs: list[Json],
        fee: int,  # noqa: ARG002
    ) -> Json:
        """Keep the payload: it is parsed once the transaction's id and place are known."""
        return {"payload": op_payload.hex(), "inputs": inputs, "outputs": outputs}

    def db_scan_block(self, block_id: int, ops: list[Json], db_state: object) -> None:
        """Parse the candidates, and show all ops of the block to the implementation."""
        self._parsed, self._accepted, self._listed = [], [], None
        for op in ops:
            parsed = self._parse(block_id, op, db_state)
            if isinstance(parsed, Rejected):
                _replace(op, {f"{_RESERVED}refused": parsed.reason})
            else:
                _replace(op, parsed)
                self._parsed.append({**deepcopy(parsed), **_hints(op)})
        if hasattr(self._old, "db_scan_block"):
            self._old.db_scan_block(
                block_id, [deepcopy(_fields(op)) for op in self._parsed], db_state=db_state
            )

    def _parse(self, block_id: int, op: Json, db_state: object) -> Json | Rejected:
        place = (op["virtualchain_txid"], op["virtualchain_txindex"]) if self._parse_takes_place else ()
        names = {"script_type": "type", "nulldata_vin_outpoint": "vout"}
        try:
            parsed = self._old.db_parse(
                block_id,
                *place,
                self._text(op["virtualchain_opcode"]),
                self._text(bytes.fromhex(op["payload"])),
                [_with_old_names(sender, **names) for sender in op["virtualchain_senders"]],
                [_as_input(spending) for spending in op["inputs"]],
                [_with_old_names(output, script="script_pubkey") for output in op["outputs"]],
                op["virtualchain_fee"],
                db_state=db_state,
            )
        except ValueError as error:
            return Rejected(str(error) or type(error).__name__)
        if parsed is None:
            return Rejected("not parsed")
        if isinstance(parsed, Rejected):
            return parsed
        if not isinstance(parsed, dict):
            raise TypeError(f"db_parse returned a {type(parsed).__name__}: expected a dict, or None")
        return _fields(parsed)

    def db_check(
        self,
        block_id: int,
        opcode: bytes,
        op: Json,
        txid: str,
        vtxindex: int,  # noqa: ARG002 - the place in the block takes its place
        checked: list[Json],
        db_state: object,
    ) -> bool | Rejected:
        """Return whether the implementation accepts an op; what it changes in the op stays."""
        if f"{_RESERVED}refused" in op:
            return Rejected(op[f"{_RESERVED}refused"])
        self._keep(len(checked))
        fields = _fields(op)
        before = (self._new_ops(),) if self._check_takes_ops else ()
        accepted = [earlier for _, earlier, _ in self._accepted]
        verdict = self._old.db_check(
            block_id,
            *before,
            self._text(opcode),
            fields,
            txid,
            op["virtualchain_txindex"],
            accepted,
            db_state=db_state,
        )
        _replace(op, fields)
        return verdict if isinstance(verdict, Rejected) else bool(verdict)

    def db_commit(
        self,
        block_id: int,
        opcode: bytes,
        op: Json,
        txid: str,
        vtxindex: int,  # noqa: ARG002 - the place in the block takes its place
        db_state: object,
    ) -> Json | list[Json] | bool | Rejected:
        """Have the implementation commit an op: False rejects it, and dicts enter the consensus hash."""
        code = self._text(opcode)
        place = op["virtualchain_txindex"]
        result = self._old.db_commit(block_id, code, _fields(op), txid, place, db_state=db_state)
        if result is False or isinstance(result, Rejected):
            return result
        ops = result if isinstance(result, list) else [result]
        committed = [_fields(each) for each in ops if isinstance(each, dict)]
        try:
            stored = [self._storable(each) for each in committed]
        except UnicodeDecodeError as error:
            return Rejected(f"a field's bytes are not UTF-8: {error.reason}")
        self._accepted += [(code, deepcopy(each), _hints(op)) for each in committed]
        self._listed = None
        return stored[0] if isinstance(result, dict) else stored

    def db_final(self, block_id: int, ops: list[Json], db_state: object) -> None:
        """Announce the end of the block to the implementation."""
        self._keep(len(ops))
        ordered = [{**fields, **hints} for _, fields, hints in self._accepted]
        op = {f"{_RESERVED}ordered": ordered} if self._is_latest else None
        if self._old.db_commit(block_id, _FINAL, op, None, None, db_state=db_state):
            raise TypeError(
                f"db_commit returned ops for {_FINAL}: only ops of transactions enter a consensus hash here; "
                "return them with the op that causes them"
            )
        if self._saves_last:
            fields = [each for _, each, _ in self._accepted]
            hints = [each for _, _, each in self._accepted]
            self._check_saved(self._old.db_save(block_id, None, None, fields, hints, db_state=db_state))

    def _save(self, block_id: int, filename: str, db_state: object) -> None:
        self._check_saved(self._old.db_save(block_id, None, self._new_ops(), filename, db_state=db_state))

    # What they are called with

    def _text(self, value: bytes) -> str | bytes:
        """Return bytes as the implementation has them."""
        return value.decode("latin-1") if self._is_text else value

    def _storable(self, op: Json) -> Json:
        """Return an op with the text whose UTF-8 it has as characters; raises UnicodeDecodeError."""
        if not self._is_text:
            return op
        return {name: _decoded(value) if isinstance(value, str) else value for name, value in op.items()}

    def _new_ops(self) -> dict[Any, list[Json]]:
        """Return the accepted ops by opcode, and all of the block's, as `db_check` gets them."""
        if self._listed is None:
            listed: dict[Any, list[Json]] = {code: [] for code in self._opcodes}
            ordered = listed[f"{_RESERVED}ordered"] = []
            listed[f"{_RESERVED}all_ops"] = self._parsed
            for code, fields, hints in self._accepted:
                each = {**fields, **hints}
                listed[code].append(each)
                ordered.append(each)
            self._listed = listed
        return self._listed

    def _keep(self, count: int) -> None:
        """Forget an op that the engine could not store after all."""
        if len(self._accepted) > count:
            del self._accepted[count:]
            self._listed = None

    # What it must be like

    def _shape(self, name: str, *sizes: int) -> int:
        """Return how many arguments a callback takes beside `db_state`; raises InvalidApp for others."""
        function = getattr(self._old, name)
        size = _size(function)
        if size not in sizes:
            raise InvalidApp(
                f"{_name(self._old)} has {name}{inspect.signature(function)}: it must take "
                f"{' or '.join(map(str, sizes))} arguments and db_state, see docs/python2.md"
            )
        return size

    def _check_get_db_state(self) -> None:
        parameters = inspect.signature(self._old.get_db_state).parameters.values()
        required = [each.name for each in parameters if each.default is each.empty and each.kind not in _REST]
        if set(required) - {"filename"}:
            raise InvalidApp(
                f"{_name(self._old)} has get_db_state({', '.join(required)}): write "
                "get_db_state(filename=None), and load what db_save wrote to that file, see docs/python2.md"
            )

    def _check_saved(self, result: object) -> None:
        if not result:
            raise OSError(f"db_save returned {result!r}: it could not save the state")


_REST: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _size(function: Callable[..., Any]) -> int:
    """Count the positional parameters, without `db_state` and what a keyword must name."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(each.kind in kinds and each.name not in {"db_state", "raw_tx"} for each in parameters)


def _takes_hints(function: Callable[..., Any]) -> bool:
    """Return whether `db_parse` takes `raw_tx`, as it had to in the last versions."""
    parameters = inspect.signature(function).parameters
    return "raw_tx" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _is_plain(opcodes: object) -> bool:
    return isinstance(opcodes, str | bytes)


def _name(implementation: object) -> str:
    return f"the app {getattr(implementation, '__name__', None) or type(implementation).__name__}"


def _fields(op: Json) -> Json:
    """Return what the app put into an op."""
    return {str(name): value for name, value in op.items() if not str(name).startswith(_RESERVED)}


def _hints(op: Json) -> Json:
    """Return what the library put into an op."""
    return {name: value for name, value in op.items() if name.startswith(_RESERVED)}


def _replace(op: Json, fields: Json) -> None:
    """Replace the app's part of an op."""
    hints = _hints(op)
    op.clear()
    op.update(fields)
    op.update(hints)


def _with_old_names(value: Json, **names: str) -> Json:
    """Return an input, output or sender with the names, too, that the old library used."""
    return {**value, **{old: value[new] for old, new in names.items()}}


def _as_input(spending: Json) -> Json:
    outpoint = {"hash": spending["txid"], "index": spending["vout"]}
    return {**spending, "outpoint": outpoint, "script": spending["script_sig"]}


def _decoded(text: str) -> str:
    """Return the text whose UTF-8 `text` has as characters; raises UnicodeDecodeError if it is none."""
    try:
        encoded = text.encode("latin-1")
    except UnicodeEncodeError:  # it is text already
        return text
    return encoded.decode()
