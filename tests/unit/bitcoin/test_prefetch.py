"""Read-ahead keeps the order and its bounds, and leaves no thread running however it ends."""

import random
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import pytest

from virtualchain.bitcoin import prefetch as module
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.header import HEADER_SIZE
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.prefetch import prefetch
from virtualchain.errors import MalformedBlock, MissingData, NodeUnavailable
from virtualchain.model import Block, ScannedBlock, SpentOutput, Verification
from virtualchain.testing import ChainBuilder

if TYPE_CHECKING:
    from virtualchain.bitcoin.source import BlockSource

REGTEST = network("regtest")
SCANNER = Scanner([watch(b"id", None, "test")], REGTEST)


class Recorded:
    """A source of a generated chain that records requests, and fails for chosen blocks."""

    def __init__(self, chain: ChainBuilder) -> None:
        self.network = REGTEST
        self.stored = {stored.block.hash: stored for stored in chain.tree.chain}
        self.headers = [stored.block for stored in chain.tree.chain]
        self.requested: list[int] = []
        self.failing: dict[int, Exception] = {}
        self.slow = 0.0
        self.pause = threading.Event()
        self.pause.set()
        self._random = random.Random(7)

    def __str__(self) -> str:
        return "recorded"

    def raw_block(self, block_hash: str) -> bytes:
        """Return the block after a random delay."""
        stored = self.stored[block_hash]
        self.requested.append(stored.height)
        time.sleep(self._random.random() * self.slow)
        if stored.height:
            self.pause.wait(10)
        if stored.height in self.failing:
            raise self.failing[stored.height]
        return stored.raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return an output of one bitcoin for each transaction."""
        assert block_hash in self.stored
        assert all(len(txid) == 64 for txid in transactions.values())
        return {txindex: [SpentOutput(100_000_000, b"\x51")] for txindex in transactions}


@pytest.fixture(scope="module")
def chain() -> ChainBuilder:
    """Make a chain of 131 blocks, with two inputs in the last."""
    made = ChainBuilder(premine=130)
    made.mine([made.send(b"id?one"), made.send(b"id?two"), made.send(b"no")])
    return made


@pytest.fixture
def source(chain: ChainBuilder) -> Iterator[Recorded]:
    """Make a source of that chain, and check that no thread is left at the end."""
    yield Recorded(chain)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def start(
    source: Recorded,
    headers: Iterable[Block],
    threads: int = 3,
    ahead: int = 8,
    verify: Verification = "headers",
) -> Generator[ScannedBlock, None, None]:
    """Start reading ahead; the source has the two methods that this needs."""
    return prefetch(cast("BlockSource", source), SCANNER, headers, threads, ahead, verify=verify)


def test_prefetch_keeps_the_order(source: Recorded) -> None:
    """Blocks are yielded in the order of their headers, whichever is fetched first."""
    source.slow = 0.01
    with closing(start(source, source.headers)) as blocks:
        assert [scanned.block for scanned in blocks] == source.headers


def test_a_single_block_is_fetched_in_this_thread(source: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for its rows at the tip, and to start a thread takes longer than most of its steps."""
    threads: list[threading.Thread] = []
    raw_block = source.raw_block

    def noted(block_hash: str) -> bytes:
        threads.append(threading.current_thread())
        return raw_block(block_hash)

    monkeypatch.setattr(source, "raw_block", noted)
    for count in (0, 1):
        assert len(list(start(source, source.headers[:count]))) == count
    assert threads == [threading.current_thread()]
    assert len(list(start(source, source.headers[:2]))) == 2
    assert threading.current_thread() not in threads[1:]


def test_prefetch_joins_inputs_with_what_they_spend(source: Recorded) -> None:
    """The inputs are the transactions with the magic, with senders and a fee."""
    (scanned,) = start(source, source.headers[-1:])
    assert [[sender.value for sender in each.senders] for each in scanned.inputs] == [[100_000_000]] * 2
    for each in scanned.inputs:
        assert each.fee == 100_000_000 - sum(output.value for output in each.outputs)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (3, 8), (4, 2)])
def test_prefetch_stays_within_its_bounds(source: Recorded, threads: int, ahead: int) -> None:
    """However slow the consumer is, at most `ahead` blocks are fetched beyond the one that it has."""
    taken = 0
    with closing(start(source, iter(source.headers), threads, ahead)) as blocks:
        for _ in blocks:
            taken += 1
            if taken in {1, 5, 9}:
                deadline = time.monotonic() + 10
                while len(source.requested) < taken + ahead and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.02)  # time for one too many to be fetched
                assert len(source.requested) == taken + ahead
    assert sorted(source.requested) == list(range(132))


def test_prefetch_takes_headers_as_it_needs_them(source: Recorded) -> None:
    """Headers may be read in pages: none is read before there is room for its block."""
    read_headers = []

    def paged() -> Iterator[Block]:
        for header in source.headers:
            read_headers.append(header.block_id)
            yield header

    with closing(start(source, paged(), ahead=4)) as blocks:
        next(blocks)
        assert read_headers == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "error", [MissingData("pruned"), NodeUnavailable("gone"), ZeroDivisionError("a bug")]
)
def test_prefetch_raises_at_the_turn_of_the_block(source: Recorded, error: Exception) -> None:
    """The error of a block is raised, with its height if it is about it, after all the blocks before it."""
    source.failing[5] = error
    source.slow = 0.01
    got: list[ScannedBlock] = []
    with pytest.raises(type(error)) as caught, closing(start(source, source.headers)) as blocks:
        got.extend(blocks)  # keeps what comes before the error
    assert caught.value is error
    assert str(error) in {"block 5: pruned", "gone", "a bug"}
    assert len(got) == 5
    assert max(source.requested) < 5 + 9


def test_prefetch_rejects_another_block(source: Recorded) -> None:
    """A source that returns another block is noticed, whatever it checks itself."""
    source.stored[source.headers[3].hash] = source.stored[source.headers[4].hash]
    with pytest.raises(MalformedBlock, match=source.headers[4].hash):
        list(prefetch(source, SCANNER, source.headers[:5]))  # type: ignore[arg-type]


def test_prefetch_verifies_unless_asked_not_to(source: Recorded) -> None:
    """Only the Merkle root shows that a block has another block's transactions after its header."""
    other = source.stored[source.headers[4].hash].raw
    third = source.stored[source.headers[3].hash]
    third.raw, whole = third.raw[:HEADER_SIZE] + other[HEADER_SIZE:], third.raw
    try:
        assert len(list(start(source, source.headers[:6]))) == 6
        taken: list[ScannedBlock] = []
        blocks = prefetch(cast("BlockSource", source), SCANNER, source.headers)
        with pytest.raises(MalformedBlock, match=r"recorded: block 3 .*Merkle root"), closing(blocks):
            taken.extend(blocks)
        assert [scanned.block for scanned in taken] == source.headers[:3]
    finally:
        third.raw = whole
    assert len(list(prefetch(cast("BlockSource", source), SCANNER, source.headers))) == 132


def test_prefetch_names_the_source_of_a_damaged_block(source: Recorded) -> None:
    """The error says which source the block came from, which the scan does not know."""
    third = source.stored[source.headers[3].hash]
    third.raw, whole = third.raw[:-1], third.raw
    try:
        with pytest.raises(MalformedBlock, match=r"recorded: block 3 .* is damaged"):
            list(start(source, source.headers))
    finally:
        third.raw = whole


def test_prefetch_closed_early(source: Recorded) -> None:
    """Closing early waits only for fetches that have started; the rest is never fetched."""
    source.pause.clear()
    with closing(start(source, source.headers, threads=2, ahead=8)) as blocks:
        next(blocks)
        threading.Timer(0.05, source.pause.set).start()
    assert set(source.requested) <= {0, 1, 2}


def test_prefetch_closed_before_its_first_block(source: Recorded) -> None:
    """Closing before the first block fetches nothing."""
    start(source, source.headers).close()
    assert source.requested == []


def test_prefetch_of_no_headers(source: Recorded) -> None:
    """Without headers there are no blocks."""
    with closing(start(source, [])) as blocks:
        assert list(blocks) == []


def test_prefetch_interrupted(source: Recorded) -> None:
    """A KeyboardInterrupt in the consumer ends it like any other exit."""

    def consume() -> None:
        with closing(start(source, source.headers)) as blocks:
            next(blocks)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert len(source.requested) <= 1 + 8


def test_prefetch_when_its_headers_fail(source: Recorded) -> None:
    """An error in the headers is raised, and no thread is left."""

    def failing() -> Iterator[Block]:
        yield from source.headers[:3]
        raise NodeUnavailable("gone")

    with pytest.raises(NodeUnavailable), closing(start(source, failing())) as blocks:
        list(blocks)


class Heavy(Recorded):
    """A source with scripts of a chosen size, which records how many questions it answers at once."""

    size = 0

    def __init__(self, chain: ChainBuilder) -> None:
        super().__init__(chain)
        self.reading = 0
        self.most_reading = 0
        self.lock = threading.Lock()

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return an output with a long script for each input, after a while."""
        with self.lock:
            self.reading += 1
            self.most_reading = max(self.most_reading, self.reading)
        time.sleep(0.02)
        with self.lock:
            self.reading -= 1
        script = b"\x61" * self.size
        return {txindex: [SpentOutput(100_000_000, script)] for txindex in transactions}


@pytest.fixture(scope="module")
def busy_chain() -> ChainBuilder:
    """Make a chain whose last ten blocks have five inputs each."""
    made = ChainBuilder(premine=130)
    for _ in range(10):
        made.mine([made.send(b"id?%d" % number) for number in range(5)])
    return made


@pytest.mark.parametrize(("most", "at_once"), [(10**9, 3), (5 * 13_000 * 2, 2), (1, 1)])
def test_prefetch_stays_within_its_bytes(
    busy_chain: ChainBuilder, monkeypatch: pytest.MonkeyPatch, most: int, at_once: int
) -> None:
    """Blocks that may take more than is left wait for their turn, and none is left out."""
    monkeypatch.setattr(module, "MOST_BYTES", most)
    source = Heavy(busy_chain)
    source.size = 5_000
    with closing(start(source, source.headers[-10:])) as blocks:
        for scanned, header in zip(blocks, source.headers[-10:], strict=True):
            assert scanned.block == header
            assert len(scanned.inputs) == 5
            time.sleep(0.01)
    assert source.most_reading <= at_once
    assert at_once < 3 or source.most_reading > 1


def test_prefetch_ends_while_blocks_wait_for_their_turn(
    busy_chain: ChainBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that stops early leaves no thread that waits for room."""
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    source = Heavy(busy_chain)
    with closing(start(source, source.headers[-10:])) as blocks:
        next(blocks)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_block_gives_back_what_it_turned_out_not_to_take() -> None:
    """The next one need not wait for its turn, and giving back waits for nothing."""
    budget = module._Budget(100)
    budget.claim(0, 100)
    waiting = threading.Thread(target=budget.claim, args=(1, 60), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    budget.claim(0, 40)
    waiting.join(10)
    assert not waiting.is_alive()
    budget.next_turn()
    budget.claim(1, 300)
    returning = threading.Thread(target=budget.claim, args=(1, 250), daemon=True)
    returning.start()
    returning.join(10)
    assert not returning.is_alive()
