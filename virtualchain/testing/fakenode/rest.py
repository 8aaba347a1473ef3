"""bitcoind's REST interface over the fake node's blocks."""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs, unquote

from virtualchain.testing.fakenode.results import block_json, header_json, spent_json
from virtualchain.testing.fakenode.server import (
    NOT_FOUND,
    Answer,
    binary_answer,
    hex_answer,
    json_answer,
    rest_error,
)
from virtualchain.testing.fakenode.state import NodeState, is_hash
from virtualchain.testing.tree import StoredBlock

_FORMATS: Final = ("bin", "hex", "json")
_NO_FORMAT: Final = rest_error(404, "output format not found (available: .bin, .hex, .json)")
_INTEGER: Final = re.compile(r"[0-9]{1,10}")
_MAX_HEADERS = 2000
_DEFAULT_HEADERS = "5"


def answer(state: NodeState, path: str, query: str, *, spent_outputs: bool) -> Answer:
    """Answer a request for `path`, which is the part after /rest/."""
    for prefix, handler in _ENDPOINTS.items():
        if path.startswith(prefix) and (spent_outputs or handler is not _spent_outputs):
            return handler(state, unquote(path[len(prefix) :]), query)
    return NOT_FOUND


def _chain_info(state: NodeState, rest: str, _query: str) -> Answer:
    if rest != ".json":
        return rest_error(404, "output format not found (available: json)")
    return json_answer(state.chain_info())


def _block(state: NodeState, rest: str, _query: str) -> Answer:
    return _block_answer(state, rest, 3)


def _block_without_details(state: NodeState, rest: str, _query: str) -> Answer:
    return _block_answer(state, rest, 1)


def _block_answer(state: NodeState, rest: str, verbosity: int) -> Answer:
    text, form = _split(rest)
    stored = _find(state, text)
    if isinstance(stored, Answer):
        return stored
    if not state.has(stored):
        return rest_error(404, f"{text} not available (pruned data)")
    if form == "json":
        return json_answer(block_json(state.chain.tree, stored, verbosity, state.undo(stored)))
    return _raw(stored.raw, form)


def _headers(state: NodeState, rest: str, query: str) -> Answer:
    rest, form = _split(rest)
    count, slash, text = rest.rpartition("/")
    if "/" in count:
        return rest_error(400, "Invalid URI format. Expected /rest/headers/<hash>.<ext>?count=<count>")
    if not slash:
        count = parse_qs(query, keep_blank_values=True).get("count", [_DEFAULT_HEADERS])[0]
    if not _INTEGER.fullmatch(count) or not 1 <= int(count) <= _MAX_HEADERS:
        return rest_error(
            400, f"Header count is invalid or out of acceptable range (1-{_MAX_HEADERS}): {count}"
        )
    if not is_hash(text):
        return rest_error(400, f"Invalid hash: {text}")
    tree = state.chain.tree
    stored = state.find(text)
    # A hash that is not on the chain, known or not, yields no headers; that is not an error.
    active = stored is not None and tree.is_active(stored)
    page = tree.chain[stored.height : stored.height + int(count)] if stored is not None and active else []
    if form == "json":
        return json_answer([header_json(tree, each) for each in page])
    return _raw(b"".join(each.header for each in page), form)


def _block_hash(state: NodeState, rest: str, _query: str) -> Answer:
    text, form = _split(rest)
    if not _INTEGER.fullmatch(text) or int(text) >= 1 << 31:
        return rest_error(400, f"Invalid height: {text}")
    chain = state.chain.tree.chain
    if int(text) >= len(chain):
        return rest_error(404, "Block height out of range")
    block_hash = chain[int(text)].block.hash
    if form == "json":
        return json_answer({"blockhash": block_hash})
    if form == "hex":
        return Answer(200, "text/plain", f"{block_hash}\n".encode())
    return _raw(bytes.fromhex(block_hash)[::-1], form)


def _spent_outputs(state: NodeState, rest: str, _query: str) -> Answer:
    text, form = _split(rest)
    stored = _find(state, text)
    if isinstance(stored, Answer):
        return stored
    undo = state.undo(stored)
    if undo is None:
        return rest_error(404, f"{text} undo not available")
    if form == "json":
        return json_answer(spent_json(undo, state.chain.tree.network))
    return _raw(undo.outputs, form)


_ENDPOINTS: Final[dict[str, Callable[[NodeState, str, str], Answer]]] = {
    "chaininfo": _chain_info,
    "block/notxdetails/": _block_without_details,
    "block/": _block,
    "headers/": _headers,
    "blockhashbyheight/": _block_hash,
    "spenttxouts/": _spent_outputs,
}


def _split(rest: str) -> tuple[str, str | None]:
    """Split off the format; like bitcoind, leave an unknown one in place."""
    head, dot, form = rest.rpartition(".")
    return (head, form) if dot and form in _FORMATS else (rest, None)


def _find(state: NodeState, text: str) -> StoredBlock | Answer:
    if not is_hash(text):
        return rest_error(400, f"Invalid hash: {text}")
    return state.find(text) or rest_error(404, f"{text} not found")


def _raw(body: bytes, form: str | None) -> Answer:
    if form is None:
        return _NO_FORMAT
    return binary_answer(body) if form == "bin" else hex_answer(body)
