"""Compiled and interpreted code walk over blocks and hash them with the same results, for any bytes."""

import importlib.util
import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_block_parsing import BLOCKS, MAGICS, mutated_blocks
from tests.support.shared_data import shared
from tests.unit.bitcoin.building import HEADER, MAIN, block, count, op_return, transaction
from tests.unit.bitcoin.files.test_undo import SPENT as UNDO
from tests.unit.bitcoin.files.writing import undo_bytes
from virtualchain.bitcoin import addresses, hashes, layout, walk
from virtualchain.bitcoin import compiled as compiled_or_not
from virtualchain.bitcoin.compiled import SOURCES, find_compiled
from virtualchain.bitcoin.files import undo
from virtualchain.bitcoin.layout import NO_SEARCH, Search
from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.payload import first_op_return, last_op_return
from virtualchain.bitcoin.transaction import read_transaction
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.testing import undo as undo_of_testing
from virtualchain.testing.mainnet_like import mainnet_like

PROGRAM = Path(__file__).parents[2] / ".ci" / "compile.py"
COMPILE = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("compile_modules", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.compile_modules(pathlib.Path(sys.argv[2]))
"""
SEARCH = Search.of(MAGICS)
LIES = """fd fdfc00 fdfd00 fdffff feffff0000 fe00000100 feffffffff ffffffffffffffffff ff0000000000000000
    ff0000000000000080 ff0000000001000000""".split()
"""Counts, in hex, that are longer than they need be, or larger than what follows them."""

Spent = list[list[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType | None]:
    """Return the compiled modules, compiled now if they were not; skip without a compiler, except in CI."""
    modules = {name: find_compiled(name) for name in SOURCES}
    if modules["_walk"] is None:
        folder = tmp_path_factory.mktemp("compiled")
        command = [sys.executable, "-c", COMPILE, str(PROGRAM), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and os.environ.get("CI") != "true":
            pytest.skip("nothing can be compiled here")
        assert done.returncode == 0, done.stderr
        for name in SOURCES:
            (file,) = folder.glob(f"{name}.*")
            spec = importlib.util.spec_from_file_location(f"virtualchain.bitcoin.{name}", file)
            assert spec is not None
            assert spec.loader is not None
            with suppress(ImportError):  # the processor may not run it
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                modules[name] = module
    return modules


@pytest.fixture(scope="module")
def compiled(modules: dict[str, ModuleType | None]) -> ModuleType:
    """Return the compiled walks."""
    module = modules["_walk"]
    assert module is not None
    assert (module.IS_COMPILED, walk.IS_COMPILED) == (True, False)
    return module


@pytest.fixture(scope="module")
def fast(modules: dict[str, ModuleType | None]) -> ModuleType:
    """Return the compiled hashes; skip if the processor has no instructions for them."""
    module = modules["_hashes"]
    if module is None:
        pytest.skip("this processor has no instructions for SHA-256")
    return module


def outcome(run: Callable[[], object]) -> object:
    """Return what a function returns, or the message of its error."""
    try:
        return run()
    except MalformedBlock as error:
        return str(error)


def check(owner: ModuleType, name: str, compiled: ModuleType, run: Callable[[], object]) -> Any:
    """Run a function with both forms of the walk `name`, and return the answer that they agree on."""
    results = []
    for module in (walk, compiled):
        with patch.object(owner, name, getattr(module, name)):
            results.append(outcome(run))
    assert results[0] == results[1]
    return results[0]


def check_block(compiled: ModuleType, raw: bytes) -> Any:
    """Walk over a block both ways, with a search and without one."""
    check(layout, "walk_block", compiled, lambda: layout.walk(raw, NO_SEARCH))
    return check(layout, "walk_block", compiled, lambda: layout.walk(raw, SEARCH))


@settings(deadline=None, max_examples=100)
@given(raw=st.one_of(BLOCKS, mutated_blocks(), st.binary(max_size=300).map(HEADER.__add__), st.binary()))
def test_any_block(compiled: ModuleType, raw: bytes) -> None:
    """Layout, matches and errors are the same."""
    check_block(compiled, raw)


@settings(deadline=None)
@given(raw=BLOCKS, data=st.data())
def test_any_truncated_block(compiled: ModuleType, raw: bytes, data: st.DataObject) -> None:
    """The error names the same transaction, wherever the bytes end."""
    size = data.draw(st.integers(0, len(raw) - 1))
    assert isinstance(check_block(compiled, raw[:size]), str)


def check_scripts(compiled: ModuleType, raw: bytes) -> Any:
    """Cut the output scripts out of a transaction both ways."""
    return check(compiled_or_not, "output_scripts", compiled, lambda: compiled_or_not.output_scripts(raw))


@settings(deadline=None, max_examples=100)
@given(raw=BLOCKS, data=st.data())
def test_output_scripts(compiled: ModuleType, raw: bytes, data: st.DataObject) -> None:
    """They are those of the outputs of a decoded transaction, and a shipped payload rule finds the same."""
    for whole in layout.split_transactions(raw):
        scripts = check_scripts(compiled, whole)
        transaction = read_transaction(whole, MAIN)
        assert scripts == [output.script_pubkey for output in transaction.paid]
        outputs = [output.as_dict() for output in transaction.outputs]
        for rule in (last_op_return, first_op_return(*MAGICS)):
            assert rule.find(scripts) == rule(outputs)
        (end,) = layout.walk(HEADER + b"\1" + whole).outputs_ends
        size = data.draw(st.integers(0, end - len(HEADER) - 2))
        assert check_scripts(compiled, whole[:size]) == "a transaction ends too early"


def test_output_scripts_of_no_transaction(compiled: ModuleType) -> None:
    """Counts that lie, and bytes that are anything, are refused the same."""
    for raw in hostile_blocks():
        check_scripts(compiled, raw[len(HEADER) + 1 :])
    assert check_scripts(compiled, bytes(60)) == "a transaction has no input"


def check_outpoints(compiled: ModuleType, raw: bytes, at: int = 0) -> Any:
    """Cut what a transaction spends out of it both ways."""
    return check(compiled_or_not, "outpoints", compiled, lambda: compiled_or_not.outpoints(raw, at))


@settings(deadline=None, max_examples=100)
@given(raw=BLOCKS, data=st.data())
def test_outpoints(compiled: ModuleType, raw: bytes, data: st.DataObject) -> None:
    """They are those of the inputs of a decoded transaction, wherever it begins and whatever follows."""
    laid_out = layout.walk(raw)
    for n, whole in enumerate(layout.split_transactions(raw)):
        expected = b"".join(
            bytes.fromhex(spending.txid) + spending.vout.to_bytes(4)
            for spending in read_transaction(whole, MAIN).inputs
        )
        assert check_outpoints(compiled, whole) == expected
        assert check_outpoints(compiled, raw, laid_out.starts[n]) == expected
        spending_ends = 4 + 2 * laid_out.has_witness(n) + 1
        size = data.draw(st.integers(0, spending_ends + 36))
        assert check_outpoints(compiled, whole[:size]) == "a transaction ends too early"


@settings(deadline=None, max_examples=100)
@given(raw=st.one_of(mutated_blocks(), st.binary(max_size=200)), at=st.integers(0, 250))
def test_outpoints_of_any_bytes(compiled: ModuleType, raw: bytes, at: int) -> None:
    """Results and errors are the same, also for a place past the end."""
    result = check_outpoints(compiled, raw, at)
    assert isinstance(result, str) or len(result) % 36 == 0


def test_outpoints_of_no_transaction(compiled: ModuleType) -> None:
    """Counts that lie, and bytes that are anything, are refused the same."""
    for raw in hostile_blocks():
        check_outpoints(compiled, raw, len(HEADER) + 1)
    assert check_outpoints(compiled, bytes(60)) == "a transaction has no input"


@settings(deadline=None)
@given(version=st.integers(0, 16), program=st.binary(min_size=2, max_size=40), payload=st.binary(max_size=40))
def test_any_address(
    modules: dict[str, ModuleType | None], version: int, program: bytes, payload: bytes
) -> None:
    """Addresses of both kinds are the same."""
    compiled = modules["_addresses"]
    assert compiled is not None
    assert (compiled.IS_COMPILED, addresses.IS_COMPILED) == (True, False)
    for prefix in ("bc", "bcrt"):
        address = addresses.write_address(prefix, version, program)
        assert compiled.write_address(prefix, version, program) == address
    assert compiled.write_base58(payload) == addresses.write_base58(payload)


def hostile_blocks() -> Iterator[bytes]:
    """Yield blocks whose counts lie, in each of the places that have one."""
    start, tail = HEADER + b"\1\2\0\0\0", bytes(300)
    spending = b"\1" + bytes(36)
    output = b"\1" + bytes(8)
    for lie in map(bytes.fromhex, LIES):
        for front in (
            HEADER,
            start,
            start + spending,
            start + spending + b"\0" + bytes(4),
            start + spending + b"\0" + bytes(4) + output,
            start + b"\0\1" + spending + b"\0" + bytes(4) + output + b"\0",
            start + b"\0\1" + spending + b"\0" + bytes(4) + output + b"\0\1",
        ):
            yield front + lie
            yield front + lie + tail
    for script in map(
        bytes.fromhex,
        ("6a", "6a4c", "6a4d02", "6a4e020000", "6a4e0300000069642178", "6a4f", "6a0269", "6aff"),
    ):
        whole = block(transaction(script))
        yield from (whole, whole[: -len(script)], whole[: whole.index(script) + len(script)])
    for magic in MAGICS:  # the block ends while a magic is compared
        whole = block(transaction(op_return(magic)))
        yield from (whole[:size] for size in range(len(whole) - 10, len(whole) + 1))


def test_hostile_blocks(compiled: ModuleType) -> None:
    """Counts that lie, and scripts that end early, are judged the same."""
    results = [check_block(compiled, raw) for raw in hostile_blocks()]
    assert sum(isinstance(result, str) for result in results) > 100
    assert any(list(result.matching()) for result in results if not isinstance(result, str))


@pytest.mark.parametrize("path", ["mainnet/325000", "mainnet/549400", "mainnet/951658", "testnet3/2348332"])
def test_real_blocks(compiled: ModuleType, path: str) -> None:
    """Real blocks are laid out the same, and so are their damaged copies."""
    raw = shared(f"{path}.blk").read_bytes()
    laid_out = check_block(compiled, raw)
    assert len(laid_out) > 50
    assert check(layout, "outpoints", compiled, laid_out.spends)[0] == b""
    for place in range(len(HEADER), len(raw), len(raw) // 23):
        check_block(compiled, raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        check_block(compiled, raw[:place])


def check_hashes(fast: ModuleType, raw: bytes) -> None:
    """Hash a block's transactions and compute their Merkle roots both ways."""
    laid_out = layout.walk(raw)
    arguments = (raw, laid_out.starts, laid_out.outputs_ends)
    digests = fast.hash_transactions(*arguments)
    assert digests == hashes.hash_transactions(*arguments)
    assert [len(each) for each in digests] == [32 * len(laid_out)] * 2
    assert [*map(fast.merkle_rows, digests)] == [*map(hashes.merkle_rows, digests)]


@settings(deadline=None)
@given(raw=BLOCKS)
def test_any_hashes(fast: ModuleType, raw: bytes) -> None:
    """Ids, hashes and roots are the same."""
    check_hashes(fast, raw)


@pytest.mark.parametrize("path", ["mainnet/325000", "mainnet/951658", "testnet3/2348332"])
def test_real_hashes(fast: ModuleType, path: str) -> None:
    """They are the same for transactions of all sizes."""
    check_hashes(fast, shared(f"{path}.blk").read_bytes())


def test_hashes_of_every_length(fast: ModuleType) -> None:
    """The end of a transaction may be anywhere in a block of the hash function, and a row of a tree odd."""
    for size in range(200):
        check_hashes(fast, block(transaction(bytes(size)), transaction(b"", witnesses=[[bytes(size)]])))
    for leaves in range(1, 40):
        digests = b"".join(bytes([n]) * 32 for n in range(leaves))
        assert fast.merkle_rows(digests) == hashes.merkle_rows(digests)


@settings(deadline=None, max_examples=100)
@given(
    ops_hash=st.binary(min_size=32, max_size=32),
    prior=st.lists(st.binary(min_size=16, max_size=16), max_size=40),
    begins=st.booleans(),
)
def test_any_consensus_hash(fast: ModuleType, ops_hash: bytes, prior: list[bytes], begins: bool) -> None:
    """It is the same, also of equal hashes, and of one that begins another."""
    texts = [each.hex() for each in ([*prior, *prior[:1], ops_hash[:16]] if begins else prior)]
    assert fast.consensus_hash(ops_hash.hex(), texts) == hashes.consensus_hash(ops_hash.hex(), texts)


@pytest.mark.parametrize(
    ("ops_hash", "prior"),
    [
        ("0" * 62, []),
        ("0" * 64, ["0" * 30]),
        ("A" * 64, []),
        ("0" * 64, ["0" * 31 + "g"]),
        ("", []),
        ("é" * 32, []),
    ],
)
def test_what_is_not_a_hash(fast: ModuleType, ops_hash: str, prior: list[str]) -> None:
    """Both refuse other lengths, and other digits."""
    with pytest.raises(ValueError, match="64 hex digits"):
        fast.consensus_hash(ops_hash, prior)
    with pytest.raises(UsageError):
        hashes.consensus_hash(ops_hash, prior)


def test_hashes_of_nothing_that_is_in_the_block(fast: ModuleType) -> None:
    """Places outside of the block, which no walk returns, are refused."""
    for starts, outputs_ends in (([0, 61], [57]), ([0, 60], [57]), ([0, 60], [5]), ([0, 60], []), ([], [])):
        with pytest.raises(ValueError, match=r"ends|inside"):
            fast.hash_transactions(bytes(60), array("I", starts), array("I", outputs_ends))
    with pytest.raises(ValueError, match="at least one"):
        fast.merkle_rows(b"")


SPENT: st.SearchStrategy[Spent] = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 21 * 10**14),
            st.one_of(st.binary(max_size=40), st.integers(250, 400).map(bytes)),
        ),
        max_size=5,
    ),
    min_size=1,
    max_size=8,
)


def answer_of(spent: Spent) -> bytes:
    """Write what transactions spend as `/rest/spenttxouts` does."""
    parts = [count(len(spent))]
    for outputs in spent:
        parts.append(count(len(outputs)))
        parts += [value.to_bytes(8, "little") + count(len(script)) + script for value, script in outputs]
    return b"".join(parts)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Yield the data in pieces of one size."""
    return (data[at : at + size] for at in range(0, len(data), size))


@settings(deadline=None, max_examples=100)
@given(
    data=st.one_of(SPENT.map(answer_of), st.binary(max_size=60)),
    cut=st.one_of(st.none(), st.integers(0, 300)),
    size=st.integers(1, 500),
    txindexes=st.sets(st.integers(0, 9), max_size=3),
)
def test_any_spent_outputs(
    compiled: ModuleType, data: bytes, cut: int | None, size: int, txindexes: set[int]
) -> None:
    """Outputs, counts and errors are the same, in whatever pieces an answer comes."""

    def read(size: int) -> Any:
        def parsed() -> object:
            spent = answers.read_spent_outputs(pieces(data[:cut], size), txindexes)
            return dict(spent), list(spent.counts or ())

        return check(answers, "skip_spent", compiled, parsed)

    assert read(size) == read(10_000)


@settings(deadline=None, max_examples=100)
@given(
    data=st.one_of(UNDO.map(undo_bytes), st.binary(max_size=80)),
    cut=st.one_of(st.none(), st.integers(0, 300)),
    txindexes=st.sets(st.integers(0, 5), max_size=2),
)
def test_any_undo_data(compiled: ModuleType, data: bytes, cut: int | None, txindexes: set[int]) -> None:
    """Whatever the bytes, the answers are the same."""
    check(undo, "skip_undo", compiled, lambda: read_undo(data[:cut], txindexes))


def test_undo_data_of_a_full_block(compiled: ModuleType) -> None:
    """Undo data of a block like mainnet's are read the same, damaged or not, whatever is asked for."""
    *_, full = mainnet_like(1)
    spent = undo_of_testing.read_undo(full.undo)[1:]
    data = undo_bytes(spent)

    def read(data: bytes, *txindexes: int) -> Any:
        return check(undo, "skip_undo", compiled, lambda: read_undo(data, txindexes))

    everything, counts = read(data, *range(1, len(spent) + 1))
    assert counts == [0, *map(len, spent)]
    for txindex in range(1, len(spent), 97):
        assert read(data, txindex) == ({txindex: everything[txindex]}, counts)
    for place in range(0, len(data), len(data) // 97):
        read(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :], 1)
        read(data[:place], 1)


def read_undo(data: bytes, txindexes: Collection[int]) -> object:
    """Read undo data to values that can be compared."""
    coins = undo.read_undo(data, txindexes)
    return dict(coins), list(coins.counts)
