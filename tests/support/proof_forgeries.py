"""Forged proofs for comparing checkers: every hash is right, and one rule that no hash enforces is broken.

Most have a good counterpart, which differs in nothing else.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.support import independent_proofs as rules
from tests.support.proof_cases import (
    block_spv,
    coinbase,
    hex_of,
    made_headers,
    made_transaction,
    op_proof,
    row_proof,
)
from tests.support.proof_changes import Case

_NOTHING_SPENT = bytes(32) + b"\xff" * 4


def forgeries(random: Random) -> Iterator[Case]:
    """Yield forged proofs of each kind."""
    for height in (1, 16, 17, 128, 32_768, 840_000):
        for name, spv in _forged_spv(random, height):
            proof, trusted = op_proof(random, block=height)
            yield Case(f"{name} at {height}", json.dumps({**proof, "spv": spv}).encode(), trusted)
    for _ in range(5):
        yield from _forged_ops(random)
    for _ in range(300):
        proof, trusted = row_proof(random, is_forged=True)
        yield Case("other rows", json.dumps(proof).encode(), trusted)


def _forged_spv(random: Random, height: int) -> Iterator[tuple[str, dict[str, Any]]]:
    first, others = coinbase(random, height), [made_transaction(random) for _ in range(4)]
    push = rules.pushed_height(height)
    yield "good", block_spv(random, [first, *others], 3, height)
    yield "coinbase of another height", block_spv(random, [coinbase(random, height + 1), *others], 3, height)
    longer = bytes([push[0] + 1]) + push[1:] + b"\x00"
    coinbases = {
        "height in too many bytes": made_transaction(random, longer, _NOTHING_SPENT),
        "no null output": made_transaction(random, push, b"\x01" + _NOTHING_SPENT[1:]),
        "another number of the output": made_transaction(random, push, _NOTHING_SPENT[:-1] + b"\xfe"),
        "two inputs": _with_count(first, _two_inputs(first)),
    }
    for name, transaction in coinbases.items():
        yield name, block_spv(random, [transaction, *others], 3, height)
        yield f"{name}, itself", block_spv(random, [transaction, *others], 0, height)
    other = others[0]
    start, spent, after = other[:5], other[5:41], other[42 + other[41] :]
    transactions = {
        "64 bytes": _of_64_bytes(random),
        "no inputs": start[:4] + bytes(6),
        "a witness": start[:4] + b"\x00\x01" + other[4:],
        "a byte more": other + b"\x00",
        "a byte less": other[:-1],
        "huge count": start[:4] + b"\xfe\xff\xff\xff\xff" + other[5:],
        "empty": b"",
    }
    for size in (6, 0xFC, 0xFD, 0xFFFF, 0x10000):
        for name, written in _counts(size):
            transactions[f"script of {size} bytes, as {name}"] = start + spent + written + bytes(size) + after
    for name, transaction in transactions.items():
        yield name, block_spv(random, [first, transaction], 1, height)
    made = block_spv(random, [first, *others], 4, height)
    yield (
        "repeated leaf",
        {**made, "txindex": 5, "branch": [rules.sha256d(others[3]).hex(), *made["branch"][1:]]},
    )
    yield "place above the tree", {**made, "txindex": 4 + 8}
    pair = rules.sha256d(first) + rules.sha256d(others[0])
    made = block_spv(random, [first, *others[:3]], 0, height)
    yield "inner node", {**made, "transaction": pair.hex(), "branch": made["branch"][1:]}
    for depth in (15, 16, 17):  # a branch that no block has, and the root that it leads to
        branch = [hex_of(random, 32) for _ in range(depth)]
        node = rules.sha256d(first)
        for sibling in branch:
            node = rules.sha256d(node + bytes.fromhex(sibling))
        deep = {**made, "branch": branch, "coinbase_branch": branch, "txindex": 0}
        yield f"{depth} levels", {**deep, "headers": made_headers(random, node, height, 2, None)}


def _counts(number: int) -> Iterator[tuple[str, bytes]]:
    """Yield a number as transactions write it, in every length that can hold it."""
    for name, prefix, width in (("one", b"", 1), ("fd", b"\xfd", 2), ("fe", b"\xfe", 4), ("ff", b"\xff", 8)):
        if number < 256**width and (prefix or number < 0xFD):
            yield name, prefix + number.to_bytes(width, "little")


def _two_inputs(transaction: bytes) -> bytes:
    return transaction[5 : 5 + 36 + 1 + transaction[41] + 4]


def _with_count(transaction: bytes, more: bytes) -> bytes:
    return transaction[:4] + b"\x02" + more + transaction[5:]


def _of_64_bytes(random: Random) -> bytes:
    """Make up a transaction of one input without a script and one output with one of four bytes."""
    start = random.randbytes(4) + b"\x01" + random.randbytes(36) + b"\x00" + random.randbytes(4)
    return start + b"\x01" + random.randbytes(8) + b"\x04" + random.randbytes(4) + random.randbytes(4)


def _forged_ops(random: Random) -> Iterator[Case]:
    """Yield proofs whose prior hashes repeat, whose blocks are too low, or whose parts have another type."""
    ops_hash = rules.ops_hash_of([b"a:"])
    one, two = random.randbytes(16), random.randbytes(16)
    head = {"format": "virtualchain-proof-1", "app": "app", "ops": ["613a"], "index": None}
    for name, first, block, prior in (
        ("good", 5, 9, {"8": one, "6": two}),
        ("a hash twice", 5, 9, {"8": one, "6": one}),
        ("no prior", 5, 5, {}),
        ("below the first", 6, 5, {}),
        ("one too many", 5, 5, {"4": one}),
        ("one too few", 5, 9, {"8": one}),
    ):
        texts = {key: value.hex() for key, value in prior.items()}
        hop = {"block_id": block, "ops_hash": ops_hash.hex(), "prior": texts}
        trusted = rules.consensus_hash_of(ops_hash, list(prior.values())).hex()
        proof = {**head, "first_block_id": first, "hops": [hop]}
        yield Case(name, json.dumps(proof).encode(), trusted)
        for other in ([], None, 0, "", False, [["8", one.hex()]]):
            yield Case(
                f"{name}, {other}", json.dumps({**proof, "hops": [{**hop, "prior": other}]}).encode(), trusted
            )
        yield Case(
            "not UTF-8", json.dumps(proof).encode().replace(b'"app": "app"', b'"app": "a\xffp"'), trusted
        )
        for absent in ("613a", "613b", "3a"):
            yield Case(f"absent {absent}", json.dumps(proof).encode(), trusted, {"absent": absent})
