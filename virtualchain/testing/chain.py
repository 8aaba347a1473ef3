"""The chain builder: blocks and transactions that a real regtest node accepts, each made in one line.

    chain = ChainBuilder()
    claim = chain.send(b"id?hello", sender="alice", to=[("bob", 10_000)])
    chain.mine([claim])

Everything is deterministic: the same calls produce the same bytes, so tests can contain block hashes. The
chain starts with the network's genesis block and 101 empty blocks whose coinbases belong to a faucet,
because a coinbase can be spent only after 100 blocks.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from virtualchain.bitcoin.networks import network as find_network
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.testing.blocks import MAX_WEIGHT, framed, make_block, subsidy
from virtualchain.testing.transactions import Key, OwnedCoin, Tx
from virtualchain.testing.tree import BlockTree, Coins, StoredBlock
from virtualchain.testing.undo import Coin, Undo, created_coins, make_undo
from virtualchain.testing.wallet import FEE, Recipient, Wallet, as_key
from virtualchain.testing.wire import RawTx, read_block, read_transaction

PREMINE = 101
"""Blocks at the start; the faucet can spend the first two coinbases in the next block."""

_EMPTY_UNDO = make_undo([[]])
_RESERVED_WEIGHT = 4_000
"""For the header and the coinbase."""


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A block together with what it spends, which saves looking it up."""

    raw: bytes
    undo: Undo


class ChainBuilder:
    """A chain that grows block by block, branches included, and the wallets of its named senders.

    `premine` blocks are mined at the start. With fewer than 101, or if senders spend more than the faucet's
    mature coinbases hold (100 bitcoin after the premine, 50 more with each block), coinbases are spent too
    early: the fake node serves such blocks, but a real one rejects them.
    """

    def __init__(self, network: str = "regtest", *, premine: int = PREMINE) -> None:
        self.network = find_network(network)
        self.tree = BlockTree(self.network)
        self.coins = Coins()
        kind = "p2pkh" if self.network.segwit_block_id is None else "p2wpkh"
        self._wallet = Wallet(self.coins, kind)
        self._mined = 0
        if premine:
            self.mine(n=premine)

    @classmethod
    def from_blocks(cls, network: str, blocks: Iterable[bytes | BuiltBlock]) -> Self:
        """Build a chain from existing blocks, each after its parent; the genesis block may be left out.

        Side branches are included: the branch with the most work is the chain, the first one if several are
        equal. Raises UsageError if a block's parent is missing, and MalformedBlock if bytes are not a header.
        """
        chain = cls(network, premine=0)
        for block in blocks:
            raw, undo = (block.raw, block.undo) if isinstance(block, BuiltBlock) else (block, None)
            stored = chain.tree.add(raw, undo)
            if stored.chainwork > chain.tree.tip.chainwork:
                chain.tree.activate(stored)
        return chain

    @classmethod
    def restored(cls, network: str, blocks: Iterable[bytes], tip: str, mined: int) -> Self:
        """Build a chain again that was built here: all its blocks, as `BlockTree.blocks` has them.

        `tip` is the chain's last block, and `mined` the number of blocks ever mined. What senders have signed
        and nobody has mined is forgotten. Raises UsageError if `tip` is not among the blocks.
        """
        chain = cls(network, premine=0)
        for raw in blocks:
            coinbase = read_block(chain.tree.add(raw).plain)[0]
            if coinbase.outputs[0][1] == chain._wallet.faucet.script_pubkey:
                chain._wallet.add_coinbase(coinbase.txid)
        last = chain.tree.find(tip)
        if last is None:
            raise UsageError(f"the chain's last block {tip} is not among its blocks")
        chain.tree.activate(last)
        chain._mined = mined
        return chain

    @property
    def mined(self) -> int:
        """Return how many blocks were ever mined here: the number tells apart blocks that are alike."""
        return self._mined

    @property
    def height(self) -> int:
        """Return the height of the tip."""
        return self.tree.tip.height

    @property
    def tip(self) -> str:
        """Return the hash of the tip, in display order."""
        return self.tree.tip.block.hash

    def raw_blocks(self) -> list[bytes]:
        """Return the chain's blocks, the genesis block first."""
        return [stored.raw for stored in self.tree.chain]

    def save(self, path: Path) -> None:
        """Write the chain to a file in the format of `blk*.dat`, which `bitcoind -loadblock` reads."""
        with path.open("wb") as file:
            file.writelines(framed(self.network, self.raw_blocks()))

    def send(
        self,
        payload: bytes | None = None,
        sender: str | Key | Sequence[str | Key] = "alice",
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
        coins: Sequence[OwnedCoin] = (),
        is_alone: bool = False,
    ) -> Tx:
        """Sign a transaction, not mined yet: the payload's OP_RETURN, the outputs `to` (satoshi), the change.

        Each sender, a name or `key(name, kind)`, adds one input; the first one pays and receives the
        change. Senders need no funds: if one has no suitable coin, a faucet sends it some in a transaction
        that `mine` puts before this one. `coins` are spent besides, after those of the senders;
        with them, there need be no sender. If it `is_alone`, the senders' coins are the faucet's, so that it
        needs no other transaction. Raises UsageError if the faucet does not have enough either.
        """
        senders = [sender] if isinstance(sender, str | Key) else list(sender)
        if not (senders or coins) or fee < 0:
            raise UsageError(
                f"a transaction needs a sender and a fee that is not negative, not {senders} and {fee}"
            )
        self._sync_coins()
        return self._wallet.send(
            payload, [as_key(who, self._wallet.kind) for who in senders], to, fee, coins, is_alone=is_alone
        )

    def double_spend(
        self,
        tx: Tx,
        payload: bytes | None = None,
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
    ) -> Tx:
        """Sign a conflict of `tx`, a result of `send`: both spend the same coins, so only one confirms."""
        return self._wallet.double_spend(tx, payload, to, fee)

    def mine(self, txs: Iterable[Tx | bytes] = (), n: int = 1, bits: int | None = None) -> list[str]:
        """Mine `n` blocks on the tip, the transactions in the first; return their hashes (display order).

        `bits` sets their target, which later blocks inherit (0x200FFFFF means eight times regtest's work).
        Raises UsageError if a transaction spends a coin that does not exist or more than it has, or if the
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
        """Replace the last `depth` blocks by `n` others (by default one more); return the new hashes.

        The new blocks hold only `txs`, in the first; `bits` is as in `mine`. If the new chain has less work
        than the old branch, that branch is forgotten, as by a node that never saw it.
        """
        self.tree.show_hidden()
        count = depth + 1 if n is None else n
        if not 1 <= depth <= self.height or count < 1:
            raise UsageError(
                f"with {self.height} blocks after the genesis block, {depth} cannot be replaced by {count}"
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
        """Return what a block on any branch spends, None if that cannot be determined."""
        if stored.undo is None:
            self.coins.move(stored)
        return stored.undo

    def with_funding(self, txs: Iterable[Tx | bytes]) -> list[Tx]:
        """Return transactions with the faucet's before them that `mine` would put into the block."""
        return [tx for tx, _ in self._with_funding(txs)]

    def unspent(self, outpoint: bytes) -> Coin | None:
        """Return the coin at an outpoint (36 bytes) if it is unspent in the chain's last block.

        Nothing is known of a chain with a block that cannot be read.
        """
        with suppress(MalformedBlock):
            self._sync_coins()
            return self.coins.get(outpoint)
        return None

    def unconfirmed(self, txid: str) -> bytes | None:
        """Return a transaction of the faucet that `mine` has not put into the chain yet; as for `unspent`."""
        with suppress(MalformedBlock):
            self._sync_coins()
            return self._wallet.unconfirmed_funding(txid)
        return None

    def _mine(self, txs: Sequence[Tx | bytes], bits: int | None) -> str:
        parent = self.tree.tip
        height = parent.height + 1
        ordered = self._with_funding(txs) if txs else []
        undo, fees = self._spend(ordered, height) if ordered else (_EMPTY_UNDO, 0)
        raw, coinbase = make_block(
            parent.block,
            [(parsed.raw, parsed.txid) for _, parsed in ordered],
            self._wallet.faucet.script_pubkey,
            subsidy(self.network, height) + fees,
            b"virtualchain %d" % self._mined,
            bits,
            self.network,
        )
        self._mined += 1
        self._wallet.add_coinbase(coinbase)
        stored = self.tree.add(raw, undo)
        self.tree.activate(stored)
        return stored.block.hash

    def _with_funding(self, txs: Iterable[Tx | bytes]) -> list[tuple[Tx, RawTx]]:
        """Insert before each transaction the faucet's transactions that it needs."""
        self._sync_coins()
        ordered: dict[bytes, tuple[Tx, RawTx]] = {}
        for tx in txs:
            parsed = read_transaction(tx.raw if isinstance(tx, Tx) else tx)
            needed = [(tx if isinstance(tx, Tx) else Tx(tx, parsed.txid[::-1].hex()), parsed)]
            while (funding := needed[-1][0].funding) is not None:
                parsed = read_transaction(funding.raw)
                if parsed.txid in ordered or self.coins.confirmed(parsed.txid) is not None:
                    break
                needed.append((funding, parsed))
            ordered.update((parsed.txid, (tx, parsed)) for tx, parsed in reversed(needed))
        return list(ordered.values())

    def _spend(self, txs: Sequence[tuple[Tx, RawTx]], height: int) -> tuple[Undo, int]:
        """Find what the transactions of a block spend, and their fees."""
        weight = sum(parsed.weight for _, parsed in txs) + _RESERVED_WEIGHT
        if weight > MAX_WEIGHT:
            raise UsageError(
                f"the block would weigh {weight}, more than {MAX_WEIGHT}: mine fewer transactions at once"
            )
        created: dict[bytes, Coin] = {}
        gone: set[bytes] = set()
        spent: list[list[Coin]] = [[]]
        fees = 0
        for tx, parsed in txs:
            declared = [Coin(coin.value, coin.script_pubkey, 0, generated=False) for coin in tx.spends]
            coins = []
            for index, outpoint in enumerate(parsed.outpoints):
                known = created.get(outpoint) or self.coins.get(outpoint)
                coin = known or (declared[index] if declared else None)
                if coin is None or outpoint in gone:
                    raise UsageError(
                        f"transaction {tx.txid} spends {_display(outpoint)}, which is spent or not in the"
                        " chain: first mine what creates it, or pass to `foreign` what it spends"
                    )
                gone.add(outpoint)
                coins.append(coin)
            fee = sum(coin.value for coin in coins) - sum(value for value, _ in parsed.outputs)
            if fee < 0:
                raise UsageError(f"transaction {tx.txid} pays out {-fee} satoshi more than it spends")
            fees += fee
            spent.append(coins)
            created.update(created_coins(parsed, height, generated=False))
        return make_undo(spent), fees

    def _sync_coins(self) -> None:
        self.coins.move(self.tree.tip)


def _display(outpoint: bytes) -> str:
    return f"{outpoint[31::-1].hex()}:{int.from_bytes(outpoint[32:], 'little')}"
