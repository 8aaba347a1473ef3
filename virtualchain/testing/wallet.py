"""Coins for named senders: whoever sends gets funded by a faucet that owns the coinbases.

Transactions of one sender do not depend on each other while there are coins to choose from, and a coin
that was once signed away is never signed away again: so each can be mined, left out, or mined again on
another branch, whatever becomes of the rest. The faucet's own transactions form one row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from virtualchain.errors import UsageError
from virtualchain.testing.coins import Coins
from virtualchain.testing.keys import Key, key
from virtualchain.testing.transactions import OwnedCoin, Tx, op_return, sign
from virtualchain.testing.wire import outpoint, read_transaction

if TYPE_CHECKING:
    from virtualchain.testing.tree import StoredBlock

FEE: Final = 1_000
"""What a transaction pays unless told otherwise, in satoshi."""
GRANT: Final = 1_000_000
"""Satoshi of a coin that the faucet gives, unless more is needed."""

_GRANTED_COINS = 10
_DUST = 546
"""Change below this would not be relayed by a real node, so such coins are passed over."""

Recipient = str | Key | bytes
"""A name, a key, or an output script."""


class _Grant(NamedTuple):
    """A coin from the faucet: its place in the faucet's row, satoshi, and the transaction it comes from."""

    order: int
    value: int
    funding: Tx


@dataclass(slots=True)
class _Row:
    """The faucet's transactions, each behind the one before, and the coins that they give."""

    base: bytes
    """The coinbase that the first of them spends."""
    last: Tx | None = None
    change: OwnedCoin | None = None
    length: int = 0
    grants: defaultdict[bytes, dict[bytes, _Grant]] = field(default_factory=lambda: defaultdict(dict))
    """By the script that owns them, then by outpoint."""


class Wallet:
    """Signs for every name, from the coins of one chain."""

    def __init__(self, coins: Coins) -> None:
        self.faucet = key("faucet")
        self._coins = coins
        self._coinbases: list[bytes] = []
        self._taken: set[bytes] = set()
        self._spent_by: dict[str, list[OwnedCoin]] = {}
        self._row: _Row | None = None
        self._checked_at: StoredBlock | None = None

    def add_coinbase(self, txid: bytes) -> None:
        """Learn of a coinbase (its id as computed) whose first output is the faucet's."""
        self._coinbases.append(txid + bytes(4))

    def send(
        self,
        payload: bytes | None,
        senders: Sequence[Key],
        to: Sequence[tuple[Recipient, int]],
        fee: int,
    ) -> Tx:
        """Sign a transaction with one coin of each sender, the first of whom pays and gets the change."""
        outputs = _outputs(payload, to)
        amount = sum(value for _, value in outputs) + fee
        taken = [self._coin(sender, 0 if place else amount) for place, sender in enumerate(senders)]
        grants = [grant for _, grant in taken if grant is not None]
        last = max(grants, key=lambda grant: grant.order, default=None)
        return self._sign([coin for coin, _ in taken], outputs, fee, last.funding if last else None)

    def double_spend(
        self, tx: Tx, payload: bytes | None, to: Sequence[tuple[Recipient, int]], fee: int
    ) -> Tx:
        """Sign another transaction that spends what `tx` does."""
        if tx.txid not in self._spent_by:
            raise UsageError(
                f"transaction {tx.txid} was not signed here: only what `send` gave can be spent again"
            )
        return self._sign(self._spent_by[tx.txid], _outputs(payload, to), fee, tx.funding)

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

    def _coin(self, sender: Key, amount: int) -> tuple[OwnedCoin, _Grant | None]:
        """Take a coin of a sender that pays `amount` with decent change, after funding it if need be."""
        if self._row is not None and self._checked_at is not self._coins.at and not self._stands(self._row):
            self._row = None
        self._checked_at = self._coins.at
        found = self._choose(sender, amount)
        if found is None:
            self._fund(sender, amount)
            found = self._choose(sender, amount)
            assert found is not None, "the faucet has just given such a coin"
        value, place = found
        self._taken.add(place)
        return OwnedCoin(sender, place, value), self._grants(sender).pop(place, None)

    def _choose(self, sender: Key, amount: int) -> tuple[int, bytes] | None:
        """Give value and place of a sender's coin: the faucet's before others, then the smallest."""
        grants = self._grants(sender)
        owned = {place: coin.value for place, coin in self._coins.owned(sender.script_pubkey).items()}
        coming = {
            place: grant.value for place, grant in grants.items() if not self._is_confirmed(grant.funding)
        }
        fitting = [
            (place not in grants, value, place)
            for place, value in (owned | coming).items()
            if place not in self._taken and (value == amount or value >= amount + _DUST)
        ]
        return min(fitting)[1:] if fitting else None

    def _grants(self, sender: Key) -> dict[bytes, _Grant]:
        return {} if self._row is None else self._row.grants[sender.script_pubkey]

    def _fund(self, sender: Key, amount: int) -> None:
        """Give a sender coins, one of which at least pays `amount`."""
        enough = amount + _DUST
        values = [enough] if enough > GRANT else [GRANT] * _GRANTED_COINS
        total = sum(values) + FEE
        row = self._row
        coin = row.change if row is not None else None
        if coin is None or coin.value < total + _DUST:
            coin = self._coinbase(total + _DUST)
        if row is None:
            row = self._row = _Row(coin.outpoint)
        outputs = [(sender.script_pubkey, value) for value in values]
        raw = sign([coin], [*outputs, (self.faucet.script_pubkey, coin.value - total)])
        txid = read_transaction(raw).txid[::-1].hex()
        row.last = Tx(raw, txid, FEE, row.last)
        row.change = OwnedCoin(self.faucet, outpoint(txid, len(values)), coin.value - total)
        row.length += 1
        for place, value in enumerate(values):
            row.grants[sender.script_pubkey][outpoint(txid, place)] = _Grant(row.length, value, row.last)

    def _coinbase(self, least: int) -> OwnedCoin:
        """Take the faucet's oldest coinbase that is worth enough."""
        for place in self._coinbases:
            coin = self._coins.get(place)
            if coin is not None and coin.value >= least and place not in self._taken:
                self._taken.add(place)
                return OwnedCoin(self.faucet, place, coin.value)
        raise UsageError(f"the faucet has no coin of {least} satoshi: mine a block first, or send less")

    def _stands(self, row: _Row) -> bool:
        """Say whether the faucet's transactions are in the chain or can still get there."""
        tx = row.last
        while tx is not None and not self._is_confirmed(tx):
            tx = tx.funding
        return tx is not None or self._coins.get(row.base) is not None

    def _is_confirmed(self, tx: Tx) -> bool:
        return self._coins.confirmed(bytes.fromhex(tx.txid)[::-1]) is not None


def _outputs(payload: bytes | None, to: Sequence[tuple[Recipient, int]]) -> list[tuple[bytes, int]]:
    outputs = [] if payload is None else [(op_return(payload), 0)]
    for recipient, value in to:
        if value < 0:
            raise UsageError(f"an output holds {value} satoshi: it cannot be less than nothing")
        script = recipient if isinstance(recipient, bytes) else as_key(recipient).script_pubkey
        outputs.append((script, value))
    return outputs


def as_key(who: str | Key) -> Key:
    """Give the key of a name."""
    return key(who) if isinstance(who, str) else who
