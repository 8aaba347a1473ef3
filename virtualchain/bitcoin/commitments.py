"""Check that a block's transactions are the ones that its header and its coinbase commit to.

The hash of a header does not cover the bytes that follow it. The header's Merkle root covers all of them but
the witnesses, and an output of the coinbase covers the witnesses (BIP 141).
"""

from typing import Final

from virtualchain import consensus
from virtualchain.bitcoin.block import merkle_root, split_transactions
from virtualchain.bitcoin.header import display_hash, sha256d
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

_COMMITMENT: Final = bytes.fromhex("6a24aa21a9ed")
"""The start of an output script whose next 32 bytes commit to the witnesses; the last such output counts."""


def check_commitments(header: Block, raw: bytes) -> None:
    """Compare the serialized block `raw` with the header by which it was requested; raises MalformedBlock.

    A block from which all witnesses were removed is not detected: it looks like one that never had any.
    """
    root = merkle_root(raw)
    if root != header.merkle_root:
        raise _mismatch(header, f"their Merkle root is {root}, but the header states {header.merkle_root}")
    transactions = split_transactions(raw)
    if all(transaction[4] for transaction in transactions):
        return
    outputs = read_outputs(transactions[0])[1]
    commitments = [output.script_pubkey for output in outputs if output.script_pubkey.startswith(_COMMITMENT)]
    reserved = read_inputs(transactions[0])[0].witness
    if not commitments or len(reserved) != 1:
        raise _mismatch(header, "they have witnesses, but the coinbase commits to none")
    witness_root = consensus.merkle_root(
        ["00" * 32, *(display_hash(sha256d(transaction)) for transaction in transactions[1:])]
    )
    if sha256d(bytes.fromhex(witness_root)[::-1] + bytes.fromhex(reserved[0])) != commitments[-1][6:38]:
        raise _mismatch(header, "their witnesses are not the ones that the coinbase commits to")


def _mismatch(header: Block, why: str) -> MalformedBlock:
    return MalformedBlock(
        f"block {header.block_id} ({header.hash}) does not have the transactions that it commits to: {why}; "
        "fetch it again, or from another node"
    )
