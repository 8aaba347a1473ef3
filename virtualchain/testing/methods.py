"""What the fake node says to each JSON-RPC method: bitcoind's results, errors and codes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from virtualchain.model import Json
from virtualchain.testing.state import NodeState, is_hash
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import read_undo
from virtualchain.testing.verbose import block_json, header_json, transaction_in_block_json
from virtualchain.testing.wire import read_block

MISC_ERROR: Final = -1
TYPE_ERROR: Final = -3
NOT_FOUND: Final = -5
INVALID_PARAMETER: Final = -8
_WALLET_HINT = "Use gettransaction for wallet transactions."


class RpcError(Exception):
    """An error that the node answers with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a method; a type is checked before the method is called."""

    name: str
    type: str | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its parameters, and what answers it."""

    params: tuple[Param, ...]
    answer: Callable[..., Any]


def _get_block_hash(state: NodeState, height: float) -> str:
    chain = state.chain.tree.chain
    place = _integer(height)
    if not 0 <= place < len(chain):
        raise RpcError(INVALID_PARAMETER, "Block height out of range")
    return chain[place].block.hash


def _get_block_header(state: NodeState, blockhash: str, verbose: bool | None = None) -> Json | str:
    stored = _block(state, blockhash, "hash")
    return stored.block.header.hex() if verbose is False else header_json(state.chain.tree, stored)


def _get_block(state: NodeState, blockhash: str, verbosity: object = None) -> Json | str:
    stored = _block(state, blockhash, "blockhash")
    level = _verbosity(verbosity, 1)
    if not state.has(stored):
        raise RpcError(MISC_ERROR, "Block not available (pruned data)")
    if level <= 0:
        return stored.raw.hex()
    return block_json(state.chain.tree, stored, level, state.undo(stored) if level > 1 else None)


def _get_raw_transaction(
    state: NodeState, txid: str, verbosity: object = None, blockhash: str | None = None
) -> Json | str:
    _check_hash(txid, "parameter 1")
    if txid.lower() == state.chain.tree.chain[0].block.merkle_root:
        raise RpcError(
            NOT_FOUND,
            "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved",
        )
    level = _verbosity(verbosity, 0)
    if blockhash is None:
        raise RpcError(
            NOT_FOUND,
            "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain"
            f" transaction queries. {_WALLET_HINT}",
        )
    stored = _block(state, blockhash, "parameter 3", "Block hash not found")
    if not state.has(stored):
        raise RpcError(MISC_ERROR, "Block not available")
    wanted = bytes.fromhex(txid)[::-1]
    for index, tx in enumerate(read_block(stored.raw)):
        if tx.txid == wanted:
            if level <= 0:
                return tx.raw.hex()
            undo = state.undo(stored) if level > 1 else None
            coins = None if undo is None else read_undo(undo)[index]
            return transaction_in_block_json(state.chain.tree, stored, tx, coins)
    raise RpcError(NOT_FOUND, f"No such transaction found in the provided block. {_WALLET_HINT}")


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
    "uptime": Method((), lambda state: int(monotonic() - state.started)),
}


def type_name(value: object) -> str:
    """Name a value's JSON type as bitcoind does."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def wrong_type(value: object, expected: str) -> str:
    """Say that a value has another JSON type than it should."""
    return f"JSON value of type {type_name(value)} is not of expected type {expected}"


def _block(state: NodeState, text: str, name: str, unknown: str = "Block not found") -> StoredBlock:
    _check_hash(text, name)
    stored = state.find(text)
    if stored is None:
        raise RpcError(NOT_FOUND, unknown)
    return stored


def _check_hash(text: str, name: str) -> None:
    if len(text) != 64:
        raise RpcError(INVALID_PARAMETER, f"{name} must be of length 64 (not {len(text)}, for '{text}')")
    if not is_hash(text):
        raise RpcError(INVALID_PARAMETER, f"{name} must be hexadecimal string (not '{text}')")


def _verbosity(value: object, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int | float):
        raise RpcError(TYPE_ERROR, wrong_type(value, "number"))
    return _integer(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
        raise RpcError(MISC_ERROR, "JSON integer out of range")
    return value
