"""Fields that people write as text: `field=value` on a command line, or a column of a table.

What a value is follows from the field's declared type, or else from the annotation of the encoder's
parameter; text is text then, whatever it looks like.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from virtualchain.app.contract import Contract
from virtualchain.app.encoding import NEWEST
from virtualchain.app.field_types import Boolean, FieldType, Hex, Integer, Text
from virtualchain.app.fields import parse_json
from virtualchain.errors import UsageError, quoted

_LOOKS_LIKE_JSON: Final = re.compile(r'\s*(?:[\[{"].*|true|false|null|-?(?:0|[1-9][0-9]*))\s*', re.DOTALL)
_WHOLE: Final = re.compile(r"-?[0-9]{1,617}")
"""Of up to 2048 bits: Python's own limit depends on the environment."""
_SWITCHES: Final = {"true": True, "false": False}


def split_fields(items: Iterable[str]) -> dict[str, str]:
    """Split items such as `name=value`; raise UsageError for one of another form, and for a name twice."""
    texts: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{quoted(item)} is not a field: write FIELD=VALUE")
        if name in texts:
            raise UsageError(f"field {quoted(name)} is written twice")
        texts[name] = value
    return texts


def read_fields(
    contract: Contract, opcode: bytes, texts: Mapping[str, str], block_id: int = NEWEST
) -> dict[str, object]:
    """Turn the text of an opcode's fields into values, by the rules of a block.

    If neither a type nor an annotation says what a field is, whole numbers, true, false and null, and what
    begins like a list, an object or a text in JSON is read as JSON, and everything else is text. Raises
    UsageError for a value that is not what its field is.
    """
    declared = contract.field_rules(block_id, opcode).types
    hints = _annotations(contract.encoder(block_id, opcode))
    values: dict[str, object] = {}
    for name, text in texts.items():
        try:
            values[name] = _read(text, declared.get(name), hints.get(name, Any))
        except ValueError as error:
            raise UsageError(f"field {quoted(name)}: {quoted(text)} {error}") from error
    return values


def _annotations(encode: Callable[..., object] | None) -> Mapping[str, Any]:
    """Return what the parameters of an encoder are annotated with, as far as that can be known."""
    if encode is None:
        return {}
    function = encode if inspect.isroutine(encode) else getattr(encode, "__call__", encode)  # noqa: B004 - looked at
    try:
        return get_type_hints(inspect.unwrap(function))
    except Exception:  # noqa: BLE001 - an annotation of the app's may name anything
        return {}


def _read(text: str, declared: FieldType | None, hint: Any) -> object:  # noqa: ANN401 - an annotation
    match declared:
        case Text() | Hex():
            return text
        case Integer():
            return _whole(text)
        case Boolean():
            return _switch(text)
        case None:
            return _by_hint(text, hint)
    return _json(text)


def _by_hint(text: str, hint: Any) -> object:  # noqa: ANN401 - an annotation
    readers: dict[object, Callable[[str], object]] = {
        str: str,
        int: _whole,
        bool: _switch,
        bytes: _bytes,
    }
    choices = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    kinds = [kind for kind in choices if kind is not type(None)]
    if len(kinds) == 1 and kinds[0] in readers:
        if text == "null" and len(choices) > 1 and kinds[0] is not str:
            return None
        return readers[kinds[0]](text)
    return _json(text) if _LOOKS_LIKE_JSON.fullmatch(text) else text


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError("is not a whole number")
    return int(text)


def _switch(text: str) -> bool:
    if text.strip().lower() not in _SWITCHES:
        raise ValueError("is neither true nor false")
    return _SWITCHES[text.strip().lower()]


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ValueError("is not hex") from error


def _json(text: str) -> object:
    try:
        return parse_json(text.encode())
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
