"""Coins for named senders: a faucet, which owns the coinbases, funds everyone who sends.

Transactions of one sender do not depend on each other as long as there are coins to choose from, and no
coin is ever signed away twice. So each transaction can be mined, left out, or mined again on another
branch, whatever happens to the others. The faucet's own transactions form one chain.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from virtualchain.bitcoin.script import op_return
from virtualchain.errors import UsageError
from virtualchain.testing.transactions import Key, OwnedCoin, Tx, key, sign
from virtualchain.testing.tree import Coins, StoredBlock
from virtualchain.testing.wire import outpoint, read_transaction

FEE: Final = 1_000
"""The default fee of a transaction, in satoshi."""
GRANT: Final = 1_000_000
"""The value of a coin from the faucet, in satoshi, unless the sender needs more."""

_GRANTED_COINS = 10
_DUST = 546
"""A real node would not relay change below this, so coins that would leave such change are skipped."""

Recipient = str | Key | bytes
"""A name, a key, or an output script."""


class _Grant(NamedTuple):
    """A coin from the faucet: its transaction's number in the faucet's chain, satoshi, that transaction."""

    order: int
    value: int
    funding: Tx


@dataclass(slots=True)
class _FaucetChain:
    """The faucet's transactions, each spending the previous one's change, and the coins that they grant."""

    base: bytes
    """The outpoint of the coinbase that the first of them spends."""
    last: Tx | None = None
    change: OwnedCoin | None = None
    length: int = 0
    grants: defaultdict[bytes, dict[bytes, _Grant]] = field(default_factory=lambda: defaultdict(dict))
    """By the script that owns them, then by outpoint."""


class Wallet:
    """Signs for every name, with the coins of one chain."""

    def __init__(self, coins: Coins, kind: str = "p2wpkh") -> None:
        """Sign with these coins; names have keys of this kind."""
        self.kind = kind
        self.faucet = key("faucet", kind)
        self._coins = coins
        self._coinbases: list[bytes] = []
        self._signed_away: set[bytes] = set()
        self._spent_by: dict[str, list[OwnedCoin]] = {}
        self._faucet_chain: _FaucetChain | None = None
        self._checked_at: StoredBlock | None = None

    def add_coinbase(self, txid: bytes) -> None:
        """Add a coinbase (txid in internal byte order) whose first output belongs to the faucet."""
        self._coinbases.append(txid + bytes(4))

    def send(
        self,
        payload: bytes | None,
        senders: Sequence[Key],
        to: Sequence[tuple[Recipient, int]],
        fee: int,
        coins: Sequence[OwnedCoin] = (),
        *,
        is_alone: bool = False,
    ) -> Tx:
        """Sign a transaction with one coin of each sender, and then these coins.

        The first one that it spends pays, together with `coins`, and its owner receives the change. If it
        `is_alone`, the senders' coins are the faucet's, and no other transaction is needed for it.
        """
        outputs = _outputs(payload, to, self.kind)
        amount = max(0, sum(value for _, value in outputs) + fee - sum(coin.value for coin in coins))
        taken = [
            self._take_coin(sender, 0 if index else amount, is_granted=is_alone)
            for index, sender in enumerate(senders)
        ]
        grants = [grant for _, grant in taken if grant is not None]
        last = max(grants, key=lambda grant: grant.order, default=None)
        self._signed_away.update(coin.outpoint for coin in coins)
        return self._sign(
            [*(coin for coin, _ in taken), *coins], outputs, fee, last.funding if last else None
        )

    def unconfirmed_funding(self, txid: str) -> bytes | None:
        """Return a transaction of the faucet that is not in a block and can still be mined."""
        chain = self._faucet_chain
        tx = chain.last if chain is not None and self._can_confirm(chain) else None
        while tx is not None and not self._is_confirmed(tx):
            if tx.txid == txid:
                return tx.raw
            tx = tx.funding
        return None

    def double_spend(
        self, tx: Tx, payload: bytes | None, to: Sequence[tuple[Recipient, int]], fee: int
    ) -> Tx:
        """Sign another transaction that spends the same coins as `tx`."""
        if tx.txid not in self._spent_by:
            raise UsageError(
                f"transaction {tx.txid} was not signed here: only results of `send` can be double-spent"
            )
        return self._sign(self._spent_by[tx.txid], _outputs(payload, to, self.kind), fee, tx.funding)

    def _sign(
        self, coins: list[OwnedCoin], outputs: list[tuple[bytes, int]], fee: int, funding: Tx | None
    ) -> Tx:
        change = sum(coin.value for coin in coins) - sum(value for _, value in outputs) - fee
        if change < 0:
            raise UsageError(f"the coins of the transaction are {-change} satoshi short")
        if change:
            outputs = [*outputs, (coins[0].key.script_pubkey, change)]
        raw = sign(coins, outputs)
        tx = Tx(raw, read_transaction(raw).txid[::-1].hex(), fee, funding)
        self._spent_by[tx.txid] = coins
        return tx

    def _take_coin(self, sender: Key, amount: int, *, is_granted: bool) -> tuple[OwnedCoin, _Grant | None]:
        """Take a sender's coin that pays `amount` and leaves no dust; fund the sender first if necessary."""
        chain = self._faucet_chain
        if chain is not None and self._checked_at is not self._coins.at and not self._can_confirm(chain):
            self._faucet_chain = None
        self._checked_at = self._coins.at
        choice = self._choose(sender, amount, is_granted=is_granted)
        if choice is None:
            self._fund(sender, amount)
            choice = self._choose(sender, amount, is_granted=is_granted)
            assert choice is not None, "the faucet has just granted such a coin"
        value, place = choice
        self._signed_away.add(place)
        return OwnedCoin(sender, place, value), self._grants(sender).pop(place, None)

    def _choose(self, sender: Key, amount: int, *, is_granted: bool) -> tuple[int, bytes] | None:
        """Choose a sender's coin, the faucet's first, then the smallest; return its value and outpoint.

        If it must be one that `is_granted`, only the faucet's count.
        """
        grants = self._grants(sender)
        owned = {place: coin.value for place, coin in self._coins.owned(sender.script_pubkey).items()}
        pending = {
            place: grant.value for place, grant in grants.items() if not self._is_confirmed(grant.funding)
        }
        suitable = [
            (place not in grants, value, place)
            for place, value in (owned | pending).items()
            if place not in self._signed_away
            and (place in grants or not is_granted)
            and (value == amount or value >= amount + _DUST)
        ]
        return min(suitable)[1:] if suitable else None

    def _grants(self, sender: Key) -> dict[bytes, _Grant]:
        return {} if self._faucet_chain is None else self._faucet_chain.grants[sender.script_pubkey]

    def _fund(self, sender: Key, amount: int) -> None:
        """Grant coins to a sender; each of them pays `amount`."""
        enough = amount + _DUST
        values = [enough] if enough > GRANT else [GRANT] * _GRANTED_COINS
        total = sum(values) + FEE
        chain = self._faucet_chain
        coin = chain.change if chain is not None else None
        if coin is None or coin.value < total + _DUST:
            coin = self._take_coinbase(total + _DUST)
        if chain is None:
            chain = self._faucet_chain = _FaucetChain(coin.outpoint)
        outputs = [(sender.script_pubkey, value) for value in values]
        raw = sign([coin], [*outputs, (self.faucet.script_pubkey, coin.value - total)])
        txid = read_transaction(raw).txid[::-1].hex()
        chain.last = Tx(raw, txid, FEE, chain.last)
        chain.change = OwnedCoin(self.faucet, outpoint(txid, len(values)), coin.value - total)
        chain.length += 1
        for vout, value in enumerate(values):
            chain.grants[sender.script_pubkey][outpoint(txid, vout)] = _Grant(chain.length, value, chain.last)

    def _take_coinbase(self, least: int) -> OwnedCoin:
        """Take the faucet's oldest coinbase that is worth at least so much."""
        for place in self._coinbases:
            coin = self._coins.get(place)
            if coin is not None and coin.value >= least and place not in self._signed_away:
                self._signed_away.add(place)
                return OwnedCoin(self.faucet, place, coin.value)
        raise UsageError(f"the faucet has no coin of {least} satoshi: mine a block first, or send less")

    def _can_confirm(self, chain: _FaucetChain) -> bool:
        """Check whether the faucet's transactions are in the block chain or can still be mined."""
        tx = chain.last
        while tx is not None and not self._is_confirmed(tx):
            tx = tx.funding
        return tx is not None or self._coins.get(chain.base) is not None

    def _is_confirmed(self, tx: Tx) -> bool:
        return self._coins.confirmed(bytes.fromhex(tx.txid)[::-1]) is not None


def _outputs(
    payload: bytes | None, to: Sequence[tuple[Recipient, int]], kind: str
) -> list[tuple[bytes, int]]:
    outputs = [] if payload is None else [(op_return(payload), 0)]
    for recipient, value in to:
        if value < 0:
            raise UsageError(f"an output cannot hold {value} satoshi: the amount is negative")
        script = recipient if isinstance(recipient, bytes) else as_key(recipient, kind).script_pubkey
        outputs.append((script, value))
    return outputs


def as_key(who: str | Key, kind: str = "p2wpkh") -> Key:
    """Return the key of a name, or the key itself."""
    return key(who, kind) if isinstance(who, str) else who
