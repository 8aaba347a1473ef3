"""What must hold between a checkpoint, its app's code and a deployment's chain, before it is applied."""

from collections.abc import Sequence

from virtualchain.app.contract import Contract
from virtualchain.checkpoint.manifest import STATE, Manifest
from virtualchain.checkpoint.verify import Verified
from virtualchain.engine.states import loads_files
from virtualchain.errors import InvalidCheckpoint, UsageError
from virtualchain.store.tape import Tape


def agreed(contracts: Sequence[Contract], verified: Verified) -> Contract:
    """Give the contract of a checkpoint's app.

    Raises UsageError where it is not among them or declares something else than the checkpoint's did,
    InvalidCheckpoint where the checkpoint is not of such an app.
    """
    manifest = verified.manifest
    contract = next((item for item in contracts if item.name == manifest.app), None)
    if contract is None:
        named = ", ".join(item.name for item in contracts) or "none"
        raise UsageError(f"the checkpoint is of app {manifest.app}: name it with --app (named: {named})")
    if (contract.version, contract.fingerprint()) != (manifest.version, manifest.fingerprint):
        raise UsageError(
            f"the checkpoint is of app {manifest.app} version {manifest.version}, and version "
            f"{contract.version} here declares other rules or projections: use the code that it was made with"
        )
    keeps_state = contract.get_state is not None
    if keeps_state != (STATE in manifest.members):
        raise InvalidCheckpoint("it does not hold the kind of state that its app keeps")
    if keeps_state and not loads_files(contract):
        raise UsageError(
            f"app {manifest.app} cannot be given a saved state: its get_db_state takes no filename, or it "
            "has no db_save"
        )
    as_declared = (manifest.first_block_id, verified.initial) == (
        contract.first_block_id,
        dict(contract.initial_snapshots),
    )
    # An app that came from another chain began there with one hash, at the block of its own checkpoint.
    if not as_declared and list(verified.initial) != [manifest.first_block_id]:
        raise InvalidCheckpoint("its digests do not begin where its app begins")
    return contract


def refuse_chain(tape: Tape, manifest: Manifest, *, migrates: bool, rollback: int | None) -> None:
    """Raise UsageError where the deployment's chain is not the checkpoint's, or is not to be undone so."""
    bound = tape.deployment()
    at, wanted = manifest.block_id, manifest.block_hash
    found = _found(tape, at, rollback)
    if migrates:
        if found == wanted:
            raise UsageError("this deployment is on the checkpoint's own chain: leave out --migrate")
        return
    if bound not in {None, (manifest.network, manifest.genesis_hash)}:
        assert bound is not None, "None is among those"
        raise UsageError(
            f"the checkpoint is of {manifest.network} (genesis {manifest.genesis_hash}), and this database "
            f"follows {bound[0]} (genesis {bound[1]}): with --migrate the app begins here, behind block {at}"
        )
    if found not in {None, wanted}:
        raise UsageError(
            f"the checkpoint is of block {at} ({wanted}), and the tape has another block there ({found}). "
            "If the checkpoint's branch is the one to follow, add --rollback BLOCK: the last block that both "
            "branches have, as `virtualchain status` names it at a deep fork. With --migrate the app begins "
            f"on this chain instead, behind block {at}"
        )


def _found(tape: Tape, block_id: int, rollback: int | None) -> str | None:
    """Give the hash of the tape's block there, if it has one or the next one, and neither is to go."""
    if rollback is not None and rollback < block_id:
        return None
    for block in tape.blocks(block_id, block_id + 1):
        if block.block_id == block_id:
            return block.hash
        return block.prev_hash if rollback is None or rollback > block_id else None
    return None
