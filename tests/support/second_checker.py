"""A second checker of op proofs, written from docs/protocol alone, to compare the first one with.

It is plain and slow, and takes nothing from the code under test but the hash functions.
"""

import json
import re
from typing import Any, Final

from virtualchain.consensus.hashing import hash160, sha256d

LIMITS: Final = {
    "mainnet": 0xFFFF << 208,
    "testnet3": 0xFFFF << 208,
    "testnet4": 0xFFFF << 208,
    "signet": 0x377AE << 216,
    "regtest": (1 << 255) - 1,
}
HEIGHTS: Final = {"mainnet": 227931, "testnet3": 21111}


class Refused(Exception):
    """The proof does not hold."""


def need(condition: object) -> None:
    """Refuse the proof unless a condition holds."""
    if not condition:
        raise Refused


def parse(data: bytes) -> Any:
    """Read a file."""
    need(len(data) <= 2**26 and not data.startswith(b"\xef\xbb\xbf"))

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len({key for key, _ in items}) == len(items))
        return dict(items)

    def number(written: str) -> int:
        need(re.fullmatch("0|[1-9][0-9]*", written) and len(written) < 20)
        return int(written)

    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=pairs,
            parse_int=number,
            parse_float=need_no,
            parse_constant=need_no,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused from error
    return value


def need_no(_written: str) -> None:
    """Refuse a number that is not whole."""
    raise Refused


def fields(value: Any, *keys: str) -> list[Any]:
    """Return the values of exactly these keys."""
    need(isinstance(value, dict) and set(value) == set(keys))
    return [value[key] for key in keys]


def height(value: Any) -> int:
    """Return a whole number below 2^31."""
    need(type(value) is int and 0 <= value < 2**31)
    return int(value)


def from_hex(value: Any, size: int | None = None) -> bytes:
    """Return the bytes that lower-case hex stands for."""
    need(isinstance(value, str) and re.fullmatch(r"(?:[0-9a-f][0-9a-f])*\Z", value))
    need(size is None or len(value) == 2 * size)
    return bytes.fromhex(value)


def root(leaves: list[bytes]) -> bytes:
    """Compute a Merkle root."""
    while len(leaves) > 1:
        leaves = leaves + leaves[-1:] * (len(leaves) % 2)
        leaves = [sha256d(leaves[at] + leaves[at + 1]) for at in range(0, len(leaves), 2)]
    return leaves[0]


def check(data: bytes, trusted: str, app: str | None, block_id: int | None) -> dict[str, Any]:
    """Check a file; return what it shows, or raise Refused."""
    proof = parse(data)
    need(isinstance(proof, dict))
    spv = proof.pop("spv", Refused)
    form, name, first, hops, ops, index = fields(
        proof, "format", "app", "first_block_id", "hops", "ops", "index"
    )
    need(form == "virtualchain-proof-1" and isinstance(name, str) and name == (name if app is None else app))
    height(first)
    need(isinstance(hops, list) and hops and isinstance(ops, list))
    expected = {}
    for number, hop in enumerate(hops):
        at, ops_hash, prior = fields(hop, "block_id", "ops_hash", "prior")
        need(height(at) >= first)
        if number == 0:
            need(block_id is None or at == block_id)
            expected[at] = from_hex(trusted, 16)
        need(at in expected)
        gaps = [2**power - 1 for power in range(1, 33)]
        ids = [at - gap for gap in gaps if at - gap >= first]
        hashes = [from_hex(value, 16) for value in fields(prior, *map(str, ids))]
        need(len(set(hashes)) == len(hashes))
        leaves = sorted([from_hex(ops_hash, 32).hex(), *(value.hex() for value in hashes)])
        top = root([bytes.fromhex(leaf)[::-1] for leaf in leaves])[::-1]
        need(hash160(top)[:16] == expected[at])
        expected = dict(zip(ids, hashes, strict=True))
    shown = [from_hex(op) for op in ops]
    need(all(op[:1] == b":" or op[1:2] == b":" for op in shown))
    digests = sorted(map(sha256d, shown))
    need(root([digest[::-1] for digest in digests or [sha256d(b"")]])[::-1] == from_hex(ops_hash))
    row = digests
    while len(row) > 2:
        need(len(row) % 2 or row[-1] != row[-2])
        row = row + row[-1:] * (len(row) % 2)
        row = [sha256d(row[place] + row[place + 1]) for place in range(0, len(row), 2)]
    need(index is None or height(index) < len(shown))
    result = {"block_id": at, "ops": shown, "op": None if index is None else shown[index], "txid": None}
    if spv is not Refused:
        need(index is not None)
        result["txid"] = check_spv(spv, at)
    return result


def check_spv(spv: Any, at: int) -> str:
    """Check a transaction in the block at a height and its headers; return its id."""
    network, txindex, transaction, branch, coinbase, coinbase_branch, headers = fields(
        spv, "network", "txindex", "transaction", "branch", "coinbase", "coinbase_branch", "headers"
    )
    need(isinstance(network, str))
    need(network in LIMITS or (re.fullmatch("signet-[0-9a-f]{8}", network) and network != "signet-0a03cf40"))
    need(
        isinstance(headers, list)
        and headers
        and isinstance(branch, list)
        and isinstance(coinbase_branch, list)
    )
    chain = [from_hex(header, 80) for header in headers]
    merkle_root = chain[0][36:68]
    first, one = from_hex(coinbase), from_hex(transaction)
    need(len(branch) == len(coinbase_branch) <= 15 and height(txindex) < 2 ** len(branch))
    for raw, place, siblings in ((first, 0, coinbase_branch), (one, txindex, branch)):
        inputs = spends(raw)
        need(inputs and len(raw) != 64)
        node = sha256d(raw)
        for level, sibling in enumerate(from_hex(item, 32) for item in siblings):
            if place >> level & 1:
                need(sibling != node)
                node = sha256d(sibling + node)
            else:
                node = sha256d(node + sibling)
        need(node == merkle_root)
    [*others, (outpoint, script)] = spends(first)
    need(not others and outpoint == bytes(32) + b"\xff" * 4)
    if at >= HEIGHTS.get(network, 1):
        number = at.to_bytes(5, "little").rstrip(b"\0")
        number += b"\0" * (number[-1:] >= b"\x80")
        need(script.startswith(bytes([0x50 + at]) if at <= 16 else bytes([len(number)]) + number))
    need(txindex or first == one)
    check_headers(chain, at, network)
    return sha256d(one)[::-1].hex()


def spends(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Read a whole transaction without witness; return the outpoint and script of each input."""
    at = 4

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        need(at <= len(raw))
        return raw[at - size : at]

    def count() -> int:
        first = take(1)[0]
        if first < 0xFD:
            return first
        number = int.from_bytes(take(2 ** (first - 0xFC)), "little")
        need(number >= {0xFD: 0xFD, 0xFE: 2**16, 0xFF: 2**32}[first])
        return number

    inputs = []
    for _ in range(count()):
        outpoint, script = take(36), take(count())
        take(4)
        inputs.append((outpoint, script))
    need(inputs)
    for _ in range(count()):
        take(8)
        take(count())
    take(4)
    need(at == len(raw))
    return inputs


def check_headers(chain: list[bytes], at: int, network: str) -> None:
    """Check that headers, of which the first has a height, form a chain by the rules of a network."""
    limit = LIMITS.get(network, LIMITS["signet"])
    bits = [int.from_bytes(header[72:76], "little") for header in chain]
    times = [int.from_bytes(header[68:72], "little") for header in chain]
    eases, test4 = network in {"testnet3", "testnet4"}, network == "testnet4"
    usual = None
    for n, header in enumerate(chain):
        target = target_of(bits[n])
        need(target is not None and target <= limit)
        need(int.from_bytes(sha256d(header), "little") <= (target or 0))
        starts = (at + n) % 2016 == 0
        if n:
            need(header[4:36] == sha256d(chain[n - 1]))
            if network in LIMITS and network != "regtest":
                if starts:
                    need(is_next(bits, times, n, limit, test4))
                else:
                    is_late = eases and times[n] > times[n - 1] + 1200
                    required = compact(limit) if is_late else usual if eases else bits[n - 1]
                    need(required is None or bits[n] == required)
            before = sorted(times[max(n - 11, 0) : n])
            if len(before) == min(at + n, 11):
                need(times[n] > before[len(before) // 2])
            need(not (test4 and starts) or times[n] >= times[n - 1] - 600)
        if starts or bits[n] != compact(limit):
            usual = bits[n]


def is_next(bits: list[int], times: list[int], n: int, limit: int, test4: bool) -> bool:
    """Check the target of the first header of a period."""

    def after(base: int, seconds: int) -> int:
        return compact(min((target_of(base) or 0) * min(max(seconds, 302400), 4838400) // 1209600, limit))

    if n >= 2016:
        base = bits[n - 2016] if test4 else bits[n - 1]
        return bits[n] == after(base, times[n - 1] - times[n - 2016])
    low, high = (target_of(after(bits[n - 1], seconds)) or 0 for seconds in (0, 10**9))
    return test4 or low <= (target_of(bits[n]) or 0) <= high


def target_of(bits: int) -> int | None:
    """Return the target that bits stand for; None if it is invalid."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    target = mantissa * 256**exponent // 256**3
    return None if bits & 0x800000 or not 0 < target < 2**256 else target


def compact(target: int) -> int:
    """Write a target as bits."""
    size = (target.bit_length() + 7) // 8
    mantissa: int = target * 256**3 // 256**size
    if mantissa & 0x800000:
        size, mantissa = size + 1, mantissa >> 8
    return size << 24 | mantissa
