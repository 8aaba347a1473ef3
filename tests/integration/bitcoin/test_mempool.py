"""A real node's unconfirmed transactions: each change is seen, and the order is that of its miner."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.support.traffic import Coin, Made, coinbase, fund, make, mine, send
from virtualchain.bitcoin.node import mempool as module
from virtualchain.bitcoin.node.mempool import Mempool, Unconfirmed
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.bitcoin.payload import runestone, watch
from virtualchain.errors import NodeError, NodeUnavailable
from virtualchain.model import Json
from virtualchain.testing.bitcoind import Bitcoind

pytestmark = pytest.mark.node

PAYLOAD = b"idx a candidate"
WATCH = watch(b"id", None, "test")
OPTIONS = ("-blockmintxfee=0", "-minrelaytxfee=0", "-incrementalrelayfee=0", "-maxtxfee=1000")
KNOTS = ("-blockprioritysize=0", "-blockmaxsize=4000000", "-blockmaxweight=4000000")
"""Its miner takes some transactions by the age of their coins, unless it is asked not to."""

Open = Callable[..., Mempool]


@pytest.fixture(scope="module")
def address() -> str:
    """Return an address at which nobody listens yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def shared(address: str) -> Iterator[Bitcoind]:
    """Run a node that publishes its changes."""
    from virtualchain.testing.plugin import _start_bitcoind

    try:
        node = _start_bitcoind(*OPTIONS, *KNOTS, f"-zmqpubsequence={address}")
    except NodeError:  # not Knots
        node = _start_bitcoind(*OPTIONS, f"-zmqpubsequence={address}")
    yield node
    node.stop()


@pytest.fixture
def node(shared: Bitcoind) -> Bitcoind:
    """Yield the node without unconfirmed transactions."""
    for txid in shared.rpc("getrawmempool"):
        shared.rpc("prioritisetransaction", txid, 0, 100_000_000)
    mine(shared, 3)
    assert shared.rpc("getrawmempool") == []
    return shared


@pytest.fixture
def open_mempool(node: Bitcoind, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open views of the mempool, which look for changed fees at each update, and close them."""
    monkeypatch.setattr(module, "_SHARE", 0)
    opened: list[tuple[NodeSource, Mempool]] = []

    def open_it(*watches: object, at: Bitcoind = node, **options: object) -> Mempool:
        source = open_source(at.url, at.cookie)
        assert isinstance(source, NodeSource)
        opened.append((source, Mempool(source, watches or [WATCH], **options)))  # type: ignore[arg-type]
        return opened[-1][1]

    yield open_it
    for source, mempool in opened:
        mempool.close()
        source.close()


def template(node: Bitcoind) -> list[str]:
    """Return what the node's miner would take, in its order; a block makes it compute that again."""
    node.rpc("generateblock", "raw(51)", [])
    answer = node.rpc("getblocktemplate", {"rules": ["segwit"]})
    return [each["txid"] for each in answer["transactions"]]


def ids(mempool: Mempool) -> list[str]:
    """Return the ids of what is shown."""
    return [each.txid for each in mempool.transactions()]


def updated(mempool: Mempool) -> list[str]:
    """Update, and return what is shown."""
    mempool.update()
    return ids(mempool)


def candidate(coin: Coin, fee: int = 1000) -> Made:
    """Make a candidate that spends a coin."""
    return make([coin], fee, payload=PAYLOAD)


def test_what_a_candidate_is_shown_with(node: Bitcoind, open_mempool: Open) -> None:
    """Bytes, spent outputs with their heights, fee, size and time are the node's; others are not shown."""
    first, second = fund(node, 2)
    mempool = open_mempool()
    assert not mempool.update()
    parent = send(node, make([first], 300))
    assert not mempool.update()
    child = send(node, make([parent.coins[0], second], 777, payload=PAYLOAD))
    assert mempool.update()
    assert not mempool.update()
    (shown,) = mempool.transactions()
    confirmations = node.rpc("gettxout", second.txid, second.vout, False)["confirmations"]
    made_at = 2 * (node.rpc("getblockcount") - confirmations + 1)
    entry = node.rpc("getmempoolentry", child.txid)
    assert shown.txid == child.txid
    assert shown.raw == child.raw
    assert [(each.value, each.script_pubkey, each.made_at) for each in shown.spent] == [
        (parent.coins[0].value, b"\x51", None),
        (second.value, b"\x51", made_at),
    ]
    assert (shown.magics, shown.fee, shown.vsize, shown.seen_at) == (
        (b"id",),
        777,
        child.vsize,
        entry["time"],
    )
    assert round(shown.fee_rate * shown.vsize) == 777
    assert mempool.tip is not None
    assert mempool.tip.hash == node.rpc("getbestblockhash")


def test_an_output_of_a_coinbase_and_a_parent_that_is_confirmed(node: Bitcoind, open_mempool: Open) -> None:
    """A coinbase's output says so; once its block is mined, a parent's output has that height."""
    (coin,) = fund(node, 1)
    mempool = open_mempool()
    parent = send(node, make([coin], 20_000))
    child = send(node, candidate(parent.coins[0], 100))
    assert updated(mempool) == [child.txid]
    node.rpc("generateblock", f"raw({'51'})", [parent.txid])
    assert mempool.update()
    (shown,) = mempool.transactions()
    assert shown.spent[0].made_at == 2 * node.rpc("getblockcount")
    whole = coinbase(node, mine(node)[0])
    height = node.rpc("getblockcount")
    mine(node, 100)
    send(node, candidate(whole, 100_000))
    mempool.update()
    (shown,) = mempool.transactions()
    assert shown.spent[0].made_at == 2 * height + 1


def test_replaced_mined_and_returned(node: Bitcoind, open_mempool: Open) -> None:
    """RBF, of a parent with descendants, too; blocks; conflicts in blocks; and reorganizations end right."""
    first, second, third = fund(node, 3)
    mempool = open_mempool()
    parent = send(node, candidate(first))
    chain = [parent]
    for _ in range(24):
        chain.append(send(node, candidate(chain[-1].coins[0])))
    assert updated(mempool) == [each.txid for each in chain]
    other = send(node, candidate(first, 200_000))
    assert updated(mempool) == [other.txid]
    block = node.rpc("generateblock", "raw(51)", [candidate(second, 5).raw.hex()])["hash"]
    confirmed = node.rpc("getblock", block)["tx"][1]
    assert updated(mempool) == [other.txid]
    kept = send(node, candidate(third))
    assert updated(mempool) == [other.txid, kept.txid]
    node.rpc("invalidateblock", block)
    assert updated(mempool) == [other.txid, kept.txid, confirmed]
    conflicting = candidate(third, 4000)
    node.rpc("generateblock", "raw(51)", [conflicting.raw.hex(), confirmed])
    assert updated(mempool) == [other.txid]
    mine(node)
    assert updated(mempool) == []
    node.rpc("reconsiderblock", block)


def test_coins_that_another_branch_makes_at_another_height(node: Bitcoind, open_mempool: Open) -> None:
    """After a reorganization, spent outputs have their heights on the new branch."""
    (coin,) = fund(node, 1)
    mempool = open_mempool()
    parent = make([coin], 500)
    block = node.rpc("generateblock", "raw(51)", [parent.raw.hex()])["hash"]
    height = node.rpc("getblockcount")
    child = send(node, candidate(parent.coins[0]))
    mempool.update()
    assert mempool.transactions()[0].spent[0].made_at == 2 * height
    node.rpc("invalidateblock", block)
    node.rpc("generateblock", "raw(51)", [])
    node.rpc("generateblock", "raw(51)", [])
    if child.txid not in node.rpc("getrawmempool"):
        send(node, child)
    node.rpc("generateblock", "raw(51)", [parent.txid])
    assert mempool.update()
    assert mempool.transactions()[0].spent[0].made_at == 2 * (height + 2)


def test_the_order_is_the_miners(node: Bitcoind, open_mempool: Open) -> None:
    """The order of random chains with random fees, some of them modified, is that of the node's template."""
    rnd = random.Random(16)
    pool, sent = list(fund(node, 40)), []
    everything, candidates = open_mempool(tracks_outputs=True), open_mempool()
    for n in range(90):
        spends = [pool.pop(rnd.randrange(len(pool))) for _ in range(rnd.randint(1, min(3, len(pool))))]
        made = make(
            spends,
            rnd.choice([300, 500, 1000, 2000, 20_000]),
            outputs=rnd.randint(1, 3),
            payload=PAYLOAD if rnd.random() < 0.3 else None,
        )
        with suppress(NodeError):  # a chain may be too long
            sent.append(send(node, made))
            pool += made.coins
        if n % 15 == 14:
            node.rpc("prioritisetransaction", rnd.choice(sent).txid, 0, rnd.choice([-250, 5000, 100_000]))
            expected = template(node)
            assert updated(everything) == expected
            mine_only = {each.txid for each in sent if PAYLOAD in each.raw}
            assert updated(candidates) == [txid for txid in expected if txid in mine_only]
    assert len(sent) > 60


def test_a_child_that_is_nobodys_input_lifts_a_candidate(node: Bitcoind, open_mempool: Open) -> None:
    """A transaction that is not shown has its say in the order of its parents, also if it comes later."""
    one, other = fund(node, 2)
    mempool = open_mempool()
    low, high = send(node, candidate(one, 200)), send(node, candidate(other, 900))
    assert updated(mempool) == [high.txid, low.txid]
    send(node, make(low.coins, 50_000))
    assert updated(mempool) == [low.txid, high.txid]
    node.rpc("prioritisetransaction", high.txid, 0, 1_000_000)
    assert updated(mempool) == [high.txid, low.txid]


def test_payload_rules(node: Bitcoind, open_mempool: Open) -> None:
    """A rule of an app's own, runestones, and taproot spending: each is found as in a block."""
    coins = fund(node, 3)

    def second_output(outputs: list[Json]) -> bytes:
        return bytes.fromhex(outputs[1]["script_pubkey"][4:])

    own = watch(b"x", second_output, "own")
    runes = watch(b"", runestone, "runestone", has_opcode=False)
    mempool, runic = open_mempool(own), open_mempool(runes, WATCH)
    plain = send(node, make([coins[0]], 500))
    assert updated(mempool) == [plain.txid]
    assert updated(runic) == []
    rune = send(node, make([coins[1]], 500, script=b"\x6a\x5d\x02\x01\x02"))
    both = send(node, make([coins[2]], 100_000, script=b"\x6a\x5d\x02\x01\x02", payload=PAYLOAD))
    assert updated(runic) == [both.txid, rune.txid]
    assert runic.transactions()[0].magics == (b"", b"id")
    wallet = node._wallet()
    node.rpc("generatetoaddress", 101, node.rpc("getnewaddress", "", "bech32m", wallet=wallet))
    taproot = node.send(PAYLOAD)
    runic.update()
    (shown,) = [each for each in runic.transactions() if each.txid == taproot]
    assert shown.spent[0].script_pubkey[:2] == b"\x51\x20"


def test_only_what_spends_tracked_outputs(node: Bitcoind, open_mempool: Open) -> None:
    """Shown are candidates, what spends tracked outputs, and what spends outputs of what is shown."""
    one, other, third = fund(node, 3)
    mempool = open_mempool(tracks_outputs=True)
    tracked: set[bytes] = set()
    mempool.track(tracked)
    first = send(node, make([one], 500, outputs=2))
    second = send(node, make([first.coins[1]], 400))
    alone = send(node, make([other], 300))
    assert updated(mempool) == []
    outpoint = bytes.fromhex(one.txid) + one.vout.to_bytes(4, "big")
    assert outpoint in mempool.spends()
    assert outpoint in mempool.new_spends()
    assert not mempool.new_spends()
    mempool.track({outpoint})
    assert updated(mempool) == [first.txid, second.txid]
    mine_this = send(node, candidate(third, 10_000))
    after = send(node, make([mine_this.coins[0], alone.coins[0]], 200))
    assert set(updated(mempool)) == {first.txid, second.txid, mine_this.txid, after.txid}
    mempool.track(set())
    assert set(updated(mempool)) == {mine_this.txid, after.txid}
    mine(node)
    assert updated(mempool) == []
    assert not mempool.spends()


def test_a_full_mempool(bitcoind_factory: Callable[..., Bitcoind], open_mempool: Open) -> None:
    """What a full mempool evicts for others that pay more is no longer shown."""
    node = bitcoind_factory("-maxmempool=5", "-maxtxfee=1000", "-dustrelayfee=0")
    mempool = open_mempool(at=node)
    coins = fund(node, 80)
    first = send(node, candidate(coins[0]))
    assert updated(mempool) == [first.txid]
    for n, coin in enumerate(coins[1:]):
        send(node, make([coin], 400_000 + 4000 * n, outputs=2000, payload=PAYLOAD))
        if n % 10 == 0:
            mempool.update()
    shown = updated(mempool)
    assert first.txid not in shown
    assert 10 < len(shown) < 79
    assert set(shown) == set(node.rpc("getrawmempool"))


# Waiting


@pytest.mark.parametrize("publishes", [True, False])
def test_a_wait_ends_soon(node: Bitcoind, open_mempool: Open, address: str, publishes: bool) -> None:
    """A new transaction ends a wait, over ZMQ and without, and so does `wake`; nothing else does."""
    coins = fund(node, 6)
    mempool = open_mempool(zmq=address if publishes else None)
    mempool.update()
    deadline = time.monotonic() + 10
    while mempool.wait(0.3) and time.monotonic() < deadline:
        mempool.update()
    for n, coin in enumerate(coins):
        sent = send(node, candidate(coin, 1000 + 500 * n))
        began = time.monotonic()
        assert mempool.wait(20)
        assert time.monotonic() - began < 2
        assert mempool.update() or mempool.wait(1)
        mempool.update()
        assert sent.txid in ids(mempool)
    if publishes:
        assert mempool._news._has_heard
        assert mempool._number is not None
    while mempool.wait(0.2):
        mempool.update()
    mempool._source.wake()
    began = time.monotonic()
    assert not mempool.wait(20)
    assert time.monotonic() - began < 2


def test_a_publisher_that_publishes_nothing(
    node: Bitcoind, monkeypatch: pytest.MonkeyPatch, open_mempool: Open
) -> None:
    """Changes are seen by asking, and the operator is notified once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        silent = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        mempool = open_mempool(zmq=silent)
        messages: list[str] = []
        monkeypatch.setattr(mempool._source, "_notice", messages.append)
        for n, coin in enumerate(fund(node, 5)):
            mempool.update()
            send(node, candidate(coin, 1000 + n))
            assert mempool.wait(10)
        mempool.update()
        assert len(ids(mempool)) == 5
        assert len(messages) == 1
        assert "zmqpubsequence" in messages[0]


def test_changes_that_are_lost(node: Bitcoind, open_mempool: Open, address: str) -> None:
    """A gap in the numbers of published changes makes it read the list, also if the count is right."""
    one, other = fund(node, 2)
    mempool = open_mempool(zmq=address)
    send(node, candidate(one))
    send(node, candidate(other))
    mempool.update()

    def wait_for_changes() -> None:
        deadline = time.monotonic() + 5
        while len(mempool._news._changes) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    time.sleep(0.5)
    mempool.update()
    lost = send(node, candidate(one, 9000))
    wait_for_changes()
    mempool._news._changes.clear()
    last = send(node, candidate(other, 8000))
    wait_for_changes()
    assert updated(mempool) == [lost.txid, last.txid]


def test_changes_that_are_on_their_way(
    node: Bitcoind, open_mempool: Open, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update right after a replacement shows it, though it is published a moment later."""
    (coin,) = fund(node, 1)
    mempool = open_mempool(zmq=address)
    receive = mempool._news.changes
    for n in range(10):
        sent = send(node, candidate(coin, 1000 + 1000 * n))
        late = [iter(())]
        monkeypatch.setattr(mempool._news, "changes", lambda late=late: late.pop() if late else receive())
        assert updated(mempool) == [sent.txid]


# Nodes that refuse, or restart


def test_a_node_that_forbids_a_method(bitcoind_factory: Callable[..., Bitcoind]) -> None:
    """The error names the method and what is needed."""
    allowed = "getblockchaininfo,getblockhash,getmempoolinfo,getbestblockhash,getblockheader"
    node = bitcoind_factory(f"-rpcwhitelist=test:{allowed}", "-rpcwhitelistdefault=0")
    source = open_source(node.url)
    assert isinstance(source, NodeSource)
    mempool = Mempool(source, [WATCH])
    for _ in range(2):
        with pytest.raises(NodeError, match=r"without getrawmempool: .*rpcwhitelist"):
            mempool.update()
    mempool.close()
    source.close()


@pytest.mark.parametrize("publishes", [True, False])
def test_a_node_that_restarts(
    bitcoind_factory: Callable[..., Bitcoind], open_mempool: Open, address: str, publishes: bool
) -> None:
    """What the node has after a restart is shown, whether it has saved its mempool or not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    arguments = (*OPTIONS, f"-zmqpubsequence={own}")
    node = bitcoind_factory(*arguments)
    one, other = fund(node, 2)
    mempool = open_mempool(at=node, zmq=own if publishes else None)
    sent = send(node, candidate(one))
    assert updated(mempool) == [sent.txid]
    node._end()
    with pytest.raises(NodeUnavailable):
        mempool.update()
    node._start((*arguments, "-persistmempool=0"))
    assert updated(mempool) == []
    again = send(node, candidate(other))
    assert updated(mempool) == [again.txid]
    assert not mempool.wait(0.01) or updated(mempool) == [again.txid]


# Everything at random


def shown_from_scratch(node: Bitcoind) -> list[Unconfirmed]:
    """Return what a view that has just been opened shows."""
    source = open_source(node.url, node.cookie)
    assert isinstance(source, NodeSource)
    fresh = Mempool(source, [WATCH])
    fresh.update()
    fresh.close()
    source.close()
    return list(fresh.transactions())


class Traffic:
    """Does anything that can happen to unconfirmed transactions."""

    def __init__(self, node: Bitcoind, seed: int) -> None:
        self.node = node
        self.rnd = random.Random(seed)
        self.pool = fund(node, 30)
        self.sent: list[Made] = []
        self.acts = [self.new] * 12 + [self.replace] * 4 + [self.prioritise] * 2
        self.acts += [self.mine_some, self.mine_conflict, self.reorganize]

    def act(self) -> None:
        """Do one thing."""
        if self.pool:
            with suppress(NodeError):  # a chain is too long, or a coin is gone
                self.rnd.choice(self.acts)()

    def _send(self, made: Made) -> None:
        self.sent.append(send(self.node, made))
        self.pool.extend(made.coins)

    def new(self) -> None:
        """Spend one or two coins."""
        count = self.rnd.randint(1, min(2, len(self.pool)))
        spends = [self.pool.pop(self.rnd.randrange(len(self.pool))) for _ in range(count)]
        payload = PAYLOAD if self.rnd.random() < 0.5 else None
        self._send(make(spends, self.rnd.randint(300, 5000), outputs=self.rnd.randint(1, 3), payload=payload))

    def replace(self) -> None:
        """Spend the same coins for a higher fee."""
        if self.sent:
            old = self.rnd.choice(self.sent)
            fee = old.fee + self.rnd.randint(5000, 50_000)
            self._send(make(old.spends, fee, payload=self.rnd.choice([None, PAYLOAD])))

    def mine_some(self) -> None:
        """Mine a block with some of them."""
        chosen = template(self.node)[: self.rnd.randint(0, 10)]
        self.node.rpc("generateblock", "raw(51)", chosen)

    def mine_conflict(self) -> None:
        """Mine a block with another transaction that spends the same."""
        if self.sent:
            old = self.rnd.choice(self.sent)
            made = make(old.spends, old.fee, payload=PAYLOAD)
            self.node.rpc("generateblock", "raw(51)", [made.raw.hex()])
            self.pool.extend(made.coins)

    def reorganize(self) -> None:
        """Let another branch take the place of the last blocks."""
        depth = self.rnd.randint(1, 3)
        height = self.node.rpc("getblockcount")
        self.node.rpc("invalidateblock", self.node.rpc("getblockhash", height - depth + 1))
        for _ in range(depth + self.rnd.randint(0, 1)):
            self.mine_some()

    def prioritise(self) -> None:
        """Change a fee for the miner."""
        listed = self.node.rpc("getrawmempool")
        if listed:
            delta = self.rnd.choice([-1500, 3000, 90_000])
            self.node.rpc("prioritisetransaction", self.rnd.choice(listed), 0, delta)


@pytest.mark.parametrize("publishes", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_traffic(node: Bitcoind, open_mempool: Open, address: str, publishes: bool, seed: int) -> None:
    """After each update, a view that has followed shows what one shows that is read from scratch."""
    traffic = Traffic(node, seed)
    mempool = open_mempool(zmq=address if publishes else None)
    mempool.update()
    for _ in range(60):
        for _ in range(traffic.rnd.randint(1, 6)):
            traffic.act()
        expected = shown_from_scratch(node)
        deadline = time.monotonic() + 5
        mempool.update()
        while list(mempool.transactions()) != expected and publishes and time.monotonic() < deadline:
            mempool.wait(0.1)  # a change is published a moment after it
            mempool.update()
        assert list(mempool.transactions()) == expected
        assert mempool._known == set(node.rpc("getrawmempool"))
