"""Verify a checkpoint: compute every digest again from the rows themselves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from virtualchain.checkpoint.archive import Reader
from virtualchain.checkpoint.digests import ConsensusSeries, computed_root, read_row
from virtualchain.checkpoint.manifest import LONGEST, NAME, SNAPSHOTS, STATE, Manifest, Table, read_manifest
from virtualchain.checkpoint.rows import Digest, RowDigest, digest_batch
from virtualchain.checkpoint.signing import check_signatures
from virtualchain.consensus.state_hash import digest_number
from virtualchain.crew import Crew
from virtualchain.errors import InvalidCheckpoint, InvalidSignature


@dataclass(frozen=True, slots=True)
class Verified:
    """A checkpoint whose digests were computed again and match."""

    manifest: Manifest
    initial: dict[int, str]
    """The consensus hashes that its app began with, by block; they were not computed from ops."""
    signers: tuple[str, ...]
    """The public keys with a valid signature, as hex."""


def manifest_of(reader: Reader) -> Manifest:
    """Read a checkpoint's manifest, and check that the file has exactly the members that it names."""
    if NAME not in reader.names:
        raise InvalidCheckpoint(f"it is not a checkpoint: it has no {NAME}")
    manifest = read_manifest(reader.content(NAME, LONGEST))
    named = manifest.ordered_members
    tables = [table.name for table in manifest.tables]
    if len(set(tables)) < len(tables):
        raise InvalidCheckpoint("its manifest names a table twice")
    if tables != sorted(tables):
        raise InvalidCheckpoint("its manifest does not list its tables in the order of their names")
    if (manifest.state_root is None) != (STATE in manifest.members):
        raise InvalidCheckpoint("a state root is of rows, and any rows have one, unlike its manifest's")
    if sorted(named) != sorted(manifest.members) or sorted([*named, NAME]) != sorted(reader.names):
        raise InvalidCheckpoint("its members are not those that its manifest names")
    for name, member in manifest.members.items():
        if member.size != reader.size(name):
            raise InvalidCheckpoint(
                f"its member {name} has {reader.size(name)} bytes, but its manifest says {member.size}"
            )
    return manifest


def verify(reader: Reader, trusted: tuple[str, ...] = (), workers: int = 1) -> Verified:
    """Check signatures, the digests of members and state, and the whole series of consensus hashes.

    If any keys are trusted, one of them must have signed. So many `workers`, which are processes, share in
    the rows. Memory does not grow with them. Raises InvalidCheckpoint, which names the first mismatch, and
    UsageError for a trusted key that cannot be read.
    """
    verified = verify_all_but_rows(reader, trusted)
    manifest = verified.manifest
    with Crew(digest_batch, workers) as crew:
        rows = RowVerifier(manifest, crew.in_order)
        for table in manifest.tables:
            rows.verify(table, reader)
        rows.finish()
    return verified


def verify_all_but_rows(reader: Reader, trusted: tuple[str, ...] = ()) -> Verified:
    """Check what `verify` checks, but not that state hash and state root are those of the rows."""
    manifest = manifest_of(reader)
    try:
        signers = check_signatures(manifest.signed_bytes(), manifest.signatures, trusted)
    except InvalidSignature as error:
        raise InvalidCheckpoint(str(error)) from error
    for name in manifest.members:
        _check_digest(reader, manifest, name)
    return Verified(manifest, _verify_series(reader, manifest), signers)


class RowVerifier:
    """Verifies the rows of a checkpoint, one table after the other in the order of the manifest."""

    def __init__(self, manifest: Manifest, digest: Digest) -> None:
        """Begin without tables; `digest` computes the digests of batches."""
        self._manifest = manifest
        self._rows = RowDigest(manifest.blocks, digest)

    def verify(
        self, table: Table, reader: Reader, write: Callable[[bytes], object] = lambda _lines: None
    ) -> None:
        """Take in a table; its lines are handed to `write`, perhaps before they are checked."""
        count = self._rows.add(table, reader.whole_lines(table.member), write)
        _check_count(self._manifest, table.member, count)

    def finish(self) -> bytes | None:
        """Compare state hash and state root; return the number that the state hash is the digest of.

        There is none for a state file, which is hashed itself.
        """
        manifest = self._manifest
        has_rows = STATE not in manifest.members
        number = self._rows.number if has_rows else None
        computed = manifest.members[STATE].sha256 if number is None else digest_number(number)
        if computed != manifest.state_hash:
            raise InvalidCheckpoint(
                f"its rows have the state hash {computed}, but its manifest says {manifest.state_hash}"
            )
        root = computed_root(manifest, self._rows.tables) if has_rows else None
        if root != manifest.state_root:
            raise InvalidCheckpoint(
                f"its rows have the state root {root}, but its manifest says {manifest.state_root}"
            )
        return number


def _check_digest(reader: Reader, manifest: Manifest, name: str) -> None:
    digest = sha256()
    for piece in reader.pieces(name):
        digest.update(piece)
    if digest.hexdigest() != manifest.members[name].sha256:
        raise InvalidCheckpoint(f"its member {name} does not have the digest that its manifest names")


def _verify_series(reader: Reader, manifest: Manifest) -> dict[int, str]:
    """Compute every consensus hash again; return those that the app began with, which cannot be computed."""
    series = ConsensusSeries(manifest.first_block_id)
    rows, last_state_hash = 0, None
    for block_id, ops_hash, consensus_hash, state_hash in snapshots(reader):
        rows += 1
        if block_id > manifest.block_id:
            raise InvalidCheckpoint(
                f"it is of block {manifest.block_id}, but has digests of block {block_id}"
            )
        series.add(block_id, ops_hash, consensus_hash)
        last_state_hash = state_hash
    _check_count(manifest, SNAPSHOTS, rows)
    if (series.last, last_state_hash) != ((manifest.block_id, manifest.consensus_hash), manifest.state_hash):
        raise InvalidCheckpoint(
            f"its digests do not end with block {manifest.block_id}, consensus hash "
            f"{manifest.consensus_hash} and state hash {manifest.state_hash}"
        )
    return series.initial


def snapshots(reader: Reader) -> Iterator[tuple[int, str | None, str, str | None]]:
    """Yield an app's digests by block: height, ops hash, consensus hash, state hash."""
    for number, line in enumerate(reader.lines(SNAPSHOTS), 1):
        try:
            block_id, ops_hash, consensus_hash, state_hash = read_row(line)
            if block_id is None or consensus_hash is None:
                raise ValueError("a value is missing")
            snapshot = int(block_id), ops_hash, _hex(consensus_hash, 16), state_hash
            for text in (ops_hash, state_hash):
                _hex(text or "00" * 32, 32)
            if str(snapshot[0]) != block_id:
                raise ValueError("its block is not a number")
        except ValueError as error:
            raise InvalidCheckpoint(f"row {number} of its digests is invalid: {error}") from error
        yield snapshot


def _hex(text: str, size: int) -> str:
    if bytes.fromhex(text).hex() != text or len(text) != 2 * size:
        raise ValueError(f"{text} is not a hash of {size} bytes")
    return text


def _check_count(manifest: Manifest, member: str, rows: int) -> None:
    if rows != manifest.members[member].rows:
        raise InvalidCheckpoint(
            f"its member {member} has {rows} rows, but its manifest says {manifest.members[member].rows}"
        )
