"""The views compute the same senders and outputs of a transaction as Python, on every network."""

import json
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import op_return, push, transaction
from virtualchain.bitcoin.block import StoredTransaction, split_transactions
from virtualchain.bitcoin.spending import substitute, unusual_keys
from virtualchain.bitcoin.transaction import MAX_MONEY, pack_outputs, read_inputs, read_outputs
from virtualchain.consensus.hashing import hash160
from virtualchain.model import SpentOutput
from virtualchain.testing.database import DatabaseServer, other_version

NETWORKS = ("mainnet", "testnet3", "regtest", "signet-0a0b0c0d")
REAL = (325_000, 400_000, 481_824, 549_400, 951_658)
"""Blocks of mainnet."""
QUERY = """
    SELECT vc.senders(raw, spent, keys, network), vc.outputs(raw, network)
    FROM unnest(%s::bytea[], %s::bytea[], %s::jsonb[], %s::text[]) WITH ORDINALITY
        AS t (raw, spent, keys, network, place)
    ORDER BY place
"""

Row = tuple[bytes, bytes, dict[int, Any], str]
"""What the tape stores of a transaction (its bytes, what it spends, unusual keys), and a network."""
Spending = tuple[bytes, bytes, list[bytes]]
"""A spent script, an input script, and a witness."""

KEYS = st.sampled_from(
    [
        *(bytes([first]) + bytes([7]) * 32 for first in (0, 2, 3, 4, 5)),
        *(bytes([first]) + bytes([8]) * 64 for first in (2, 4, 5, 6, 7)),
        *(b"", b"\2", bytes(31), bytes([2]) + bytes(31)),
    ]
)
VALID_KEYS = st.sampled_from(
    [*(bytes([n]) + bytes([7]) * 32 for n in (2, 3)), *(bytes([n]) + bytes([8]) * 64 for n in (4, 6, 7))]
)


@st.composite
def signatures(draw: st.DrawFn) -> bytes:
    """Draw a signature of either kind, or what nearly is one."""
    hash_type = bytes([draw(st.sampled_from([0, 1, 2, 3, 4, 0x1F, 0x22, 0x81, 0x82, 0x83, 0xE3, 0xFF]))])
    if draw(st.booleans()):
        return bytes(draw(st.sampled_from([63, 64, 65]))) + draw(st.sampled_from([b"", hash_type]))
    first, second = (draw(st.integers(0, 34)) for _ in range(2))
    body = b"\x02" + bytes([first]) + b"\1" * first + b"\x02" + bytes([second]) + b"\1" * second
    der = b"\x30" + bytes([len(body)]) + body + hash_type
    place = draw(st.integers(-40, len(der) - 1))
    return der if place < 0 else der[:place] + bytes([draw(st.integers(0, 255))]) + der[place + 1 :]


ITEMS = st.one_of(KEYS, signatures(), st.binary(max_size=4), st.sampled_from([b"\x50", b"\x50abc"]))


@st.composite
def odd_pushes(draw: st.DrawFn) -> bytes:
    """Draw a push, in any form."""
    item = draw(ITEMS)
    width = draw(st.sampled_from([0, 0, 0, 1, 2, 4]))
    if not width:
        return push(item)
    return bytes([{1: 0x4C, 2: 0x4D, 4: 0x4E}[width]]) + len(item).to_bytes(width, "little") + item


OPERATIONS = st.one_of(
    odd_pushes(),
    st.sampled_from([0, 1, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F, 0x50, 0x51, 0x60, 0x61, 0x6A, 0xAC, 0xAE, 0xFF]).map(
        lambda opcode: bytes([opcode])
    ),
)
ANY_SCRIPTS = st.one_of(st.lists(OPERATIONS, max_size=6).map(b"".join), st.binary(max_size=45))


@st.composite
def multisigs(draw: st.DrawFn) -> bytes:
    """Draw a bare multisig script, or what nearly is one."""
    keys = draw(st.lists(VALID_KEYS, min_size=1, max_size=22))
    if draw(st.integers(0, 9)) == 0:
        keys.append(draw(KEYS))
    required = draw(st.one_of(st.integers(1, len(keys)), st.integers(0, 21)))
    total = draw(st.sampled_from([*[len(keys)] * 8, len(keys) + 1]))

    def number(value: int) -> bytes:
        minimal = bytes([0x50 + value]) if value <= 16 else bytes([1, value])
        return draw(st.sampled_from([minimal] * 5 + [bytes([1, value]), bytes([0x4C, 1, value])]))

    pushed = [push(key) if draw(st.integers(0, 9)) else b"\x4c" + bytes([len(key)]) + key for key in keys]
    end = draw(st.sampled_from([b"\xae"] * 6 + [b"\xaf", b"\xae\xae", b"\x61\xae", b"\x50\xae"]))
    return number(required) + b"".join(pushed) + number(total) + end


LOCKED = st.one_of(
    st.one_of(VALID_KEYS, KEYS).map(lambda key: push(key) + b"\xac"),
    KEYS.map(lambda key: b"\x76\xa9\x14" + hash160(key) + b"\x88\xac"),
    multisigs(),
    ANY_SCRIPTS,
)
"""Scripts that may stand alone, in p2sh or in p2wsh."""
PROGRAMS = st.one_of(
    KEYS.map(lambda key: b"\x00\x14" + hash160(key)),
    LOCKED.map(lambda script: b"\x00\x20" + sha256(script).digest()),
    st.builds(
        lambda opcode, program: bytes([opcode, len(program)]) + program,
        st.sampled_from([0, 0x4F, 0x50, 0x51, 0x52, 0x60, 0x61]),
        st.binary(min_size=1, max_size=41),
    ),
    st.binary(min_size=32, max_size=32).map(lambda key: b"\x51\x20" + key),
    st.just(b"\x51\x02\x4e\x73"),
)
SCRIPTS = st.one_of(
    LOCKED,
    PROGRAMS,
    st.one_of(LOCKED, PROGRAMS).map(lambda script: b"\xa9\x14" + hash160(script) + b"\x87"),
    st.binary(max_size=80).map(op_return),
    ANY_SCRIPTS.map(lambda script: b"\x6a" + script),
    ANY_SCRIPTS.map(lambda script: substitute(9_000, sha256(script).digest())),
    st.binary(min_size=250, max_size=260),
)


@st.composite
def spendings(draw: st.DrawFn) -> Spending:
    """Draw an input and what it spends: mostly what fits, in the order that signers use or another."""
    key, inner = draw(KEYS), draw(st.one_of(LOCKED, PROGRAMS))
    stack = draw(st.lists(ITEMS, max_size=4))
    if draw(st.booleans()):
        stack = [*stack, draw(signatures()), key]
    form = draw(
        st.sampled_from(
            ["p2pkh", "p2sh", "p2wpkh", "p2wsh", "p2sh-p2wsh", "p2sh-p2wpkh", "p2tr", "bare", "any"]
        )
    )
    input_script = b"".join(map(push, stack))
    if draw(st.integers(0, 5)) == 0:
        input_script += draw(OPERATIONS)
    if form == "p2pkh":
        return b"\x76\xa9\x14" + hash160(key) + b"\x88\xac", input_script, []
    if form == "p2sh":
        return b"\xa9\x14" + hash160(inner) + b"\x87", input_script + push(inner), stack
    program = b"\x00\x20" + sha256(inner).digest() if "wsh" in form else b"\x00\x14" + hash160(key)
    witness = [*stack, inner] if "wsh" in form else stack
    if form.startswith("p2sh-"):
        return b"\xa9\x14" + hash160(program) + b"\x87", push(program), witness
    if form in {"p2wpkh", "p2wsh"}:
        return program, b"", witness
    if form == "p2tr":
        return b"\x51\x20" + bytes(32), b"", stack
    return (inner if form == "bare" else draw(SCRIPTS)), input_script, stack


@st.composite
def transactions(draw: st.DrawFn) -> Row:
    """Draw a row of the tape: a transaction, what it spends, its unusual keys, and a network."""
    spent = draw(st.lists(spendings(), min_size=1, max_size=4))
    paid = draw(st.lists(SCRIPTS, max_size=5))
    amounts = st.sampled_from([0, 1, 546, 2**32, MAX_MONEY])
    raw = transaction(
        *paid,
        script_sigs=[input_script for _, input_script, _ in spent],
        witnesses=[witness for *_, witness in spent] if any(witness for *_, witness in spent) else (),
        values=[draw(amounts) for _ in paid],
    )
    return row(
        raw, [SpentOutput(draw(amounts), script) for script, *_ in spent], draw(st.sampled_from(NETWORKS))
    )


def row(raw: bytes, spent: Sequence[SpentOutput], chain: str) -> Row:
    """Return what the tape stores of a transaction."""
    keys = {
        n: unusual
        for n, (output, spending) in enumerate(zip(spent, read_inputs(raw), strict=True))
        if (unusual := unusual_keys(output.script_pubkey, spending, fits=False)) is not None
    }
    return raw, pack_outputs(spent), keys, chain


@pytest.fixture(scope="module")
def connections(database_server: DatabaseServer) -> Iterator[list[psycopg.Connection]]:
    """Connect to a database on each of two versions of PostgreSQL, if there are two."""
    with other_version(database_server) as other:
        servers = [database_server, *([other] if other else [])]
        urls = [server.clone() for server in servers]
        opened = [psycopg.connect(url, autocommit=True) for url in urls]
        yield opened
        for server, url, connection in zip(servers, urls, opened, strict=True):
            connection.close()
            server.drop(url)
            server.drop_template() if server is not database_server else None


def compare(connections: Sequence[psycopg.Connection], rows: Sequence[Row]) -> None:
    """Compare what the database computes of rows with what Python does."""
    raws, spents, keys, chains = zip(*rows, strict=True)
    for connection in connections:
        computed = connection.execute(
            QUERY.encode(), [list(raws), list(spents), [Jsonb(each) for each in keys], list(chains)]
        ).fetchall()
        for (senders, outputs), (raw, spent, _, chain) in zip(computed, rows, strict=True):
            stored = StoredTransaction(raw, spent, chain)
            assert outputs == [output.as_dict() for output in stored.outputs()], raw.hex()
            assert senders == [sender.as_dict() for sender in stored.senders()], (raw.hex(), spent.hex())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(rows=st.lists(transactions(), min_size=1, max_size=12))
def test_senders_and_outputs_are_those_of_python(
    connections: list[psycopg.Connection], rows: list[Row]
) -> None:
    """Random scripts, witnesses and keys, usual and hostile, have the same JSON."""
    compare(connections, rows)


@pytest.mark.parametrize("file", ["testnet3/1087400.blk", *(f"mainnet/{n}.blk" for n in REAL)])
def test_real_transactions_have_the_same_json(connections: list[psycopg.Connection], file: str) -> None:
    """So have those of real blocks, with what they spend as far as that is known, else p2pkh."""
    raw = shared(file).read_bytes()
    chain = file.partition("/")[0]
    bodies = split_transactions(raw)
    known: dict[tuple[str, int], SpentOutput] = {}
    if chain == "testnet3":
        for place, (value, script) in json.loads(
            shared(file.replace("blk", "prevouts.json")).read_text()
        ).items():
            txid, _, vout = place.partition(":")
            known[txid, int(vout)] = SpentOutput(value, bytes.fromhex(script))
    for body in bodies:
        txid, outputs = read_outputs(body)
        known |= {(txid, n): output for n, output in enumerate(outputs)}
    unknown = SpentOutput(1, b"\x76\xa9\x14" + bytes(20) + b"\x88\xac")
    rows = [
        row(body, [known.get((each.txid, each.vout), unknown) for each in read_inputs(body)], chain)
        for body in bodies[1:]
    ]
    for start in range(0, len(rows), 500):
        compare(connections, rows[start : start + 500])


@pytest.mark.parametrize(
    ("inputs", "outputs", "script"),
    [(24_390, 1, b""), (300, 1, bytes(5_000)), (1, 110_000, b""), (1, 1, b"\x6a" + b"\x51" * 900_000)],
)
def test_large_transactions_take_seconds(
    connections: list[psycopg.Connection], inputs: int, outputs: int, script: bytes
) -> None:
    """As many inputs or outputs as a block has room for, or the longest script, are not a problem."""
    paid = [script if len(script) > 5_000 else b""] * outputs
    raw = transaction(*paid, script_sigs=[b"\1\1"] * inputs)
    spent = [SpentOutput(n, script[:5_000]) for n in range(inputs)]
    started = time.monotonic()
    compare(connections, [row(raw, spent, "mainnet")])
    assert time.monotonic() - started < 60


def test_stored_keys_are_shown_for_inputs_that_have_some(connections: list[psycopg.Connection]) -> None:
    """What a p2pkh input reveals elsewhere than at its end is shown, beside inputs that are as usual."""
    key = b"\2" + bytes(32)
    script = b"\x76\xa9\x14" + hash160(key) + b"\x88\xac"
    usual, swapped = push(b"s" * 9) + push(key), push(key) + push(b"s" * 9) + b"\x7c"
    made = row(transaction(script_sigs=[usual, swapped, usual]), [SpentOutput(1, script)] * 3, "regtest")
    assert made[2] == {1: (key.hex(),)}
    compare(connections, [made])
