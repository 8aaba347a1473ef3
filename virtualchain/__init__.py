"""Replicated state machines on a blockchain, with PostgreSQL as event store.

The public names, and nothing else: an app is written with `App`, `Rejected` and `State`, or as any
module or class with the published callbacks, and run by `StateEngine`.

Each is imported when it is first asked for: a command that only prints its help, or a pytest run that
only looks at our plugin, waits for no database driver.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtualchain.app import App, Rejected
    from virtualchain.bitcoin.payload import first_op_return, last_op_return
    from virtualchain.errors import VirtualchainError
    from virtualchain.indexer import StateEngine
    from virtualchain.store.state import State

    __version__: str

__all__ = [
    "App",
    "Rejected",
    "State",
    "StateEngine",
    "VirtualchainError",
    "__version__",
    "first_op_return",
    "last_op_return",
]

_HOMES = {
    "App": "virtualchain.app",
    "Rejected": "virtualchain.app",
    "State": "virtualchain.store.state",
    "StateEngine": "virtualchain.indexer",
    "VirtualchainError": "virtualchain.errors",
    "first_op_return": "virtualchain.bitcoin.payload",
    "last_op_return": "virtualchain.bitcoin.payload",
}

if not TYPE_CHECKING:  # or every name would pass the type checker

    def __getattr__(name: str) -> object:
        """Import a public name's module, and keep the name."""
        if name == "__version__":
            value = _version()
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slower than all the rest

    try:
        return version("virtualchain")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
