"""A real node with wallets, and a deployment of the notary on it."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.examples.notary import app as notary
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind
from virtualchain.testing.database import DatabaseServer
from virtualchain.writing.orders import Order, Sent, Terms
from virtualchain.writing.sending import InputSender


def document(text: str) -> str:
    """Return a document's hash."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class World:
    """A node whose wallet `payer` has coins, and a database that follows it without confirmations."""

    node: Bitcoind
    url: str
    remarks: list[str]
    opened: ExitStack

    def source(self) -> NodeSource:
        """Connect to the node."""
        source = open_source(self.node.url)
        assert isinstance(source, NodeSource)
        self.opened.callback(source.close)
        return source

    def mine(self, n: int = 1, *, syncs: bool = True) -> None:
        """Mine blocks with what is in the mempool, and let the app take them."""
        self.node.rpc("generatetoaddress", n, self.address())
        if syncs:
            self.sync()

    def wallet(self, name: str, *options: object) -> str:
        """Create a wallet, and return its name as paths have it."""
        self.node.rpc("createwallet", name, *options)
        return quote(name, safe="")

    def sync(self, *apps: object) -> int:
        """Let the apps take the node's blocks."""
        with StateEngine(
            *(apps or [notary]), database=self.url, source=self.node.url, confirmations=0
        ) as engine:
            return engine.build()

    def address(self, kind: str = "bech32", wallet: str = "payer") -> str:
        """Return a new address of a wallet."""
        return str(self.node.rpc("getnewaddress", "", kind, wallet=wallet))

    def paid_address(self, kind: str = "bech32", amount: str = "1") -> str:
        """Return a new address of the wallet that has a confirmed coin."""
        address = self.address(kind)
        mined = [coin for coin in self.node.rpc("listunspent", 101, wallet="payer") if coin["amount"] >= 25]
        coin = {name: mined[0][name] for name in ("txid", "vout")}  # not one of another such address
        outputs = [{address: amount}]
        self.node.rpc("send", outputs, None, "unset", 10, {"inputs": [coin]}, wallet="payer")
        self.mine()
        return address

    def sender(self, app: object = notary, *, wallet: str | None = "payer", **terms: Any) -> InputSender:
        """Return what sends inputs of an app."""
        sender = InputSender(
            read_contract(app),
            self.source(),
            database=self.url,
            wallet=wallet,
            terms=Terms(**terms),
            say=self.remarks.append,
        )
        self.opened.callback(sender.close)
        return sender

    def send(self, opcode: str = "claim", *, app: object = notary, **options: Any) -> Sent:
        """Send one input; `options` are of the order, or else fields."""
        through = self.sender(app)
        return through.send(order(through, opcode, **options))


def order(through: InputSender, opcode: str, /, **options: Any) -> Order:
    """Make an order; `options` are of the order, or else fields."""
    own = {"to", "burn", "sender", "coins", "change", "change_at", "replaces"}
    fields = {name: value for name, value in options.items() if name not in own}
    return through.order(opcode, fields, **{name: options[name] for name in own & options.keys()})


@pytest.fixture(scope="module")
def node() -> Iterator[Bitcoind]:
    """Run a node that relays payloads of up to 40 bytes, with a wallet that has coins."""
    program = find_bitcoind()
    if program is None:
        pytest.skip("no bitcoind: name one in the environment variable BITCOIND, or put it on PATH")
    node = Bitcoind(program, "-datacarriersize=42", "-fallbackfee=0.0001")
    node.rpc("createwallet", "payer", False, False, "", False, True, True)  # loaded at each start
    node.rpc("generatetoaddress", 103, node.rpc("getnewaddress", wallet="payer"))
    yield node
    node.stop()


@pytest.fixture(scope="module")
def world(node: Bitcoind, database_server: DatabaseServer) -> Iterator[World]:
    """Provide a deployment of the notary at the node's tip."""
    url = database_server.clone()
    with ExitStack() as opened:
        world = World(node, url, [], opened)
        world.mine()
        yield world
    database_server.drop(url)
