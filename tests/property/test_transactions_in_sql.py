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
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.spending import substitute, unusual_keys
from virtualchain.bitcoin.transaction import MAX_MONEY, pack_outputs, read_inputs, read_outputs
from virtualchain.consensus.hashing import hash160
from virtualchain.model import SpentOutput
from virtualchain.testing.database import DatabaseServer, other_version

BITCOINS = ("mainnet", "testnet3", "regtest", "signet-0a0b0c0d")
NETWORKS = (*BITCOINS, "litecoin", "dogecoin-testnet")
REAL = (325_000, 400_000, 481_824, 549_400, 951_658)
"""Blocks of mainnet."""
QUERY = """
    SELECT vc.senders(raw, spent, keys, network), vc.outputs(raw, network)
    FROM unnest(%b::bytea[], %b::bytea[], %s::jsonb[], %s::text[]) WITH ORDINALITY
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
        st.sampled_from([0, 0x4F, 0x50, 0x51, 0x52, 0x58, 0x59, 0x60, 0x61]),
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
    forms = [network(chain).address_form or chain for chain in chains]
    for connection in connections:
        computed = connection.execute(
            QUERY.encode(), [list(raws), list(spents), [Jsonb(each) for each in keys], forms]
        ).fetchall()
        for (senders, outputs), (raw, spent, _, chain) in zip(computed, rows, strict=True):
            stored = StoredTransaction(raw, spent, network(chain))
            assert outputs == [output.as_dict() for output in stored.outputs()], raw.hex()
            assert senders == [sender.as_dict() for sender in stored.senders()], (raw.hex(), spent.hex())


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(rows=st.lists(transactions(), min_size=1, max_size=12))
def test_senders_and_outputs_are_those_of_python(
    connections: list[psycopg.Connection], rows: list[Row]
) -> None:
    """Random scripts, witnesses and keys, usual and hostile, have the same JSON."""
    compare(connections, rows)


def der(first: int, second: int, hash_type: int = 1) -> bytes:
    """Write a signature with numbers of these sizes."""
    body = b"\x02" + bytes([first]) + b"\1" * first + b"\x02" + bytes([second]) + b"\1" * second
    return b"\x30" + bytes([len(body)]) + body + bytes([hash_type])


def edge_scripts() -> Iterator[bytes]:
    """Yield scripts that are just, or just not, of a type."""
    key, long_key = b"\2" + bytes(32), b"\4" + bytes(64)
    for first in range(9):
        yield push(bytes([first]) + bytes(32)) + b"\xac"
        yield push(bytes([first]) + bytes(64)) + b"\xac"
    for n in (1, 2, 15, 16, 17, 20, 21):
        for required in (0, 1, n, n + 1):
            for total in (bytes([0x50 + n]), bytes([1, n]), bytes([0x4C, 1, n])):
                number = bytes([0x50 + required]) if required < 17 else bytes([1, required])
                yield number + push(key) * n + total + b"\xae"
    for end in (
        b"\x51\xae\xae",
        b"\x51\x61\xae",
        b"\x51\x01\xae",
        b"\x51\x50\xae",
        b"\x51",
        b"\x51\xaf",
        b"\xae",
    ):
        yield b"\x51" + push(key) + end
    yield from (b"\x51" + push(long_key) + b"\x4c\x21" + key + b"\x52\xae", b"\1\1" + push(key) + b"\x51\xae")
    yield from (b"\x51\x4f" + push(key) + b"\x51\xae", b"\x51" + push(b"\5" + bytes(64)) + b"\x51\xae")
    yield from (b"\x76\xa9\x14" + hash160(each) + b"\x88\xac" for each in (key, b"", der(32, 32)))
    yield from (b"", b"\x51", b"\x6a", b"\xae", b"\xac", b"\x76\xa9\x14" + bytes(20) + b"\x88\xad")
    yield from (
        b"\x6a" + bytes([opcode]) for opcode in (0, 1, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F, 0x50, 0x60, 0x61)
    )
    yield from (
        b"\x6a\x4c\1",
        b"\x6a\x4d\1\0",
        b"\x6a\x4e\1\0\0\0",
        b"\x6a\x4e\1\0\0",
        b"\x6a\x4e\xff\xff\xff\xff",
    )
    yield from (b"\x6a\x4c\1x", b"\x6a\x4d\1\0x", b"\x6a\x4e\1\0\0\0x", b"\x6a\x4d\0\1" + bytes(256))
    for opcode in (0, 0x4F, 0x50, 0x51, 0x52, 0x60, 0x61):
        for size in (1, 2, 19, 20, 21, 31, 32, 33, 40, 41):
            yield bytes([opcode, size]) + bytes(size)
    yield from (
        b"\x51\x02\x4e\x73",
        b"\x51\x02\x4e\x74",
        b"\x52\x02\x4e\x73",
        b"\xa9\x14" + bytes(20) + b"\x88",
    )
    yield substitute(9_000, bytes(32))
    yield from (b"\x6a\x04" + bytes(4) + bytes([each]) + bytes(32) for each in (0x1F, 0x21))


def edge_stacks() -> Iterator[list[bytes]]:
    """Yield items around what counts as a signature."""
    key = b"\2" + bytes(32)
    yield from ([], [b""], [key], [b"", key], [der(32, 32), key], [key, der(32, 32)])
    yield [der(n, n, 0x80 + n) for n in range(1, 8)]
    yield [der(0, 1), der(1, 1), der(33, 33), der(33, 32), der(34, 32), der(34, 33), der(32, 32)[:-1]]
    yield [der(32, 32, hash_type) for hash_type in (0, 1, 2, 3, 4, 0x1F, 0x22, 0x81, 0x82, 0x83, 0xE3, 0xFF)]
    signature = der(20, 20)
    yield [signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :] for at in range(27)]
    yield from ([bytes(64) + bytes([each]), b"x", b"y"] for each in range(256))
    yield from ([bytes(size)] for size in (63, 64, 65, 66))
    yield from ([bytes(64), end] for end in (b"\x50", b"\x50abc", b"\x51", b""))
    yield from ([bytes(64), bytes(64), bytes(64), end] for end in (b"\x50", b"\x4f"))
    yield from ([b"\x50"], [b"\x50", b"\x50"])


def test_cases_at_the_edges(connections: list[psycopg.Connection]) -> None:
    """Every script at the edge of a type, alone and committed to, is spent with every kind of items."""
    spent: list[Spending] = []
    stacks = list(edge_stacks())
    few = [stack for stack in stacks if len(stack) != 3]
    for script in edge_scripts():
        p2wsh, p2sh = b"\x00\x20" + sha256(script).digest(), b"\xa9\x14" + hash160(script) + b"\x87"
        for stack in few:
            pushed = b"".join(map(push, stack))
            spent += [(script, pushed + end, stack) for end in (b"", b"\x60", b"\x61", b"\x4c")]
            long = [b"\x4e" + len(item).to_bytes(4, "little") + item for item in stack]
            spent += [(script, b"".join(long), stack)]
            spent += [(p2sh, pushed + push(script) + end, stack) for end in (b"", b"\x61")]
            spent += [(p2wsh, b"", [*stack, script])]
            spent += [(b"\xa9\x14" + hash160(p2wsh) + b"\x87", push(p2wsh), [*stack, script])]
    spent += [(b"\x51\x20" + bytes(32), b"", stack) for stack in stacks]
    paid = list(edge_scripts())
    rows = []
    for start in range(0, len(spent), 400):
        part = spent[start : start + 400]
        raw = transaction(
            *(paid if not start else ()),
            script_sigs=[input_script for _, input_script, _ in part],
            witnesses=[witness for *_, witness in part],
        )
        rows.append(row(raw, [SpentOutput(1, script) for script, *_ in part], "mainnet"))
    for start in range(0, len(rows), 20):
        compare(connections, rows[start : start + 20])


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


def test_no_setting_of_a_session_changes_what_it_sees(connections: list[psycopg.Connection]) -> None:
    """Neither a session's own functions and operators nor its settings get between the view and the bytes."""
    key = b"\2" + bytes(32)
    script = b"\x51" + push(key) + b"\x51\xae"
    p2sh = b"\xa9\x14" + hash160(script) + b"\x87"
    annex = [bytes(64), b"\x50"]
    raw = transaction(op_return(b"id!x"), p2sh, script_sigs=[push(script), b""], witnesses=[[], annex])
    made = row(raw, [SpentOutput(5, p2sh), SpentOutput(6, b"\x51\x20" + bytes(32))], "mainnet")
    for connection in connections:
        with connection.transaction(force_rollback=True):
            connection.execute("""
                CREATE SCHEMA theirs;
                CREATE FUNCTION theirs.get_byte(bytea, integer) RETURNS integer LANGUAGE sql RETURN 7;
                CREATE FUNCTION theirs.substr(bytea, integer, integer) RETURNS bytea
                    LANGUAGE sql RETURN 'x'::bytea;
                CREATE FUNCTION theirs.same(bytea, bytea) RETURNS boolean LANGUAGE sql RETURN true;
                CREATE OPERATOR theirs.= (FUNCTION = theirs.same, LEFTARG = bytea, RIGHTARG = bytea);
                SET LOCAL search_path = theirs, pg_catalog;
                SET LOCAL standard_conforming_strings = off;
                SET LOCAL transform_null_equals = on;
                SET LOCAL array_nulls = off;
                SET LOCAL bytea_output = escape;
                DISCARD PLANS
            """)
            compare([connection], [made])


@pytest.mark.parametrize("chain", BITCOINS)
def test_the_script_of_every_address_is_known(connections: list[psycopg.Connection], chain: str) -> None:
    """`script_of` reads what the views write, in upper case as well if it is Bech32, and nothing else."""
    programs = [
        bytes([opcode, size]) + bytes(range(size)) for opcode in (0, 0x51, 0x60) for size in range(2, 41)
    ]
    hashes = [bytes([n]) * 20 for n in (0, 1, 255)] + [bytes(3) + bytes(range(17))]
    scripts = [*programs, *(b"\x76\xa9\x14" + each + b"\x88\xac" for each in hashes)]
    scripts += [b"\xa9\x14" + each + b"\x87" for each in hashes]
    classified = [(each, classify(each, network(chain))[1]) for each in scripts]
    addresses = {address: each for each, written in classified for address in written}
    assert len(addresses) == 2 + 2 * 39 + 8
    wrong = ["", "1", "bc1", "BC1q", "x" * 30, "1" * 34, "bc1" + "q" * 80, "é" * 30, "bc1q\n"]
    for address in addresses:
        changed = "q" if address[-1] != "q" else "p"
        wrong += [address[:-1] + changed, address + "q", address[1:], address[:10].upper() + address[10:]]
    for connection in connections:
        for address, script in addresses.items():
            forms = [address, address.upper()] if "1q" in address[:5] or "1p" in address[:5] else [address]
            for form in forms:
                assert connection.execute("SELECT virtualchain.script_of(%s)", [form]).fetchone() == (script,)
        for text in set(wrong) - set(addresses):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="not an address"):
                connection.execute("SELECT virtualchain.script_of(%s)", [text])
