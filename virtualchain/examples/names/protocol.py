"""The registry as an app: its operations by opcode, and the hooks that see a whole block."""

from collections.abc import Sequence
from typing import Final

from virtualchain.app.builder import App
from virtualchain.examples.names import collisions
from virtualchain.examples.names.announce import Announce
from virtualchain.examples.names.explorer import PAGES
from virtualchain.examples.names.name_import import NameImport
from virtualchain.examples.names.name_preorder import NamePreorder
from virtualchain.examples.names.name_registration import NameRegistration
from virtualchain.examples.names.name_revoke import NameRevoke
from virtualchain.examples.names.name_transfer import NameTransfer
from virtualchain.examples.names.name_update import NameUpdate
from virtualchain.examples.names.namespace_preorder import NamespacePreorder
from virtualchain.examples.names.namespace_ready import NamespaceReady
from virtualchain.examples.names.namespace_reveal import NamespaceReveal
from virtualchain.examples.names.operation import Operation
from virtualchain.examples.names.params import WINDOW, Params
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json
from virtualchain.store.state import State

OPERATIONS: Final[tuple[type[Operation], ...]] = (
    NamespacePreorder,
    NamespaceReveal,
    NamespaceReady,
    NamePreorder,
    NameRegistration,
    NameImport,
    NameUpdate,
    NameTransfer,
    NameRevoke,
    Announce,
)


def make_app(params: Params, name: str = "names", magic: bytes = b"id") -> App:
    """Build the registry's app for one network's parameters; a registry of your own has another magic."""
    app = App(
        name,
        magic=magic,
        projections="projections.sql",
        version=f"1 {params.network} {params.fingerprint()}",
        first_block_id=params.first_block,
        initial_snapshots=params.initial_snapshots,
        valid_transaction_window=WINDOW,
        pages=PAGES,
    )
    operations = {kind.opcode.decode("ascii"): kind(params) for kind in OPERATIONS}
    for operation in operations.values():
        app.add(
            operation.opcode,
            parse=operation.parse,
            check=operation.check,
            commit=operation.commit,
            fields=operation.fields,
            encode=operation.encode,
        )

    @app.scan
    def scan(ops: list[Json], state: State) -> None:
        """Mark collisions before any operation of the block is accepted."""

        def judge(op: Json, listed: Sequence[Json]) -> Json:
            return operations[op["op"]].judge(op, Registry(state, params, listed))

        collisions.mark(ops, judge)

    @app.final
    def final(ops: list[Json], state: State, block_id: int) -> None:  # noqa: ARG001 - the hook's signature
        """Recompute when names expire in an epoch's first block."""
        if any(epoch.last_block == block_id - 1 for epoch in params.epochs):
            Registry(state, params).update_every_expiry()

    return app
