"""Compiled code takes only rows that are right, and writes them as the code that checks each by itself."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pyarrow as pa
import pytest

from tests.support.exported_rows import Rows, Spend, exported, in_p2sh, in_p2wsh, nested, pay_to_key_hash
from virtualchain.bitcoin import compiled
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.bitcoin.script import push
from virtualchain.bitcoin.spending import MOST_KEPT
from virtualchain.bitcoin.transaction import write_transaction
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.model import Block, SpentOutput, TxIn
from virtualchain.transfer.checked_rows import Batch, checked
from virtualchain.transfer.files import INPUT_COLUMNS, Row, arrow_type
from virtualchain.transfer.usual_rows import columns_of

BLOCK_ID = 500
MAINNET = NETWORKS["mainnet"]
IS_COMPILED = pytest.mark.skipif(compiled.check_rows is None, reason="it is not compiled")
_KEY, _LONG_KEY = b"\2" + bytes(32), b"\4" + bytes(64)
_TXID, _SENDERS, _OUTPUTS, _RAW = 2, 4, 5, 7
_PAID = SpentOutput(1, pay_to_key_hash(_KEY))
_END_OF_OUTPUTS = 83
"""Where outputs end in a raw transaction with a witness that has an input, and pays `_PAID`."""
_WIDE = {2: b"\xfd", 4: b"\xfe", 8: b"\xff"}
"""What a count of so many bytes begins with."""


def taken(rows: Sequence[Row], network: Network) -> list[bytes | None]:
    """Have compiled code check each row alone, as a slice of a batch; None for one that it leaves."""
    assert compiled.check_rows is not None
    arrays = [
        pa.array(values, arrow_type(kind))
        for values, (_, kind) in zip(zip(*rows, strict=True), INPUT_COLUMNS, strict=True)
    ]
    batch = pa.RecordBatch.from_arrays(arrays, [name for name, _ in INPUT_COLUMNS])
    results: list[bytes | None] = []
    for n in range(len(rows)):
        columns = columns_of(batch.slice(n, 1))
        assert columns is not None
        bounds = (0, 1, (BLOCK_ID, -1), BLOCK_ID, BLOCK_ID, 0)
        end, data = compiled.check_rows(*columns, *bounds, network.forms)
        results.append(data if end else None)
    return results


def agreed(rows: Sequence[Row], network: Network = MAINNET) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield what compiled code writes of each row, and what the other code does; None if it does not.

    Fails unless both write the same, or the former leaves the row.
    """
    block = Block(BLOCK_ID, "11" * 32, "22" * 32, "33" * 32, 0, 0, bytes(80))
    for row, data in zip(rows, taken(rows, network), strict=True):
        expected = None
        with suppress(ValueError, LookupError, TypeError):
            (expected,) = checked(Batch([row], {BLOCK_ID: block}, network, 0, is_checked=True))
        assert data in {None, expected}, row
        yield data, expected


def compare(name: str, seed: int, count: int) -> tuple[int, int, int]:
    """Compare both ways on some rows; return how many were right, taken, and wrong."""
    network = NETWORKS[name]
    make = Rows(seed, network)
    rows = [make.row(BLOCK_ID, 1 + n % 3) for n in range(count)]
    results = list(agreed([row if n % 2 else make.changed(row) for n, row in enumerate(rows)], network))
    right = sum(expected is not None for _, expected in results)
    return right, sum(data is not None for data, _ in results), count - right


def signature(hash_type: int) -> bytes:
    """Make what looks like an ECDSA signature."""
    return bytes.fromhex("3006020101020101") + bytes([hash_type])


def spending(*spends: Spend, paid: SpentOutput = _PAID) -> Row:
    """Make the row of a transaction."""
    spent = [SpentOutput(1, script) for script, _, _ in spends]
    inputs = [
        TxIn("07" * 32, n, script_sig, 0, tuple(items)) for n, (_, script_sig, items) in enumerate(spends)
    ]
    return exported(write_transaction(inputs, [paid]), spent, MAINNET, block_id=BLOCK_ID)


def put(row: Row, changes: dict[int, object]) -> Row:
    """Return a row with some columns changed."""
    return tuple(changes.get(place, value) for place, value in enumerate(row))


def saying(row: Row, column: int, **values: object) -> Row:
    """Have a row say something else of its sender or output."""
    (item,) = json.loads(row[column])
    assert item.keys() >= values.keys()
    return put(row, {column: json.dumps([{**item, **values}])})


def require(rows: Sequence[Row], *, taken: bool) -> None:
    """Check that all rows are right, and taken or not by compiled code; else that none of both is true."""
    for row, results in zip(rows, agreed(rows), strict=True):
        assert [result is not None for result in results] == [taken, taken], row


def multisig(*keys: bytes, number: bytes | None = None, push_key: bytes = b"") -> bytes:
    """Write a script that takes one signature; an opcode may be in front of the size of each key."""
    number = bytes([0x50 + len(keys)]) if number is None else number
    return b"\x51" + b"".join(push_key + push(key) for key in keys) + number + b"\xae"


def in_all(script: bytes, stack: Sequence[bytes]) -> list[Spend]:
    """Spend a script inside p2sh, p2wsh, and both."""
    return [in_p2sh(script, stack), in_p2wsh(script, stack), nested(in_p2wsh(script, stack))]


@IS_COMPILED
@pytest.mark.parametrize(("name", "count", "share"), [("mainnet", 3000, 4), ("dogecoin", 1000, 20)])
def test_only_right_rows_are_taken(name: str, count: int, share: int) -> None:
    """Of random rows, half of them changed, it takes a good share, but none that is wrong."""
    right, took, wrong = compare(name, 1, count)
    assert right > count / 5
    assert wrong > count / 3
    assert took > right / share


def signed(hash_type: int) -> list[Spend]:
    """Spend one output of each kind with a signature."""
    ecdsa, schnorr = signature(hash_type), bytes(64) + bytes([hash_type])
    program = b"\0\x14" + hash160(_KEY), b"", [ecdsa, _KEY]
    return [
        (pay_to_key_hash(_KEY), push(ecdsa) + push(_KEY), []),
        (push(_KEY) + b"\xac", push(ecdsa), []),
        (multisig(_KEY), b"\0" + push(ecdsa), []),
        program,
        nested(program),
        *in_all(multisig(_KEY), [b"", ecdsa]),
        *in_all(push(_KEY) + b"\xad\x51", [ecdsa]),
        (b"\x51\x20" + _KEY[:32], b"", [schnorr]),
    ]


@IS_COMPILED
def test_hash_type_of_zero() -> None:
    """A signature's hash type of 0 is ALL, or not allowed: nothing that says DEFAULT is taken."""
    require([spending(spend) for spend in signed(1)], taken=True)
    forged = [saying(spending(spend), _SENDERS, sighash=["DEFAULT"]) for spend in signed(0)]
    require(forged, taken=False)


@IS_COMPILED
def test_hashed_scripts_that_have_keys() -> None:
    """A script inside another one does not pass for one without keys: p2pk, p2pkh, any form of multisig."""
    ecdsa = signature(1)
    usual = [push(_KEY) + b"\xad\x51", b"\x51", multisig(*[_KEY] * 16)]
    require([spending(spend) for each in usual for spend in in_all(each, [b"", ecdsa])], taken=True)
    with_keys = [
        push(_KEY) + b"\xac",
        push(_LONG_KEY) + b"\xac",
        pay_to_key_hash(_KEY),
        multisig(_KEY, push_key=b"\x4c"),
        multisig(_KEY, _KEY, push_key=b"\x4c"),
        multisig(*[_KEY] * 17, number=b"\x01\x11"),
        multisig(*[_KEY] * 20, number=b"\x01\x14"),
    ]
    stack = [ecdsa, _KEY]
    fit = [
        spending(spend)
        for script in with_keys
        for spend in in_all(script, stack if script[0] == 0x76 else stack[:1])
    ]
    assert all(json.loads(row[_SENDERS])[0]["public_keys"] for row in fit)
    require([saying(row, _SENDERS, public_keys=[]) for row in fit], taken=False)
    # Inputs that do not reveal the key, which the tape notes: what p2pkh commits to is known, but no key is.
    noted = list(agreed([spending(spend) for spend in in_all(pay_to_key_hash(_KEY), [ecdsa, ecdsa])]))
    assert [data for data, _ in noted] == [None] * 3
    assert all(expected is not None and b'{"0": []}' in expected for _, expected in noted)


@IS_COMPILED
def test_scripts_that_are_not_only_pushes() -> None:
    """What follows OP_RETURN is only pushes, with whatever opcodes up to OP_16."""

    def row(after: str) -> Row:
        return spending(signed(1)[0], paid=SpentOutput(1, bytes.fromhex("6a" + after)))

    usual = ["", "00", "50", "51", "60", "026161", "4c0161", "4d010061", "4e0100000061", "02616160"]
    require([row(after) for after in usual], taken=True)
    other = ["61", "ff", "6a", "02616161", "4c016161", "036161", "4c", "4c0261", "4d0100", "4e010000"]
    other += ["4e01000000", "4effffffff61"]
    forged = [saying(row(after), _OUTPUTS, type="nulldata") for after in other]
    require(forged, taken=False)


@IS_COMPILED
def test_counts_that_are_too_long() -> None:
    """No count is taken in more bytes than it needs, wherever in a transaction it is."""
    script = 94  # where the count of a witness script's bytes is
    counts = (6, 43, 48, 57, _END_OF_OUTPUTS, 84, script)
    short = spending(in_p2wsh(b"\x51", [signature(1)]))
    assert [short[_RAW][at] for at in counts] == [1, 0, 1, 25, 2, 9, 1]
    long = {size: spending(in_p2wsh(b"\x51" * size, [signature(1)])) for size in (252, 253, 65_535, 65_536)}
    require([short, *long.values()], taken=True)
    rows = [recounted(short, at, 1, _count(short[_RAW][at], width)) for at in counts for width in _WIDE]
    rows += [recounted(long[252], script, 1, _count(252, width)) for width in _WIDE]
    rows += [recounted(long[253], script, 3, _count(253, width)) for width in (4, 8)]
    rows += [recounted(long[65_535], script, 3, _count(65_535, width)) for width in (4, 8)]
    rows += [recounted(long[65_536], script, 5, _count(65_536, 8))]
    rows += [recounted(long[65_536], script, 5, _WIDE[8] + _count(65_536, 4)[1:])]
    require(rows, taken=False)


def _count(number: int, width: int) -> bytes:
    return _WIDE[width] + number.to_bytes(width, "little")


def recounted(row: Row, at: int, size: int, count: bytes) -> Row:
    """Put another count in place of one in a raw transaction, and the id that follows from it."""
    raw = row[_RAW][:at] + count + row[_RAW][at + size :]
    end = _END_OF_OUTPUTS + (len(count) - size if at < _END_OF_OUTPUTS else 0)
    return put(row, {_RAW: raw, _TXID: sha256d(raw[:4] + raw[6:end] + raw[-4:])[::-1].hex()})


@IS_COMPILED
def test_transactions_that_spend_much() -> None:
    """A transaction whose spent scripts reach `MOST_KEPT` is left: the other code knows what is not kept."""
    scripts = [multisig(*[_LONG_KEY] * 16)] * 944
    scripts += [multisig(_KEY, _LONG_KEY), multisig(*[_LONG_KEY] * 3)]
    assert sum(map(len, scripts)) == MOST_KEPT
    spends: list[Spend] = [(script, b"\0" + push(signature(1)), []) for script in scripts]
    (below, expected), (full, right) = agreed([spending(*spends[:-1]), spending(*spends)])
    assert below == expected is not None
    assert full is None is not right
