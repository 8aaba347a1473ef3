"""Each mistake of a user gives one line that says what is wrong and what helps, and an exit code."""

from typing import Any

import pytest

from tests.integration.writing.conftest import World, document, order
from virtualchain import App, Rejected, StateEngine
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.errors import (
    InputRefused,
    NodeError,
    NodeUnavailable,
    StoreError,
    UsageError,
    VirtualchainError,
)
from virtualchain.testing import FakeNode
from virtualchain.writing.amounts import read_fee_rate
from virtualchain.writing.policy import Facts, LongChain, Rates, refusal
from virtualchain.writing.sending import InputSender
from virtualchain.writing.wallet import Fee

pytestmark = pytest.mark.node

notes = App("notes", magic=b"no")
notes.add(
    b"n",
    parse=lambda payload: {"text": payload.decode()},
    encode=lambda text: text.encode(),
    check=lambda op, state: op["text"] != "no" or Rejected("no,\n\x1b[31mnever"),
)
mute = App("mute", magic=b"mu")
mute.add(b"n", parse=lambda payload: {"text": payload.decode()})


def refused(through: InputSender, opcode: str = "claim", /, **options: Any) -> str:
    """Send what must fail, and return the message: of one line, with the exit code 2."""
    options = {"sha256": document("refused"), **options}
    with pytest.raises(UsageError) as error:
        through.send(order(through, opcode, **options))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_no_wallet_one_of_several_and_an_unknown_one(world: World, bitcoind_factory: Any) -> None:
    """Without a name, the only loaded wallet is used."""
    assert "wallet 'nope' is not loaded at" in refused(world.sender(wallet="nope"))
    other = world.wallet("white space/slash%")
    several = refused(world.sender(wallet=None))
    assert "has several wallets loaded: name one of 'payer', 'white space/slash%'" in several
    assert "has not enough coins" in refused(world.sender(wallet="white space/slash%"))
    world.node.rpc("unloadwallet", None, wallet=other)
    assert world.sender(wallet=None).wallet.name == "payer"
    node = bitcoind_factory()
    none = World(node, world.url, [], world.opened)
    assert "has no wallet loaded" in refused(none.sender(wallet=None))
    node.restart("-disablewallet")
    assert "has no wallets (disablewallet=1" in refused(none.sender(wallet=None))


def test_a_locked_wallet(world: World) -> None:
    """The line says how to unlock it; nobody asks for a passphrase."""
    name = world.wallet("locked", False, False, "a passphrase")
    message = refused(world.sender(wallet="locked"))
    assert "is locked: unlock it" in message
    assert "-stdinwalletpassphrase walletpassphrase 60" in message
    world.node.rpc("walletpassphrase", "a passphrase", 60, wallet=name)
    assert "has not enough coins" in refused(world.sender(wallet="locked"))
    world.node.rpc("unloadwallet", None, wallet=name)


def test_not_enough_coins(world: World) -> None:
    """The line says how much there is, how much is asked for, and what will come."""
    message = refused(world.sender(), to=[(world.address(), 10**15)])
    assert "has not enough coins: it can spend " in message
    assert "the outputs take 10000000.00000000 BTC and a fee" in message
    assert "more can be spent once confirmed or mature" in message
    largest = refused(world.sender(), burn=21_000_001 * 10**8)
    assert largest == "21000001.00000000 BTC is more than there can be"
    assert "has no coin to send from" in refused(world.sender(), sender=world.address())


def test_addresses_of_others_and_of_other_networks(world: World) -> None:
    """An address is checked before anything is made: its form, its network, and whose it is to be."""
    for address, complaint in {
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq": "is an address on mainnet, and",
        "1111111111111111111114oLvT2": "is an address on mainnet, and",
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx": "is an address on testnet3 or testnet4 or signet, and",
        "bcrt1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq": "is not an address on regtest",
        "nonsense": "is not an address on regtest",
    }.items():
        assert complaint in refused(world.sender(), to=[(address, 1000)])
        assert complaint in refused(world.sender(), change=address)
        assert complaint in refused(world.sender(), sender=address)
    other = world.wallet("other")
    txid = world.node.rpc("sendtoaddress", world.address(wallet=other), "1", wallet="payer")
    world.mine()
    (coin,) = world.node.rpc("listunspent", 1, wallet=other)
    assert coin["txid"] == txid
    assert "cannot spend a coin that was named" in refused(world.sender(), coins=[(txid, coin["vout"])])
    world.node.rpc("unloadwallet", None, wallet=other)
    stranger = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
    assert f"{stranger} is not an address of wallet 'payer'" in refused(world.sender(), sender=stranger)


def test_a_database_of_another_network(world: World, database_url: str) -> None:
    """Database and node must follow the same chain."""
    with FakeNode(network="signet") as node:
        node.mine()
        with StateEngine(
            notes, database=database_url, source=node.url, confirmations=0, verify="off"
        ) as engine:
            engine.build()
    with pytest.raises(
        UsageError, match=r"wrong network: the database follows signet, and http.* on regtest"
    ):
        World(world.node, database_url, [], world.opened).sender(notes)


def test_databases_without_the_app(world: World, empty_database_url: str, database_url: str) -> None:
    """Without a preview nothing is sent, unless anyway; then it is remarks why there was none."""
    with pytest.raises(StoreError, match="holds nothing of virtualchain's yet"):
        World(world.node, empty_database_url, [], world.opened).sender()
    with pytest.raises(UsageError, match="this database has no app notary"):
        World(world.node, database_url, [], world.opened).sender()
    anyway = World(world.node, database_url, [], world.opened)
    sender = anyway.sender(anyway=True)
    sent = sender.send(order(sender, "claim", sha256=document("blind")))
    assert (sent.status, sent.verdict) == ("sent", None)
    assert any("there is no preview" in line for line in anyway.remarks)
    world.mine()


def test_a_payload_over_the_nodes_datacarriersize(world: World) -> None:
    """The line names the size of the script and the setting."""
    world.sync(notes)
    sender = world.sender(notes)
    with pytest.raises(UsageError) as error:
        sender.send(order(sender, "n", text="x" * 60))
    message = str(error.value)
    assert "does not relay a payload of this size (" in message
    assert "the script of its output has 65 bytes, over datacarriersize" in message


def test_a_reason_of_several_lines(world: World) -> None:
    """Whatever an app's reason quotes, the message is one line, and controls no terminal."""
    world.sync(notes)
    sender = world.sender(notes)
    with pytest.raises(InputRefused, match=r"at check: no,\\n\\x1b\[31mnever; nothing was sent"):
        sender.send(order(sender, "n", text="no"))


def test_an_interruption_while_it_is_handed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction to look for is named."""
    sender = world.sender()
    ask = sender.source.rpc.call_once

    def call_once(method: str, *parameters: object) -> Any:
        if method == "sendrawtransaction":
            raise KeyboardInterrupt
        return ask(method, *parameters)

    monkeypatch.setattr(sender.source.rpc, "call_once", call_once)
    with pytest.raises(KeyboardInterrupt):
        sender.send(order(sender, "claim", sha256=document("interrupted")))
    assert "interrupted: look for transaction " in world.remarks[-1]


def test_dust_and_fees(world: World) -> None:
    """Outputs that are too small, and fees that are too low, too high, or over the limit, are refused."""
    assert "(dust)" in refused(world.sender(), to=[(world.address(), 100)])
    low = refused(world.sender(fee=Fee(rate=read_fee_rate("0.2"))))
    assert "satoshi per vbyte, and http" in low
    assert "relays nothing below 1 (min relay fee not met" in low
    limit = refused(world.sender(fee=Fee(rate=read_fee_rate("1000"))))
    assert "over the limit of 0.00100000 BTC: choose a lower --fee-rate, or raise --max-fee" in limit
    assert "refuses the fee, which is over its maxtxfee" in refused(
        world.sender(fee=Fee(rate=read_fee_rate("100000")), most_fee=10**9)
    )


def test_apps_and_fields_that_nobody_can_write(world: World) -> None:
    """An app without encoders, fields that do not fit, opcodes that do not exist."""
    world.sync(mute)
    with pytest.raises(UsageError, match="app mute, n: nothing writes its payloads: give its handler encode"):
        (sender := world.sender(mute)).send(order(sender, "n", text="x"))
    assert "it takes sha256; unknown: hash" in refused(world.sender(), hash="x")
    assert "app notary has no opcode 'sell'" in refused(world.sender(), "sell")
    assert "the change cannot be output 9" in refused(world.sender(), change_at=9)
    assert "is not a transaction id" in refused(world.sender(), replaces="x")
    assert "name one" in refused(world.sender(), replaces="00" * 32, sender=world.address())


def test_coins_that_are_gone(world: World) -> None:
    """What was signed cannot be sent once its coins are spent, in the mempool or in a block."""
    sender = world.sender()
    address = world.paid_address()
    late = sender.send(order(sender, "claim", sha256=document("late"), sender=address), dry_run=True)
    world.node.rpc("sendall", [world.address()], wallet="payer")
    with pytest.raises(NodeError, match="spends the same coins, and would be replaced"):
        sender.broadcast(late.raw)
    coin = (read_inputs(late.raw)[0].txid, read_inputs(late.raw)[0].vout)
    world.mine()
    with pytest.raises(NodeError, match=r"spends coins that http.* does not have"):
        sender.hand_over(late)
    assert "cannot be spent: it is spent already" in refused(sender, coins=[coin])
    world.mine(101)


def test_a_fee_that_nobody_can_estimate(world: World, bitcoind_factory: Any) -> None:
    """Without a fallback, a new node's wallet needs a rate."""
    node = bitcoind_factory("-fallbackfee=0")
    node.rpc("createwallet", "payer")
    node.rpc("generatetoaddress", 101, node.rpc("getnewaddress", wallet="payer"))
    alone = World(node, world.url, [], world.opened)
    assert "cannot estimate a fee" in refused(alone.sender(anyway=True))
    assert "cannot estimate a fee" in refused(alone.sender(anyway=True, fee=Fee(target=3)))


def test_long_chains_of_unconfirmed_inputs(world: World, bitcoind_factory: Any) -> None:
    """The next block makes room, which the line says, although the node speaks of funds."""
    node = bitcoind_factory("-limitancestorcount=3")
    node.rpc("createwallet", "payer")
    node.rpc("generatetoaddress", 101, node.rpc("getnewaddress", wallet="payer"))
    alone = World(node, world.url, [], world.opened)
    sender = alone.sender(anyway=True)
    for number in range(3):
        sender.send(order(sender, "claim", sha256=document(f"chain {number}")))
    with pytest.raises(LongChain, match="which the next block ends"):
        sender.send(order(sender, "claim", sha256=document("chain 3")))
    node.rpc("generatetoaddress", 1, node.rpc("getnewaddress", wallet="payer"))
    assert sender.send(order(sender, "claim", sha256=document("chain 3"))).status == "sent"


def test_a_node_that_is_syncing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its view of coins is old, so nothing is sent."""
    sender = world.sender()
    ask = sender.source.rpc.call

    def call(method: str, *parameters: object) -> Any:
        answer = ask(method, *parameters)
        return (
            answer | {"initialblockdownload": True, "headers": 9000}
            if method == "getblockchaininfo"
            else answer
        )

    monkeypatch.setattr(sender.source.rpc, "call", call)
    with pytest.raises(NodeUnavailable, match=r"is still syncing, at block .* of 9000"):
        sender.send(order(sender, "claim", sha256=document("syncing")))


@pytest.mark.parametrize(
    ("reason", "kind", "part"),
    [
        ("datacarrier", UsageError, "has 50 bytes, over datacarriersize"),
        ("scriptpubkey", UsageError, "has 50 bytes, over datacarriersize"),
        ("bad-txns-vout-script-toolarge", UsageError, "has 50 bytes, over datacarriersize"),
        ("multi-op-return", UsageError, "one OP_RETURN output"),
        ("dust, tx with dust output must be 0-fee", UsageError, "pays so little"),
        ("min relay fee not met, 1 < 2", UsageError, "nothing below 0.1 (min relay"),
        ("mempool min fee not met, 1 < 2", UsageError, "nothing below 12.5 (mempool"),
        ("mempool full", NodeError, "is full"),
        ("insufficient fee, rejecting replacement", UsageError, "not pay enough more"),
        ("txn-mempool-conflict", NodeError, "spends the same coins"),
        ("bad-txns-inputs-missingorspent", NodeError, "does not have"),
        ("missing-inputs", NodeError, "does not have"),
        ("too-long-mempool-chain, too many", LongChain, "wait for a block"),
        ("too-large-cluster", LongChain, "wait for a block"),
        ("non-final", UsageError, "send it later"),
        ("max-fee-exceeded", UsageError, "0.00001000 BTC, 10.000 satoshi per vbyte"),
        ("mempool-script-verify-flag-failed (Signature must be zero)", UsageError, "signatures do not fit"),
        ("something new \x1b[31m", NodeError, "does not take the transaction: 'something new \\x1b[31m'"),
    ],
)
def test_each_policy_has_its_line(reason: str, kind: type[VirtualchainError], part: str) -> None:
    """Bitcoin Core and Knots, in all versions, have the same lines for the same reasons."""
    rates = Rates(read_fee_rate("0.1"), read_fee_rate("12.50"))
    facts = Facts("http://node", network("mainnet"), 50, 1000, 100, lambda: rates)
    error = refusal(reason, facts)
    assert type(error) is kind
    assert part in str(error)
    assert str(error).isprintable()
