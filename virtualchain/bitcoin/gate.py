"""The gate: bytes from a node or a file become a block only if they are what their header says.

Everything that searches or takes blocks accepts a `CheckedBlock` and nothing else, and to make one is to
check it, so no caller can forget to.
"""

from dataclasses import InitVar, dataclass, field
from typing import Final

from virtualchain.bitcoin.compiled import merkle_rows
from virtualchain.bitcoin.difficulty import check_work
from virtualchain.bitcoin.encoding import plain_block, read_whole_header
from virtualchain.bitcoin.header import display_hash, sha256d
from virtualchain.bitcoin.inclusion import NODE_SIZE, Tree
from virtualchain.bitcoin.layout import NO_SEARCH, Layout, Search, naming_block, walk
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import push_height
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block, Verification

_OF_NODE_SIZE: Final = frozenset(
    {
        "892f44a49de6f5b212cdbea514d09e692d9fed5d897f37bcef14bd0eedebf193",
        "bbf71454857438c6dfd64c0d92a7c5360a8d8d57c9202f5806449e5b0d26b848",
        "6713d61a83e3d095582211ea8d6db452ac7561e863decba7c4046fb9f6d88aa0",
        "7f2efc6546011ad3227b2da678be0d30c7f4b08e2ce57b5edadd437f9e27a612",
        "5302e01dc4b7e34314a34c7c3347107e612b9524be684d388cd4d2ca35ff1ec9",
    }
)
"""The five transactions of that size on mainnet's chain, all up to block 419,606 (BIP 53)."""
_COMMITMENT: Final = bytes.fromhex("6a24aa21a9ed")
"""The start of an output script whose next 32 bytes commit to the witnesses; the last such output counts."""


@dataclass(frozen=True, slots=True)
class CheckedBlock:
    """A block that has passed the gate.

    `raw` is the block in the network's encoding, and then in Bitcoin's: without an AuxPoW and an MWEB block.

    It is the block of `header`, which a chain of headers led to. It is complete, and its first transaction
    and no other is a coinbase. With the extent "headers", it has proof of work that the network allows, and
    block 0 is the network's. With "merkle", its transactions are also those that the header commits to, none
    of them is as large as an inner node of the Merkle tree, its witnesses are those that the coinbase commits
    to (BIP 141), and the coinbase states the height (BIP 34). The other extents leave that to a node of one's
    own, which has checked it before. The solution of a signet's challenge is not verified. On the way, its
    outputs are searched with `search`.

    Raises MalformedBlock if `raw` is anything else.
    """

    header: Block
    raw: bytes = field(repr=False)
    network: InitVar[Network]
    extent: InitVar[Verification]
    search: InitVar[Search] = NO_SEARCH
    layout: Layout = field(init=False, repr=False, compare=False)
    """Where its transactions are, and which of them the search matches."""
    tree: Tree | None = field(init=False, repr=False, compare=False)
    """The tree that the header commits to; None unless it was compared with that."""

    def __post_init__(self, network: Network, extent: Verification, search: Search) -> None:
        header, raw = self.header, self.raw
        actual = read_whole_header(header.block_id, raw, network)
        if actual != header:
            raise MalformedBlock(f"block {header.block_id}: requested {header.hash}, got {actual.hash}")
        with naming_block(f"{header.block_id} ({header.hash})"):
            if extent != "off":
                check_header(actual, network)
            layout = walk(plain_block(raw, network), search)
            _check_coinbase(layout)
        tree = _check_commitments(header, layout, network) if extent == "merkle" else None
        object.__setattr__(self, "raw", layout.raw)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "tree", tree)


def check_header(header: Block, network: Network, *, is_stored: bool = False) -> None:
    """Check a header's work, and that block 0 is the network's, and block 1 its child.

    `is_stored` says that it comes from a tape, as `check_work` explains. Raises MalformedBlock.
    """
    check_work(header, network, is_stored=is_stored)
    for block_id, stated in ((0, header.hash), (1, header.prev_hash)):
        if header.block_id == block_id and stated != network.genesis_hash:
            raise MalformedBlock(f"the first block of {network.name} is {network.genesis_hash}, not {stated}")


def _check_coinbase(layout: Layout) -> None:
    """Check that the first transaction is a coinbase, and no other is."""
    if not layout.coinbases[0]:
        raise MalformedBlock("it begins with no coinbase")
    second = layout.coinbases.find(1, 1)
    if second > 0:
        raise MalformedBlock(f"transaction {second} is a second coinbase")


def _check_commitments(header: Block, layout: Layout, network: Network) -> Tree:
    """Compare the transactions with the header's Merkle root, and the witnesses with the coinbase's output.

    Returns the Merkle tree.

    A repeated transaction is refused: repeating a block's last ones can leave the root unchanged
    (CVE-2012-2459), and no block spends the same outputs twice. So is one that could be taken for an inner
    node of the tree, or an inner node for it.
    """
    ids, whole = layout.digests()
    for txindex, (start, outputs_end) in enumerate(zip(layout.starts, layout.outputs_ends, strict=False)):
        # The four bytes after the outputs count, the two of the marker of a witness (BIP 144) do not.
        if outputs_end - start != (NODE_SIZE - 4 if layout.raw[start + 4] else NODE_SIZE - 2):
            continue
        if display_hash(ids[32 * txindex : 32 * txindex + 32]) not in _OF_NODE_SIZE:
            raise _mismatch(
                header,
                f"transaction {txindex} has {NODE_SIZE} bytes without witness, like the tree's inner nodes",
            )
    if len({ids[at : at + 32] for at in range(0, len(ids), 32)}) != len(layout):
        raise _mismatch(header, "a transaction occurs twice")
    tree = Tree(ids, layout.transaction(0))
    if tree.root != header.merkle_root:
        raise _mismatch(
            header, f"their Merkle root is {tree.root}, but the header states {header.merkle_root}"
        )
    states_height = read_inputs(tree.coinbase)[0].script_sig.startswith(push_height(header.block_id))
    if header.block_id >= network.coinbase_height_block_id and not states_height:
        raise _mismatch(header, "the coinbase does not state this height (BIP 34)")
    _check_witnesses(header, layout, network, whole)
    return tree


def _check_witnesses(header: Block, layout: Layout, network: Network, whole: bytes) -> None:
    """Compare the witnesses with the coinbase's output; `whole` are the hashes of whole transactions."""
    coinbase = layout.transaction(0)
    outputs = read_outputs(coinbase)[1]
    commitments = [output.script_pubkey for output in outputs if output.script_pubkey.startswith(_COMMITMENT)]
    commitments = [script for script in commitments if len(script) >= len(_COMMITMENT) + 32]
    if not any(map(layout.has_witness, range(len(layout)))):
        segwit = network.segwit_block_id
        if commitments and segwit is not None and header.block_id >= segwit:
            raise _mismatch(header, "the coinbase commits to witnesses, but they were removed")
        return
    if network.segwit_block_id is None:
        raise _mismatch(header, f"they have witnesses, which {network.name} does not know")
    reserved = read_inputs(coinbase)[0].witness
    if not commitments or [len(item) for item in reserved] != [32]:
        raise _mismatch(header, "they have witnesses, but the coinbase commits to none")
    witness_root = merkle_rows(bytes(32) + whole[32:])[-32:]
    if sha256d(witness_root + reserved[0]) != commitments[-1][6:38]:
        raise _mismatch(header, "their witnesses are not the ones that the coinbase commits to")


def _mismatch(header: Block, why: str) -> MalformedBlock:
    return MalformedBlock(
        f"block {header.block_id} ({header.hash}) does not have the transactions that it commits to: {why}; "
        "fetch it again, or from another node"
    )
