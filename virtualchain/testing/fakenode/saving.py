"""A fake node's chain as a file: all its branches, so that a node continues where another one was.

The file begins with a line that names the format, and a line of JSON: the network, the last block of the
chain, how many blocks were ever mined, the blocks that are marked as invalid, and the bytes of each block.
The blocks follow in the order of their arrival, and then the SHA-256 of all that.
"""

import hashlib
import json
import os
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.testing.chain import ChainBuilder

_FORMAT: Final = b"virtualchain chain 1\n"
_DIGEST: Final = 32


def save_chain(chain: ChainBuilder, file: Path) -> None:
    """Write a chain to a file: after a crash, the file is the former one or the new one, and whole."""
    blocks = chain.tree.blocks
    head = {
        "network": chain.network.name,
        "tip": chain.tree.best.block.hash,
        "mined": chain.mined,
        "invalid": [number for number, stored in enumerate(blocks) if stored.invalid],
        "sizes": [len(stored.raw) for stored in blocks],
    }
    parts = [_FORMAT, json.dumps(head).encode() + b"\n", *(stored.raw for stored in blocks)]
    digest = hashlib.sha256()
    draft = file.with_name(f"{file.name}.new")
    try:
        with draft.open("wb") as target:
            for part in parts:
                digest.update(part)
                target.write(part)
            target.write(digest.digest())
            target.flush()
            os.fsync(target.fileno())
        draft.replace(file)
    except OSError:
        with suppress(OSError):
            draft.unlink()  # a full disk needs the space
        raise


def load_chain(file: Path) -> ChainBuilder:
    """Read a chain that `save_chain` wrote; raises UsageError, with the reason, for any other file.

    What senders have signed and nobody has mined is not in it.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    if not content.startswith(_FORMAT):
        raise UsageError(f"{file} is not the saved chain of a fake node")
    kept, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(kept).digest() != digest:
        raise UsageError(f"{file} is damaged: its content does not fit the digest at its end")
    try:
        start = kept.index(b"\n", len(_FORMAT)) + 1
        head = json.loads(kept[len(_FORMAT) : start])
        places = accumulate(head["sizes"], initial=start)
        blocks = [kept[first:end] for first, end in pairwise(places)]
        chain = ChainBuilder.restored(head["network"], blocks, head["tip"], head["mined"])
        stored = chain.tree.blocks
        for number in head["invalid"]:
            stored[number].invalid = True
    except (MalformedBlock, UsageError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{file} does not hold a chain: {error}") from error
    return chain
