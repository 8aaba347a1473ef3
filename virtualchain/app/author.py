"""Where an app is written: the file and the line of its author's code, for messages and for paths."""

import dataclasses
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def author() -> tuple[str, int]:
    """Return the file and the line of the code that declares something: the nearest outside of this room."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as namedtuple does
    while frame is not None and _is_ours(str(frame.f_globals.get("__name__"))):
        frame = frame.f_back
    assert frame is not None, "somebody calls it"
    return frame.f_code.co_filename, frame.f_lineno


def _is_ours(module: str) -> bool:
    return module.startswith(f"{__package__}.") or module == dataclasses.__name__
