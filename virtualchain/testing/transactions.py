"""Named keys, and transactions that they really sign, so that a real node accepts them as well.

The same name has the same key everywhere, so tests can speak of alice and bob.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from embit import script as embit_script
from embit.ec import PrivateKey, PublicKey
from embit.script import Script, Witness
from embit.transaction import SIGHASH, Transaction, TransactionInput, TransactionOutput

from virtualchain.bitcoin.networks import network as find_network
from virtualchain.bitcoin.script import classify
from virtualchain.errors import UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing.wire import read_transaction

KEY_KINDS: Final = ("p2wpkh", "p2pkh", "p2sh-p2wpkh", "p2tr")
"""The types of output that a key can own; p2tr is spent by its key path."""

# Replaceable (BIP 125), like most wallets' transactions today.
_SEQUENCE = 0xFFFFFFFD


@dataclass(frozen=True, slots=True)
class Key:
    """A named private key and the output script with which it owns coins. For tests: anyone can derive it."""

    name: str
    kind: str
    secret: bytes = field(repr=False)
    public_key: bytes
    """33 bytes, compressed."""
    script_pubkey: bytes

    def address(self, network: str = "regtest") -> str:
        """Return the address of `script_pubkey` on a network, named as in `virtualchain.bitcoin.networks`."""
        return classify(self.script_pubkey, find_network(network))[1][0]


@cache
def key(name: str, kind: str = "p2wpkh") -> Key:
    """Derive the key of a name, with outputs of type `kind` (one of `KEY_KINDS`, else UsageError)."""
    if kind not in KEY_KINDS:
        raise UsageError(f"a key's outputs have one of the types {', '.join(KEY_KINDS)}, not {kind!r}")
    secret = hashlib.sha256(f"virtualchain.testing:{name}".encode()).digest()
    public = PrivateKey(secret).get_public_key()
    return Key(name, kind, secret, public.sec(), _output_script(kind, public))


def _output_script(kind: str, public: PublicKey) -> bytes:
    if kind == "p2pkh":
        script = embit_script.p2pkh(public)
    elif kind == "p2tr":
        script = embit_script.p2tr(public)
    else:
        script = embit_script.p2wpkh(public)
        if kind == "p2sh-p2wpkh":
            script = embit_script.p2sh(script)
    return bytes(script.data)


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction that is ready for a block."""

    raw: bytes = field(repr=False)
    txid: str
    """Display order."""
    fee: int | None = None
    """Satoshi; None if it is not known before the transaction is in a block."""
    # Left out of repr, comparison and hash: the faucet's chain may be longer than Python's recursion limit.
    funding: "Tx | None" = field(default=None, repr=False, compare=False)
    """The faucet's transaction that must be in the chain first; `mine` sees to it."""
    spends: tuple[SpentOutput, ...] = ()
    """What it spends, in the order of its inputs, if these outputs are not in the chain."""


@dataclass(frozen=True, slots=True)
class OwnedCoin:
    """An output that a key can spend."""

    key: Key
    outpoint: bytes
    """36 bytes, as returned by `wire.outpoint`."""
    value: int


def foreign(raw: bytes, spends: Sequence[SpentOutput]) -> Tx:
    """Take a transaction from another chain, together with the outputs that its inputs spend there.

    Raises UsageError if `spends` does not match the inputs, and MalformedBlock if `raw` is not a transaction.
    """
    tx = read_transaction(raw)
    if len(spends) != len(tx.outpoints):
        raise UsageError(f"the transaction has {len(tx.outpoints)} inputs, not {len(spends)}")
    fee = sum(spent.value for spent in spends) - sum(value for value, _ in tx.outputs)
    return Tx(raw, tx.txid[::-1].hex(), fee, spends=tuple(spends))


def sign(coins: Sequence[OwnedCoin], outputs: Sequence[tuple[bytes, int]]) -> bytes:
    """Spend coins into outputs (script, satoshi), sign every input, and return the serialized transaction."""
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
        # A 64-byte signature implies SIGHASH_DEFAULT (BIP 341).
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
