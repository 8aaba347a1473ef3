"""The chain builder: blocks and transactions that a real regtest node takes, made in a line each.

    chain = ChainBuilder()
    claim = chain.send(b"id?hello", sender="alice", to=[("bob", 10_000)])
    chain.mine([claim])

Everything is deterministic: the same calls give the same bytes, so block hashes can stand in a test.
The chain starts with the network's genesis block and 101 empty blocks whose coinbases belong to a faucet,
because a node lets nobody spend a coinbase before 100 blocks stand on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from virtualchain.bitcoin.networks import network as find_network
from virtualchain.errors import UsageError
from virtualchain.testing.blocks import MAX_WEIGHT, framed, make_block, subsidy
from virtualchain.testing.coins import Coins
from virtualchain.testing.keys import Key
from virtualchain.testing.transactions import Tx
from virtualchain.testing.tree import BlockTree, StoredBlock
from virtualchain.testing.undo import Coin, Undo, created, make_undo
from virtualchain.testing.wallet import FEE, Recipient, Wallet, as_key
from virtualchain.testing.wire import RawTx, read_transaction

PREMINE = 101
"""Blocks that are there from the start: the faucet's first two coinbases can be spent in the next one."""

_EMPTY_UNDO = make_undo([[]])
_RESERVED_WEIGHT = 4_000
"""For the header and the coinbase."""


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A block together with what it spends, so that nobody needs to look for it."""

    raw: bytes
    undo: Undo


class ChainBuilder:
    """A chain that grows block by block, branches included, and the wallets of its named senders.

    `premine` blocks are mined at the start. With fewer than 101, or where senders spend more than the
    faucet's mature coinbases hold (100 bitcoin behind the premine, then 50 more with each block), coinbases
    are spent too early: such blocks are still served by the fake node but refused by a real one.
    """

    def __init__(self, network: str = "regtest", *, premine: int = PREMINE) -> None:
        self.network = find_network(network)
        self.tree = BlockTree(self.network)
        self.coins = Coins()
        self._wallet = Wallet(self.coins)
        self._mined = 0
        if premine:
            self.mine(n=premine)

    @classmethod
    def from_blocks(cls, network: str, blocks: Iterable[bytes | BuiltBlock]) -> Self:
        """Take blocks as they are, each behind its parent; the genesis block may be left out.

        Side branches count, too: the branch with the most work is the chain, of equal ones the first.
        Raises UsageError where a block's parent is missing, MalformedBlock where bytes are no header.
        """
        chain = cls(network, premine=0)
        for block in blocks:
            raw, undo = (block.raw, block.undo) if isinstance(block, BuiltBlock) else (block, None)
            stored = chain.tree.add(raw, undo)
            if stored.chainwork > chain.tree.tip.chainwork:
                chain.tree.activate(stored)
        return chain

    @property
    def height(self) -> int:
        """Give the height of the tip."""
        return self.tree.tip.height

    @property
    def tip(self) -> str:
        """Give the hash of the tip, display order."""
        return self.tree.tip.block.hash

    def raw_blocks(self) -> list[bytes]:
        """Give the chain's blocks, the genesis block first."""
        return [stored.raw for stored in self.tree.chain]

    def save(self, path: Path) -> None:
        """Write the chain to a file in the form of `blk*.dat`, which `bitcoind -loadblock` takes."""
        with path.open("wb") as file:
            file.writelines(framed(self.network, self.raw_blocks()))

    def send(
        self,
        payload: bytes | None = None,
        sender: str | Key | Sequence[str | Key] = "alice",
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
    ) -> Tx:
        """Sign a transaction: the payload's OP_RETURN, the outputs `to` (satoshi), the change; not mined yet.

        Each sender, a name or `key(name, kind)`, brings one input; the first one pays and gets the change.
        Senders need no funds: where one has no coin that fits, a faucet gives some in a transaction that
        `mine` puts in front of this one. UsageError where not even the faucet has so much.
        """
        senders = [sender] if isinstance(sender, str | Key) else list(sender)
        if not senders or fee < 0:
            raise UsageError(f"a transaction has a sender and a fee from 0 on, not {senders} and {fee}")
        self._sync_coins()
        return self._wallet.send(payload, [as_key(who) for who in senders], to, fee)

    def double_spend(
        self,
        tx: Tx,
        payload: bytes | None = None,
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
    ) -> Tx:
        """Sign a rival of `tx`, which `send` gave: it spends the same coins, so a chain holds one of them."""
        return self._wallet.double_spend(tx, payload, to, fee)

    def mine(self, txs: Iterable[Tx | bytes] = (), n: int = 1, bits: int | None = None) -> list[str]:
        """Mine `n` blocks on the tip, the transactions in the first of them; their hashes, display order.

        `bits`: a target of theirs (0x200FFFFF stands for eight times the work of regtest's), which the blocks
        behind them inherit. UsageError where a transaction spends what is not there, creates money, or the
        block gets too heavy.
        """
        if n < 1:
            raise UsageError(f"mine at least one block, not {n}")
        self.tree.show_hidden()
        hashes = [self._mine(list(txs), bits)]
        hashes.extend(self._mine([], bits) for _ in range(n - 1))
        return hashes

    def reorg(
        self, depth: int, n: int | None = None, txs: Iterable[Tx | bytes] = (), bits: int | None = None
    ) -> list[str]:
        """Replace the last `depth` blocks by `n` others (by default one more); the hashes of these.

        The new ones hold only `txs`, in the first; `bits` is as in `mine`. Where the chain has less work than
        the branch that it left, that branch is forgotten, as by a node that never saw it.
        """
        self.tree.show_hidden()
        count = depth + 1 if n is None else n
        if not 1 <= depth <= self.height or count < 1:
            raise UsageError(
                f"of {self.height} blocks behind the genesis block, {depth} cannot be replaced by {count}"
            )
        before = self.tree.tip
        fork = self.tree.chain[-depth - 1]
        first = self.tree.chain[-depth]
        self.tree.activate(fork)
        try:
            hashes = self.mine(txs, count, bits)
        except UsageError:
            self.tree.activate(before)
            raise
        if self.tree.tip.chainwork < before.chainwork:
            self.tree.forget(first)
        return hashes

    def undo(self, stored: StoredBlock) -> Undo | None:
        """Give what a block of the chain or of a side branch spends, None where that cannot be known."""
        if stored.undo is None:
            self.coins.move(stored)
        return stored.undo

    def _mine(self, txs: Sequence[Tx | bytes], bits: int | None) -> str:
        parent = self.tree.tip
        height = parent.height + 1
        ordered = self._with_funding(txs) if txs else []
        undo, fees = self._spend(ordered, height) if ordered else (_EMPTY_UNDO, 0)
        raw, coinbase = make_block(
            parent.block,
            [(read.raw, read.txid) for _, read in ordered],
            self._wallet.faucet.script_pubkey,
            subsidy(self.network, height) + fees,
            b"virtualchain %d" % self._mined,
            bits,
        )
        self._mined += 1
        self._wallet.add_coinbase(coinbase)
        stored = self.tree.add(raw, undo)
        self.tree.activate(stored)
        return stored.block.hash

    def _with_funding(self, txs: Iterable[Tx | bytes]) -> list[tuple[Tx, RawTx]]:
        """Put in front of each transaction what the faucet must send first."""
        self._sync_coins()
        ordered: dict[bytes, tuple[Tx, RawTx]] = {}
        for given in txs:
            read = read_transaction(given.raw if isinstance(given, Tx) else given)
            row = [(given if isinstance(given, Tx) else Tx(given, read.txid[::-1].hex()), read)]
            while (before := row[-1][0].funding) is not None:
                read = read_transaction(before.raw)
                if read.txid in ordered or self.coins.confirmed(read.txid) is not None:
                    break
                row.append((before, read))
            ordered.update((read.txid, (tx, read)) for tx, read in reversed(row))
        return list(ordered.values())

    def _spend(self, txs: Sequence[tuple[Tx, RawTx]], height: int) -> tuple[Undo, int]:
        """Say what the transactions of a block spend, and what they leave as fees."""
        weight = sum(read.weight for _, read in txs) + _RESERVED_WEIGHT
        if weight > MAX_WEIGHT:
            raise UsageError(
                f"the block would weigh {weight}, and {MAX_WEIGHT} is the most: mine fewer at once"
            )
        fresh: dict[bytes, Coin] = {}
        gone: set[bytes] = set()
        spent: list[list[Coin]] = [[]]
        fees = 0
        for tx, read in txs:
            stated = [Coin(coin.value, coin.script_pubkey, 0, generated=False) for coin in tx.spends]
            coins = []
            for place, outpoint in enumerate(read.outpoints):
                coin = fresh.get(outpoint) or self.coins.get(outpoint) or (stated[place] if stated else None)
                if coin is None or outpoint in gone:
                    raise UsageError(
                        f"transaction {tx.txid} spends {_place(outpoint)}, which is spent or not in the"
                        " chain: mine what creates it first, or say with `foreign` what it spends"
                    )
                gone.add(outpoint)
                coins.append(coin)
            fee = sum(coin.value for coin in coins) - sum(value for value, _ in read.outputs)
            if fee < 0:
                raise UsageError(f"transaction {tx.txid} hands out {-fee} satoshi more than it spends")
            fees += fee
            spent.append(coins)
            fresh.update(created(read, height, generated=False))
        return make_undo(spent), fees

    def _sync_coins(self) -> None:
        self.coins.move(self.tree.tip)


def _place(outpoint: bytes) -> str:
    return f"{outpoint[31::-1].hex()}:{int.from_bytes(outpoint[32:], 'little')}"
