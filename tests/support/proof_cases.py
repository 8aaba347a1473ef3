"""Proofs, good and bad, for comparing checkers: made up from a seed, and changed in every part.

Good proofs are built by the rules of docs/protocol, with the hash functions of `independent_proofs`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.support import independent_proofs as rules
from tests.support.row_tables import Table, naive_path, naive_root, ordered

_HIGHEST = 2**31 - 1
_EASY = 0x207FFFFF
_TEXTS = ["", "0", "9", "10", "a", "aa", "A", "é", "e\u0301", "ﬀ", "😀", "\uffff", "\u2028", "\x7f", '"\\/', "\b\f\n\r\t\x00\x1f"]
_NAMES = ["id", "name", "__proto__", "toString", "1", "0", "Ünïcode", "\U0001f600", "\uff5e", "a b", "constructor"]


@dataclass(frozen=True)
class Case:
    """A file, the hash that is trusted, and what else its receiver knows, under the names of the options."""

    name: str
    data: bytes
    trusted: str
    known: dict[str, Any] = field(default_factory=dict)


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yield `count` made-up proofs: about a third as they should be, the others changed."""
    random = Random(seed)
    for _ in range(count):
        make = random.choices([op_proof, op_list, chain_proof, row_proof], [3, 2, 4, 5])[0]
        proof, trusted = make(random)
        known = _known(random, proof)
        yield random.choices([_as_it_is, _changed, _rewritten], [5, 8, 4])[0](random, make, proof, trusted, known)


# Good proofs


def _hex(random: Random, size: int) -> str:
    return random.randbytes(size).hex()


def _op(random: Random) -> bytes:
    opcode = random.choice([b"", b"a", b"\xff", b":", b"9"])
    return opcode + b":" + random.choice([b"", b"5:alice", random.randbytes(random.randrange(40))])


def _shortest(ops: list[bytes]) -> list[bytes]:
    """Drop ops that the ops hash does not show; the page's rule, by trying."""
    ordered_ops = sorted(ops, key=rules.sha256d)
    for size in range(len(ordered_ops)):
        for shorter in (ordered_ops[:size],):
            if shorter and rules.ops_hash_of(shorter) == rules.ops_hash_of(ops):
                return shorter
    return ops


def _history(random: Random, ops: list[bytes], first: int, block: int, top: int, app: str, *, far: bool) -> Any:
    """Make up consensus hashes from `first` to `top`; return the hops from there to `block`."""
    ops_hashes, hashes = {}, {}
    for at in range(first, top + 1):
        ops_hashes[at] = rules.ops_hash_of(ops) if at == block else random.randbytes(32)
        hashes[at] = rules.consensus_hash_of(ops_hashes[at], [hashes[prior] for prior in rules.prior_of(at, first)])
    hops = []
    at = top
    while True:
        priors = rules.prior_of(at, first)
        prior = {str(one): hashes[one].hex() for one in priors}
        hops.append({"block_id": at, "ops_hash": ops_hashes[at].hex(), "prior": prior})
        if at == block:
            return hops, hashes[top].hex()
        at = min(one for one in priors if one >= block) if far else random.choice([one for one in priors if one >= block])


def op_proof(random: Random, *, block: int | None = None) -> tuple[Any, str]:
    """Make a proof of an op, from a block above or its own."""
    ops = _shortest([_op(random) for _ in range(random.choice([1, 1, 2, 3, 4, 5, 6, 7, 9]))])
    random.shuffle(ops)
    proof, trusted = _of_ops(random, ops, block)
    return {**proof, "index": random.randrange(len(ops))}, trusted


def op_list(random: Random) -> tuple[Any, str]:
    """Make a proof of a whole list, which may repeat ops in a way that the hash shows."""
    ops = [_op(random) for _ in range(random.randrange(8))]
    ops += [random.choice(ops) for _ in range(random.randrange(3)) if ops]
    return _of_ops(random, _shortest(ops), None)


def _of_ops(random: Random, ops: list[bytes], block: int | None) -> tuple[Any, str]:
    above = random.choice([0, 0, 1, 2, 3, 5, 20, 70])
    if block is None:
        first = random.choice([0, 0, 1, 99, 700_000, _HIGHEST - 100])
        block = first + random.choice([0, 1, 2, 3, 7, 29])
    else:
        first = block - random.randrange(min(block + 1, 9))
    app = random.choice(["app", *_TEXTS])
    hops, trusted = _history(random, ops, first, block, block + above, app, far=random.random() < 0.5)
    proof = {
        "format": "virtualchain-proof-1",
        "app": app,
        "first_block_id": first,
        "hops": hops,
        "ops": [op.hex() for op in ops],
        "index": None,
    }
    return proof, trusted


def _transaction(random: Random, script: bytes, spent: bytes) -> bytes:
    output = random.randbytes(8) + bytes([2]) + random.randbytes(2)
    return (
        random.randbytes(4) + b"\x01" + spent + bytes([len(script)]) + script + random.randbytes(4)
        + bytes([2]) + 2 * output + random.randbytes(4)
    )


def coinbase(random: Random, height: int) -> bytes:
    """Make up a coinbase."""
    return _transaction(random, rules.pushed_height(height) + random.randbytes(3), bytes(32) + b"\xff" * 4)


def chain_proof(
    random: Random, *, network: str = "regtest", height: int | None = None, headers: int | None = None,
    bits: Callable[[int, int], tuple[int, int]] | None = None,
) -> tuple[Any, str]:
    """Make a proof of an op with the transaction and headers, mined as regtest allows.

    `bits`, if given, returns for a height and the time of the header before the header's time and bits; its
    headers have no work.
    """
    if height is None:
        height = random.choice([1, 2, 15, 16, 17, 127, 128, 255, 256, 32767, 32768, 840_000, _HIGHEST - 99, 2015, 2010])
    proof, trusted = op_proof(random, block=height)
    count = random.choice([1, 2, 3, 4, 5, 7, 11])
    transactions = [coinbase(random, height)]
    transactions += [_transaction(random, random.randbytes(5), random.randbytes(36)) for _ in range(count - 1)]
    place = random.randrange(count)
    ids = [rules.sha256d(transaction) for transaction in transactions]
    size = random.choice([1, 2, 3, 12, 14]) if headers is None else headers
    proof["spv"] = {
        "network": network,
        "txindex": place,
        "transaction": transactions[place].hex(),
        "branch": _branch(ids, place),
        "coinbase": transactions[0].hex(),
        "coinbase_branch": _branch(ids, 0),
        "headers": _headers(random, rules.merkle_root([one[::-1] for one in ids])[::-1], height, size, bits),
    }
    return proof, trusted


def _branch(ids: list[bytes], place: int) -> list[str]:
    branch = []
    for row in rules.rows_of_tree([one[::-1] for one in ids])[:-1]:
        even = [*row, row[-1]] if len(row) % 2 else row
        branch.append(even[place ^ 1].hex())
        place //= 2
    return branch


def _headers(
    random: Random, root: bytes, height: int, count: int, bits: Callable[[int, int], tuple[int, int]] | None
) -> list[str]:
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
            header = start + time.to_bytes(4, "little") + target.to_bytes(4, "little") + nonce.to_bytes(4, "little")
            parent = rules.sha256d(header)
            if bits is not None or parent[31] < 0x7F:
                break
        headers.append(header.hex())
    return headers


def row_proof(random: Random) -> tuple[Any, str]:
    """Make a proof of a row, or that there is none."""
    tables = {name: _table(random) for name in random.sample(_NAMES, random.choice([1, 1, 2, 4]))}
    name = random.choice(list(tables))
    table = tables[name]
    places = [table.columns.index(column) for column in table.key]
    rows = ordered(table)
    keys = [[row[place] or "" for place in places] for row in rows]
    key = random.choice(keys) if keys and random.random() < 0.5 else [random.choice(_TEXTS) for _ in places]
    order = [[text.encode() for text in one] for one in keys]
    sought = [text.encode() for text in key]
    if sought in order:
        shown = [order.index(sought)]
    else:
        after = sum(one < sought for one in order)
        shown = [at for at in (after - 1, after) if 0 <= at < len(rows)]
    proof = {
        "format": "virtualchain-row-proof-1",
        "state": {
            "app": random.choice(["app", *_TEXTS]),
            "block_hash": _hex(random, 32),
            "block_id": random.choice([0, 700, _HIGHEST]),
            "consensus_hash": _hex(random, 16),
            "genesis_hash": _hex(random, 32),
            "state_hash": _hex(random, 32),
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


def _table(random: Random) -> Table:
    columns = random.sample(_NAMES, random.choice([1, 2, 3]))
    key = random.sample(columns, random.choice([1, len(columns)]))
    rows = {}
    for _ in range(random.choice([0, 1, 2, 3, 5, 8, 13])):
        row = [
            random.choice(_TEXTS) if column in key or random.random() < 0.7 else None for column in columns
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


# What the receiver knows


def _known(random: Random, proof: Any) -> dict[str, Any]:
    """Return some options, most of which agree with the proof."""
    known: dict[str, Any] = {}
    if random.random() < 0.6:
        return known
    is_row = "state" in proof
    right = {
        "app": proof["state"]["app"] if is_row else proof["app"],
        "at": proof["state"]["block_id"] if is_row else proof["hops"][0]["block_id"],
    }
    if is_row:
        right |= {"table": proof["table"], "key": proof["key"]}
    else:
        right["absent"] = _op(random).hex()
        right["network"] = random.choice(["regtest", "mainnet", "signet-01234567"])
        if "spv" in proof:
            last = rules.sha256d(bytes.fromhex(proof["spv"]["headers"][-1]))[::-1].hex()
            right |= {"network": proof["spv"]["network"], "header": last}
    wrong = {
        "app": "other", "at": 5, "absent": random.choice(proof.get("ops") or ["613a"]), "header": _hex(random, 32),
        "table": "other", "key": [*proof.get("key", []), "1"],
    }  # fmt: skip
    for name in random.sample(sorted(right), random.randrange(1, 3)):
        known[name] = right[name]
    if random.random() < 0.3:
        name = random.choice(sorted(wrong))
        known[name] = wrong[name]
    return known


# Changes

_Make = Callable[[Random], tuple[Any, str]]


def _as_it_is(random: Random, make: _Make, proof: Any, trusted: str, known: dict[str, Any]) -> Case:
    """Write the proof in one of the ways in which JSON can be written."""
    if random.random() < 0.3:
        proof = _shuffled(random, proof)
    text = _write(random, proof)
    if random.random() < 0.2:
        text = re.sub("(?<=[,:{])", lambda _: random.choice(["", " ", "\n", "\t\r"]), text) if _is_plain(text) else text
    return Case(f"{make.__name__}: good", text.encode(), trusted, known)


def _is_plain(text: str) -> bool:
    """Check whether commas and colons are nowhere within strings."""
    return not re.search(r'\\|"[^"]*[:,{][^"]*"', text)


def _write(random: Random, proof: Any) -> str:
    indent, ascii_only = random.choice([None, None, 1, "\t"]), random.random() < 0.5
    return json.dumps(proof, ensure_ascii=ascii_only, indent=indent)


def _shuffled(random: Random, value: Any) -> Any:
    if isinstance(value, dict):
        names = list(value)
        random.shuffle(names)
        return {name: _shuffled(random, value[name]) for name in names}
    return [_shuffled(random, one) for one in value] if isinstance(value, list) else value


def _changed(random: Random, make: _Make, proof: Any, trusted: str, known: dict[str, Any]) -> Case:
    """Change one or two parts; the trusted hash may follow, so that only the other checks are left."""
    changes = []
    for _ in range(random.choice([1, 1, 1, 2])):
        holders = list(_holders(proof))
        names = sorted({name for _, name in holders}, key=str)  # so that rare parts are changed as often
        chosen = random.choice(names)
        holder, name = random.choice([one for one in holders if one[1] == chosen])
        changes.append(f"{name}: {_change(random, holder, name)}")
    if random.random() < 0.8 and isinstance(proof, dict):
        trusted = _follow(proof, trusted)
    text = re.sub('"@@raw (.*?)@@"', r"\1", json.dumps(proof, ensure_ascii=random.random() < 0.5))
    return Case(f"{make.__name__}: {changes}", text.encode("utf-8", "surrogatepass"), trusted, known)


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every object and list with each of its keys; a place in a list counts as one of a few."""
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield value, name
            yield from _holders(value[name])


def _follow(proof: dict[str, Any], trusted: str) -> str:
    """Return the hash of a changed proof, if it still has one."""
    try:
        if "state" in proof:
            return state_root(proof)
        first, last = proof["hops"][0], proof["hops"][-1]
        last["ops_hash"] = rules.ops_hash_of([bytes.fromhex(op) for op in proof["ops"]]).hex()
        for below, hop in zip(reversed(proof["hops"]), reversed([None, *proof["hops"][:-1]]), strict=True):
            made = rules.consensus_hash_of(
                bytes.fromhex(below["ops_hash"]), [bytes.fromhex(one) for one in below["prior"].values()]
            ).hex()
            if hop is not None:
                hop["prior"][str(below["block_id"])] = made
        del first
        return made
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, UnicodeError):
        return trusted


def _change(random: Random, holder: Any, name: Any) -> str:
    value = holder[name]
    if random.random() < 0.15:
        return _change_place(random, holder, name)
    if random.random() < 0.1:
        new: Any = random.choice([None, True, False, 0, 1, "", "0", [], {}, [value], {"a": value}, str(value)])
    elif value is None:
        new = random.choice(["", 0, "null", [], False])
    elif isinstance(value, int):
        new = _other_number(random, value)
    elif isinstance(value, str):
        new = _other_text(random, value)
    elif isinstance(value, list):
        new = _other_list(random, value)
    else:
        new = dict(reversed(value.items()))
    holder[name] = new
    return f"{value!r:.60} -> {new!r:.60}"


def _change_place(random: Random, holder: Any, name: Any) -> str:
    """Remove, add or rename a key or an item."""
    value = holder.pop(name)
    kind = random.choice(["removed", "renamed", "added"])
    if isinstance(holder, list):
        if kind != "removed":
            holder.insert(random.randrange(len(holder) + 1), value)
        if kind == "added":
            holder.insert(random.randrange(len(holder) + 1), value)
    elif kind == "renamed":
        holder[random.choice([str(name).upper(), f"{name} ", f"0{name}", f"{name}.0", "__proto__"])] = value
    elif kind == "added":
        holder[name] = value
        extra = random.choice(["__proto__", "constructor", "toString", "x", "", "spv", "-1", "5", "toJSON"])
        holder.setdefault(extra, random.choice([None, value, {}]))
    return kind


def _other_number(random: Random, value: int) -> Any:
    new = random.choice([value + 1, value - 1, value + 2, 2 * value, value ^ 4, 0, 1, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**64, None])
    if new is not None:
        return new
    forms = ["{}.0", "{}e0", "-{}", "-0", "0{}", "+{}", "{}.", "1e400", "{}E+0", "0x{}", "{}n", "9" * 400, "NaN", "Infinity", "1_0"]
    return f"@@raw {random.choice(forms).format(value)}@@"


def _other_text(random: Random, value: str) -> Any:
    if re.fullmatch("[0-9a-f]{2,}", value) and random.random() < 0.85:
        at = random.randrange(len(value))
        return random.choice([
            value[:at] + f"{int(value[at], 16) ^ 1:x}" + value[at + 1 :],
            value.upper(), value[:-1], value[2:], value + "00", "00" + value, value + "\n", " " + value,
            bytes.fromhex(value[: len(value) // 2 * 2])[::-1].hex(), value[:at] + "g" + value[at + 1 :],
            "0x" + value, value * 2, value[:64], "\uff10" + value[1:], _hex(random, len(value) // 2), "",
        ])  # fmt: skip
    return random.choice([
        value + "a", value[:-1], value.upper(), value.encode("unicode_escape").decode(), value + "\x00",
        value + "\ud800", "\udc00\ud800", "@@raw \"\\ud83d\"@@", "@@raw \"\\ud83d\\ude00\"@@", "e\u0301" + value,
        "@@raw \"\\x\"@@", "@@raw \"\t\"@@", "@@raw 'a'@@", "@@raw \"\\u00e\"@@", random.choice(_TEXTS),
        random.choice(_NAMES), "mainnet", "signet-0a03cf40", "signet-01234567", "signet-0123456A", "testnet4", "main",
    ])  # fmt: skip


def _other_list(random: Random, value: list[Any]) -> list[Any]:
    kind = random.randrange(7)
    if kind == 0:
        return []
    if kind == 1:
        return value[::-1]
    if kind == 2:
        return value[:-1]
    if kind == 3:
        return value[1:]
    if kind == 4:
        return [*value, *value[-random.choice([1, 2, 4]) :]]
    if kind == 5:
        return random.sample(value, len(value))
    return [*value, random.choice([None, "", "00" * 32, "613a", {}, 0])]


def _rewritten(random: Random, make: _Make, proof: Any, trusted: str, known: dict[str, Any]) -> Case:
    """Change the text, and not what a careless parser makes of it."""
    text = _write(random, proof)
    data = text.encode()
    kind = random.randrange(16)
    if kind == 0:  # a key twice
        found = random.choice(list(re.finditer(r'([{,]\s*)("(?:[^"\\]|\\.)*")(\s*:)', text)))
        data = (text[: found.start()] + found[0].rstrip(":") + random.choice([":0,", ":null,"]) + found[2] + found[3].rstrip(":") + ":" + text[found.end() :]).encode()
    elif kind in {1, 2}:  # a number in another form
        found = random.choice(list(re.finditer(r"(?<=[\s:\[,{])\d+(?=[\s,\]}])", text)))
        new = str(_other_number(random, int(found[0]))).removeprefix("@@raw ").removesuffix("@@")
        data = (text[: found.start()] + new + text[found.end() :]).encode()
    elif kind == 3:  # an escape for a character
        found = random.choice(list(re.finditer(r'(?<=[":])[a-z0-9](?=[a-z0-9_]*")', text)))
        escape = f"\\u{ord(found[0]):04{random.choice('xX')}}"
        data = (text[: found.start()] + escape + text[found.end() :]).encode()
    elif kind == 4:
        data = random.choice([b"\xef\xbb\xbf", b" ", b"\n", b"\x00", b"\xc2\xa0", b"\x0b", b"//\n", b"{}"]) + data
    elif kind == 5:
        data += random.choice([b"\n", b" \t\r\n", b"\x00", b"\x0c", b"\xc2\xa0", b",", b"}", b"null", b"\xe2\x80\xa8"])
    elif kind == 6:
        data = data[: random.randrange(len(data))]
    elif kind in {7, 8}:  # a byte too many, also in the middle of a character or string
        at = random.randrange(len(data))
        extra = [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\\", b'"', b" ", b",", b"0", b"-"]
        data = data[:at] + random.choice(extra) + data[at:]
    elif kind == 9:
        at = random.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
    elif kind == 10:
        data = random.choice([text.encode("utf-16"), text.encode("utf-16-le"), text.encode("utf-32")])
    elif kind == 11:
        data = random.choice([
            b"", b"[]", b"null", b"5", b'""', b"{}", b"[" * 5000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000,
            b'{"format":"virtualchain-proof-1"}', b'{"format":"virtualchain-row-proof-1"}', b'{"format":1}',
            b"[" + data + b"]", data + data, b'{"format":{"a":"virtualchain-proof-1"}}', b"undefined", b"true",
        ])  # fmt: skip
    elif kind == 12:
        data = random.choice([text.replace(",", ",,", 1), text[:-1] + ",}", text.replace('"', "'"), text.replace(":", "=", 1), text.replace("]", ",]", 1)]).encode()
    elif kind == 13:
        trusted = random.choice([trusted.upper(), trusted[:-1], trusted + "00", "", trusted[:32], _hex(random, len(trusted) // 2), trusted[::-1], trusted + "\n"])
    elif kind == 14:
        data = random.choice([text.replace("-1", "-2", 1), text.replace("virtual", "Virtual", 1), text.replace("row-", "", 1)]).encode()
    else:
        other = make(random)
        data, trusted = json.dumps({**proof, random.choice(list(proof)): random.choice(list(other[0].values()))}).encode(), random.choice([trusted, other[1]])
    return Case(f"{make.__name__}: rewritten, {kind}", data, trusted, known)
