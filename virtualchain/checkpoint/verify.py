"""Verify a checkpoint: every digest again, from the rows themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from virtualchain.checkpoint.archive import Reader
from virtualchain.checkpoint.manifest import LONGEST, NAME, SNAPSHOTS, STATE, Manifest, read_manifest
from virtualchain.checkpoint.rows import Rows, read_row
from virtualchain.checkpoint.series import Series
from virtualchain.checkpoint.signing import check_signatures
from virtualchain.consensus.state_hash import digest_number
from virtualchain.errors import InvalidCheckpoint

LARGEST_STATE: Final = 2**30 - 2**16
"""Bytes of a saved file: the database keeps it in one field."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A checkpoint whose every digest was found again."""

    manifest: Manifest
    initial: dict[int, str]
    """The consensus hashes that its app began with, by block; they have no ops behind them."""
    state_number: bytes | None
    """The number under the state hash; None where that is a saved file's."""
    signers: tuple[str, ...]
    """The public keys whose signatures hold, hex."""


def manifest_of(reader: Reader) -> Manifest:
    """Read a checkpoint's manifest, and see to it that the file has the members that it names."""
    if NAME not in reader.names:
        raise InvalidCheckpoint(f"it is no checkpoint: it has no {NAME}")
    manifest = read_manifest(reader.content(NAME, LONGEST))
    named = [
        SNAPSHOTS,
        *([STATE] if STATE in manifest.members else [table.member for table in manifest.tables]),
    ]
    if len({table.name for table in manifest.tables}) < len(manifest.tables):
        raise InvalidCheckpoint("its manifest names a table twice")
    if sorted(named) != sorted(manifest.members) or sorted([*named, NAME]) != sorted(reader.names):
        raise InvalidCheckpoint("its members are not those that its manifest names")
    for name, member in manifest.members.items():
        if member.size != reader.size(name):
            raise InvalidCheckpoint(
                f"its member {name} has {reader.size(name)} bytes, and its manifest says {member.size}"
            )
    return manifest


def verify(reader: Reader, trusted: tuple[str, ...] = ()) -> Verified:
    """Check signatures, the digest of each member, the whole series of consensus hashes, and the state hash.

    Where keys are trusted, one of them must have signed. Memory does not grow with the rows. Raises
    InvalidCheckpoint, which says what does not hold, and UsageError as keys do.
    """
    manifest = manifest_of(reader)
    signers = check_signatures(manifest, trusted)
    for name in manifest.members:
        _check_digest(reader, manifest, name)
    initial = _verify_series(reader, manifest)
    number = None if STATE in manifest.members else _verify_rows(reader, manifest)
    found = manifest.members[STATE].sha256 if number is None else digest_number(number)
    if found != manifest.state_hash:
        raise InvalidCheckpoint(f"its rows have the state hash {found}, and it says {manifest.state_hash}")
    return Verified(manifest, initial, number, signers)


def _check_digest(reader: Reader, manifest: Manifest, name: str) -> None:
    digest = sha256()
    for piece in reader.pieces(name):
        digest.update(piece)
    if digest.hexdigest() != manifest.members[name].sha256:
        raise InvalidCheckpoint(f"its member {name} is not the one that its manifest has the digest of")


def _verify_rows(reader: Reader, manifest: Manifest) -> bytes:
    rows = Rows()
    for table in manifest.tables:
        lines = rows.take(table.name, len(table.columns), reader.lines(table.member))
        _count(manifest, table.member, sum(1 for _ in lines))
    return rows.number


def _verify_series(reader: Reader, manifest: Manifest) -> dict[int, str]:
    """Compute every consensus hash again, from the ops hashes and those that it began with."""
    series = Series(manifest.first_block_id)
    rows, last_state_hash = 0, None
    for block_id, ops_hash, consensus_hash, state_hash in snapshots(reader):
        rows += 1
        if block_id > manifest.block_id:
            raise InvalidCheckpoint(f"it is of block {manifest.block_id} and has digests of block {block_id}")
        series.add(block_id, ops_hash, consensus_hash)
        last_state_hash = state_hash
    _count(manifest, SNAPSHOTS, rows)
    if (series.last, last_state_hash) != ((manifest.block_id, manifest.consensus_hash), manifest.state_hash):
        raise InvalidCheckpoint(
            f"its digests do not end with block {manifest.block_id}, consensus hash "
            f"{manifest.consensus_hash} and state hash {manifest.state_hash}"
        )
    return series.initial


def snapshots(reader: Reader) -> Iterator[tuple[int, str | None, str, str | None]]:
    """Give an app's digests by block: its height, ops hash, consensus hash, state hash."""
    for place, line in enumerate(reader.lines(SNAPSHOTS), 1):
        try:
            block_id, ops_hash, consensus_hash, state_hash = read_row(line)
            if block_id is None or consensus_hash is None:
                raise ValueError("a value is missing")
            found = int(block_id), ops_hash, _hex(consensus_hash, 16), state_hash
            for text in (ops_hash, state_hash):
                _hex(text or "00" * 32, 32)
            if str(found[0]) != block_id:
                raise ValueError("its block is no number")
        except ValueError as error:
            raise InvalidCheckpoint(f"row {place} of its digests is none: {error}") from error
        yield found


def _hex(text: str, size: int) -> str:
    if bytes.fromhex(text).hex() != text or len(text) != 2 * size:
        raise ValueError(f"{text} is no hash of {size} bytes")
    return text


def _count(manifest: Manifest, member: str, rows: int) -> None:
    if rows != manifest.members[member].rows:
        raise InvalidCheckpoint(
            f"its member {member} has {rows} rows, and its manifest says {manifest.members[member].rows}"
        )
