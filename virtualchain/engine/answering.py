"""The lookups of consensus hashes that `StateEngine` has, for programs and for apps' callbacks."""

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from virtualchain.engine.deployment import Deployment
from virtualchain.engine.lookups import lookups_of_callback
from virtualchain.engine.machine import Machine
from virtualchain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_Engine = TypeVar("_Engine", bound="Answering")


def unless_only_an_app(
    initialize: "Callable[Concatenate[_Engine, _P], None]",
) -> "Callable[Concatenate[_Engine, _P], None]":
    """Do nothing for an object whose callbacks another engine calls, whatever its class passes on."""

    @wraps(initialize)
    def guarded(self: _Engine, /, *args: _P.args, **options: _P.kwargs) -> None:
        if not self._is_only_an_app:
            initialize(self, *args, **options)

    return guarded


class Answering:
    """What an engine answers of its apps: consensus hashes, and how far they are.

    A running callback gets what its own app's log had before the block in progress.
    """

    _is_only_an_app = False
    _deployment: Deployment

    def get_consensus_at(self, block_id: int, app: str | None = None) -> str | None:
        """Return an app's consensus hash (32 hex digits) at a block; None if it has none there.

        A callback that asks for it, or for what the next three methods return, learns nothing of the block in
        progress, and asks about its own app only.
        """
        lookups = lookups_of_callback(app)
        if lookups is not None:
            return lookups.consensus_at(block_id)
        return self._machine(app).log.consensus_at([block_id]).get(block_id)

    def get_valid_consensus_hashes(self, block_id: int, app: str | None = None) -> list[str]:
        """Return the hashes that are fresh at a block: of the last S blocks and its own, oldest first."""
        lookups = lookups_of_callback(app)
        if lookups is not None:
            return lookups.valid_hashes(block_id)
        machine = self._machine(app)
        return machine.log.consensus_between(block_id - machine.contract.window, block_id)

    def is_consensus_hash_valid(self, block_id: int, consensus_hash: str, app: str | None = None) -> bool:
        """Return whether a hash is fresh at a block."""
        lookups = lookups_of_callback(app)
        if lookups is not None:
            return lookups.is_valid(block_id, consensus_hash)
        return consensus_hash in self.get_valid_consensus_hashes(block_id, app)

    def get_current_block(self, app: str | None = None) -> int:
        """Return the last block that an app was advanced to, or the one before its first."""
        lookups = lookups_of_callback(app)
        return self._machine(app).cursor if lookups is None else lookups.last

    def _machine(self, app: str | None) -> Machine:
        if not hasattr(self, "_deployment"):
            raise UsageError(
                "the app has no blocks yet: ask in a callback of a block, or of a running engine"
            )
        machines = [item for item in self._deployment.apps.machines if app in {None, item.contract.name}]
        if len(machines) == 1:
            return machines[0]
        names = ", ".join(item.contract.name for item in self._deployment.apps.machines)
        raise UsageError(
            f"name one app of {names}" if app is None else f"there is no app {app} among {names}"
        )
