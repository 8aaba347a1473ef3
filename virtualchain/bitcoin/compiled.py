"""Chooses who works on every byte of a block, and writes addresses: compiled modules if there are any.

`.ci/compile.py` makes `_walk` of `walk.py`, `_addresses` of `addresses.py`, `_hashes` of `hashes.c`, `_rows`
of `rows.c`, and `_shown` of `shown.c`. Otherwise the first two sources are interpreted and `hashes.py` is
used, with the same answers, and an import checks, and a callback sees, what Python alone decodes: also if
VIRTUALCHAIN_COMPILED is 0 in the environment, if a compiled module was made from another version of its
source, or if the processor cannot run it.
"""

import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from virtualchain.bitcoin import addresses, hashes, walk

_FORMS: Final = ("curve.h", "forms.h", "sha.h", "spends.h")
SOURCES: Final = {
    "_walk": ("walk.py",),
    "_addresses": ("addresses.py",),
    "_hashes": ("hashes.c", "sha.h"),
    "_rows": ("rows.c", *_FORMS),
    "_shown": ("shown.c", *_FORMS),
}
"""The compiled modules, by name, and what each is made from."""


def find_compiled(name: str) -> Any | None:  # noqa: ANN401 - a module
    """Import a compiled module; None if there is none of this version that runs here."""
    try:
        module = import_module(f"virtualchain.bitcoin.{name}")
        source = b"".join(Path(__file__).with_name(file).read_bytes() for file in SOURCES[name])
    except (ImportError, OSError):
        return None
    return module if hashlib.sha256(source).hexdigest() == module.SOURCE else None


Forms = tuple[bytes, bytes, str, bool, int]
"""What compiled code needs to know of a network: see `Network.forms`."""

_is_allowed: Final = os.environ.get("VIRTUALCHAIN_COMPILED") != "0"
_walk: Any = (find_compiled("_walk") if _is_allowed else None) or walk
_addresses: Any = (find_compiled("_addresses") if _is_allowed else None) or addresses
_hashes: Any = (find_compiled("_hashes") if _is_allowed else None) or hashes
_rows: Any = find_compiled("_rows") if _is_allowed else None
_shown: Any = find_compiled("_shown") if _is_allowed else None

IS_COMPILED: Final[bool] = _walk.IS_COMPILED
"""Whether blocks are walked over by compiled code."""
walk_block = _walk.walk_block
output_scripts = _walk.output_scripts
outpoints = _walk.outpoints
skip_spent = _walk.skip_spent
skip_undo = _walk.skip_undo
write_address = _addresses.write_address
write_base58 = _addresses.write_base58
hash_transactions = _hashes.hash_transactions
merkle_rows = _hashes.merkle_rows
consensus_hash = _hashes.consensus_hash
check_rows: Callable[..., tuple[int, bytes]] | None = None if _rows is None else _rows.check_rows
"""Checks rows of inputs that have the usual forms, for an import; None if it is not compiled."""


def can_spend(raw: bytes, spent: bytes, network: Forms) -> bool:
    """Return whether a transaction can spend these outputs, and shows usual keys; False: that is not sure."""
    return _shown is not None and bool(_shown.can_spend(raw, spent, network))


def show_senders(raw: bytes, spent: bytes, network: Forms) -> tuple[tuple[Any, ...], ...] | None:
    """Return the fields of a transaction's senders, up to `sighash`; None if one has an unusual form."""
    return None if _shown is None else _shown.show_senders(raw, spent, network)


def show_outputs(raw: bytes, network: Forms) -> tuple[tuple[Any, ...], ...] | None:
    """Return the fields of a transaction's outputs; None if one has an unusual form."""
    return None if _shown is None else _shown.show_outputs(raw, network)
