"""JSON-RPC as bitcoind speaks it: versions 1 and 2, batches, named parameters, and the HTTP statuses.

Version 1 puts errors into the HTTP status as well; version 2 (Bitcoin Core 28) answers 200.
"""

import json
from typing import Any, Final

from virtualchain.model import Json
from virtualchain.testing.answers import NO_CONTENT, Answer, json_answer
from virtualchain.testing.methods import (
    INVALID_PARAMETER,
    METHODS,
    MISC_ERROR,
    TYPE_ERROR,
    Method,
    Param,
    RpcError,
    type_name,
    wrong_type,
)
from virtualchain.testing.state import NodeState

WARMING_UP: Final = -28
_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_METHOD_NOT_FOUND = -32601
_STATUSES: Final = {_INVALID_REQUEST: 400, _METHOD_NOT_FOUND: 404}


def parse(body: bytes) -> object:
    """Read a request's body; None where it is no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def method_names(request: object) -> list[str]:
    """Name the methods that a request calls."""
    calls = request if isinstance(request, list) else [request]
    return [str(call.get("method")) for call in calls if isinstance(call, dict)]


def answer(state: NodeState, request: object, failure: RpcError | None = None) -> Answer:
    """Answer a parsed request; `failure` is what every call in it meets instead."""
    if isinstance(request, dict):
        reply, code = _call(state, request, failure)
        if reply is None:
            return NO_CONTENT
        return json_answer(reply, _status(reply, code))
    if isinstance(request, list):
        replies = [
            reply for reply, _ in (_call(state, each, failure) for each in request) if reply is not None
        ]
        return json_answer(replies) if replies or not request else NO_CONTENT
    message = "Parse error" if request is None else "Top-level object parse error"
    return json_answer({"result": None, "error": {"code": _PARSE_ERROR, "message": message}, "id": None}, 500)


def _call(state: NodeState, request: object, failure: RpcError | None) -> tuple[Json | None, int | None]:
    """Make one call; the reply (None for a notification of version 2), and the error's code."""
    result = None
    error = failure
    modern = isinstance(request, dict) and request.get("jsonrpc") == "2.0"
    if error is None:
        try:
            result = _dispatch(state, request)
        except RpcError as caught:
            error = caught
    code = None if error is None else error.code
    told = None if error is None else {"code": error.code, "message": error.message}
    identity = {"id": None}
    if isinstance(request, dict):
        identity = {"id": request["id"]} if "id" in request else {}
    if modern:
        outcome = {"result": result} if told is None else {"error": told}
        return ({"jsonrpc": "2.0"} | outcome | identity if identity else None), code
    return {"result": result, "error": told} | identity, code


def _status(reply: Json, code: int | None) -> int:
    if code is None or ("jsonrpc" in reply and code != _INVALID_REQUEST):
        return 200
    return _STATUSES.get(code, 500)


def _dispatch(state: NodeState, request: object) -> object:
    if not isinstance(request, dict):
        raise RpcError(_INVALID_REQUEST, "Invalid Request object")
    name = request.get("method")
    if name is None:
        raise RpcError(_INVALID_REQUEST, "Missing method")
    if not isinstance(name, str):
        raise RpcError(_INVALID_REQUEST, "Method must be a string")
    params = request.get("params")
    if params is not None and not isinstance(params, list | dict):
        raise RpcError(_INVALID_REQUEST, "Params must be an array or object")
    method = METHODS.get(name)
    if method is None:
        raise RpcError(_METHOD_NOT_FOUND, "Method not found")
    arguments = _positions(method, params) if isinstance(params, dict) else params or []
    _check(name, method, arguments)
    return method.answer(state, *arguments)


def _positions(method: Method, named: Json) -> list[Any]:
    """Put named parameters into their places."""
    names = [param.name for param in method.params]
    for name in named:
        if name not in names:
            raise RpcError(INVALID_PARAMETER, f"Unknown named parameter {name}")
    return [named.get(name) for name in names[: max((names.index(name) + 1 for name in named), default=0)]]


def _check(name: str, method: Method, arguments: list[Any]) -> None:
    required = sum(param.required for param in method.params)
    if not required <= len(arguments) <= len(method.params):
        raise RpcError(MISC_ERROR, _usage(name, method))
    wrong = [
        f'    "Position {place} ({param.name})": "{wrong_type(value, param.type)}"'
        for place, (param, value) in enumerate(zip(method.params, arguments, strict=False), 1)
        if param.type is not None and type_name(value) != param.type and (value is not None or param.required)
    ]
    if wrong:
        raise RpcError(TYPE_ERROR, "Wrong type passed:\n{\n" + ",\n".join(wrong) + "\n}")


def _usage(name: str, method: Method) -> str:
    """Give the first line of bitcoind's help, with which it answers a wrong number of parameters."""
    required = [_quoted(param) for param in method.params if param.required]
    optional = [_quoted(param) for param in method.params if not param.required]
    return " ".join([name, *required, *(["(", *optional, ")"] if optional else [])]) + "\n"


def _quoted(param: Param) -> str:
    return f'"{param.name}"' if param.type == "string" else param.name
