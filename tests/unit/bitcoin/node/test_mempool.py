"""A mempool that nobody's node has: every answer is checked, and transactions may go at any time."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.support.traffic import ANYONE, Coin, make
from tests.unit.bitcoin.node.fakes import A, B, C, StubRpc
from virtualchain.bitcoin.node.mempool import Mempool
from virtualchain.bitcoin.node.news import Change, read_change
from virtualchain.bitcoin.payload import watch
from virtualchain.errors import MissingData, NodeError

WATCH = watch(b"id", None, "test")
COIN = Coin(A, 0, 100_000)
GONE = MissingData("No such mempool transaction")


class FakeMempool:
    """Answers about one candidate, and whatever a test puts in their place."""

    def __init__(self) -> None:
        self.made = make([COIN], 1000, payload=b"idx")
        self.info: Any = {"size": 1, "bytes": 100, "total_fee": Decimal("0.00001")}
        self.list: Any = {"txids": [self.made.txid], "mempool_sequence": 7}
        self.entry: Any = {
            "vsize": 100,
            "time": 1_700_000_000,
            "fees": {"base": Decimal("0.00001"), "modified": Decimal("0.00001")},
            "depends": [],
            "spentby": [],
        }
        self.output: Any = {
            "bestblock": B,
            "confirmations": 3,
            "value": Decimal("0.001"),
            "scriptPubKey": {"hex": ANYONE.hex()},
            "coinbase": False,
        }
        self.raw: Any = self.made.raw.hex()
        self.best: Any = B
        self.header: Any = {"height": 9, "previousblockhash": C}
        self.stub = StubRpc(
            getmempoolinfo=lambda: self.info,
            getrawmempool=lambda verbose, sequence: self.list,
            getmempoolentry=lambda txid: self.entry,
            gettxout=lambda txid, vout, unconfirmed: self.output,
            getrawtransaction=lambda txid, verbosity: self.raw,
            getbestblockhash=lambda: self.best,
            getblockheader=lambda block_hash: self.header,
        )

    def open(self, **options: Any) -> Mempool:
        """Open a view."""
        return Mempool(self.stub.source(), [WATCH], **options)


@pytest.fixture
def fake() -> FakeMempool:
    """Make a node with one candidate."""
    return FakeMempool()


def test_the_candidate(fake: FakeMempool) -> None:
    """The answers that the other tests change are taken as they are."""
    mempool = fake.open()
    assert mempool.update()
    (shown,) = mempool.transactions()
    assert (shown.txid, shown.fee, shown.spent[0].made_at) == (fake.made.txid, 1000, 14)
    assert shown.fee_rate == Decimal(10)


NUMBERS = (-1, 2**70, 1.5, Decimal("NaN"), Decimal("Infinity"))
NONSENSE: tuple[Any, ...] = (None, True, [], {}, [[]], [{}], "", "xyz", "ff" * 32, *NUMBERS)
FIELDS: list[tuple[str, ...]] = [
    ("info",),
    ("info", "size"),
    ("info", "bytes"),
    ("list",),
    ("list", "txids"),
    ("list", "mempool_sequence"),
    ("entry",),
    ("entry", "vsize"),
    ("entry", "time"),
    ("entry", "fees"),
    ("entry", "fees", "base"),
    ("entry", "fees", "modified"),
    ("entry", "depends"),
    ("entry", "spentby"),
    ("output",),
    ("output", "bestblock"),
    ("output", "confirmations"),
    ("output", "value"),
    ("output", "scriptPubKey"),
    ("output", "scriptPubKey", "hex"),
    ("output", "coinbase"),
    ("raw",),
    ("best",),
    ("header",),
    ("header", "height"),
    ("header", "previousblockhash"),
]


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_nonsense(path: tuple[str, ...]) -> None:
    """Whatever stands in any place of any answer, it is taken or is an error of the node."""
    refused = 0
    for value in NONSENSE:
        fake = FakeMempool()
        mempool = fake.open()
        if len(path) == 1:
            setattr(fake, path[0], value)
        else:
            place = getattr(fake, path[0])
            for name in path[1:-1]:
                place = place[name]
            place[path[-1]] = value
        try:
            mempool.update()
        except NodeError:
            refused += 1
        else:
            assert len(mempool.transactions()) <= 1
    assert refused > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fake: setattr(fake, "raw", make([COIN], 1).raw.hex()), "answers a request for transaction"),
        (lambda fake: setattr(fake, "raw", fake.made.raw.hex() + "00"), "other bytes"),
        (lambda fake: setattr(fake, "raw", fake.made.raw[:-1].hex()), "other bytes"),
        (lambda fake: setattr(fake, "output", None), "does not know what it spends"),
        (lambda fake: setattr(fake, "entry", GONE), "does not know its fee"),
        (lambda fake: fake.output.update(bestblock=C), "does not know what it spends"),
        (lambda fake: fake.output.update(value=Decimal("0.002")), "as the fee of transaction"),
        (lambda fake: fake.output.update(confirmations=11), "which block made"),
        (
            lambda fake: fake.output.update(scriptPubKey={"hex": "0014" + "11" * 20}),
            "which it cannot: it reveals no public key",
        ),
        (lambda fake: fake.entry.update(depends=[fake.made.txid]), "its own ancestor"),
        (lambda fake: fake.entry["fees"].update(base=Decimal("0.000011")), "states 1100 satoshi as the fee"),
    ],
)
def test_answers_that_do_not_fit(
    fake: FakeMempool, change: Callable[[FakeMempool], None], message: str
) -> None:
    """Another transaction, output, fee or block than can be is an error that says so; later all is well."""
    mempool = fake.open()
    change(fake)
    for _ in range(2):
        with pytest.raises(NodeError, match=message):
            mempool.update()
    sound = FakeMempool()
    sound.made = fake.made
    for name in ("entry", "output"):
        setattr(fake, name, getattr(sound, name))
    fake.raw = fake.made.raw.hex()
    assert mempool.update()
    assert len(mempool.transactions()) == 1


def test_a_transaction_that_goes_between_two_questions(fake: FakeMempool) -> None:
    """What was listed and is gone when it is asked for is not shown, and is no error."""
    fake.raw = GONE
    mempool = fake.open()
    assert not mempool.update()
    fake.raw = fake.made.raw.hex()
    answers = iter([GONE])
    entry = fake.entry
    fake.stub.answers["getmempoolentry"] = lambda txid: next(answers, entry)
    mempool._is_in_doubt = True
    assert mempool.update()


def test_a_node_without_numbers_of_changes(fake: FakeMempool) -> None:
    """A node before 0.21 does not know the parameter: the error says what is needed."""
    fake.list = MissingData("getrawmempool ( verbose ) (code -1)")
    with pytest.raises(NodeError, match=r"without getrawmempool.*version 0\.21"):
        fake.open().update()


def test_published_changes() -> None:
    """Messages about transactions are read, and all others are left out."""
    txid = bytes(range(32))
    number = (7).to_bytes(8, "little")
    assert read_change(txid + b"A" + number) == Change(7, txid.hex(), has_come=True)
    assert read_change(txid + b"R" + number) == Change(7, txid.hex(), has_come=False)
    for other in (
        b"",
        txid,
        txid + b"C",
        txid + b"D",
        txid + b"A",
        txid + b"X" + number,
        txid + b"A" + number * 2,
    ):
        assert read_change(other) is None
