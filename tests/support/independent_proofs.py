"""A second checker of proofs, written from the pages of docs/protocol on proofs and digests alone.

It shares no code with `virtualchain` and is as plain as possible, so that tests can compare the two.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn, TypeVar

_T = TypeVar("_T")

_LONGEST_FILE = 2**26
_LARGEST_NUMBER = 2**31 - 1
_LARGEST_COUNT = 2**53 - 1
_LONGEST_BRANCH = 15
_PERIOD = 2016
_TWO_WEEKS = 1_209_600
_TWENTY_MINUTES = 1_200
_LIMITS = {
    "mainnet": 0xFFFF * 2**208,
    "testnet3": 0xFFFF * 2**208,
    "testnet4": 0xFFFF * 2**208,
    "signet": 0x377AE * 2**216,
    "regtest": 2**255 - 1,
}
_BIP34 = {"mainnet": 227_931, "testnet3": 21_111}


class Refused(Exception):
    """The proof does not hold."""


def check(data: bytes, trusted: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a proof file shows; `known` has the keys app, at, absent, header, network, table, key.

    Raises `Refused` if it shows nothing.
    """
    proof = _read(data)
    _need(isinstance(proof, dict), "not an object")
    if proof.get("format") == "virtualchain-proof-1":
        return _check_ops(proof, trusted, known)
    if proof.get("format") == "virtualchain-row-proof-1":
        return _check_row(proof, trusted, known)
    raise Refused("unknown format")


# The file


def _need(condition: bool, complaint: str) -> None:
    if not condition:
        raise Refused(complaint)


def _read(data: bytes) -> Any:
    _need(len(data) <= _LONGEST_FILE, "too long")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise Refused("not JSON") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _need(len({name for name, _ in pairs}) == len(pairs), "a key twice")
    return dict(pairs)


def _whole_number(text: str) -> int:
    _need(text.isdigit(), "a sign")
    return int(text) if len(text) < 20 else 10**20


def _refuse(text: str) -> NoReturn:
    raise Refused(f"number {text}")


def _fields(value: Any, names: str, optional: str = "") -> list[Any]:
    """Return the values of an object that has exactly these keys, and None for an optional one."""
    _need(isinstance(value, dict), "not an object")
    _need(set(names.split()) <= value.keys() <= {*names.split(), *optional.split()}, "keys")
    return [value.get(name) for name in [*names.split(), *optional.split()]]


def _number(value: Any, largest: int = _LARGEST_NUMBER) -> int:
    _need(type(value) is int and 0 <= value <= largest, "not a whole number in range")
    return int(value)


def _text(value: Any) -> str:
    _need(isinstance(value, str), "not text")
    _need(re.search("[\ud800-\udfff]", value) is None, "a lone surrogate")
    return str(value)


def _hex(value: Any, digits: int | None = None) -> bytes:
    _need(isinstance(value, str) and re.fullmatch("([0-9a-f]{2})*", value) is not None, "not hex")
    _need(digits is None or len(value) == digits, "not of this length")
    return bytes.fromhex(value)


def _list(value: Any, item: Callable[[Any], _T]) -> list[_T]:
    _need(isinstance(value, list), "not a list")
    return [item(one) for one in value]


_hash = partial(_hex, digits=64)

# Hashes of docs/protocol/consensus.md


def sha256(data: bytes) -> bytes:
    """Compute SHA-256."""
    return hashlib.sha256(data).digest()


def sha256d(data: bytes) -> bytes:
    """Compute SHA-256 of SHA-256."""
    return sha256(sha256(data))


def _ripemd160(data: bytes) -> bytes:
    try:
        return hashlib.new("ripemd160", data).digest()
    except ValueError:
        from embit.util.py_ripemd160 import ripemd160

        return bytes(ripemd160(data))


def rows_of_tree(hashes: list[bytes]) -> list[list[bytes]]:
    """Return the rows of a Merkle tree of docs/protocol/consensus.md, from the leaves to the root."""
    rows = [[one[::-1] for one in hashes]]
    while len(rows[-1]) > 1:
        row = rows[-1] if len(rows[-1]) % 2 == 0 else [*rows[-1], rows[-1][-1]]
        rows.append([sha256d(row[i] + row[i + 1]) for i in range(0, len(row), 2)])
    return rows


def merkle_root(hashes: list[bytes]) -> bytes:
    """Compute the Merkle root of docs/protocol/consensus.md."""
    return rows_of_tree(hashes)[-1][0][::-1]


def ops_hash_of(ops: list[bytes]) -> bytes:
    """Compute the ops hash of serialized ops."""
    return merkle_root(sorted(sha256d(op) for op in ops) or [sha256d(b"")])


def consensus_hash_of(ops_hash: bytes, prior: list[bytes]) -> bytes:
    """Compute a consensus hash."""
    leaves = sorted(value.hex() for value in (ops_hash, *prior))
    return _ripemd160(sha256(merkle_root([bytes.fromhex(leaf) for leaf in leaves])))[:16]


def prior_of(block: int, first: int) -> list[int]:
    """Return the prior blocks of a block, the nearest first."""
    made = []
    gap = 1
    while block - gap >= first:
        made.append(block - gap)
        gap = 2 * gap + 1
    return made


# Op proofs


def _check_ops(proof: Any, trusted: str, known: Mapping[str, Any]) -> dict[str, Any]:
    _need(not {"table", "key"} & known.keys(), "an op proof has neither table nor key")
    _, app, first, hops, ops, index, spv = _fields(proof, "format app first_block_id hops ops index", "spv")
    _text(app)
    _number(first)
    hops = _list(hops, lambda hop: _hop(hop, first))
    _need(bool(hops), "no hop")
    expected = trusted
    for place, hop in enumerate(hops):
        if place:
            before = hops[place - 1][2]
            _need(hop[0] in before, "a jump to no prior block")
            expected = before[hop[0]].hex()
        made = consensus_hash_of(hop[1], list(hop[2].values()))
        _need(made.hex() == expected, "another consensus hash")
    block = hops[-1][0]

    serialized = _list(ops, _hex)
    _need(all(b":" in (op[:1], op[1:2]) for op in serialized), "no op")
    _need(ops_hash_of(serialized) == hops[-1][1], "another ops hash")
    rows = rows_of_tree(sorted(sha256d(op) for op in serialized))
    can_shorten = any(len(row) > 2 and len(row) % 2 == 0 and row[-1] == row[-2] for row in rows)
    _need(not can_shorten, "a longer list than necessary")
    if index is not None:
        _need(_number(index) < len(serialized), "no such op")

    _need(known.get("app", app) == app, "another app")
    _need(known.get("at", hops[0][0]) == hops[0][0], "another block")
    if "absent" in known:
        _need(index is None and bytes.fromhex(known["absent"]) not in serialized, "not absent")
    chain = None
    if "spv" in proof:
        _need(index is not None, "spv of a whole list")
        chain = _check_spv(spv, block, known)
    _need(chain is not None or "header" not in known, "no headers")
    return {
        "kind": "ops" if index is None else "op",
        "app": app,
        "first_block_id": first,
        "trusted_block_id": hops[0][0],
        "block_id": block,
        "op": None if index is None else serialized[index].hex(),
        "ops": [op.hex() for op in serialized],
        "spv": chain,
    }


def _hop(value: Any, first: int) -> tuple[int, bytes, dict[int, bytes]]:
    block, ops_hash, prior = _fields(value, "block_id ops_hash prior")
    _need(_number(block) >= first, "below the first block")
    expected = prior_of(block, first)
    _need(isinstance(prior, dict) and prior.keys() == {str(one) for one in expected}, "prior blocks")
    hashes = {one: _hex(prior[str(one)], 32) for one in expected}
    _need(len(set(hashes.values())) == len(hashes), "a prior hash twice")
    return block, _hash(ops_hash), hashes


# Proof of work


def _check_spv(spv: Any, height: int, known: Mapping[str, Any]) -> dict[str, Any]:
    network, place, transaction, branch, coinbase, coinbase_branch, headers = _fields(
        spv, "network txindex transaction branch coinbase coinbase_branch headers"
    )
    # The public signet has the message start 0a03cf40.
    custom = re.fullmatch("signet-(?!0a03cf40)[0-9a-f]{8}", _text(network))
    _need(network in _LIMITS or custom is not None, "no such network")
    _need(known.get("network", network) == network, "another network")
    _number(place)
    transaction, coinbase = _hex(transaction), _hex(coinbase)
    branch, coinbase_branch = _list(branch, _hash), _list(coinbase_branch, _hash)
    headers = [_Header(header) for header in _list(headers, partial(_hex, digits=160))]
    _need(bool(headers), "no header")

    _inputs(transaction)
    inputs = _inputs(coinbase)
    _need(len(branch) == len(coinbase_branch) <= _LONGEST_BRANCH, "lengths of the branches")
    _need(place < 2 ** len(branch), "a place beyond the tree")
    _need(_root(transaction, place, branch) == headers[0].root, "another root")
    _need(_root(coinbase, 0, coinbase_branch) == headers[0].root, "another root")
    _need(len(inputs) == 1 and inputs[0][0] == bytes(32) + b"\xff" * 4, "not a coinbase")
    if height >= _BIP34.get(network, 1):
        _need(inputs[0][1].startswith(pushed_height(height)), "another height")
    _need(place != 0 or transaction == coinbase, "two first transactions")

    _check_headers(network, height, headers)
    _need(known.get("header", headers[-1].hash) == headers[-1].hash, "another last header")
    return {
        "network": network,
        "block_hash": headers[0].hash,
        "txindex": place,
        "txid": sha256d(transaction)[::-1].hex(),
        "last_block_id": height + len(headers) - 1,
        "last_block_hash": headers[-1].hash,
        "blocks_on_top": len(headers) - 1,
        "work_on_top": f"{sum(2**256 // (header.target + 1) for header in headers[1:]):x}",
    }


def _inputs(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return previous output and script of each input of a complete transaction without witness."""
    rest = memoryview(data)

    def take(size: int) -> bytes:
        nonlocal rest
        _need(size <= len(rest), "an incomplete transaction")
        taken, rest = rest[:size], rest[size:]
        return bytes(taken)

    def count() -> int:
        first = take(1)[0]
        if first < 0xFD:
            return first
        width = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
        number = int.from_bytes(take(width), "little")
        _need(number >= {2: 0xFD, 4: 2**16, 8: 2**32}[width], "a number in more bytes than it needs")
        return number

    _need(len(data) != 64, "a transaction of 64 bytes")
    take(4)
    inputs = []
    for _ in range(count()):
        previous = take(36)
        inputs.append((previous, take(count())))
        take(4)
    _need(bool(inputs), "no input")
    for _ in range(count()):
        take(8)
        take(count())
    take(4)
    _need(not rest, "bytes after the transaction")
    return inputs


def _root(transaction: bytes, place: int, branch: list[bytes]) -> bytes:
    node = sha256d(transaction)
    for level, sibling in enumerate(branch):
        if place >> level & 1:
            _need(sibling != node, "a repeated node")
            node = sha256d(sibling + node)
        else:
            node = sha256d(node + sibling)
    return node


def pushed_height(height: int) -> bytes:
    """Write a height as the script of a coinbase does."""
    if height <= 16:
        return bytes([0x50 + height])
    number = height.to_bytes(height.bit_length() // 8 + 1, "little")  # the highest bit is the sign
    return bytes([len(number)]) + number


class _Header:
    def __init__(self, data: bytes) -> None:
        digest = sha256d(data)
        self.hash = digest[::-1].hex()
        self.parent = data[4:36][::-1].hex()
        self.root = data[36:68]
        self.time = int.from_bytes(data[68:72], "little")
        self.bits = int.from_bytes(data[72:76], "little")
        self.target = _target(self.bits)
        _need(not self.bits & 0x800000 and 0 < self.target < 2**256, "an invalid target")
        _need(has_work(digest, self.target), "too little work")


def has_work(digest: bytes, target: int) -> bool:
    """Check whether a header's hash meets its target."""
    return int.from_bytes(digest, "little") <= target


def _target(bits: int) -> int:
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    shift = 8 * (exponent - 3)
    return mantissa << shift if shift >= 0 else mantissa >> -shift


def _bits(target: int) -> int:
    size = (target.bit_length() + 7) // 8
    mantissa = target >> 8 * (size - 3) if size >= 3 else target << 8 * (3 - size)
    return (size + 1) << 24 | mantissa >> 8 if mantissa & 0x800000 else size << 24 | mantissa


def check_headers(network: str, lowest: int, headers: list[bytes]) -> None:
    """Check that these headers form a chain that a network's rules allow; raises `Refused`."""
    _check_headers(network, lowest, [_Header(header) for header in headers])


def _check_headers(network: str, lowest: int, headers: list[_Header]) -> None:
    limit = _LIMITS.get(network, _LIMITS["signet"])
    _need(all(header.target <= limit for header in headers), "a target above the limit")
    uneased: _Header | None = None
    """The last header without the limit, or the first one of its period."""
    for place, header in enumerate(headers):
        height = lowest + place
        if place:
            _need(header.parent == headers[place - 1].hash, "not a child")
            if network in {"mainnet", "testnet3", "testnet4", "signet"}:
                _check_target(network, limit, height, headers[max(0, place - _PERIOD) : place + 1], uneased)
            _check_time(network, height, headers[max(0, place - 11) : place + 1])
        if height % _PERIOD == 0 or header.target != limit:
            uneased = header


def _check_time(network: str, height: int, headers: list[_Header]) -> None:
    """Check the time of the last of these headers, of which the others are as many as count."""
    *before, header = headers
    if len(before) == min(11, height):
        _need(header.time > sorted(one.time for one in before)[len(before) // 2], "too early")
    if network == "testnet4" and height % _PERIOD == 0:
        _need(header.time >= before[-1].time - 600, "too early after its parent")


def _check_target(
    network: str, limit: int, height: int, headers: list[_Header], uneased: _Header | None
) -> None:
    """Check the target of the last of these headers, which are those from 2,016 blocks below it on."""
    header, parent = headers[-1], headers[-2]
    if height % _PERIOD == 0:
        first = headers[0] if len(headers) > _PERIOD else None
        base = first if first is not None and network == "testnet4" else parent

        def retarget(seconds: int) -> int:
            clamped = min(max(seconds, _TWO_WEEKS // 4), _TWO_WEEKS * 4)
            return _target(_bits(min(base.target * clamped // _TWO_WEEKS, limit)))

        if first is not None:
            _need(header.bits == _bits(retarget(parent.time - first.time)), "another target")
        elif network != "testnet4":
            _need(retarget(0) <= header.target <= retarget(2**32), "a target out of reach")
        return
    required = parent.target
    if network in {"testnet3", "testnet4"}:
        if header.time > parent.time + _TWENTY_MINUTES:
            required = limit
        elif uneased is None:
            return
        else:
            required = uneased.target
    _need(header.bits == _bits(required), "another target")


# Row proofs


def _check_row(proof: Any, trusted: str, known: Mapping[str, Any]) -> dict[str, Any]:
    _need(not {"absent", "header"} & known.keys(), "a row proof has neither ops nor headers")
    _, state, name, key, rows = _fields(proof, "format state table key rows")
    tables = _check_state(state)
    written = json.dumps(state, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    _need(sha256(b"\x02" + written.encode()).hex() == trusted, "another state root")
    _need(_text(name) in tables, "no such table")
    table = tables[name]
    key = _list(key, _text)
    _need(len(key) == len(table["key"]), "another number of columns in the key")
    sought = [text.encode() for text in key]
    places = [table["columns"].index(column) for column in table["key"]]

    shown: list[tuple[int, list[Any], list[bytes]]] = []
    for index, texts, path in _list(rows, lambda row: _fields(row, "index values path")):
        _number(index, _LARGEST_COUNT)
        values = _list(texts, lambda one: None if one is None else _text(one))
        _need(len(values) == len(table["columns"]), "another number of values")
        leaf = json.dumps([name, *values], ensure_ascii=False, separators=(",", ":")).encode()
        _need(index < table["rows"], "a place beyond the table")
        root = _climb(sha256(b"\x00" + leaf), index, table["rows"], _list(path, _hash))
        _need(root.hex() == table["root"], "another root of the table")
        _need(all(values[place] is not None for place in places), "a null in a key")
        shown.append((index, values, [values[place].encode() for place in places]))

    row = None
    match shown:
        case []:
            _need(table["rows"] == 0, "no row of a table that has some")
        case [(_, values, made)] if made == sought:
            row = dict(zip(table["columns"], values, strict=True))
        case [(index, _, made)]:
            first, last = index == 0, index == table["rows"] - 1
            _need((first and sought < made) or (last and made < sought), "not a neighbor")
        case [(low, _, before), (high, _, after)]:
            _need(high == low + 1 and before < sought < after, "not the neighbors")
        case _:
            raise Refused("too many rows")
    _need(known.get("app", state["app"]) == state["app"], "another app")
    _need(known.get("at", state["block_id"]) == state["block_id"], "another block")
    _need(known.get("table", name) == name, "another table")
    _need(known.get("key", key) == key, "another key")
    return {
        "kind": "row",
        "app": state["app"],
        "block_id": state["block_id"],
        "block_hash": state["block_hash"],
        "genesis_hash": state["genesis_hash"],
        "table": name,
        "key": dict(zip(table["key"], key, strict=True)),
        "row": row,
    }


def _check_state(state: Any) -> dict[str, Any]:
    app, block_hash, block_id, consensus_hash, genesis_hash, state_hash, tables = _fields(
        state, "app block_hash block_id consensus_hash genesis_hash state_hash tables"
    )
    _text(app)
    _hash(block_hash)
    _number(block_id)
    _hex(consensus_hash, 32)
    _hash(genesis_hash)
    _hash(state_hash)
    names = []
    for columns, key, name, root, count in _list(
        tables, lambda table: _fields(table, "columns key name root rows")
    ):
        names.append(_text(name).encode())
        _need(len(set(_list(columns, _text))) == len(columns), "a column twice")
        _need(len(set(_list(key, _text))) == len(key), "a column twice in a key")
        _need(set(key) <= set(columns), "a key of other columns")
        _hash(root)
        _number(count, _LARGEST_COUNT)
    _need(all(low < high for low, high in pairwise(names)), "tables out of order")
    return {table["name"]: table for table in tables}


def _climb(leaf: bytes, index: int, count: int, path: list[bytes]) -> bytes:
    """Return the root that a path from the bottom up leads to; it must have as many steps as the tree."""
    if count == 1:
        _need(not path, "a path that is too long")
        return leaf
    _need(bool(path), "a path that is too short")
    half = 1
    while 2 * half < count:
        half *= 2
    if index < half:
        return sha256(b"\x01" + _climb(leaf, index, half, path[:-1]) + path[-1])
    return sha256(b"\x01" + path[-1] + _climb(leaf, index - half, count - half, path[:-1]))
