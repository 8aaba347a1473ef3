"""Replicated state machines on a blockchain, with PostgreSQL as event store.

This module exports the public names. An app is written with `App`, `Rejected` and `State`, or as any module
or class with the published callbacks. `StateEngine` runs it, and `watch` reports its blocks to programs. Each
name is imported on first use, so that a command's help, or a test that needs none of them, loads no database
drivers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virtualchain.app.builder import App, Rejected
    from virtualchain.app.encoding import build_input, build_output
    from virtualchain.app.field_types import Boolean, Hex, Integer, List, Text
    from virtualchain.app.fields import parse_json
    from virtualchain.app.pages import Page
    from virtualchain.app.shapes import Input, Output, Sender
    from virtualchain.app.wasm.declare import wasm_app
    from virtualchain.bitcoin.payload import (
        envelopes,
        first_op_return,
        last_op_return,
        read_envelope,
        runestone,
    )
    from virtualchain.engine.engine import StateEngine
    from virtualchain.engine.preview import preview
    from virtualchain.errors import VirtualchainError
    from virtualchain.reading.events import BlockEvent, Change, PendingEvent, PendingInput, RollbackEvent
    from virtualchain.reading.position import Position
    from virtualchain.reading.watch import watch
    from virtualchain.store.handler import Handler
    from virtualchain.store.state import State
    from virtualchain.store.values import Jsonb
    from virtualchain.writing.send import send

    __version__: str

__all__ = [
    "App",
    "BlockEvent",
    "Boolean",
    "Change",
    "Handler",
    "Hex",
    "Input",
    "Integer",
    "Jsonb",
    "List",
    "Output",
    "Page",
    "PendingEvent",
    "PendingInput",
    "Position",
    "Rejected",
    "RollbackEvent",
    "Sender",
    "State",
    "StateEngine",
    "Text",
    "VirtualchainError",
    "__version__",
    "build_input",
    "build_output",
    "envelopes",
    "first_op_return",
    "last_op_return",
    "parse_json",
    "preview",
    "read_envelope",
    "runestone",
    "send",
    "wasm_app",
    "watch",
]

_ROOMS = {
    "App": "app.builder",
    "BlockEvent": "reading.events",
    "Boolean": "app.field_types",
    "Change": "reading.events",
    "Handler": "store.handler",
    "Jsonb": "store.values",
    "Hex": "app.field_types",
    "Input": "app.shapes",
    "Integer": "app.field_types",
    "List": "app.field_types",
    "Output": "app.shapes",
    "Page": "app.pages",
    "PendingEvent": "reading.events",
    "PendingInput": "reading.events",
    "Position": "reading.position",
    "Rejected": "app.builder",
    "RollbackEvent": "reading.events",
    "Sender": "app.shapes",
    "State": "store.state",
    "StateEngine": "engine.engine",
    "Text": "app.field_types",
    "VirtualchainError": "errors",
    "build_input": "app.encoding",
    "build_output": "app.encoding",
    "envelopes": "bitcoin.payload",
    "first_op_return": "bitcoin.payload",
    "last_op_return": "bitcoin.payload",
    "parse_json": "app.fields",
    "preview": "engine.preview",
    "read_envelope": "bitcoin.payload",
    "runestone": "bitcoin.payload",
    "send": "writing.send",
    "wasm_app": "app.wasm.declare",
    "watch": "reading.watch",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    if name == "__version__":
        return import_module("importlib.metadata").version("virtualchain")
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
