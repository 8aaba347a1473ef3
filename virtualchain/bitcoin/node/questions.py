"""Questions to a node about unconfirmed transactions, and the checks that its answers pass.

Only methods that every node of version 0.21 or later has are used. Between two questions, a transaction may
be replaced or mined: then the node does not have it, which is an answer like others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from virtualchain.bitcoin.encoding import plain_transaction
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.node.answers import well_formed
from virtualchain.bitcoin.node.client import NotOffered, Rpc
from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.errors import MissingData, NodeError, quoted
from virtualchain.model import SpentOutput

_LATEST: Final = 253_402_300_799
"""Unix time of the last second of the year 9999."""
_LARGEST_FEE: Final = 2**63
"""Satoshi, as modified: the change is a 64-bit number with a sign."""
_LARGEST_VSIZE: Final = 1_000_000_000
"""Virtual bytes: a transaction has at most a million, but a node may count signature checks for more."""


class Signs(NamedTuple):
    """What nearly every change of the mempool changes."""

    transactions: int
    """Their number."""
    vsize: int
    """Of all, in virtual bytes."""
    fees: int | None
    """Of all, in satoshi; None from a node that does not state them."""


@dataclass(frozen=True, slots=True)
class Best:
    """The last block of the active chain."""

    block_id: int
    hash: str
    parent: str | None
    """The hash of the block before it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the node says about an unconfirmed transaction."""

    fee: int
    """Satoshi."""
    modified_fee: int
    """With what `prioritisetransaction` adds to it."""
    vsize: int
    """Virtual bytes, by which the node counts it."""
    time: int
    """Unix time at which the node took it."""
    parents: frozenset[object]
    """The ids of unconfirmed transactions whose outputs it spends; not checked."""
    children: frozenset[object]
    """The ids of those that spend its outputs; not checked."""


class Questions:
    """Asks a node. Every method may raise NodeUnavailable, and NodeError for what no node should answer."""

    def __init__(self, url: NodeUrl, rpc: Rpc, network: Network) -> None:
        self._url = url
        self._network = network
        self._rpc = rpc

    def signs(self) -> Signs:
        """Read signs of a change, which costs the node next to nothing."""
        with self._asking("getmempoolinfo"):
            info = self._rpc.call("getmempoolinfo")
            fees = info.get("total_fee")
            return Signs(
                answers.whole_number(info["size"]),
                answers.whole_number(info["bytes"]),
                None if fees is None else answers.satoshi(fees, self._network.largest_amount),
            )

    def best(self, last: Best | None) -> Best:
        """Read which block is the last one; `last` is the answer before."""
        with self._asking("getbestblockhash"):
            block_hash = answers.block_hash(self._rpc.call("getbestblockhash"))
        if last is not None and last.hash == block_hash:
            return last
        with self._asking("getblockheader"):
            header = self._rpc.call("getblockheader", block_hash)
            parent = header.get("previousblockhash")
            return Best(
                answers.height(header["height"]),
                block_hash,
                None if parent is None else answers.block_hash(parent),
            )

    def txids(self, known: set[str]) -> tuple[set[str], list[str], int]:
        """List all unconfirmed transactions.

        Returns the set of ids, in which only those are checked that are not `known`; these, as a list; and
        the number that the next change of the mempool will have.
        """
        with self._asking("getrawmempool"):
            answer = self._rpc.call("getrawmempool", False, True)
            listed = set(answer["txids"])
            number = answers.whole_number(answer["mempool_sequence"])
            return listed, [answers.block_hash(txid) for txid in listed - known], number

    def raws(self, txids: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield what the node has as transactions with these ids; leave out what it no longer has.

        They are in Bitcoin's encoding: None stands for one that holds nothing but MWEB data.
        """
        requested = list(txids)
        with self._asking("getrawtransaction"):
            results = self._rpc.find_each("getrawtransaction", [(txid, 0) for txid in requested])
            for txid, result in zip(requested, results, strict=True):
                if result is not None:
                    yield txid, plain_transaction(bytes.fromhex(result), self._network)

    def entries(self, txids: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """Yield the entries of unconfirmed transactions; leave out those that no longer are."""
        requested = list(txids)
        with self._asking("getmempoolentry"):
            results = self._rpc.find_each("getmempoolentry", [(txid,) for txid in requested])
            for txid, result in zip(requested, results, strict=True):
                if result is not None:
                    yield txid, _entry(result, self._network.largest_amount)

    def outputs(
        self, outpoints: Sequence[tuple[str, int]], best: Best
    ) -> dict[tuple[str, int], SpentOutput | None]:
        """Read confirmed outputs as of a block; None for those that are spent, or if it is not the last now.

        Outputs that unconfirmed transactions spend are not spent, in this sense.
        """
        with self._asking("gettxout"):
            results = self._rpc.call_each("gettxout", [(*outpoint, False) for outpoint in outpoints])
            return {
                outpoint: None if result is None else _output(result, best, self._network.largest_amount)
                for outpoint, result in zip(outpoints, results, strict=True)
            }

    @contextmanager
    def well_formed_entries(self) -> Iterator[None]:
        """Turn errors of taking several entries together into a NodeError."""
        with self._asking("getmempoolentry"):
            yield

    @contextmanager
    def _asking(self, method: str) -> Iterator[None]:
        try:
            with well_formed(self._url, method):
                yield
        except (NotOffered, MissingData) as error:
            raise NodeError(
                f"unconfirmed transactions cannot be followed without {method}: {error}. That takes a node "
                "of version 0.21 or later, and getbestblockhash, getblockheader, getmempoolentry, "
                "getmempoolinfo, getrawmempool, getrawtransaction and gettxout, also in rpcwhitelist if "
                "there is one"
            ) from error


def _entry(answer: Mapping[str, Any], largest: int) -> Entry:
    vsize, seen_at = answers.whole_number(answer["vsize"]), answers.whole_number(answer["time"])
    if not 0 < vsize <= _LARGEST_VSIZE or not 0 <= seen_at <= _LATEST:
        raise ValueError(f"a transaction of {vsize} vbytes at the time {seen_at}")
    fees = answer["fees"]
    return Entry(
        answers.satoshi(fees["base"], largest),
        _modified_fee(fees["modified"]),
        vsize,
        seen_at,
        frozenset(answer["depends"]),
        frozenset(answer["spentby"]),
    )


def _modified_fee(bitcoins: object) -> int:
    """Convert a fee that may be less than nothing."""
    if isinstance(bitcoins, bool) or not isinstance(bitcoins, int | Decimal):
        raise TypeError(f"{quoted(bitcoins)} is not a fee")
    satoshi = Decimal(bitcoins).scaleb(8)
    if not abs(satoshi) < _LARGEST_FEE or satoshi != satoshi.to_integral_value():
        raise ValueError(f"a fee of {bitcoins} bitcoins")
    return int(satoshi)


def _output(answer: Mapping[str, Any], best: Best, largest: int) -> SpentOutput | None:
    if answers.block_hash(answer["bestblock"]) != best.hash:
        return None
    confirmations, is_coinbase = answers.whole_number(answer["confirmations"]), answer["coinbase"]
    if not 1 <= confirmations <= best.block_id + 1 or not isinstance(is_coinbase, bool):
        raise ValueError(f"{quoted(answer)} does not say which block made an output")
    block_id = best.block_id - confirmations + 1
    script = bytes.fromhex(answer["scriptPubKey"]["hex"])
    return SpentOutput(answers.satoshi(answer["value"], largest), script, 2 * block_id + is_coinbase)
