"""AuxPoW: the work of a block that was mined together with a block of another chain, its parent.

The parent's coinbase commits to the block's id: to the root of a tree of chains, in which each chain has its
place. The parent's header has the work, and its Merkle root leads to the coinbase. The rules are those of
Namecoin Core's and Dogecoin Core's `auxpow.cpp`.
"""

from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.header import HEADER_SIZE, sha256d
from virtualchain.bitcoin.parameters import Network
from virtualchain.bitcoin.transaction import read_count, read_inputs, skip_body
from virtualchain.errors import MalformedBlock

HAS_AUXPOW: Final = 0x100
"""The bit of a header's version that announces an AuxPoW."""
MAGIC: Final = bytes.fromhex("fabe6d6d")
"""What may stand in front of the root in the parent's coinbase."""
_DEEPEST: Final = 30
"""Levels of the tree of chains."""
_LATEST: Final = 20
"""Bytes of the parent's coinbase within which a root without the magic begins."""
_DIGEST: Final = 32
_LARGEST_COINBASE: Final = 1_000_000
"""Bytes: a block has no larger transaction without its witness."""


def has_auxpow(header: bytes, at: int = 0) -> bool:
    """Check whether the header at `at` announces an AuxPoW; raises MalformedBlock if it ends early."""
    if len(header) < at + 4:
        raise MalformedBlock("a header ends too early")
    return bool(_version(header, at) & HAS_AUXPOW)


def chain_id(version: int) -> int:
    """Return the number of the chain that a header's version states."""
    return version >> 16


def auxpow_end(raw: bytes, at: int) -> int:
    """Find where the AuxPoW at `at` ends; raises MalformedBlock if the bytes end before."""
    return _read(raw, at)[1]


@dataclass(frozen=True, slots=True)
class AuxPow:
    """The parts of an AuxPoW."""

    coinbase: bytes
    """The parent's first transaction, without witness."""
    branch: bytes
    """The branch from it to the parent's Merkle root, 32 bytes a level."""
    index: int
    """The place of that transaction, as it is stated."""
    chain_branch: bytes
    """The branch from the block's id to the root that the coinbase commits to."""
    chain_index: int
    """The chain's place in the tree, as it is stated."""
    parent: bytes
    """The parent's header, 80 bytes."""


def check_version(version: int, block_id: int, network: Network) -> None:
    """Check what a header's version says about its chain, and whether it may have an AuxPoW.

    `block_id` is negative if it is not known. Raises MalformedBlock.
    """
    is_own = version in network.legacy_versions or chain_id(version) == network.auxpow_chain_id
    if network.strict_chain_id and not is_own:
        raise MalformedBlock(
            f"the version {version:#010x} is of the chain {chain_id(version)}, and {network.name} is "
            f"{network.auxpow_chain_id}"
        )
    if version & HAS_AUXPOW and 0 <= block_id < network.auxpow_block_id:
        raise MalformedBlock(f"it has an AuxPoW, as blocks have from block {network.auxpow_block_id} on")


def parent_of(block_hash: str, raw: bytes, network: Network) -> bytes:
    """Check that an AuxPoW commits to a block, and return the header of its parent, which has the work.

    Raises MalformedBlock, which says what does not fit.
    """
    auxpow, end = _read(raw, 0)
    if end != len(raw):
        raise MalformedBlock(f"{len(raw) - end} bytes follow its AuxPoW")
    if network.auxpow_index_is_zero and auxpow.index:
        raise MalformedBlock(f"its AuxPoW is in transaction {auxpow.index} of the parent, not the coinbase")
    if network.strict_chain_id and chain_id(_version(auxpow.parent)) == network.auxpow_chain_id:
        raise MalformedBlock("the parent of its AuxPoW is of the same chain")
    if len(auxpow.chain_branch) > _DEEPEST * _DIGEST:
        raise MalformedBlock(f"the chain branch of its AuxPoW is longer than {_DEEPEST}")
    # Namecoin Core ignores the index, as the transaction has to be the coinbase.
    root = _lead(sha256d(auxpow.coinbase), auxpow.branch, 0)
    if root != auxpow.parent[36:68]:
        raise MalformedBlock("its AuxPoW's branch does not lead to the Merkle root of the parent")
    _check_commitment(block_hash, auxpow, network)
    return auxpow.parent


def _check_commitment(block_hash: str, auxpow: AuxPow, network: Network) -> None:
    assert network.auxpow_chain_id is not None, "only such networks have an AuxPoW"
    height = len(auxpow.chain_branch) // _DIGEST
    script = read_inputs(auxpow.coinbase)[0].script_sig
    # The root stands there as it is displayed.
    root = _lead(bytes.fromhex(block_hash)[::-1], auxpow.chain_branch, auxpow.chain_index)[::-1]
    at = script.find(root)
    if at < 0:
        raise MalformedBlock("the coinbase of its AuxPoW does not commit to it")
    magic = script.find(MAGIC)
    if magic >= 0:
        if script.find(MAGIC, magic + 1) >= 0:
            raise MalformedBlock("the coinbase of its AuxPoW has two merged mining headers")
        if magic + len(MAGIC) != at:
            raise MalformedBlock("the merged mining header of its AuxPoW is not in front of the root")
    elif at > _LATEST:
        raise MalformedBlock(f"the root of its AuxPoW begins after the first {_LATEST} bytes of the coinbase")
    sizes = script[at + _DIGEST : at + _DIGEST + 8]
    if len(sizes) < 8:
        raise MalformedBlock("the coinbase of its AuxPoW does not state the size of the tree of chains")
    size, nonce = (int.from_bytes(sizes[place : place + 4], "little") for place in (0, 4))
    if size != 1 << height:
        raise MalformedBlock(f"the tree of chains of its AuxPoW is stated to have {size} places")
    slot = _slot(nonce, network.auxpow_chain_id, height)
    if auxpow.chain_index != slot:
        raise MalformedBlock(
            f"its AuxPoW has place {auxpow.chain_index} in the tree of chains, and its chain has {slot}"
        )


def _slot(nonce: int, number: int, height: int) -> int:
    """Compute a chain's place in a tree of 2^height, as a pseudorandom number of 32 bits."""
    number = (nonce * 1103515245 + 12345 + number) * 1103515245 + 12345
    return (number & 0xFFFFFFFF) % (1 << height)


def _lead(node: bytes, branch: bytes, index: int) -> bytes:
    """Follow a branch from a node to its root."""
    for at in range(0, len(branch), _DIGEST):
        sibling = branch[at : at + _DIGEST]
        node = sha256d(sibling + node if index & 1 else node + sibling)
        index >>= 1
    return node


def _read(raw: bytes, at: int) -> tuple[AuxPow, int]:
    """Read the AuxPoW at `at`; returns it and where it ends."""
    try:
        coinbase, at = _read_coinbase(raw, at)
        at += _DIGEST  # the parent's hash, which nothing covers
        branch, at = _read_branch(raw, at)
        index, at = _signed(raw, at), at + 4
        chain_branch, at = _read_branch(raw, at)
        chain_index, at = _signed(raw, at), at + 4
    except IndexError as error:
        raise MalformedBlock("its bytes end inside the AuxPoW") from error
    end = at + HEADER_SIZE
    if end > len(raw):
        raise MalformedBlock("its bytes end inside the AuxPoW")
    return AuxPow(coinbase, branch, index, chain_branch, chain_index, raw[at:end]), end


def _read_coinbase(raw: bytes, at: int) -> tuple[bytes, int]:
    start = at
    inputs, at = skip_body(raw, start + 4)
    if not inputs:
        raise MalformedBlock("the coinbase of its AuxPoW has no input, or is written with its witness")
    at += 4
    if at > len(raw):
        raise IndexError("the coinbase ends too early")
    if at - start > _LARGEST_COINBASE:
        raise MalformedBlock(f"the coinbase of its AuxPoW has {at - start:,} bytes, more than fit in a block")
    return raw[start:at], at


def _read_branch(raw: bytes, at: int) -> tuple[bytes, int]:
    count, at = read_count(raw, at)
    end = at + count * _DIGEST
    if end > len(raw):
        raise IndexError("the branch ends too early")
    return raw[at:end], end


def _signed(raw: bytes, at: int) -> int:
    if at + 4 > len(raw):
        raise IndexError("a number ends too early")
    return int.from_bytes(raw[at : at + 4], "little", signed=True)


def _version(header: bytes, at: int = 0) -> int:
    return int.from_bytes(header[at : at + 4], "little", signed=True)
