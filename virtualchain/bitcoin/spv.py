"""Proof of work for an op: that its transaction is in a block, and how much work is on top of that block.

This is the part `spv` of an op proof (`docs/protocol/proofs.md`): the transaction's inclusion, as in
`inclusion.py`, and the headers from its block up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from virtualchain.bitcoin.difficulty import check_targets, check_times, check_work
from virtualchain.bitcoin.header import HEADER_SIZE, branch_work, read_header
from virtualchain.bitcoin.inclusion import Inclusion, check_inclusion
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.networks import network as find_network
from virtualchain.consensus.proof_file import hexadecimal, items, record, text, whole
from virtualchain.errors import InvalidProof, MalformedBlock, UsageError, quoted
from virtualchain.model import Block, Json

_KEYS: Final = {"network", "txindex", "transaction", "branch", "coinbase", "coinbase_branch", "headers"}
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class InChain:
    """A transaction that is in a block, and the header chain that was shown on top of that block."""

    network: str
    txindex: int
    txid: str
    block: Block
    last: Block
    """The last header shown: the block's own if there is no other."""
    work: int
    """The expected number of hashes for the headers after the block's own."""

    @property
    def blocks_on_top(self) -> int:
        """How many blocks follow."""
        return self.last.block_id - self.block.block_id


def make_spv(inclusion: Inclusion, headers: Sequence[Block], network: Network) -> Json:
    """Show a transaction and the headers from its block on; raises InvalidProof if they do not fit."""
    spv = {
        "network": network.name,
        "txindex": inclusion.txindex,
        "transaction": inclusion.transaction.hex(),
        "branch": _split(inclusion.branch),
        "coinbase": inclusion.coinbase.hex(),
        "coinbase_branch": _split(inclusion.coinbase_branch),
        "headers": [block.header.hex() for block in headers],
    }
    check_spv(spv, headers[0].block_id)
    return spv


def check_spv(
    spv: object, block_id: int, *, network: str | None = None, last_hash: str | None = None
) -> InChain:
    """Check that a transaction is in a block at height `block_id`, and the headers from there on.

    `network` is what the headers' network must be, by its name, and `last_hash` the hash, in display order,
    that the last one must have. What work is enough is for the caller to judge. Raises InvalidProof for any
    flaw.
    """
    parts = record(spv, _KEYS, "spv")
    on = _network(text(parts["network"], "the network of spv"))
    if network is not None and on != find_network(network):
        raise InvalidProof(f"the headers are of {on.name}, not of {network}")
    inclusion = Inclusion(
        whole(parts["txindex"], "txindex"),
        bytes.fromhex(hexadecimal(parts["transaction"], None, "transaction")),
        _join(parts["branch"], "branch"),
        bytes.fromhex(hexadecimal(parts["coinbase"], None, "coinbase")),
        _join(parts["coinbase_branch"], "coinbase_branch"),
    )
    headers = [
        read_header(block_id + place, bytes.fromhex(hexadecimal(header, 2 * HEADER_SIZE, "a header")))
        for place, header in enumerate(items(parts["headers"], "headers"))
    ]
    if not headers:
        raise InvalidProof("spv has no headers")
    try:
        _check_headers(headers, on)
        txid = check_inclusion(inclusion, headers[0], on)
    except MalformedBlock as error:
        raise InvalidProof(f"block {block_id}: {error}") from error
    last = headers[-1]
    if last_hash is not None and last.hash != hexadecimal(last_hash, 2 * _DIGEST, "the trusted block hash"):
        raise InvalidProof(f"the headers lead to the block {last.hash}, not to the trusted one, {last_hash}")
    return InChain(on.name, inclusion.txindex, txid, headers[0], last, branch_work(headers[1:]))


def _check_headers(headers: Sequence[Block], network: Network) -> None:
    if network.auxpow_chain_id is not None:
        raise MalformedBlock(
            f"headers of {network.name} cannot show their work: it may be in other chains' blocks (AuxPoW), "
            "which are not kept. Check a transaction of this chain with a node of its own"
        )
    for block in headers:
        check_work(block, network)
    for parent, block in pairwise(headers):
        if block.prev_hash != parent.hash:
            raise MalformedBlock(f"header {block.hash} is not a child of the one before it, {parent.hash}")
    check_targets(headers, network, _nothing_below)
    check_times(headers, network, _nothing_below)


def _nothing_below(_block_id: int) -> None:
    return None


def _network(name: str) -> Network:
    """Find a network by exactly the name that virtualchain has for it."""
    try:
        known = find_network(name)
    except UsageError as error:
        raise InvalidProof(f"spv is of an unknown network: {error}") from error
    if known.name != name:
        raise InvalidProof(f"spv must call the network {known.name}, not {quoted(name)}")
    return known


def _split(branch: bytes) -> list[str]:
    return [branch[at : at + _DIGEST].hex() for at in range(0, len(branch), _DIGEST)]


def _join(value: object, what: str) -> bytes:
    hashes = [hexadecimal(item, 2 * _DIGEST, f"a hash of {what}") for item in items(value, what)]
    return bytes.fromhex("".join(hashes))
