"""Check that a checkpoint fits its app's code and a deployment's chain, before it is applied."""

from collections.abc import Sequence

from virtualchain.app.contract import Contract
from virtualchain.checkpoint.manifest import STATE, Manifest
from virtualchain.checkpoint.verify import Verified
from virtualchain.engine.states import loads_files
from virtualchain.errors import InvalidCheckpoint, UsageError
from virtualchain.store.tape import Tape


def agreed(contracts: Sequence[Contract], verified: Verified) -> Contract:
    """Return the contract of a checkpoint's app.

    Raises UsageError if it is not among `contracts` or its declarations differ from those that the checkpoint
    was created with, InvalidCheckpoint if the checkpoint's content does not fit the app.
    """
    manifest = verified.manifest
    contract = next((item for item in contracts if item.name == manifest.app), None)
    if contract is None:
        named = ", ".join(item.name for item in contracts) or "none"
        raise UsageError(f"the checkpoint is of app {manifest.app}: name it with --app (named: {named})")
    if (contract.version, contract.fingerprint()) != (manifest.version, manifest.fingerprint):
        raise UsageError(
            f"the checkpoint is of app {manifest.app} version {manifest.version}, but version "
            f"{contract.version} here declares other rules or projections: use the code that the checkpoint "
            "was created with"
        )
    keeps_state = contract.get_state is not None
    if keeps_state != (STATE in manifest.members):
        raise InvalidCheckpoint("it does not hold the kind of state that its app keeps")
    if keeps_state and not loads_files(contract):
        raise UsageError(
            f"app {manifest.app} cannot load a state file: its get_db_state takes no filename, or it has no "
            "db_save"
        )
    as_declared = (manifest.first_block_id, verified.initial) == (
        contract.first_block_id,
        dict(contract.initial_snapshots),
    )
    # An app that migrated to this chain began on it with one hash, at the block of its own checkpoint.
    if not as_declared and list(verified.initial) != [manifest.first_block_id]:
        raise InvalidCheckpoint("its digests do not begin where its app begins")
    return contract


def refuse_chain(tape: Tape, manifest: Manifest, *, migrates: bool, rollback: int | None) -> None:
    """Raise UsageError if the deployment's chain is not the checkpoint's, as far as it stays."""
    bound = tape.deployment()
    at, expected = manifest.block_id, manifest.block_hash
    actual = _remaining_hash(tape, at, rollback)
    if migrates:
        if actual == expected:
            raise UsageError("this deployment is on the checkpoint's own chain: leave out --migrate")
        return
    if bound not in {None, (manifest.network, manifest.genesis_hash)}:
        assert bound is not None, "None is among those"
        raise UsageError(
            f"the checkpoint is of {manifest.network} (genesis {manifest.genesis_hash}), but this database "
            f"follows {bound[0]} (genesis {bound[1]}): with --migrate the app starts on this chain, after "
            f"block {at}"
        )
    if actual not in {None, expected}:
        raise UsageError(
            f"the checkpoint is of block {at} ({expected}), but the tape has another block there ({actual}). "
            "To follow the checkpoint's branch, add --rollback BLOCK, the last block on both branches, "
            "which `virtualchain status` names at a deep fork. With --migrate the app starts on this chain "
            f"instead, after block {at}"
        )


def _remaining_hash(tape: Tape, block_id: int, rollback: int | None) -> str | None:
    """Return the hash of a block, from itself or its child, if the tape has either and keeps it."""
    if rollback is not None and rollback < block_id:
        return None
    for block in tape.blocks(block_id, block_id + 1):
        if block.block_id == block_id:
            return block.hash
        return block.prev_hash if rollback is None or rollback > block_id else None
    return None
