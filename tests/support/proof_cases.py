"""Good proofs for comparing checkers, made up from a seed by the rules of docs/protocol."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.support import independent_proofs as rules
from tests.support.row_tables import Table, naive_path, naive_root, ordered

_HIGHEST = 2**31 - 1
_EASY = 0x207FFFFF
TEXTS = [
    "",
    "0",
    "9",
    "10",
    "a",
    "aa",
    "A",
    "é",
    "e\u0301",
    "ﬀ",
    "😀",
    "\uffff",
    "\u2028",
    "\x7f",
    '"\\/',
    "\b\f\n\r\t\x00\x1f",
]
NAMES = [
    "id",
    "name",
    "__proto__",
    "toString",
    "1",
    "0",
    "Ünïcode",
    "\U0001f600",
    "\uff5e",
    "a b",
    "constructor",
]


def hex_of(random: Random, size: int) -> str:
    """Make up so many bytes."""
    return random.randbytes(size).hex()


def made_op(random: Random) -> bytes:
    """Make up a serialized op."""
    opcode = random.choice([b"", b"a", b"\xff", b":", b"9"])
    return opcode + b":" + random.choice([b"", b"5:alice", random.randbytes(random.randrange(40))])


def _shortest(ops: list[bytes]) -> list[bytes]:
    """Drop ops that the ops hash does not show, by trying every shorter list."""
    ordered_ops = sorted(ops, key=rules.sha256d)
    for size in range(1, len(ordered_ops)):
        if rules.ops_hash_of(ordered_ops[:size]) == rules.ops_hash_of(ops):
            return ordered_ops[:size]
    return ops


def _history(random: Random, ops: list[bytes], first: int, block: int, top: int, *, far: bool) -> Any:
    """Make up consensus hashes from `first` to `top`; return the hops from there to `block`."""
    ops_hashes: dict[int, bytes] = {}
    hashes: dict[int, bytes] = {}
    for at in range(first, top + 1):
        ops_hashes[at] = rules.ops_hash_of(ops) if at == block else random.randbytes(32)
        hashes[at] = rules.consensus_hash_of(
            ops_hashes[at], [hashes[prior] for prior in rules.prior_of(at, first)]
        )
    hops = []
    at = top
    while True:
        priors = rules.prior_of(at, first)
        prior = {str(one): hashes[one].hex() for one in priors}
        hops.append({"block_id": at, "ops_hash": ops_hashes[at].hex(), "prior": prior})
        if at == block:
            return hops, hashes[top].hex()
        ahead = [one for one in priors if one >= block]
        at = ahead[-1] if far else random.choice(ahead)


def op_proof(random: Random, *, block: int | None = None) -> tuple[Any, str]:
    """Make a proof of an op, from a block above or its own."""
    ops = _shortest([made_op(random) for _ in range(random.choice([1, 1, 2, 3, 4, 5, 6, 7, 9]))])
    random.shuffle(ops)
    proof, trusted = _of_ops(random, ops, block)
    return {**proof, "index": random.randrange(len(ops))}, trusted


def op_list(random: Random) -> tuple[Any, str]:
    """Make a proof of a whole list, which may repeat ops in a way that the hash shows."""
    ops = [made_op(random) for _ in range(random.randrange(8))]
    ops += [random.choice(ops) for _ in range(random.randrange(3)) if ops]
    return _of_ops(random, _shortest(ops), None)


def _of_ops(random: Random, ops: list[bytes], block: int | None) -> tuple[Any, str]:
    above = random.choice([0, 0, 1, 2, 3, 5, 20, 70])
    if block is None:
        first = random.choice([0, 0, 1, 99, 700_000, _HIGHEST - 100])
        block = first + random.choice([0, 1, 2, 3, 7, 29])
    else:
        first = block - random.randrange(min(block + 1, 9))
    app = random.choice(["app", *TEXTS])
    hops, trusted = _history(random, ops, first, block, block + above, far=random.random() < 0.5)
    proof = {
        "format": "virtualchain-proof-1",
        "app": app,
        "first_block_id": first,
        "hops": hops,
        "ops": [op.hex() for op in ops],
        "index": None,
    }
    return proof, trusted


def made_transaction(random: Random, script: bytes = b"script", spent: bytes = b"\x01" * 36) -> bytes:
    """Make up a transaction."""
    output = random.randbytes(8) + bytes([2]) + random.randbytes(2)
    return (
        random.randbytes(4)
        + b"\x01"
        + spent
        + bytes([len(script)])
        + script
        + random.randbytes(4)
        + bytes([2])
        + 2 * output
        + random.randbytes(4)
    )


def coinbase(random: Random, height: int) -> bytes:
    """Make up a coinbase."""
    return made_transaction(
        random, rules.pushed_height(height) + random.randbytes(3), bytes(32) + b"\xff" * 4
    )


def chain_proof(
    random: Random,
    *,
    network: str = "regtest",
    height: int | None = None,
    headers: int | None = None,
    bits: Callable[[int, int], tuple[int, int]] | None = None,
) -> tuple[Any, str]:
    """Make a proof of an op with the transaction and headers, mined as regtest allows.

    `bits`, if given, returns for a height and the time of the header before the header's time and bits; its
    headers have no work.
    """
    if height is None:
        height = random.choice(
            [1, 2, 15, 16, 17, 127, 128, 255, 256, 32767, 32768, 840_000, _HIGHEST - 99, 2015, 2010]
        )
    proof, trusted = op_proof(random, block=height)
    count = random.choice([1, 2, 3, 4, 5, 7, 11])
    transactions = [coinbase(random, height)]
    transactions += [made_transaction(random) for _ in range(count - 1)]
    size = random.choice([1, 2, 3, 12, 14]) if headers is None else headers
    proof["spv"] = block_spv(random, transactions, random.randrange(count), height, network, size, bits)
    return proof, trusted


def block_spv(
    random: Random,
    transactions: list[bytes],
    place: int,
    height: int,
    network: str = "regtest",
    size: int = 2,
    bits: Callable[[int, int], tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Show a transaction of a made-up block, whatever its transactions are."""
    ids = [rules.sha256d(transaction) for transaction in transactions]
    root = rules.merkle_root([one[::-1] for one in ids])[::-1]
    return {
        "network": network,
        "txindex": place,
        "transaction": transactions[place].hex(),
        "branch": _branch(ids, place),
        "coinbase": transactions[0].hex(),
        "coinbase_branch": _branch(ids, 0),
        "headers": made_headers(random, root, height, size, bits),
    }


def _branch(ids: list[bytes], place: int) -> list[str]:
    branch = []
    for row in rules.rows_of_tree([one[::-1] for one in ids])[:-1]:
        even = [*row, row[-1]] if len(row) % 2 else row
        branch.append(even[place ^ 1].hex())
        place //= 2
    return branch


def made_headers(
    random: Random, root: bytes, height: int, count: int, bits: Callable[[int, int], tuple[int, int]] | None
) -> list[str]:
    """Mine headers, or with `bits` make some without work."""
    headers: list[str] = []
    parent, times = random.randbytes(32), [random.randrange(2**30, 2**31)]
    for at in range(height, height + count):
        if bits is None:
            median = sorted(times[-11:])[len(times[-11:]) // 2]
            time, target = median + random.choice([1, 1, 60, 600, 1201, 7000]), _EASY
        else:
            time, target = bits(at, times[-1])
        times.append(time)
        start = random.randbytes(4) + parent + (root if at == height else random.randbytes(32))
        for nonce in range(1000):
            header = (
                start
                + time.to_bytes(4, "little")
                + target.to_bytes(4, "little")
                + nonce.to_bytes(4, "little")
            )
            parent = rules.sha256d(header)
            if bits is not None or parent[31] < 0x7F:
                break
        headers.append(header.hex())
    return headers


def row_proof(random: Random, *, is_forged: bool = False) -> tuple[Any, str]:
    """Make a proof of a row, or that there is none; a forged one may show other rows, and nulls in keys."""
    tables = {
        name: _table(random, is_forged=is_forged)
        for name in random.sample(NAMES, random.choice([1, 1, 2, 4]))
    }
    name = random.choice(list(tables))
    table = tables[name]
    places = [table.columns.index(column) for column in table.key]
    rows = ordered(table)
    keys = [[row[place] or "" for place in places] for row in rows]
    key = random.choice(keys) if keys and random.random() < 0.5 else [random.choice(TEXTS) for _ in places]
    order = [[text.encode() for text in one] for one in keys]
    sought = [text.encode() for text in key]
    if sought in order:
        shown = [order.index(sought)]
    else:
        after = sum(one < sought for one in order)
        shown = [at for at in (after - 1, after) if 0 <= at < len(rows)]
    if is_forged:
        near = [at for at in range(shown[0] - 2, shown[0] + 3) if 0 <= at < len(rows)] if shown else []
        shown = random.sample(near, min(len(near), random.choice([0, 1, 1, 2, 2, 3])))
        shown = sorted(shown) if random.random() < 0.8 else shown
    proof = {
        "format": "virtualchain-row-proof-1",
        "state": {
            "app": random.choice(["app", *TEXTS]),
            "block_hash": hex_of(random, 32),
            "block_id": random.choice([0, 700, _HIGHEST]),
            "consensus_hash": hex_of(random, 16),
            "genesis_hash": hex_of(random, 32),
            "state_hash": hex_of(random, 32),
            "tables": [_summary(one, tables[one]) for one in sorted(tables)],
        },
        "table": name,
        "key": key,
        "rows": [
            {
                "index": at,
                "values": rows[at],
                "path": [node.hex() for node in naive_path(at, [_json(name, row) for row in rows])],
            }
            for at in shown
        ],
    }
    return proof, state_root(proof)


def _table(random: Random, *, is_forged: bool) -> Table:
    columns = random.sample(NAMES, random.choice([1, 2, 3]))
    key = random.sample(columns, random.choice([1, len(columns)]))
    rows: dict[tuple[str | None, ...], list[str | None]] = {}
    for _ in range(random.choice([0, 1, 2, 3, 5, 8, 13])):
        filled = 0.9 if is_forged else 1
        row = [
            random.choice(TEXTS) if random.random() < (filled if column in key else 0.7) else None
            for column in columns
        ]
        rows[tuple(row[columns.index(column)] for column in key)] = row
    return Table(columns, key, list(rows.values()))


def _json(name: str, row: list[str | None]) -> bytes:
    return json.dumps([name, *row], ensure_ascii=False, separators=(",", ":")).encode()


def _summary(name: str, table: Table) -> dict[str, Any]:
    root = naive_root([_json(name, row) for row in ordered(table)]).hex()
    return {"columns": table.columns, "key": table.key, "name": name, "root": root, "rows": len(table.rows)}


def state_root(proof: Any) -> str:
    """Compute the root of a row proof's state, whatever it is."""
    written = json.dumps(proof["state"], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return rules.sha256(b"\x02" + written.encode("utf-8", "replace")).hex()
