"""Check any proof file, with nothing but the hash that its receiver trusts."""

from dataclasses import dataclass

from virtualchain.bitcoin.networks import network as find_network
from virtualchain.bitcoin.spv import InChain, check_spv
from virtualchain.consensus.proof_file import read_proof
from virtualchain.consensus.proofs import FORMAT as OP_PROOF
from virtualchain.consensus.proofs import ProvenOps, check_ops
from virtualchain.consensus.row_proofs import FORMAT as ROW_PROOF
from virtualchain.consensus.row_proofs import RowClaim, check_row_proof
from virtualchain.errors import InvalidProof, quoted
from virtualchain.model import Json


@dataclass(frozen=True, slots=True)
class Known:
    """What a receiver knows besides the trusted hash; a proof that says otherwise is refused."""

    app: str | None = None
    block_id: int | None = None
    """The block of the trusted hash."""
    network: str | None = None
    """The network of the headers, if the proof has any, or of the state."""
    last_hash: str | None = None
    """The hash of a block, in display order, to which the headers of the proof must lead."""
    absent: bytes | None = None
    """An op that the proof must show not to be in its block."""
    table: str | None = None
    """The table of a row proof."""
    key: tuple[str, ...] | None = None
    """The key of a row proof, as its texts."""


NOTHING = Known()


@dataclass(frozen=True, slots=True)
class CheckedOps:
    """What an op proof shows, and of the op's transaction, if it shows that."""

    proven: ProvenOps
    in_chain: InChain | None


def check_file(data: bytes, trusted_hash: str, known: Known = NOTHING) -> CheckedOps | RowClaim:
    """Check the proof in a file, of whichever kind; raises InvalidProof for any flaw."""
    return check_proof(read_proof(data), trusted_hash, known)


def check_proof(proof: Json, trusted_hash: str, known: Known = NOTHING) -> CheckedOps | RowClaim:
    """Check a proof, as `read_proof` returns it, of whichever kind; raises InvalidProof for any flaw."""
    match proof.get("format"):
        case str(form) if form == OP_PROOF:
            return _check_ops(proof, trusted_hash, known)
        case str(form) if form == ROW_PROOF:
            return _check_row(proof, trusted_hash, known)
        case form:
            raise InvalidProof(f"the proof has the format {quoted(form)}, which this version does not read")


def _check_ops(proof: Json, trusted_hash: str, known: Known) -> CheckedOps:
    if known.table is not None or known.key is not None:
        raise InvalidProof("the proof is of ops, not of a row")
    proven = check_ops(proof, trusted_hash, app=known.app, block_id=known.block_id)
    in_chain = None
    if proven.spv is not None:
        in_chain = check_spv(proven.spv, proven.block_id, network=known.network, last_hash=known.last_hash)
    elif known.last_hash is not None:
        raise InvalidProof("the proof shows no headers that could lead to the trusted block")
    if known.absent is not None:
        if proven.index is not None:
            raise InvalidProof("the proof is that of an op: what is absent is shown by a block's whole list")
        if known.absent in proven.ops:
            raise InvalidProof(f"the op is not absent: it is among those of block {proven.block_id}")
    return CheckedOps(proven, in_chain)


def _check_row(proof: Json, trusted_root: str, known: Known) -> RowClaim:
    if known.absent is not None or known.last_hash is not None:
        raise InvalidProof("the proof is of a row: it shows neither ops nor headers")
    claim = check_row_proof(proof, trusted_root)
    genesis_hash = None if known.network is None else find_network(known.network).genesis_hash
    for what, expected, shown in (
        ("app", known.app, claim.app),
        ("block", known.block_id, claim.block_id),
        ("table", known.table, claim.table),
        ("key", known.key, tuple(claim.key.values())),
        ("genesis block", genesis_hash, claim.genesis_hash),
    ):
        if expected is not None and expected != shown:
            raise InvalidProof(f"the proof is of the {what} {quoted(shown)}, not {quoted(expected)}")
    return claim
