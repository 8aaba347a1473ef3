"""A block's transactions and witnesses are checked against what its header and coinbase commit to."""

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.block import split_transactions
from virtualchain.bitcoin.commitments import check_commitments
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block
from virtualchain.testing import ChainBuilder
from virtualchain.testing.blocks import merkle_root
from virtualchain.testing.wire import compact_size, read_transaction


@pytest.fixture(scope="module")
def raw() -> bytes:
    """Make a block with transactions that have witnesses."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"id?one"), chain.send(b"id?two", sender="bob")])
    return chain.raw_blocks()[-1]


def header_of(raw: bytes) -> Block:
    """Read a block's header."""
    return read_header(7, raw[:HEADER_SIZE])


def join(header: bytes, transactions: list[bytes]) -> bytes:
    """Write a block."""
    return header + compact_size(len(transactions)) + b"".join(transactions)


def with_root(raw: bytes, transactions: list[bytes]) -> bytes:
    """Write a block with other transactions, and a header that commits to them."""
    root = merkle_root([read_transaction(each).txid for each in transactions])
    return join(raw[:36] + root + raw[68:HEADER_SIZE], transactions)


@pytest.mark.parametrize(
    "file",
    [f"mainnet/{n}.blk" for n in (325000, 400000, 481824, 549400, 951658)]
    + [f"testnet3/{n}.blk" for n in (1087400, 2348332)],
)
def test_real_blocks_hold_what_they_commit_to(file: str) -> None:
    """They are from before segregated witness and after it."""
    block = shared(file).read_bytes()
    check_commitments(header_of(block), block)


def test_made_blocks_hold_what_they_commit_to(raw: bytes) -> None:
    """They are the chain builder's, including its genesis block."""
    for block in (raw, *ChainBuilder().raw_blocks()[:3]):
        check_commitments(header_of(block), block)


def test_other_transactions_are_detected(raw: bytes) -> None:
    """Whether one is left out, added, changed or moved, the error names the block and both roots."""
    header, (coinbase, *others) = raw[:HEADER_SIZE], split_transactions(raw)
    changed = others[0][:60] + bytes([others[0][60] ^ 1]) + others[0][61:]
    for transactions in (
        [coinbase],
        [coinbase, *others[:-1]],
        [coinbase, *others, split_transactions(ChainBuilder().raw_blocks()[0])[0]],
        [coinbase, changed, *others[1:]],
        [coinbase, *reversed(others)],
    ):
        with pytest.raises(
            MalformedBlock, match=rf"block 7 .*{header_of(raw).hash}.*Merkle root is .*states"
        ):
            check_commitments(header_of(raw), join(header, transactions))


def test_repeated_transactions_are_detected(raw: bytes) -> None:
    """Repeating the last ones leaves the root unchanged."""
    transactions = split_transactions(raw)
    while len(transactions) % 2 == 0:
        transactions.pop()
    odd = with_root(raw, transactions)
    with pytest.raises(MalformedBlock, match="occurs twice"):
        check_commitments(header_of(odd), join(odd[:HEADER_SIZE], [*transactions, transactions[-1]]))


def test_other_witnesses_are_detected(raw: bytes) -> None:
    """They change no id, and so leave the Merkle root unchanged."""
    coinbase, spending, *others = split_transactions(raw)
    witness = bytearray(spending)
    witness[-10] ^= 1
    with pytest.raises(MalformedBlock, match="witnesses are not the ones"):
        check_commitments(header_of(raw), join(raw[:HEADER_SIZE], [coinbase, bytes(witness), *others]))


def test_witnesses_without_a_commitment_are_detected(raw: bytes) -> None:
    """A coinbase from before segregated witness commits to none."""
    old = split_transactions(ChainBuilder().raw_blocks()[0])[0]
    block = with_root(raw, [old, *split_transactions(raw)[1:]])
    with pytest.raises(MalformedBlock, match="commits to none"):
        check_commitments(header_of(block), block)
