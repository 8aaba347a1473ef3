"""The manifest of a checkpoint: its app, chain and block, and the digests of its members.

A signature signs the manifest without the signatures, as JSON with sorted keys. That contains the digest of
each member, so a signature covers the whole file.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from virtualchain.errors import InvalidCheckpoint, quoted
from virtualchain.model import Json

FORMAT: Final = "virtualchain-checkpoint-3"
CHUNKED: Final = "virtualchain-checkpoint-4"
"""The format of a published checkpoint, whose manifest names the chunks of each member."""
_EARLIER: Final = {
    "virtualchain-checkpoint-1": "does not say which block wrote each row",  # which reducers can see
    "virtualchain-checkpoint-2": "has no state root",
}
"""Former formats, and what each is missing."""
NAME: Final = "manifest.json"
SNAPSHOTS: Final = "snapshots"
"""The member with the app's digests: block_id, ops hash, consensus hash, state hash, by block."""
STATE: Final = "state"
"""The member with the state file of an opaque app."""
LONGEST: Final = 2**24
"""The longest manifest, in bytes."""
LARGEST_CHUNK: Final = 2**22
"""The largest chunk, in bytes."""
_HIGHEST: Final = 2**31 - 1
_LONGEST_NAME: Final = 63


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a member's bytes: its size in bytes and its digest."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Content:
    """A member: its size in bytes, its digest, its number of rows (0 for a state file), and its chunks.

    The chunks follow each other without a gap. They are None in a file that was not made to be published.
    """

    size: int
    sha256: str
    rows: int = 0
    chunks: tuple[Chunk, ...] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A projection: its name, the app's own columns and those of its key in order, and its rows' member.

    The rows are in the order of their keys' texts. Each has a further column: the block that last wrote it.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    member: str


@dataclass(frozen=True, slots=True)
class Signature:
    """An ed25519 signature of the manifest's signed bytes; both values are hex."""

    public_key: str
    signature: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint's manifest; hashes are lower-case hex in display order."""

    app: str
    version: str
    fingerprint: str
    network: str
    genesis_hash: str
    block_id: int
    block_hash: str
    consensus_hash: str
    state_hash: str
    state_root: str | None
    """The root of all rows (`docs/protocol/proofs.md`); None for a state file."""
    first_block_id: int
    """The lowest block whose consensus hash is mixed into later ones."""
    members: Mapping[str, Content]
    """All members of the file except the manifest."""
    tables: Sequence[Table] = ()
    signatures: Sequence[Signature] = ()

    @property
    def blocks(self) -> range:
        """The blocks that may have written its rows."""
        return range(self.first_block_id, self.block_id + 1)

    def as_dict(self) -> Json:
        """Return the manifest as its JSON document."""
        document = {"format": CHUNKED if self.has_chunks else FORMAT, **asdict(self)}
        if not self.has_chunks:
            for member in document["members"].values():
                del member["chunks"]
        return document

    @property
    def has_chunks(self) -> bool:
        """Whether it names the chunks of its members, as a published one does."""
        return any(member.chunks is not None for member in self.members.values())

    @property
    def ordered_members(self) -> list[str]:
        """The names of all members but the manifest, in the order of the file."""
        return [
            SNAPSHOTS,
            *([STATE] if STATE in self.members else [table.member for table in self.tables]),
        ]

    def signed_bytes(self) -> bytes:
        """Return what a signature signs."""
        signed = self.as_dict()
        del signed["signatures"]
        return _canonical(signed)

    def to_bytes(self) -> bytes:
        """Return the content of the manifest's member."""
        return json.dumps(self.as_dict(), indent=1, sort_keys=True).encode() + b"\n"

    def with_signatures(self, signatures: Sequence[Signature]) -> "Manifest":
        """Return the same manifest with these signatures."""
        return replace(self, signatures=tuple(signatures))


def read_manifest(content: bytes) -> Manifest:
    """Read a manifest; raises InvalidCheckpoint, which names the field, if it is invalid."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"its manifest is not JSON: {error}") from error
    named = document.get("format") if isinstance(document, dict) else None
    former = named if isinstance(named, str) else ""
    if former not in {FORMAT, CHUNKED}:
        if former in _EARLIER:
            raise InvalidCheckpoint(
                f"it has the format {former}, which {_EARLIER[former]}: have it created again by this "
                "version of virtualchain"
            )
        raise InvalidCheckpoint(f"its manifest does not have the format {FORMAT} or {CHUNKED}")
    fields = Fields(document, "its manifest's")
    has_chunks = document["format"] == CHUNKED
    manifest = Manifest(
        app=fields.text("app"),
        version=fields.text("version"),
        fingerprint=fields.hex("fingerprint", 64),
        network=fields.text("network"),
        genesis_hash=fields.hex("genesis_hash", 64),
        block_id=fields.number("block_id"),
        block_hash=fields.hex("block_hash", 64),
        consensus_hash=fields.hex("consensus_hash", 32),
        state_hash=fields.hex("state_hash", 64),
        state_root=None if document.get("state_root", "") is None else fields.hex("state_root", 64),
        first_block_id=fields.number("first_block_id"),
        members={
            name: _content(name, item, has_chunks=has_chunks)
            for name, item in fields.take("members", dict).items()
        },
        tables=tuple(map(_table, fields.take("tables", list))),
        signatures=tuple(map(_signature, fields.take("signatures", list))),
    )
    if manifest.to_bytes() != content:
        raise InvalidCheckpoint(
            "its manifest has fields that its format does not, or is not in canonical form"
        )
    return manifest


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _content(name: str, item: object, *, has_chunks: bool) -> Content:
    fields = Fields(item, f"member {quoted(name)}:")
    chunks = tuple(_chunk(name, chunk) for chunk in fields.take("chunks", list)) if has_chunks else None
    size = fields.number("size", 2**63)
    if chunks is not None and sum(chunk.size for chunk in chunks) != size:
        raise InvalidCheckpoint(f"member {quoted(name)}: its chunks do not add up to its {size} bytes")
    return Content(size, fields.hex("sha256", 64), fields.number("rows", 2**63), chunks)


def _chunk(name: str, item: object) -> Chunk:
    fields = Fields(item, f"a chunk of member {quoted(name)}:")
    is_size = range(1, LARGEST_CHUNK + 1).__contains__
    return Chunk(fields.take("size", int, is_size), fields.hex("sha256", 64))


def _table(item: object) -> Table:
    fields = Fields(item, "a table's")
    columns = fields.take("columns", list, lambda names: bool(names) and all(map(_is_name, names)))
    key = fields.take("key", list, lambda names: _is_key(names, columns))
    return Table(fields.take("name", str, _is_name), tuple(columns), tuple(key), fields.text("member"))


def _signature(item: object) -> Signature:
    fields = Fields(item, "a signature's")
    return Signature(fields.hex("public_key", 64), fields.hex("signature", 128))


def _is_key(names: list[object], columns: list[str]) -> bool:
    """Check whether a key may consist of these columns of a table."""
    return bool(names) and all(name in columns and names.count(name) == 1 for name in names)


def _is_name(value: object) -> bool:
    """Check whether the database could use this as a name, which may have any characters."""
    return (
        isinstance(value, str)
        and 0 < len(value.encode(errors="replace")) <= _LONGEST_NAME
        and "\0" not in value
    )


class Fields:
    """The fields of a JSON object, of which each must be present and of its type.

    `owner` begins the messages, such as "its manifest's".
    """

    def __init__(self, document: object, owner: str) -> None:
        if not isinstance(document, dict):
            raise InvalidCheckpoint(f"{owner} fields are missing")
        self._document = document
        self._owner = owner

    def take(self, name: str, kind: type, is_valid: Callable[[Any], bool] = lambda _: True) -> Any:  # noqa: ANN401 - of that kind
        """Return a field of this type for which `is_valid` is true."""
        value = self._document.get(name)
        if type(value) is not kind or not is_valid(value):
            raise InvalidCheckpoint(f"{self._owner} {name} is missing or invalid")
        return value

    def text(self, name: str) -> str:
        """Return a field of printable text that is not empty."""
        return str(self.take(name, str, lambda text: text != "" and text.isprintable()))

    def hex(self, name: str, digits: int) -> str:
        """Return a field of so many lower-case hex digits."""
        return str(self.take(name, str, lambda text: re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is not None))

    def number(self, name: str, highest: int = _HIGHEST) -> int:
        """Return a field that is a number from 0 to `highest`."""
        return int(self.take(name, int, lambda number: 0 <= number <= highest))
