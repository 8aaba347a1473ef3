"""Hostile checkpoints: anything wrong with a file is reported in one line, and nothing changes."""

import gzip
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.checkpoints import contracts, create_checkpoint, forge, say, words
from tests.support.tables import tables
from virtualchain import StateEngine
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.apply import apply
from virtualchain.checkpoint.signing import make_key, sign
from virtualchain.checkpoint.verify import manifest_of, verify
from virtualchain.engine.options import Options
from virtualchain.errors import InvalidCheckpoint, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Members = dict[str, bytes]
Change = Callable[[Members], None]

CUT_OFF = r"cut off|does not end with two empty blocks"
SIGNER = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""The public key of the first test vector in RFC 8032."""
PAIRS, WORDS = "projections/1.pairs", "projections/2.words"


@pytest.fixture(scope="module")
def good(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a valid checkpoint."""
    url = database_server.clone()
    file = tmp_path_factory.mktemp("good") / "file"
    with FakeNode() as node:
        say(node, "one two", "three", "", "two four", "-one")
        with StateEngine(words(), database=url, source=node.url, confirmations=0) as engine:
            engine.build()
    create_checkpoint(url, file)
    database_server.drop(url)
    return file


@pytest.fixture(scope="module")
def target(database_server: DatabaseServer) -> Iterator[str]:
    """Return a database that must not change."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def refused(target: str, tmp_path: Path) -> Callable[..., None]:
    """Return a function that checks that a file is refused, both when verified and when applied."""

    def refuse(file: Path, message: str, *, only_when_applied: bool = False) -> None:
        if only_when_applied:
            with archive.reading(file) as reader:
                verify(reader)
        else:
            with pytest.raises(InvalidCheckpoint, match=message), archive.reading(file) as reader:
                verify(reader)
        before = tables(target)
        with pytest.raises(InvalidCheckpoint, match=message):
            apply(target, file, contracts(words()), options=Options(state_folder=tmp_path))
        assert tables(target) == before

    return refuse


def test_the_valid_one_is_accepted(good: Path, tmp_path: Path) -> None:
    """The file that the others are forged from, and unchanged copies of it, are accepted."""
    for file in (good, forge(good, tmp_path / "same"), forge(good, tmp_path / "careful", is_careful=True)):
        with archive.reading(file) as reader:
            verify(reader)


def test_cut_off_anywhere(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """A file that was cut off is refused, however much is missing."""
    whole = good.read_bytes()
    file = tmp_path / "cut"
    for size in {*range(0, len(whole), 512), *random.Random(5).sample(range(len(whole)), 30), len(whole) - 1}:
        file.write_bytes(whole[:size])
        with pytest.raises(InvalidCheckpoint, match=CUT_OFF), archive.reading(file) as reader:
            verify(reader)
    refused(file, CUT_OFF)


def test_any_byte_changed(good: Path, tmp_path: Path) -> None:
    """A change of any bit is refused, and never raises another error."""
    key = make_key(tmp_path / "key")
    with archive.reading(good) as reader:
        signatures = sign(manifest_of(reader).signed_bytes(), [tmp_path / "key"])
    file = forge(good, tmp_path / "flipped", manifest=_set(signatures=list(map(asdict, signatures))))
    with archive.reading(file) as reader:
        assert verify(reader).signers == (key,)
    whole = bytearray(file.read_bytes())
    for offset in random.Random(7).sample(range(len(whole)), 400):
        whole[offset] ^= 1 << offset % 8
        file.write_bytes(whole)
        with pytest.raises(InvalidCheckpoint), archive.reading(file) as reader:
            verify(reader)
        whole[offset] ^= 1 << offset % 8


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n" * 200, gzip.compress(bytes(4096), mtime=0), bytes(100_000), bytes(1024) + b"more"],
)
def test_other_files(tmp_path: Path, refused: Callable[..., None], content: bytes) -> None:
    """A file of another kind is not taken for a checkpoint."""
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file", "not a checkpoint|cut off|does not end with two empty blocks")


def _link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"


def _traverse(info: tarfile.TarInfo) -> None:
    info.name = "../../tmp/evil"


def _own(info: tarfile.TarInfo) -> None:
    info.uname = "root"


def _negative(info: tarfile.TarInfo) -> None:
    info.size = -512


def _huge(info: tarfile.TarInfo) -> None:
    info.size = 2**60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_link, "is not a plain one"),
        (_traverse, "members are not those"),
        (_own, "is not a plain one"),
        (_negative, "is not a plain one|not a tar"),
        (_huge, "cut off in its member snapshots"),
    ],
)
def test_unusual_members(
    good: Path,
    tmp_path: Path,
    refused: Callable[..., None],
    change: Callable[[tarfile.TarInfo], None],
    message: str,
) -> None:
    """Links, owners, other paths and impossible sizes are refused."""
    with tarfile.open(good) as tar:
        info = tar.getmember("snapshots")
    change(info)
    rest = good.read_bytes()[512:]
    (tmp_path / "file").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + rest)
    refused(tmp_path / "file", message)


def test_extra_and_duplicate_members(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """Each member may occur once, and the manifest must name it."""
    whole = good.read_bytes()
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("extra"))
    header = buffer.getvalue()[:512]
    (tmp_path / "extra").write_bytes(header + whole)
    refused(tmp_path / "extra", "members are not those")
    (tmp_path / "twice").write_bytes(header + header + whole)
    refused(tmp_path / "twice", "two members extra")
    (tmp_path / "longer").write_bytes(whole + b"more")
    refused(tmp_path / "longer", "does not end with two empty blocks")


def _replaced(member: str, old: bytes, new: bytes) -> Change:
    def change(members: Members) -> None:
        assert old in members[member], members[member]
        members[member] = members[member].replace(old, new, 1)

    return change


def _swap_hash(members: Members) -> None:
    lines = members["snapshots"].split(b"\n")
    cells = lines[2].split(b"\t")
    cells[2] = bytes(reversed(cells[2]))
    lines[2] = b"\t".join(cells)
    members["snapshots"] = b"\n".join(lines)


def _swap_ops(members: Members) -> None:
    lines = members["snapshots"].split(b"\n")
    cells = lines[1].split(b"\t")
    cells[1] = bytes(reversed(cells[1]))
    lines[1] = b"\t".join(cells)
    members["snapshots"] = b"\n".join(lines)


def _drop_block(members: Members) -> None:
    lines = members["snapshots"].split(b"\n")
    members["snapshots"] = b"\n".join([*lines[:2], *lines[3:]])


def _no_series(members: Members) -> None:
    members["snapshots"] = b""


def _begin_late(members: Members) -> None:
    first, *rest = members["snapshots"].split(b"\n")
    cells = first.split(b"\t")
    cells[1] = b"\\N"
    members["snapshots"] = b"\n".join([b"\t".join(cells), *rest])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replaced(WORDS, b"\t2\t", b"\t3\t"), "its rows have the state hash"),
        (_replaced(WORDS, b"three\t", b"threE\t"), "its rows have the state hash"),
        (_replaced(WORDS, b"three\t1", b"three"), "row 2 of table words is invalid: it has 4 columns, not 5"),
        (_replaced(WORDS, b"three", b"thr\xffee"), "row 2 of table words is invalid: .*utf-8"),
        (_replaced(WORDS, b"three", b"thr\0ee"), "row 2 of table words is invalid: a control character"),
        (_replaced(WORDS, b"three", b"thr\\x65e"), r"there is no escape \\x"),
        (_replaced(WORDS, b"\n", b"\n\\.\n"), r"row 2 of table words is invalid: there is no escape \\\."),
        (_replaced(WORDS, b"two\t", b"two"), "columns, not 5"),
        (_swap_hash, r"the consensus hash of block 104 is"),
        (_swap_ops, r"the consensus hash of block 103 is"),
        (_drop_block, "digests of block 105 in the place of those of block 104"),
        (_no_series, "its digests do not end with"),
        (_replaced("snapshots", b"102\t", b"+102\t"), "row 1 of its digests is invalid"),
        (_replaced("snapshots", b"102\t", b"99999999999\t"), "but has digests of block 99999999999"),
        (_replaced("snapshots", b"104\t", b"103\t"), "come after those of block 103"),
        (_replaced("snapshots", b"\n", b""), "row 1 of its digests is invalid|line without a newline"),
    ],
)
def test_changed_content(
    good: Path, tmp_path: Path, refused: Callable[..., None], change: Change, message: str
) -> None:
    """Changed rows and digests are noticed by the hashes over them, even if members' digests match."""
    refused(forge(good, tmp_path / "file", change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replaced(WORDS, b"three\t1", b"three\t0"), "violates check constraint"),
        (_replaced(WORDS, b"three\t1", b"three\t 1"), "not written as the database writes"),
        (_replaced(WORDS, b"three\t1", b"three\t99999999999"), "out of range"),
        (_replaced(WORDS, b"three\t1", b"three\t\\N"), "null value in column"),
        (_replaced(PAIRS, b"three\t", b"thrEE\t"), "violates foreign key"),
    ],
)
def test_rows_that_the_database_refuses(
    good: Path, tmp_path: Path, refused: Callable[..., None], change: Change, message: str
) -> None:
    """Rows that violate the database's rules are refused, even if every hash is correct."""
    refused(forge(good, tmp_path / "file", change, is_careful=True), message, only_when_applied=True)


def test_rows_in_another_order(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """The state hash does not depend on the order of rows, but the state root does: it is that of keys."""

    def turn(members: Members) -> None:
        members[WORDS] = b"".join(reversed(members[WORDS].splitlines(keepends=True)))

    for change in (turn, _replaced(WORDS, b"three\t", b"two\t")):
        file = forge(good, tmp_path / "file", change)
        refused(
            file, "row [23] of table words is invalid: its key does not come after that of the row before"
        )
    nothing = forge(good, tmp_path / "file", _replaced(WORDS, b"three\t", b"\\N\t"))
    refused(nothing, "row 2 of table words is invalid: its key has a null")


def test_another_key_than_the_apps(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """The state root says what a table's key is, so a checkpoint cannot name other columns."""

    def longer(document: dict[str, Any]) -> None:
        document["tables"][1]["key"].append("times")

    forged = forge(good, tmp_path / "forged", manifest=longer)
    file = forge(forged, tmp_path / "file", is_careful=True)
    refused(file, "its tables are not those of the app", only_when_applied=True)


def test_a_series_that_begins_elsewhere_than_its_app(
    good: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    """A first hash that is passed off as initial is refused, because the app declares none."""

    def late(document: dict[str, Any]) -> None:
        document["first_block_id"] = 101

    file = forge(good, tmp_path / "file", _begin_late, late)
    refused(file, "do not begin where its app begins", only_when_applied=True)


def _set(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(format="virtualchain-checkpoint-5"), "does not have the format"),
        (_set(format=["virtualchain-checkpoint-2"]), "does not have the format"),
        (_set(format="virtualchain-checkpoint-2"), "has no state root: have it created again"),
        (
            _set(format="virtualchain-checkpoint-1"),
            "does not say which block wrote each row: have it created again",
        ),
        (_set(state_hash="00" * 32), "its digests do not end with"),
        (_set(consensus_hash="00" * 16), "its digests do not end with"),
        (_set(block_id=103), "it is of block 103, but has digests of block 104"),
        (_set(block_id=-1), "block_id is missing or invalid"),
        (_set(block_id=10**30), "block_id is missing or invalid"),
        (_set(block_id=True), "block_id is missing or invalid"),
        (_set(block_hash="xy"), "block_hash is missing or invalid"),
        (_set(network=""), "network is missing or invalid"),
        (_set(app="words\x1b[2J"), "app is missing or invalid"),
        (_set(members=[]), "members is missing or invalid"),
        (_set(members={}), "members are not those that its manifest names"),
        (_set(tables=[{"name": "words"}]), "a table's columns is missing"),
        (lambda document: document["tables"].reverse(), "in the order of their names"),
        (lambda document: document["tables"][0].update(key=[]), "a table's key is missing or invalid"),
        (
            lambda document: document["tables"][0].update(key=["a", "a"]),
            "a table's key is missing or invalid",
        ),
        (lambda document: document["tables"][0].update(key=["c"]), "a table's key is missing or invalid"),
        (
            lambda document: document["tables"][0].update(key=["a", "b"]),
            "does not come after|root|of the app",
        ),
        (
            lambda document: document["tables"][0]["columns"].reverse(),
            "come after|the state root|not those of the app",
        ),
        (
            lambda document: document["tables"][1]["columns"].reverse(),
            "come after|the state root|not those of the app|a null",
        ),
        (_set(state_root="00" * 32), "its rows have the state root"),
        (_set(state_root=None), "any rows have one"),
        (_set(state_root="0"), "state_root is missing or invalid"),
        (lambda document: document.pop("state_root"), "state_root is missing or invalid"),
        (_set(block_hash="00" * 32), "its rows have the state root"),
        (_set(genesis_hash="00" * 32), "its rows have the state root"),
        (_set(signatures=[{}]), "a signature's public_key is missing"),
        (
            _set(signatures=[{"public_key": SIGNER, "signature": "00" * 64}]),
            "signature by d75a98.* is invalid",
        ),
        (_set(more=1), "has fields that its format does not"),
        (lambda document: document["tables"].append(document["tables"][0]), "names a table twice"),
        (lambda document: document["members"]["snapshots"].update(size=3), "but its manifest says 3"),
        (lambda document: document["members"]["snapshots"].update(rows=3), "rows, but its manifest says 3"),
        (
            lambda document: document["members"]["snapshots"].update(sha256="11" * 32),
            "does not have the digest that its manifest names",
        ),
        (
            lambda document: document["tables"][1]["columns"].pop(),
            "table words is invalid: it has 5 columns, not 4|not those of the app",
        ),
    ],
)
def test_changed_manifests(
    good: Path,
    tmp_path: Path,
    refused: Callable[..., None],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    """Other formats, impossible values, and values that the content contradicts are refused."""
    refused(forge(good, tmp_path / "file", manifest=change), message)


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"\xff", b"null", b"[]", b"9" * 10_000, b'"\\ud800"']
)
def test_invalid_manifests(tmp_path: Path, refused: Callable[..., None], content: bytes) -> None:
    """A manifest that is not JSON, or not a manifest, is refused."""
    with archive.writing(tmp_path / "file") as writer, writer.member("manifest.json") as member:
        member.write(content)
    refused(tmp_path / "file", "its manifest is not JSON|does not have the format")


def test_another_apps_file(good: Path, target: str, tmp_path: Path) -> None:
    """A file of another app, or of other rules or another series, is refused."""
    before = tables(target)
    file = forge(good, tmp_path / "file", manifest=_set(app="other"), is_careful=True)
    with pytest.raises(UsageError, match="the checkpoint is of app other"):
        apply(target, file, contracts(words()), options=Options(state_folder=tmp_path))
    with pytest.raises(UsageError, match="declares other rules"):
        apply(
            target,
            file,
            contracts(words("other", valid_transaction_window=30)),
            options=Options(state_folder=tmp_path),
        )
    with pytest.raises(InvalidCheckpoint, match="do not begin where its app begins"):
        apply(target, good, [_starting_elsewhere()], options=Options(state_folder=tmp_path))
    assert tables(target) == before


def _starting_elsewhere() -> Any:
    """Return a contract with the same fingerprint that begins with another block."""
    [contract] = contracts(words())
    return _Forged(replace(contract, first_block_id=100), contract.fingerprint())


class _Forged:
    """A contract with a false fingerprint."""

    def __init__(self, contract: Any, fingerprint: str) -> None:
        self._contract = contract
        self._fingerprint = fingerprint

    def fingerprint(self) -> str:
        """Return the fingerprint of another contract."""
        return self._fingerprint

    def on(self, network: str) -> Self:
        """Return this one."""
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._contract, name)


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path, target: str) -> None:
    """The message names the path and the system's error."""
    with (
        pytest.raises(UsageError, match="nothing cannot be read: No such file"),
        archive.reading(tmp_path / "nothing"),
    ):
        pass
    with pytest.raises(UsageError, match="cannot be written"), archive.writing(tmp_path / "no" / "file"):
        pass


def test_json_of_a_manifest_is_the_same_everywhere(good: Path) -> None:
    """Its keys are sorted, so that the same manifest has the same bytes."""
    with archive.reading(good) as reader:
        content = reader.content("manifest.json", 10**6)
    assert json.dumps(json.loads(content), indent=1, sort_keys=True).encode() + b"\n" == content
