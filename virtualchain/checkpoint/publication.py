"""A folder of published checkpoints, as any web server can serve it, and the index of it.

`index.json` names the manifests, each manifest the chunks of its members. Manifests and chunks are files that
are named by their SHA-256, so they never change. `docs/protocol/digests.md` defines the form.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final

from virtualchain.checkpoint import archive
from virtualchain.checkpoint.manifest import NAME, Fields, Manifest, read_manifest
from virtualchain.errors import InvalidCheckpoint

INDEX: Final = "index.json"
FORMAT: Final = "virtualchain-checkpoints-1"
LONGEST: Final = 2**24
"""The longest index, in bytes."""
_LARGEST_FILE: Final = 2**63


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one checkpoint: nobody signed that, but its manifest must say the same."""

    app: str
    version: str
    fingerprint: str
    network: str
    genesis_hash: str
    block_id: int
    block_hash: str
    manifest: str
    """The SHA-256 of its manifest."""
    size: int
    """The size of its file in bytes."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Entry":
        """Describe a checkpoint by its manifest."""
        content = manifest.to_bytes()
        return cls(
            manifest.app,
            manifest.version,
            manifest.fingerprint,
            manifest.network,
            manifest.genesis_hash,
            manifest.block_id,
            manifest.block_hash,
            sha256(content).hexdigest(),
            archive.layout(sizes(manifest))[1],
        )


def sizes(manifest: Manifest) -> dict[str, int]:
    """Return the size of each member of a checkpoint's file, in the order of the file."""
    members = {name: manifest.members[name].size for name in manifest.ordered_members}
    return {**members, NAME: len(manifest.to_bytes())}


def manifest_path(digest: str) -> str:
    """Return where a manifest is in the folder."""
    return f"manifests/{digest}.json"


def chunk_path(digest: str) -> str:
    """Return where a chunk is in the folder."""
    return f"chunks/{digest}"


def write_index(entries: Iterable[Entry]) -> bytes:
    """Write an index."""
    ordered = sorted(entries, key=lambda entry: (entry.app, entry.block_id))
    document = {"format": FORMAT, "checkpoints": [asdict(entry) for entry in ordered]}
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def read_index(content: bytes) -> list[Entry]:
    """Read an index; raises InvalidCheckpoint, which names the field, if it is invalid."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"its index is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidCheckpoint(f"its index does not have the format {FORMAT}")
    return [_entry(item) for item in Fields(document, "its index's").take("checkpoints", list)]


def check_manifest(content: bytes, entry: Entry) -> Manifest:
    """Read a manifest that the index named; raises InvalidCheckpoint if it is of another checkpoint."""
    if sha256(content).hexdigest() != entry.manifest:
        raise InvalidCheckpoint(f"its {manifest_path(entry.manifest)} has another SHA-256 than its name")
    manifest = read_manifest(content)
    if not manifest.has_chunks:
        raise InvalidCheckpoint("its manifest names no chunks")
    if set(manifest.members) != set(manifest.ordered_members):
        raise InvalidCheckpoint("its members are not those that its manifest names")
    says = asdict(Entry.of(manifest))
    for name, value in asdict(entry).items():
        if says[name] != value:
            raise InvalidCheckpoint(f"its index says {name} {value}, but the manifest {says[name]}")
    return manifest


def newest(entries: Sequence[Entry], app: str) -> Entry | None:
    """Return the checkpoint of an app's highest block."""
    return max((item for item in entries if item.app == app), key=lambda item: item.block_id, default=None)


def _entry(item: object) -> Entry:
    fields = Fields(item, "a checkpoint of its index:")
    return Entry(
        app=fields.text("app"),
        version=fields.text("version"),
        fingerprint=fields.hex("fingerprint", 64),
        network=fields.text("network"),
        genesis_hash=fields.hex("genesis_hash", 64),
        block_id=fields.number("block_id"),
        block_hash=fields.hex("block_hash", 64),
        manifest=fields.hex("manifest", 64),
        size=fields.number("size", _LARGEST_FILE),
    )
