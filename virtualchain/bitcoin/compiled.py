"""Chooses how the walks of `walk.py` run: compiled if they have been, else interpreted.

The answers are the same. They are also interpreted if VIRTUALCHAIN_COMPILED is 0 in the environment, or if
the compiled module was made from another version of the source.
"""

import hashlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from virtualchain.bitcoin import walk as interpreted

COMPILED_NAME: Final = "virtualchain.bitcoin._walk"


def find_compiled() -> Any | None:  # noqa: ANN401 - a module
    """Import the compiled module; None if there is none of this source."""
    try:
        module = import_module(COMPILED_NAME)
        source = Path(interpreted.__file__).read_bytes()
    except (ImportError, OSError):
        return None
    return module if hashlib.sha256(source).hexdigest() == module.SOURCE else None


_chosen: Any = (os.environ.get("VIRTUALCHAIN_COMPILED") != "0" and find_compiled()) or interpreted
IS_COMPILED: Final[bool] = _chosen.IS_COMPILED
walk_block = _chosen.walk_block
skip_spent = _chosen.skip_spent
skip_undo = _chosen.skip_undo
