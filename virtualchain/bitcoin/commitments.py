"""Whether a block's transactions are those that its header, and its coinbase, commit to.

A header's hash says nothing of the bytes behind it. Its Merkle root does, for all but the witnesses, and for
these an output of the coinbase does (BIP 141).
"""

from typing import Final

from virtualchain import consensus
from virtualchain.bitcoin.block import merkle_root, split_transactions
from virtualchain.bitcoin.header import display, sha256d
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

_COMMITMENT: Final = bytes.fromhex("6a24aa21a9ed")
"""With this an output begins whose next 32 bytes commit to the witnesses; the last one counts."""


def check_commitments(header: Block, raw: bytes) -> None:
    """Compare the serialised block `raw` with the header that asked for it; raises MalformedBlock.

    That all witnesses were taken out cannot be seen: there is no mark of blocks that never had any.
    """
    root = merkle_root(raw)
    if root != header.merkle_root:
        raise _other(header, f"their Merkle root is {root}, and the header says {header.merkle_root}")
    transactions = split_transactions(raw)
    if all(transaction[4] for transaction in transactions):
        return
    outputs = read_outputs(transactions[0])[1]
    stated = [found.script_pubkey for found in outputs if found.script_pubkey.startswith(_COMMITMENT)]
    reserved = read_inputs(transactions[0])[0].witness
    if not stated or len(reserved) != 1:
        raise _other(header, "they have witnesses, and the coinbase commits to none")
    witness_root = consensus.merkle_root(
        ["00" * 32, *(display(sha256d(transaction)) for transaction in transactions[1:])]
    )
    if sha256d(bytes.fromhex(witness_root)[::-1] + bytes.fromhex(reserved[0])) != stated[-1][6:38]:
        raise _other(header, "their witnesses are not those that the coinbase commits to")


def _other(header: Block, why: str) -> MalformedBlock:
    return MalformedBlock(
        f"block {header.block_id} ({header.hash}) has other transactions than its own: {why}; "
        "fetch it anew, or from another node"
    )
