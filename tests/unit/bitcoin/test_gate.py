"""The gate: a block passes only if it is what its header says, and each way not to be is refused."""

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import HEADER, P2PKH, as_coinbase, mined, push, transaction
from virtualchain.bitcoin.block import split_transactions
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header, sha256d
from virtualchain.bitcoin.networks import NETWORKS, Network, network, with_easy_work
from virtualchain.bitcoin.script import push_height
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, Verification
from virtualchain.testing import ChainBuilder
from virtualchain.testing.blocks import merkle_root
from virtualchain.testing.wire import compact_size, read_transaction

REGTEST = network("regtest")
HEIGHT = push_height(102)
"""What the coinbase of the blocks here begins with."""
COINBASE = as_coinbase(transaction(P2PKH, script_sigs=[HEIGHT], values=[50 * 10**8]))
EXTENTS: tuple[Verification, ...] = ("headers", "merkle")
HISTORIC = """
0200000001deb98691723fa71260ffca6ea0a7bc0a63b0a8a366e1b585caad47fb269a2ce401000000030251b2\
01000000010000000000000000016a00000000
01000000010d0afe3d74062ee60c0ec55579d691d8c8af5c04eb97b777157a21a8c5fb143d00000000035101b1\
00000000010000000000000000016a01000000
02000000011658a33df410379bb512206659910c9fbd0e50bfb732f7be9936558ff036919401000000035101b2\
01000000010000000000000000016a00000000
02000000011a7a4cf262fb7e53e2e6e0b2ef8b763f6ee97d8681ca968d1938418d56e6c38700000000035101b2\
01000000010000000000000000016a00000000
01000000019222bbb054bb9f94571dfe769af5866835f2a97e883959fa757de4064bed8bca01000000035101b1\
00000000010000000000000000016a01000000
""".split()
"""The transactions of 64 bytes that mainnet's chain holds, from BIP 54's test vectors."""


@pytest.fixture(scope="module")
def raw() -> bytes:
    """Make a block with transactions that have witnesses."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"id?one"), chain.send(b"id?two", sender="bob")])
    return chain.raw_blocks()[-1]


def header_of(raw: bytes, block_id: int = 102) -> Block:
    """Read a block's header."""
    return read_header(block_id, raw[:HEADER_SIZE])


def check(raw: bytes, header: Block | None = None, on: Network = REGTEST) -> CheckedBlock:
    """Check a block completely."""
    return CheckedBlock(header or header_of(raw), raw, on, "merkle")


def join(header: bytes, transactions: list[bytes]) -> bytes:
    """Write a block."""
    return header + compact_size(len(transactions)) + b"".join(transactions)


def with_root(raw: bytes, transactions: list[bytes]) -> bytes:
    """Write a block with other transactions, and a header that commits to them."""
    root = merkle_root([read_transaction(each).txid for each in transactions])
    return mined(join(raw[:36] + root + raw[68:HEADER_SIZE], transactions))


# Blocks that are what they say


@pytest.mark.parametrize(
    ("name", "block_id"),
    [("mainnet", n) for n in (325000, 400000, 481824, 549400, 951658)]
    + [("testnet3", n) for n in (1087400, 2348332)],
)
def test_real_blocks_pass(name: str, block_id: int) -> None:
    """They are from before segregated witness and after it, with the work of their networks."""
    raw = shared(f"{name}/{block_id}.blk").read_bytes()
    passed = check(raw, header_of(raw, block_id), network(name))
    layout = passed.layout
    assert [layout.transaction(txindex) for txindex in range(len(layout))] == split_transactions(raw)


def test_the_first_blocks_of_bitcoin_pass_and_form_a_chain() -> None:
    """They are six hundred blocks, framed as a node stores them."""
    raw, at, parent = shared("mainnet/blocks-0-599.dat").read_bytes(), 0, "00" * 32
    for block_id in range(600):
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        body = raw[at + 8 : at + 8 + size]
        header = check(body, header_of(body, block_id), network("mainnet")).header
        assert header.prev_hash == parent
        parent, at = header.hash, at + 8 + size
    assert at == len(raw)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_genesis_block_passes_on_its_own_network_only(name: str) -> None:
    """The work of an easier network does not count on a harder one, and there is one first block."""
    genesis = ChainBuilder(name, premine=0).raw_blocks()[0]
    header = header_of(genesis, 0)
    check(genesis, header, network(name))
    for each in NETWORKS.values():
        if network(name).genesis_hash == each.genesis_hash:
            continue
        message = f"the first block of {each.name} is|easier than {each.name} allows|no proof of work"
        with pytest.raises(MalformedBlock, match=message):
            check(genesis, header, each)


def test_made_blocks_pass(raw: bytes) -> None:
    """They are the chain builder's."""
    check(raw)
    for block_id, each in enumerate(ChainBuilder().raw_blocks()[:20]):
        check(each, header_of(each, block_id))


@pytest.mark.parametrize("block_id", [2, 101, 103, 102 + 256, 102 << 8])
def test_a_block_at_another_height_is_refused(raw: bytes, block_id: int) -> None:
    """Its coinbase states its height, which whoever counts headers from a false one gets wrong."""
    with pytest.raises(MalformedBlock, match=rf"block {block_id} .*does not state this height \(BIP 34\)"):
        check(raw, header_of(raw, block_id))
    for extent in ("off", "headers"):
        CheckedBlock(header_of(raw, block_id), raw, REGTEST, extent)


def test_heights_count_from_where_coinbases_state_them() -> None:
    """Real blocks around mainnet's height for BIP 34 pass at theirs; older ones state none."""
    old = shared("mainnet/blocks-0-599.dat").read_bytes()
    size = int.from_bytes(old[4:8], "little")
    second = old[16 + size : 16 + size + int.from_bytes(old[12 + size : 16 + size], "little")]
    check(second, header_of(second, 5_000), network("mainnet"))
    with pytest.raises(MalformedBlock, match="does not state this height"):
        check(second, header_of(second, 227_931), network("mainnet"))
    raw = shared("mainnet/400000.blk").read_bytes()
    for block_id in (399_999, 400_001):
        with pytest.raises(MalformedBlock, match="does not state this height"):
            check(raw, header_of(raw, block_id), network("mainnet"))


@pytest.mark.parametrize("extent", EXTENTS)
def test_the_first_blocks_are_the_network_s(extent: Verification) -> None:
    """Nothing but the genesis block has height 0, and nothing but a child of it height 1."""
    genesis, first, second = ChainBuilder().raw_blocks()[:3]
    for block_id, raw in ((0, first), (1, second)):
        with pytest.raises(MalformedBlock, match="the first block of regtest is"):
            CheckedBlock(header_of(raw, block_id), raw, REGTEST, extent)
        CheckedBlock(header_of(raw, block_id), raw, REGTEST, "off")
    for block_id, raw in enumerate((genesis, first)):
        CheckedBlock(header_of(raw, block_id), raw, REGTEST, extent)


def test_off_believes_work_and_nothing_else(raw: bytes) -> None:
    """A header without work passes; another block, a part of one, or one without a coinbase does not."""
    unworked = raw[:72] + (0x1D00FFFF).to_bytes(4, "little") + raw[76:]
    CheckedBlock(header_of(unworked), unworked, REGTEST, "off")
    for broken in (raw[:-1], raw + b"\0"):
        with pytest.raises(MalformedBlock):
            CheckedBlock(header_of(raw), broken, REGTEST, "off")
    with pytest.raises(MalformedBlock, match="requested"):
        CheckedBlock(header_of(unworked), raw, REGTEST, "off")
    headless = join(raw[:HEADER_SIZE], split_transactions(raw)[1:])
    with pytest.raises(MalformedBlock, match="begins with no coinbase"):
        CheckedBlock(header_of(headless), headless, REGTEST, "off")


# Header and work


@pytest.mark.parametrize("extent", EXTENTS)
def test_another_block_than_the_requested_one_is_refused(raw: bytes, extent: Verification) -> None:
    """It is compared by all that the header says, not by the hash that someone states."""
    other = header_of(ChainBuilder().raw_blocks()[5])
    for header in (other, replace(header_of(raw), time=5), replace(header_of(raw), bits=0x1D00FFFF)):
        with pytest.raises(MalformedBlock, match=f"block 102: requested {header.hash}, got"):
            CheckedBlock(header, raw, REGTEST, extent)


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (0x1D00FFFF, "no proof of work"),
        (0x03000001, "no proof of work"),
        (0x207FFFFF, "no proof of work"),
        (0x2100FFFF, "easier than regtest allows"),
        (0x01003456, "not a valid target"),
        (0xFFFFFFFF, "not a valid target"),
        (0, "not a valid target"),
    ],
)
def test_a_header_without_the_work_it_states_is_refused(
    raw: bytes, extent: Verification, bits: int, message: str
) -> None:
    """Whether the target is too easy, cannot be, or is above the hash."""
    for nonce in range(1000):
        forged = raw[:72] + bits.to_bytes(4, "little") + nonce.to_bytes(4, "little") + raw[HEADER_SIZE:]
        if header_of(forged).hash >= "8":  # above regtest's target, too
            break
    with pytest.raises(MalformedBlock, match=message):
        CheckedBlock(header_of(forged), forged, REGTEST, extent)


# The form of a block


@pytest.mark.parametrize("extent", EXTENTS)
def test_one_coinbase_comes_first(extent: Verification) -> None:
    """Any other number and place of coinbases is refused, with witnesses and without."""
    witness = COINBASE[:4] + b"\0\1" + COINBASE[4:-4] + b"\1\x20" + bytes(32) + COINBASE[-4:]
    second = COINBASE[:-4] + b"\1\0\0\0"
    other = transaction(P2PKH)
    easy = with_easy_work(network("mainnet"))
    for coinbase in (COINBASE, witness):
        for transactions, message in (
            ([other], "begins with no coinbase"),
            ([other, coinbase], "begins with no coinbase"),
            ([coinbase, second], "transaction 1 is a second coinbase"),
            ([coinbase, other, witness], "transaction 2 is a second coinbase"),
        ):
            raw = with_root(HEADER, transactions)
            with pytest.raises(MalformedBlock, match=f"block 102 .* is damaged: .*{message}"):
                CheckedBlock(header_of(raw), raw, easy, extent)


def test_an_inner_node_of_the_tree_is_no_transaction() -> None:
    """Two ids, hashed, are a node; 64 bytes that are also a transaction could pass for either."""
    node = transaction(b"\x51" * 4)
    assert len(node) == 64
    # A block of two transactions whose ids are the halves of `node`: its root is the hash of `node`.
    forged = mined(HEADER[:36] + sha256d(node) + HEADER[68:] + b"\1" + node)
    for extent in EXTENTS:
        with pytest.raises(MalformedBlock, match="begins with no coinbase"):
            CheckedBlock(header_of(forged), forged, REGTEST, extent)
    with_witness = transaction(b"\x51" * 4, witnesses=[[b"w"]])
    for each in (node, with_witness, transaction(b"\x51", script_sigs=[b"\x51" * 3])):
        raw = with_root(HEADER, [COINBASE, transaction(P2PKH), each])
        with pytest.raises(MalformedBlock, match="transaction 2 has 64 bytes"):
            check(raw)


@pytest.mark.parametrize("size", [3, 5])
def test_transactions_of_almost_that_size_pass(size: int) -> None:
    """They have 63 and 65 bytes."""
    check(with_root(HEADER, [COINBASE, transaction(b"\x51" * size)]))


def test_the_chain_s_own_transactions_of_that_size_pass() -> None:
    """There are five, and a block that holds one must not stop anyone."""
    for text in HISTORIC:
        historic = bytes.fromhex(text)
        assert len(historic) == 64
        check(with_root(HEADER, [COINBASE, historic]), on=with_easy_work(network("mainnet")))


# What header and coinbase commit to


def test_other_transactions_are_refused(raw: bytes) -> None:
    """Whether one is left out, added, changed or moved, the error names the block and both roots."""
    header, (coinbase, *others) = raw[:HEADER_SIZE], split_transactions(raw)
    changed = others[0][:60] + bytes([others[0][60] ^ 1]) + others[0][61:]
    for transactions in (
        [coinbase],
        [coinbase, *others[:-1]],
        [coinbase, *others, transaction(P2PKH)],
        [coinbase, changed, *others[1:]],
        [coinbase, *reversed(others)],
    ):
        with pytest.raises(
            MalformedBlock, match=rf"block 102 .*{header_of(raw).hash}.*Merkle root is .*states"
        ):
            check(join(header, transactions))


def test_only_a_node_of_ones_own_may_leave_the_commitments_unchecked(raw: bytes) -> None:
    """The extent "headers" does not look at them, and at everything else."""
    coinbase = split_transactions(raw)[0]
    CheckedBlock(header_of(raw), join(raw[:HEADER_SIZE], [coinbase]), REGTEST, "headers")


def test_repeated_transactions_are_refused(raw: bytes) -> None:
    """Repeating the last ones leaves the root unchanged (CVE-2012-2459)."""
    transactions = split_transactions(raw)
    while len(transactions) % 2 == 0:
        transactions.pop()
    odd = with_root(raw, transactions)
    with pytest.raises(MalformedBlock, match="occurs twice"):
        check(join(odd[:HEADER_SIZE], [*transactions, transactions[-1]]))
    made = [COINBASE, *(transaction(P2PKH, values=[value]) for value in range(5))]
    six = with_root(HEADER, made)
    for repeated in ([*made, *made[4:]], [*made[:2], *made[:2], *made[2:]]):
        with pytest.raises(MalformedBlock, match=r"occurs twice|second coinbase"):
            check(join(six[:HEADER_SIZE], repeated))


def test_other_witnesses_are_refused(raw: bytes) -> None:
    """They change no id, and so leave the Merkle root unchanged."""
    coinbase, spending, *others = split_transactions(raw)
    witness = bytearray(spending)
    witness[-10] ^= 1
    with pytest.raises(MalformedBlock, match="witnesses are not the ones"):
        check(join(raw[:HEADER_SIZE], [coinbase, bytes(witness), *others]))
    reserved = bytearray(coinbase)
    reserved[-5] ^= 1
    with pytest.raises(MalformedBlock, match="witnesses are not the ones"):
        check(join(raw[:HEADER_SIZE], [bytes(reserved), spending, *others]))


def test_witnesses_without_a_commitment_are_refused(raw: bytes) -> None:
    """A coinbase from before segregated witness commits to none."""
    with pytest.raises(MalformedBlock, match="commits to none"):
        check(with_root(raw, [COINBASE, *split_transactions(raw)[1:]]))


def test_removed_witnesses_are_refused(raw: bytes) -> None:
    """Since segregated witness a commitment must hold; before, miners committed without witnesses."""
    layout = check(raw).layout
    bare = [
        raw[start : start + 4] + raw[start + 6 : outputs_end] + raw[end - 4 : end]
        for (start, end), outputs_end in zip(pairwise(layout.starts), layout.outputs_ends, strict=False)
    ]
    stripped = join(raw[:HEADER_SIZE], bare)
    with pytest.raises(MalformedBlock, match="commits to witnesses, but they were removed"):
        check(stripped)
    with pytest.raises(MalformedBlock, match="witnesses are not the ones"):
        check(join(raw[:HEADER_SIZE], [split_transactions(raw)[0], *bare[1:]]))
    easy = replace(with_easy_work(network("mainnet")), coinbase_height_block_id=10**6)
    check(stripped, header_of(raw, 481_823), easy)
    with pytest.raises(MalformedBlock, match="were removed"):
        check(stripped, header_of(raw, 481_824), easy)


def test_an_output_that_only_begins_like_a_commitment_is_none() -> None:
    """It takes 32 bytes after the marker (BIP 141)."""
    short = as_coinbase(
        transaction(P2PKH, b"\x6a" + push(bytes.fromhex("aa21a9ed")), script_sigs=[HEIGHT], values=[1, 0])
    )
    check(with_root(HEADER, [short, transaction(P2PKH)]))


@pytest.mark.parametrize("items", [[bytes(31)], [bytes(33)], [b""], [bytes(32), b""], []])
def test_only_one_reserved_value_of_32_bytes_is_allowed(items: list[bytes]) -> None:
    """The coinbase's witness is exactly that (BIP 141), even if the commitment fits another one."""
    spending = transaction(P2PKH, witnesses=[[b"w"]])
    for witness, is_right in (([bytes(32)], True), (items, False)):
        root = sha256d(bytes(32) + sha256d(spending))
        commitment = sha256d(root + b"".join(witness))
        marker = bytes.fromhex("6a24aa21a9ed")
        # The last commitment counts, whether or not other outputs follow it or its script is longer.
        scripts = [marker + bytes(32), marker + commitment + b"\x51", P2PKH]
        coinbase = as_coinbase(
            transaction(*scripts, script_sigs=[HEIGHT], witnesses=[witness] if witness else [])
        )
        block = with_root(HEADER, [coinbase, spending])
        if is_right:
            check(block)
        else:
            with pytest.raises(MalformedBlock, match="commits to none"):
                check(block)
