"""What compiled code says of a transaction is what Python says of it, or nothing."""

import random
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import pytest

from tests.support.exported_rows import Rows
from tests.support.shared_data import shared
from virtualchain.bitcoin import compiled
from virtualchain.bitcoin.block import StoredTransaction
from virtualchain.bitcoin.layout import split_transactions
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.bitcoin.spending import mismatch, unusual_keys
from virtualchain.bitcoin.transaction import pack_outputs, read_inputs, read_transaction, write_transaction
from virtualchain.model import Output, Sender, SpentOutput, TxIn
from virtualchain.testing.hostile import hostile_outputs, hostile_senders

pytestmark = pytest.mark.skipif(compiled._shown is None, reason="it is not compiled")
MAINNET = NETWORKS["mainnet"]
Transaction = tuple[bytes, Sequence[SpentOutput]]


def agree(transaction: Transaction, network: Network = MAINNET) -> tuple[bool, bool]:
    """Check one transaction; return whether compiled code shows its senders, and its outputs."""
    raw, spent = transaction
    packed = pack_outputs(spent)
    senders = compiled.show_senders(raw, packed, network.forms)
    outputs = compiled.show_outputs(raw, network.forms)
    can_spend = compiled.can_spend(raw, packed, network.forms)
    assert can_spend == (senders is not None)
    with patch.object(compiled, "_shown", None):
        if senders is not None:
            inputs = read_inputs(raw)
            assert len(inputs) == len(spent) == len(senders)
            for spending, output in zip(inputs, spent, strict=True):
                assert mismatch(output.script_pubkey, spending) is None
                assert unusual_keys(output.script_pubkey, spending) is None
                assert unusual_keys(output.script_pubkey, spending, fits=False) is None
            expected = StoredTransaction(raw, packed, network).senders()
            assert tuple(Sender._make((*each, None)) for each in senders) == expected
        if outputs is not None:
            assert tuple(map(Output._make, outputs)) == tuple(read_transaction(raw, network).outputs)
    return senders is not None, outputs is not None


def changed(transactions: Sequence[Transaction], pick: random.Random) -> Iterator[Transaction]:
    """Change a byte, cut some off, or add some, in a transaction or in what it spends."""
    for raw, spent in transactions:
        yield flipped(raw, pick), spent
        yield raw[: pick.randrange(len(raw))], spent
        yield raw + pick.randbytes(1), spent
        yield raw, spent[1:]
        yield raw, [*spent, *spent[:1]]
        if spent:
            value, script, _ = spent[-1]
            yield raw, [*spent[:-1], SpentOutput(value, flipped(script, pick))]
            yield raw, [*spent[:-1], SpentOutput(value, script[:-1])]


def flipped(data: bytes, pick: random.Random) -> bytes:
    """Change one bit."""
    if not data:
        return b"\x6a"
    place = pick.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << pick.randrange(8)]) + data[place + 1 :]


@pytest.mark.parametrize(("name", "count"), [("mainnet", 2000), ("dogecoin", 500), ("litecoin", 500)])
def test_random_transactions(name: str, count: int) -> None:
    """Of random ones a good share is shown, of changed ones too, but nothing else than Python shows."""
    rows, pick = Rows(3, NETWORKS[name]), random.Random(4)
    transactions = [rows.transaction()[:2] for _ in range(count)]
    results = [agree(each, NETWORKS[name]) for each in transactions]
    assert sum(senders for senders, _ in results) > count / 10
    assert sum(outputs for _, outputs in results) > count / 4
    for each in changed(transactions, pick):
        agree(each, NETWORKS[name])


def test_hostile_transactions() -> None:
    """Senders and outputs of the forms with which the test kit attacks apps."""
    shown = []
    paid = [SpentOutput(500, b"\x51")]
    for spendings in hostile_senders().values():
        inputs = [TxIn("07" * 32, n, each.script_sig, 0, each.witness) for n, each in enumerate(spendings)]
        shown.append(agree((write_transaction(inputs, paid), [each.spent for each in spendings]))[0])
    for _, outputs in hostile_outputs(b"\x6a\x02id", b"id"):
        raw = write_transaction(
            [TxIn("07" * 32, 0, b"", 0, ())], [SpentOutput(value, script) for value, script in outputs]
        )
        shown.append(agree((raw, []))[1])
    assert True in shown
    assert False in shown


def test_amounts_of_any_size() -> None:
    """What can be no amount is shown as it is."""
    for amount in (-(2**63), -1, 0, 2**63 - 1):
        program = b"\x51\x20" + bytes(32)
        raw = write_transaction([TxIn("07" * 32, 0, b"", 0, (bytes(64),))], [SpentOutput(amount, program)])
        assert agree((raw, [SpentOutput(amount, program)])) == (True, True)


@pytest.mark.parametrize("path", ["mainnet/325000", "mainnet/549400", "mainnet/951658", "testnet3/2348332"])
def test_outputs_of_real_blocks(path: str) -> None:
    """Most have usual forms."""
    raws = split_transactions(shared(f"{path}.blk").read_bytes())[1:]
    assert sum(agree((raw, []))[1] for raw in raws) > 0.8 * len(raws)


def test_a_coinbase() -> None:
    """It spends nothing, and its outputs are for Python."""
    raw = write_transaction(
        [TxIn("00" * 32, 2**32 - 1, b"\1\1", 0, ())], [SpentOutput(1, b"\x51\x20" + bytes(32))]
    )
    assert agree((raw, [])) == (False, False)


@pytest.mark.parametrize(
    "forms", [(b"", b"\5", "bc", True, 1), (b"\0", b"\5\5", "bc", True, 1), (b"\0", b"\5", "x" * 41, True, 1)]
)
def test_networks_with_other_addresses(forms: compiled.Forms) -> None:
    """Nothing is shown of them."""
    raw, spent, _ = Rows(5, MAINNET).transaction()
    assert compiled.show_senders(raw, pack_outputs(spent), forms) is None
    assert compiled.show_outputs(raw, forms) is None
    assert not compiled.can_spend(raw, pack_outputs(spent), forms)


def test_heights_of_other_inputs() -> None:
    """A damaged row does not have an input left out, in compiled code or in Python."""
    program = b"\x51\x20" + bytes(32)
    inputs = [TxIn("07" * 32, n, b"", 0, (bytes(64),)) for n in range(2)]
    raw = write_transaction(inputs, [SpentOutput(1, program)])
    packed = pack_outputs([SpentOutput(1, program)] * 2)
    for module in (compiled._shown, None):
        with patch.object(compiled, "_shown", module):
            assert len(StoredTransaction(raw, packed, MAINNET, (10, 20)).senders()) == 2
            for heights in ((), (10,), (10, 20, 30)):
                with pytest.raises(ValueError, match="zip"):
                    StoredTransaction(raw, packed, MAINNET, heights).senders()
            with pytest.raises(ValueError, match="zip"):
                StoredTransaction(raw, packed * 2, MAINNET).senders()
