"""Transactions that named keys sign for real, so that a real node takes them as well."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from embit import script as embit_script
from embit.ec import PrivateKey
from embit.script import Script, Witness
from embit.transaction import SIGHASH, Transaction, TransactionInput, TransactionOutput

from virtualchain.errors import UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing.keys import Key
from virtualchain.testing.wire import read_transaction

# Replaceable (BIP 125), as most wallets sign today.
_SEQUENCE = 0xFFFFFFFD


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction that is ready for a block."""

    raw: bytes = field(repr=False)
    txid: str
    """Display order."""
    fee: int | None = None
    """Satoshi; None where it is not known before the transaction stands in a block."""
    # Left out of repr, comparison and hash: the faucet's row may be longer than Python recurses.
    funding: "Tx | None" = field(default=None, repr=False, compare=False)
    """The faucet's transaction that must be in the chain first; `mine` sees to it."""
    spends: tuple[SpentOutput, ...] = ()
    """What it spends, in the order of its inputs, where that lies outside of the chain."""


@dataclass(frozen=True, slots=True)
class OwnedCoin:
    """An output that a key can spend."""

    key: Key
    outpoint: bytes
    """36 bytes, as `wire.outpoint` writes it."""
    value: int


def foreign(raw: bytes, spends: Sequence[SpentOutput]) -> Tx:
    """Take a transaction of another chain, with what its inputs spend: no block here has these outputs.

    Raises UsageError where `spends` does not fit the inputs, MalformedBlock where `raw` is no transaction.
    """
    read = read_transaction(raw)
    if len(spends) != len(read.outpoints):
        raise UsageError(f"the transaction has {len(read.outpoints)} inputs, not {len(spends)}")
    fee = sum(spent.value for spent in spends) - sum(value for value, _ in read.outputs)
    return Tx(raw, read.txid[::-1].hex(), fee, spends=tuple(spends))


def push(data: bytes) -> bytes:
    """Write a script's push of `data` in its shortest form; never the one-byte OP_1 to OP_16."""
    size = len(data)
    if size < 0x4C:
        return bytes([size]) + data
    if size <= 0xFF:
        return b"\x4c" + struct.pack("<B", size) + data
    if size <= 0xFFFF:
        return b"\x4d" + struct.pack("<H", size) + data
    return b"\x4e" + struct.pack("<I", size) + data


def op_return(payload: bytes) -> bytes:
    """Write the output script that carries a payload: OP_RETURN and one push."""
    return b"\x6a" + push(payload)


def sign(coins: Sequence[OwnedCoin], outputs: Sequence[tuple[bytes, int]]) -> bytes:
    """Spend coins into outputs (script, satoshi) and sign every input; the transaction's bytes."""
    transaction = Transaction(
        2,
        [
            TransactionInput(
                coin.outpoint[31::-1], int.from_bytes(coin.outpoint[32:], "little"), sequence=_SEQUENCE
            )
            for coin in coins
        ],
        [TransactionOutput(value, Script(script)) for script, value in outputs],
    )
    for index, coin in enumerate(coins):
        _sign_input(transaction, index, coin, coins)
    return bytes(transaction.serialize())


def _sign_input(transaction: Transaction, index: int, coin: OwnedCoin, coins: Sequence[OwnedCoin]) -> None:
    private = PrivateKey(coin.key.secret)
    public = private.get_public_key()
    target = transaction.vin[index]
    if coin.key.kind == "p2tr":
        scripts = [Script(each.key.script_pubkey) for each in coins]
        digest = transaction.sighash_taproot(index, scripts, [each.value for each in coins], SIGHASH.DEFAULT)
        # A 64-byte signature stands for SIGHASH_DEFAULT (BIP 341).
        target.witness = Witness([private.taproot_tweak().schnorr_sign(digest).serialize()])
        return
    if coin.key.kind == "p2pkh":
        digest = transaction.sighash_legacy(index, Script(coin.key.script_pubkey))
        target.script_sig = embit_script.script_sig_p2pkh(private.sign(digest), public)
        return
    digest = transaction.sighash_segwit(index, embit_script.p2pkh(public), coin.value)
    target.witness = embit_script.witness_p2wpkh(private.sign(digest), public)
    if coin.key.kind == "p2sh-p2wpkh":
        target.script_sig = embit_script.script_sig_p2sh(embit_script.p2wpkh(public))
