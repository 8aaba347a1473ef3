"""Spent outputs from the transactions that created them, if the node has an index of transactions."""

import time
from collections.abc import Callable

import pytest

from tests.unit.bitcoin.building import transaction as written
from tests.unit.bitcoin.node.fakes import NO_INDEX, REGTEST, C, StubRpc, transaction
from virtualchain.bitcoin.node import client, node
from virtualchain.bitcoin.node.client import NotOffered
from virtualchain.bitcoin.spending import capped
from virtualchain.bitcoin.transaction import read_transaction
from virtualchain.errors import MissingData, NodeError
from virtualchain.model import SpentOutput, SpentOutputs


def txid_of(raw: bytes) -> str:
    """Return a transaction's id."""
    return read_transaction(raw, REGTEST).txid


def spending(*outputs: tuple[str, int]) -> bytes:
    """Write a transaction that spends these outputs."""
    raw = written(b"\x51", script_sigs=[b""] * len(outputs))
    for n, (txid, vout) in enumerate(outputs, 1):
        written_as = bytes([n]) * 32 + n.to_bytes(4, "little")
        assert raw.count(written_as) == 1
        raw = raw.replace(written_as, bytes.fromhex(txid)[::-1] + vout.to_bytes(4, "little"))
    return raw


CREATED = written(b"\x51", b"\x52" * 6000, values=[7, 8])
SPENDING = spending((txid_of(CREATED), 1), (txid_of(CREATED), 0))


def index_of(*raws: bytes) -> Callable[..., object]:
    """Answer `getrawtransaction` as a node does that finds these transactions by their ids alone."""
    by_id = {txid_of(raw): raw.hex() for raw in raws}
    return lambda txid, verbosity, *_: (
        by_id.get(txid, NO_INDEX) if verbosity == 0 else transaction(txid, None)
    )


def test_spent_outputs_by_an_index_of_transactions() -> None:
    """The transactions that created them are proof, each is requested once, and long scripts are capped."""
    stub = StubRpc(getrawtransaction=index_of(CREATED, SPENDING))
    spent = stub.source().spent_outputs(C, {3: txid_of(SPENDING)})
    assert isinstance(spent, SpentOutputs)
    assert spent.evidence == "transaction"
    assert spent == {3: capped([SpentOutput(8, b"\x52" * 6000), SpentOutput(7, b"\x51")])}
    assert len(spent[3][0].script_pubkey) < 100
    assert [call[1] for call in stub.calls] == [txid_of(SPENDING), txid_of(CREATED)]


@pytest.mark.parametrize(
    "answer",
    [
        CREATED.hex(),
        SPENDING[:-1].hex(),
        "0",
        "",
        None,
        {},
        7,
    ],
)
@pytest.mark.parametrize("asked_for", [CREATED, SPENDING])
def test_a_malformed_answer_of_the_index(answer: object, asked_for: bytes) -> None:
    """Another transaction, or none at all, is an error, whichever was asked for."""
    honest = index_of(CREATED, SPENDING)

    def answer_of(txid: str, verbosity: int) -> object:
        return answer if txid == txid_of(asked_for) else honest(txid, verbosity)

    if answer == asked_for.hex():
        answer = SPENDING.hex()
    with pytest.raises(NodeError, match=r"no Bitcoin node does|too early") as caught:
        StubRpc(getrawtransaction=answer_of).source().spent_outputs(C, {3: txid_of(SPENDING)})
    assert not isinstance(caught.value, MissingData)


@pytest.mark.parametrize(
    ("honest", "forged"),
    [
        (CREATED, written(b"\x53", b"\x54", values=[1, 2])),
        (SPENDING, spending(("11" * 32, 0), ("11" * 32, 1))),
    ],
)
def test_a_forged_transaction_of_the_index(honest: bytes, forged: bytes) -> None:
    """A transaction that would do, but has another id, is an error."""
    raws = {txid_of(raw): raw for raw in (CREATED, SPENDING)} | {"11" * 32: CREATED, txid_of(honest): forged}
    stub = StubRpc(getrawtransaction=lambda txid, _: raws[txid].hex())
    with pytest.raises(NodeError, match=f"transaction {txid_of(honest)} is {txid_of(forged)}"):
        stub.source().spent_outputs(C, {3: txid_of(SPENDING)})


def test_an_output_that_the_transaction_does_not_have() -> None:
    """Whoever spends what was never created is refused."""
    raw = spending((txid_of(CREATED), 2))
    with pytest.raises(NodeError, match="no Bitcoin node does"):
        StubRpc(getrawtransaction=index_of(CREATED, raw)).source().spent_outputs(C, {3: txid_of(raw)})


def test_an_index_that_lacks_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not have comes from the block; it is asked again after a while."""
    monkeypatch.setattr(client, "REFUSAL_TIME", 0.5)
    txid = txid_of(SPENDING)
    index = index_of(SPENDING)
    stub = StubRpc(
        getrawtransaction=lambda *parameters: (
            transaction(txid, "1") if len(parameters) == 3 else index(*parameters)
        )
    )
    source = stub.source()
    for _ in range(2):
        assert source.spent_outputs(C, {3: txid}) == {3: (SpentOutput(100_000_000, b"\x51"),)}
    assert [len(call) for call in stub.calls] == [3, 3, 4, 4]
    stub.calls.clear()
    time.sleep(0.6)
    index = index_of(CREATED, SPENDING)
    assert source.spent_outputs(C, {3: txid})[3][1] == SpentOutput(7, b"\x51")


@pytest.mark.parametrize("answer", [NO_INDEX, NotOffered("forbidden")], ids=["none", "forbidden"])
def test_an_index_that_is_not_there_is_not_asked_for_every_block(answer: NodeError) -> None:
    """Whether the node has none, or does not let us use it: what takes one looks elsewhere, and soon."""
    stub = StubRpc(getrawtransaction=answer)
    source = stub.source()
    for _ in range(3):
        with pytest.raises(MissingData, match=r"index of transactions|by their ids"):
            source.transactions(["11" * 32])
    assert len(stub.calls) == 1


def test_too_many_transactions_for_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a block's candidates, or what they spend, are very many, the block is requested instead."""
    monkeypatch.setattr(node, "MOST_INDEXED", 1)
    raw = spending((txid_of(CREATED), 0), ("11" * 32, 0))
    block = {"tx": [{}, transaction(txid_of(raw), "1"), transaction(txid_of(SPENDING), "1")]}
    stub = StubRpc(getrawtransaction=index_of(CREATED, raw, SPENDING), getblock=block)
    candidate = ("getrawtransaction", txid_of(raw), 0)
    for transactions, asked in (
        ({1: txid_of(raw)}, [candidate]),
        ({1: txid_of(raw), 2: txid_of(SPENDING)}, []),
    ):
        stub.calls.clear()
        assert list(stub.source().spent_outputs(C, transactions)) == list(transactions)
        assert [call for call in stub.calls if call[-1] == 0] == asked
        assert stub.calls[-1] == ("getblock", C, 3)
