r"""The digests of a checkpoint's content: state hash and state root, and its series of consensus hashes.

Rows are lines as `COPY` writes them: columns between tabs, `\N` for null, and the few escapes that COPY
itself uses. Other spellings of the same row are refused, so that a set of rows has one form in bytes.
"""

import re
from typing import Final

from virtualchain.checkpoint.manifest import Manifest
from virtualchain.consensus.row_proofs import state_root
from virtualchain.consensus.series import Series
from virtualchain.errors import InvalidCheckpoint, quoted
from virtualchain.model import Json

_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_ESCAPED: Final = re.compile(r"\\(.?)", re.DOTALL)
_RAW: Final = re.compile("[\b\f\r\v\0]")
"""What COPY never writes unescaped, apart from tab and newline, which are separators."""
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,9}", re.ASCII)


def read_row(line: bytes) -> list[str | None]:
    """Return the columns of a line, null as None; raises ValueError for what COPY does not write."""
    text = line.decode("utf-8").removesuffix("\n")
    if _RAW.search(text):
        raise ValueError("a control character is not escaped")
    if "\\" not in text:
        return list(text.split("\t"))
    return [_column(column) if "\\" in column else column for column in text.split("\t")]


def _column(text: str) -> str | None:
    return None if text == "\\N" else _ESCAPED.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    character = _ESCAPES.get(match[1])
    if character is None:
        raise ValueError(f"there is no escape {match[0]}")
    return character


def is_block(text: str | None, blocks: range) -> bool:
    """Return whether the last column of a row is one of these blocks, as COPY writes it."""
    return text is not None and _NUMBER.fullmatch(text) is not None and int(text) in blocks


def check_block(text: str | None, blocks: range) -> None:
    """Raise ValueError if the last column of a row is not one of these blocks, as COPY writes it."""
    if not is_block(text, blocks):
        raise ValueError(f"its block is not one from {blocks.start} to {blocks.stop - 1}: {quoted(text)}")


def computed_root(manifest: Manifest, tables: list[Json]) -> str:
    """Compute the state root of what a manifest describes, from what `RowDigest` says of its tables."""
    state = {
        "app": manifest.app,
        "block_hash": manifest.block_hash,
        "block_id": manifest.block_id,
        "consensus_hash": manifest.consensus_hash,
        "genesis_hash": manifest.genesis_hash,
        "state_hash": manifest.state_hash,
        "tables": tables,
    }
    return state_root(state)


class ConsensusSeries(Series):
    """The consensus hashes that a checkpoint holds; each must follow from those before it."""

    def add(self, block_id: int, ops_hash: str | None, consensus_hash: str) -> None:
        """Add a block's digests; raises InvalidCheckpoint if they do not follow from those before.

        Initial ones have no ops hash.
        """
        before = self.last
        if before is not None and block_id <= before[0]:
            raise InvalidCheckpoint(f"its digests of block {block_id} come after those of block {before[0]}")
        if ops_hash is None:
            if self.has_begun:
                raise InvalidCheckpoint(f"it has no ops hash of block {block_id}")
            self.initial[block_id] = consensus_hash
            return
        if block_id != self.following:
            raise InvalidCheckpoint(
                f"it has digests of block {block_id} in the place of those of block {self.following}"
            )
        computed = self.compute(ops_hash)
        if computed != consensus_hash:
            raise InvalidCheckpoint(
                f"the consensus hash of block {block_id} is {computed} by its ops hash and the earlier "
                f"hashes, but its digests say {consensus_hash}"
            )
        self.append(consensus_hash)
