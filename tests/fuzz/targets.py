"""The fuzz targets: functions of bytes that raise if the code under test breaks a guarantee, and seeds."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.consensus_history import History
from tests.support.hostile_files import KEYS, check_damaged, hostile
from tests.support.row_tables import Table, prove, state_of
from tests.unit.bitcoin.building import HEADER, MAIN, P2PKH, block, checked, op_return, transaction
from virtualchain import consensus
from virtualchain.app.fields import DEEPEST, parse_json, to_json
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.inclusion import inclusions
from virtualchain.bitcoin.layout import walk
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.script import classify, op_return_payload, public_keys
from virtualchain.bitcoin.spv import make_spv
from virtualchain.consensus.row_proofs import RowClaim, state_root
from virtualchain.errors import InvalidProof, MalformedBlock, Unserializable
from virtualchain.proof.checking import CheckedOps, check_file
from virtualchain.testing.chain import ChainBuilder

_WATCH = watch(b"id", None, "fuzz")
_FAST = Scanner([_WATCH], MAIN)
_FULL = Scanner([dataclasses.replace(_WATCH, prefilter=False)], MAIN)
_KEY = b"\x02" + bytes(32)
_HISTORY = History(5, [[b"a:1:x", b"b:1:y"], [], [b"c:"], [b"d:1:z"] * 3])
_TABLES = {
    "pairs": Table(["id", "value"], ["id"], [["a", "1"], ["b", None], ["d", '"']]),
    "void": Table(["id"], ["id"], []),
}
_ROOT = state_root(state_of(_TABLES))
_LEAVES = [f"{number:064x}" for number in range(5)]


@dataclass(frozen=True, slots=True)
class Target:
    """A function to fuzz, and inputs to start from."""

    run: Callable[[bytes], object]
    seeds: Sequence[bytes]


def scan(data: bytes) -> None:
    """Scan a block: either it is malformed, or the fast and the full scan agree.

    The header always passes the gate, so that the bytes after it are read.
    """
    data = HEADER + data[HEADER_SIZE:]
    try:
        checked_block = checked(7, data)
        fast = _FAST.scan(checked_block)
        full = _FULL.scan(checked_block)
    except MalformedBlock:
        return  # the full scan decodes what the fast one skips, and detects more flaws
    assert fast == full
    with suppress(MalformedBlock):
        CheckedBlock(full.block, data, MAIN, "merkle")


def block_files(data: bytes) -> None:
    """Damage files in which strangers have hidden records: no block is moved, and none is made up."""
    choice = data[0] if data else 0
    made = hostile(key=KEYS[choice // 2 % len(KEYS)], undo=bool(choice % 2))
    with tempfile.TemporaryDirectory() as folder:
        check_damaged(made, data[1:41], Path(folder))


def scripts(data: bytes) -> None:
    """Read a script in every way: any bytes have a result."""
    cut = data[0] % (len(data) + 1) if data else 0
    first, second = data[:cut], data[cut:]
    kind, addresses = classify(data, MAIN)
    assert kind
    assert len(addresses) <= 1
    payload = op_return_payload(data)
    assert payload is None or payload in data
    for keys in (public_keys(data, b"", []), public_keys(first, second, [second, first])):
        assert all(len(key) in {64, 66, 130} for key in keys)


def merkle_paths(data: bytes) -> None:
    """Check arbitrary Merkle paths and leaves: only the right path proves the right leaf."""
    text = data.decode("latin-1")
    root = consensus.merkle_root(_LEAVES)
    path = consensus.merkle_path(_LEAVES, _LEAVES[2])
    for leaf, claimed in ((_LEAVES[2], text), (text, path), (text, text)):
        if consensus.verify_merkle_path(root, claimed, leaf):
            assert (claimed, leaf) in {(path, _LEAVES[2]), (claimed, root)} or len(leaf) == 64
    assert consensus.verify_merkle_path(text, path, _LEAVES[2]) is (text == root)


def proofs(data: bytes) -> None:
    """Check any bytes as a proof: it shows the ops of a block of the history, or is rejected."""
    try:
        checked = check_file(data, _HISTORY.hashes[_HISTORY.tip])
    except InvalidProof:
        return
    assert isinstance(checked, CheckedOps)
    assert any(set(checked.proven.ops) == set(ops) for ops in _HISTORY.ops.values())


def row_proofs(data: bytes) -> None:
    """Check any bytes as a proof of a row: it shows what the tables have, or is rejected."""
    try:
        claim = check_file(data, _ROOT)
    except InvalidProof:
        return
    assert isinstance(claim, RowClaim)
    rows = {row[0]: row for row in _TABLES[claim.table].rows}
    row = rows.get(claim.key["id"])
    assert claim.row == (row and dict(zip(_TABLES[claim.table].columns, row, strict=True)))


def _proof_with_transaction() -> bytes:
    """Make a proof of block 8, whose only transaction is a coinbase."""
    chain = ChainBuilder(premine=10)
    raw = chain.raw_blocks()
    [inclusion] = inclusions(walk(raw[8]), [0])
    headers = [read_header(n, raw[n][:HEADER_SIZE]) for n in (8, 9, 10)]
    return json.dumps({**_HISTORY.prove(8, 0), "spv": make_spv(inclusion, headers, chain.network)}).encode()


def fields(data: bytes) -> None:
    """Read JSON and copy it as an op's fields: the copy can be stored."""
    try:
        value = parse_json(data)
    except ValueError:
        return
    assert _depth(value) <= DEEPEST
    try:
        kept = to_json(value if isinstance(value, dict) else {"value": value, "raw": data})
    except Unserializable:
        return
    text = json.dumps(kept, allow_nan=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    assert json.loads(text) == kept


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


TARGETS = {
    "scan": Target(
        scan,
        [
            block(transaction(P2PKH)),
            block(transaction(P2PKH), transaction(op_return(b"id+x"), P2PKH, witnesses=[[_KEY]])),
            block(transaction(P2PKH), transaction(op_return(b"id+" + bytes(300)), script_sigs=[P2PKH] * 3)),
        ],
    ),
    "block_files": Target(block_files, [b"\0" + bytes(range(0, 50, 5)), b"\3\0\1\0\7\2\3\2\1\4\5"]),
    "scripts": Target(
        scripts,
        [
            P2PKH,
            op_return(b"id+hello"),
            b"\x51\x21" + _KEY + b"\x21" + _KEY + b"\x52\xae",
            b"\x21" + _KEY + b"\xac",
            b"\x00\x14" + bytes(20),
            b"\x51\x20" + bytes(32),
            b"\xa9\x14" + bytes(20) + b"\x87",
        ],
    ),
    "merkle_paths": Target(
        merkle_paths, [consensus.merkle_path(_LEAVES, leaf).encode() for leaf in _LEAVES] + [b"1:m-00"]
    ),
    "proofs": Target(
        proofs,
        [
            json.dumps(_HISTORY.prove(5, 1)).encode(),
            json.dumps(_HISTORY.prove(8, None)).encode(),
            _proof_with_transaction(),
        ],
    ),
    "row_proofs": Target(
        row_proofs,
        [
            json.dumps(prove(_TABLES, name, [key])).encode()
            for name in _TABLES
            for key in ("a", "b", "c", "z")
        ],
    ),
    "fields": Target(
        fields,
        [b'{"a": [1, -2.5e3, true, null, "\\u00e4\\n"], "b": {"c": ""}}', b'"\\ud800\\u0000"', b"[[[[]]]]"],
    ),
}
"""All targets, by name."""
