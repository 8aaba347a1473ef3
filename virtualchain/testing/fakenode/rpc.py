"""JSON-RPC as bitcoind speaks it: the methods, and their envelope in versions 1 and 2.

The envelope covers batches, named parameters and HTTP statuses. Version 1 repeats errors in the HTTP status;
version 2 (Bitcoin Core 28) answers 200.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from virtualchain.model import Json
from virtualchain.testing.fakenode.results import (
    block_json,
    coin_json,
    header_json,
    transaction_in_block_json,
    transaction_json,
)
from virtualchain.testing.fakenode.server import NO_CONTENT, Answer, json_answer
from virtualchain.testing.fakenode.state import NodeState, is_hash
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import read_undo
from virtualchain.testing.wire import cut_transaction, outpoint, read_transaction

WARMING_UP: Final = -28
_MISC_ERROR = -1
_TYPE_ERROR = -3
_NOT_FOUND = -5
_INVALID_PARAMETER = -8
_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_METHOD_NOT_FOUND = -32601
_STATUSES: Final = {_INVALID_REQUEST: 400, _METHOD_NOT_FOUND: 404}
_WALLET_HINT = "Use gettransaction for wallet transactions."


class RpcError(Exception):
    """An error as the node reports it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a method; its type, if any, is checked before the method is called."""

    name: str
    type: str | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its parameters, and the function that computes the result."""

    params: tuple[Param, ...]
    call: Callable[..., Any]


def parse(body: bytes) -> object:
    """Parse a request's body; None if it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def method_names(request: object) -> list[str]:
    """List the methods that a request calls."""
    calls = request if isinstance(request, list) else [request]
    return [str(call.get("method")) for call in calls if isinstance(call, dict)]


def answer(state: NodeState, request: object, failure: RpcError | None = None) -> Answer:
    """Answer a parsed request; with `failure`, every call in it fails with that error."""
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
    """Make one call; return the reply (None for a version 2 notification) and the error's code."""
    result = None
    error = failure
    modern = isinstance(request, dict) and request.get("jsonrpc") == "2.0"
    if error is None:
        try:
            result = _dispatch(state, request)
        except RpcError as caught:
            error = caught
    code = None if error is None else error.code
    reported = None if error is None else {"code": error.code, "message": error.message}
    identity = {"id": None}
    if isinstance(request, dict):
        identity = {"id": request["id"]} if "id" in request else {}
    if modern:
        outcome = {"result": result} if reported is None else {"error": reported}
        return ({"jsonrpc": "2.0"} | outcome | identity if identity else None), code
    return {"result": result, "error": reported} | identity, code


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
    arguments = _positional(method, params) if isinstance(params, dict) else params or []
    _check(name, method, arguments)
    return method.call(state, *arguments)


def _positional(method: Method, named: Json) -> list[Any]:
    """Convert named parameters to positional ones."""
    names = [param.name for param in method.params]
    for name in named:
        if name not in names:
            raise RpcError(_INVALID_PARAMETER, f"Unknown named parameter {name}")
    return [named.get(name) for name in names[: max((names.index(name) + 1 for name in named), default=0)]]


def _check(name: str, method: Method, arguments: list[Any]) -> None:
    required = sum(param.required for param in method.params)
    if not required <= len(arguments) <= len(method.params):
        raise RpcError(_MISC_ERROR, _usage(name, method))
    wrong = [
        f'    "Position {position} ({param.name})": "{_wrong_type(value, param.type)}"'
        for position, (param, value) in enumerate(zip(method.params, arguments, strict=False), 1)
        if param.type is not None
        and _type_name(value) != param.type
        and (value is not None or param.required)
    ]
    if wrong:
        raise RpcError(_TYPE_ERROR, "Wrong type passed:\n{\n" + ",\n".join(wrong) + "\n}")


def _usage(name: str, method: Method) -> str:
    """Return the first line of bitcoind's help, its answer to a wrong number of parameters."""
    required = [_quoted(param) for param in method.params if param.required]
    optional = [_quoted(param) for param in method.params if not param.required]
    return " ".join([name, *required, *(["(", *optional, ")"] if optional else [])]) + "\n"


def _quoted(param: Param) -> str:
    return f'"{param.name}"' if param.type == "string" else param.name


def _type_name(value: object) -> str:
    """Return bitcoind's name of a value's JSON type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _wrong_type(value: object, expected: str) -> str:
    """Return the message for a value of the wrong JSON type."""
    return f"JSON value of type {_type_name(value)} is not of expected type {expected}"


def _block(state: NodeState, text: str, name: str, unknown: str = "Block not found") -> StoredBlock:
    _check_hash(text, name)
    stored = state.find(text)
    if stored is None:
        raise RpcError(_NOT_FOUND, unknown)
    return stored


def _check_hash(text: str, name: str) -> None:
    if len(text) != 64:
        raise RpcError(_INVALID_PARAMETER, f"{name} must be of length 64 (not {len(text)}, for '{text}')")
    if not is_hash(text):
        raise RpcError(_INVALID_PARAMETER, f"{name} must be hexadecimal string (not '{text}')")


def _verbosity(value: object, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int | float):
        raise RpcError(_TYPE_ERROR, _wrong_type(value, "number"))
    return _integer(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
        raise RpcError(_MISC_ERROR, "JSON integer out of range")
    return value


def _get_block_hash(state: NodeState, height: float) -> str:
    chain = state.chain.tree.chain
    block_id = _integer(height)
    if not 0 <= block_id < len(chain):
        raise RpcError(_INVALID_PARAMETER, "Block height out of range")
    return chain[block_id].block.hash


def _get_block_header(state: NodeState, blockhash: str, verbose: bool | None = None) -> Json | str:
    stored = _block(state, blockhash, "hash")
    return stored.header.hex() if verbose is False else header_json(state.chain.tree, stored)


def _get_block(state: NodeState, blockhash: str, verbosity: object = None) -> Json | str:
    stored = _block(state, blockhash, "blockhash")
    level = _verbosity(verbosity, 1)
    if not state.has(stored):
        raise RpcError(_MISC_ERROR, "Block not available (pruned data)")
    if level <= 0:
        return stored.raw.hex()
    return block_json(state.chain.tree, stored, level, state.undo(stored) if level > 1 else None)


def _get_raw_transaction(
    state: NodeState, txid: str, verbosity: object = None, blockhash: str | None = None
) -> Json | str:
    _check_hash(txid, "parameter 1")
    if txid.lower() == state.chain.tree.chain[0].block.merkle_root:
        raise RpcError(
            _NOT_FOUND,
            "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved",
        )
    level = _verbosity(verbosity, 0)
    if blockhash is None:
        return _find_transaction(state, txid, level)
    stored = _block(state, blockhash, "parameter 3", "Block hash not found")
    if not state.has(stored):
        raise RpcError(_MISC_ERROR, "Block not available")
    place = state.places(stored).get(bytes.fromhex(txid)[::-1])
    if place is None:
        raise RpcError(_NOT_FOUND, f"No such transaction found in the provided block. {_WALLET_HINT}")
    index, start = place
    tx = cut_transaction(stored.plain, start)
    if level <= 0:
        return tx.raw.hex()
    undo = state.undo(stored) if level > 1 else None
    coins = None if undo is None else read_undo(undo)[index]
    return transaction_in_block_json(state.chain.tree, stored, tx, coins)


def _find_transaction(state: NodeState, txid: str, level: int) -> Json | str:
    """Find a transaction by its id alone: an unconfirmed one, or one that the index finds."""
    unconfirmed = state.chain.unconfirmed(txid.lower())
    if unconfirmed is not None:
        if level <= 0:
            return unconfirmed.hex()
        return transaction_json(read_transaction(unconfirmed), state.chain.network, None, prevouts=False)
    for stored in filter(state.has, reversed(state.chain.tree.chain)) if state.txindex else ():
        if bytes.fromhex(txid)[::-1] in state.places(stored):
            return _get_raw_transaction(state, txid, level, stored.block.hash)
    raise RpcError(
        _NOT_FOUND,
        "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain"
        f" transaction queries. {_WALLET_HINT}",
    )


def _get_tx_out(state: NodeState, txid: str, n: float, _include_mempool: bool | None = None) -> Json | None:
    _check_hash(txid, "txid")
    if not isinstance(n, int) or not 0 <= n < 1 << 32:
        raise RpcError(_MISC_ERROR, "JSON integer out of range")
    coin = state.chain.unspent(outpoint(txid, n))
    return None if coin is None else coin_json(state.chain.tree, coin)


def _get_chain_tips(state: NodeState) -> list[Json]:
    return [
        {
            "height": tip.stored.height,
            "hash": tip.stored.block.hash,
            "branchlen": tip.branch_length,
            "status": tip.status,
        }
        for tip in state.chain.tree.tips()
    ]


def _wait_for_new_block(state: NodeState, timeout: int | None = None, current_tip: str | None = None) -> Json:
    if current_tip is not None:
        _check_hash(current_tip, "current_tip")
    before = current_tip or state.chain.tip
    return state.wait_until(lambda: state.chain.tip != before, _timeout(timeout))


def _wait_for_block_height(state: NodeState, height: int, timeout: int | None = None) -> Json:
    return state.wait_until(lambda: state.chain.height >= _integer(height), _timeout(timeout))


def _timeout(value: int | None) -> int:
    milliseconds = 0 if value is None else _integer(value)
    if milliseconds < 0:
        raise RpcError(_MISC_ERROR, "Negative timeout")
    return milliseconds


def _get_network_info(_state: NodeState) -> Json:
    return {
        "version": 300000,
        "subversion": "/Satoshi:30.0.0(virtualchain.testing)/",
        "protocolversion": 70016,
        "localservices": "0000000000000409",
        "localservicesnames": ["NETWORK", "WITNESS", "NETWORK_LIMITED"],
        "localrelay": True,
        "timeoffset": 0,
        "networkactive": True,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networks": [],
        "relayfee": "sat:1000",
        "incrementalfee": "sat:1000",
        "localaddresses": [],
        "warnings": [],
    }


_BLOCK_HASH = Param("blockhash", "string", required=True)
METHODS: Final[Mapping[str, Method]] = {
    "getbestblockhash": Method((), lambda state: state.chain.tip),
    "getblock": Method((_BLOCK_HASH, Param("verbosity")), _get_block),
    "getblockchaininfo": Method((), NodeState.chain_info),
    "getblockcount": Method((), lambda state: state.chain.height),
    "getblockhash": Method((Param("height", "number", required=True),), _get_block_hash),
    "getblockheader": Method((_BLOCK_HASH, Param("verbose", "bool")), _get_block_header),
    "getchaintips": Method((), _get_chain_tips),
    "getnetworkinfo": Method((), _get_network_info),
    "getrawtransaction": Method(
        (Param("txid", "string", required=True), Param("verbosity"), Param("blockhash", "string")),
        _get_raw_transaction,
    ),
    "gettxout": Method(
        (
            Param("txid", "string", required=True),
            Param("n", "number", required=True),
            Param("include_mempool", "bool"),
        ),
        _get_tx_out,
    ),
    "waitforblockheight": Method(
        (Param("height", "number", required=True), Param("timeout", "number")), _wait_for_block_height
    ),
    "waitfornewblock": Method(
        (Param("timeout", "number"), Param("current_tip", "string")), _wait_for_new_block
    ),
    "uptime": Method((), lambda state: int(monotonic() - state.started)),
}
