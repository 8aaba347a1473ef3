"""What the processes of dev tell each other, and where the pages are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtualchain.model import Json

if TYPE_CHECKING:
    from virtualchain.dev.failures import Failure

HOST: Final = "127.0.0.1"
FORM: Final = "/dev"
"""The path of the form."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is loaded, and into what."""

    use: str
    """The app, as `load_app` takes it."""
    database: str
    """The URL of a new database."""
    node: str
    """The node's URL."""
    state_folder: Path
    """Where an app with a state of its own has it saved."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load has come to: a description of the app, or why there is none; and the files it read."""

    app: Json | None
    failure: "Failure | None"
    files: list[str]


@dataclass(frozen=True, slots=True)
class Built:
    """How far the app is after the blocks that the node has."""

    block_id: int
    failure: "Failure | None"
    undone: Json | None
    """What a fork undid: fork_block_id, depth, ops and rows; None without one."""
    remarks: list[str]
    """What the engine says to whoever runs it."""


@dataclass(frozen=True, slots=True)
class Writing:
    """An input to write: opcode and fields as text, or the whole payload."""

    opcode: str | None
    fields: Sequence[str]
    payload: bytes | None
    sender: bytes
    """The script that its first input spends from."""
    outputs: Sequence[tuple[int, bytes]]
    """Those after the payload's, but for the change."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that is the caller's."""

    message: str
    exit_code: int
