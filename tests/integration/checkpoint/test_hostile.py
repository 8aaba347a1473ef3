"""Hostile checkpoints: whatever is wrong with a file is said in a line, and nothing has changed then."""

import gzip
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import contracts, forge, make, say, words
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

CUT_OFF = r"cut off|does not end where it says"
PAIRS, WORDS = "projections/1.pairs", "projections/2.words"


@pytest.fixture(scope="module")
def good(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a checkpoint with nothing wrong."""
    url = database_server.clone()
    file = tmp_path_factory.mktemp("good") / "file"
    with FakeNode() as node:
        say(node, "one two", "three", "", "two four", "-one")
        with StateEngine(words(), database=url, source=node.url, confirmations=0) as engine:
            engine.build()
    make(url, file)
    database_server.drop(url)
    return file


@pytest.fixture(scope="module")
def target(database_server: DatabaseServer) -> Iterator[str]:
    """Give a database that nothing may change in."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def refused(target: str, tmp_path: Path) -> Callable[..., None]:
    """Give a function that has a file looked at and applied, in vain."""

    def refuse(file: Path, told: str, *, only_when_applied: bool = False) -> None:
        if only_when_applied:
            with archive.reading(file) as reader:
                verify(reader)
        else:
            with pytest.raises(InvalidCheckpoint, match=told), archive.reading(file) as reader:
                verify(reader)
        before = tables(target)
        with pytest.raises(InvalidCheckpoint, match=told):
            apply(target, file, contracts(words()), options=Options(state_folder=tmp_path))
        assert tables(target) == before

    return refuse


def test_the_good_one_is_good(good: Path, tmp_path: Path) -> None:
    """What the others are changed from, and the copier with its careful hand: nothing is refused."""
    for file in (good, forge(good, tmp_path / "same"), forge(good, tmp_path / "careful", is_careful=True)):
        with archive.reading(file) as reader:
            verify(reader)


def test_cut_off_anywhere(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """However much is missing, it is noticed."""
    whole = good.read_bytes()
    file = tmp_path / "cut"
    for size in {*range(0, len(whole), 512), *random.Random(5).sample(range(len(whole)), 30), len(whole) - 1}:
        file.write_bytes(whole[:size])
        with pytest.raises(InvalidCheckpoint, match=CUT_OFF), archive.reading(file) as reader:
            verify(reader)
    refused(file, CUT_OFF)


def test_any_byte_changed(good: Path, tmp_path: Path) -> None:
    """One bit of a header, a row, a digest, a signed word: it is refused, and never a crash."""
    key = make_key(tmp_path / "key")
    with archive.reading(good) as reader:
        told = sign(manifest_of(reader), [tmp_path / "key"]).as_dict()
    file = forge(good, tmp_path / "flipped", manifest=_set(signatures=told["signatures"]))
    with archive.reading(file) as reader:
        assert verify(reader).signers == (key,)
    whole = bytearray(file.read_bytes())
    for place in random.Random(7).sample(range(len(whole)), 400):
        whole[place] ^= 1 << place % 8
        file.write_bytes(whole)
        with pytest.raises(InvalidCheckpoint), archive.reading(file) as reader:
            verify(reader)
        whole[place] ^= 1 << place % 8


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n" * 200, gzip.compress(bytes(4096), mtime=0), bytes(100_000), bytes(1024) + b"more"],
)
def test_something_else(tmp_path: Path, refused: Callable[..., None], content: bytes) -> None:
    """It is told apart from a checkpoint."""
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file", "no checkpoint|cut off|does not end where it says")


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
    ("change", "told"),
    [
        (_link, "is not a plain one"),
        (_traverse, "members are not those"),
        (_own, "is not a plain one"),
        (_negative, "is not a plain one|not a tar"),
        (_huge, "cut off in its member snapshots"),
    ],
)
def test_members_that_are_none(
    good: Path,
    tmp_path: Path,
    refused: Callable[..., None],
    change: Callable[[tarfile.TarInfo], None],
    told: str,
) -> None:
    """Links, owners, other places, sizes that cannot be."""
    with tarfile.open(good) as tar:
        info = tar.getmember("snapshots")
    change(info)
    rest = good.read_bytes()[512:]
    (tmp_path / "file").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + rest)
    refused(tmp_path / "file", told)


def test_members_too_many_or_twice(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """Each once, and none that the manifest does not name."""
    whole = good.read_bytes()
    size = (len(whole.partition(bytes(512))[0]) + 511) // 512 * 512
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("extra"))
    header = made.getvalue()[:512]
    assert size % 512 == 0
    (tmp_path / "extra").write_bytes(header + whole)
    refused(tmp_path / "extra", "members are not those")
    (tmp_path / "twice").write_bytes(header + header + whole)
    refused(tmp_path / "twice", "two members extra")
    (tmp_path / "behind").write_bytes(whole + b"more")
    refused(tmp_path / "behind", "does not end where it says")


def _with(member: str, old: bytes, new: bytes) -> Change:
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
    ("change", "told"),
    [
        (_with(WORDS, b"\t2\t", b"\t3\t"), "its rows have the state hash"),
        (_with(WORDS, b"three\t", b"threE\t"), "its rows have the state hash"),
        (_with(WORDS, b"three\t1", b"three"), "row 2 of table words has 4 columns, not 5"),
        (_with(WORDS, b"three", b"thr\xffee"), "row 2 of table words is none: .*utf-8"),
        (_with(WORDS, b"three", b"thr\0ee"), "row 2 of table words is none: a control character"),
        (_with(WORDS, b"three", b"thr\\x65e"), r"there is no escape \\x"),
        (_with(WORDS, b"\n", b"\n\\.\n"), r"row 2 of table words is none: there is no escape \\\."),
        (_with(WORDS, b"two\t", b"two"), "columns, not 5"),
        (_swap_hash, r"the consensus hash of block 104 is"),
        (_swap_ops, r"the consensus hash of block 103 is"),
        (_drop_block, "digests of block 105 where those of block 104 are due"),
        (_no_series, "its digests do not end with"),
        (_with("snapshots", b"102\t", b"+102\t"), "row 1 of its digests is none"),
        (_with("snapshots", b"102\t", b"99999999999\t"), "and has digests of block 99999999999"),
        (_with("snapshots", b"104\t", b"103\t"), "stand behind those of block 103"),
        (_with("snapshots", b"\n", b""), "row 1 of its digests is none|line without an end"),
    ],
)
def test_content_that_was_changed(
    good: Path, tmp_path: Path, refused: Callable[..., None], change: Change, told: str
) -> None:
    """Rows and digests whose members' digests were set right: the hashes over them tell."""
    refused(forge(good, tmp_path / "file", change), told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with(WORDS, b"three\t1", b"three\t0"), "violates check constraint"),
        (_with(WORDS, b"three\t1", b"three\t 1"), "not written as the database writes"),
        (_with(WORDS, b"three\t1", b"three\t99999999999"), "out of range"),
        (_with(WORDS, b"three\t", b"two\t"), "duplicate key"),
        (_with(WORDS, b"three\t1", b"three\t\\N"), "null value in column"),
        (_with(PAIRS, b"three\t", b"thrEE\t"), "violates foreign key"),
    ],
)
def test_rows_that_the_database_refuses(
    good: Path, tmp_path: Path, refused: Callable[..., None], change: Change, told: str
) -> None:
    """The forger set every hash right, but no app could have come to these rows."""
    refused(forge(good, tmp_path / "file", change, is_careful=True), told, only_when_applied=True)


def test_rows_in_another_order(good: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    """The state hash is that of a set; the file is that of a list."""

    def turn(members: Members) -> None:
        members[WORDS] = b"".join(reversed(members[WORDS].splitlines(keepends=True)))

    file = forge(good, tmp_path / "file", turn)
    refused(file, "not written as the database writes", only_when_applied=True)


def test_a_series_that_does_not_begin_where_its_app_does(
    good: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    """Its first hash is called initial, so that nothing tells where it came from: the app declares none."""

    def late(told: dict[str, Any]) -> None:
        told["first_block_id"] = 101

    file = forge(good, tmp_path / "file", _begin_late, late)
    refused(file, "do not begin where its app begins", only_when_applied=True)


def _set(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda told: told.update(values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set(format="virtualchain-checkpoint-2"), "does not say that its format is"),
        (_set(state_hash="00" * 32), "its digests do not end with"),
        (_set(consensus_hash="00" * 16), "its digests do not end with"),
        (_set(block_id=103), "it is of block 103 and has digests of block 104"),
        (_set(block_id=-1), "block_id is missing or not what it should be"),
        (_set(block_id=10**30), "block_id is missing or not what it should be"),
        (_set(block_id=True), "block_id is missing or not what it should be"),
        (_set(block_hash="xy"), "block_hash is missing or not what it should be"),
        (_set(network=""), "network is missing or not what it should be"),
        (_set(app="words\x1b[2J"), "app is missing or not what it should be"),
        (_set(members=[]), "members is missing or not what it should be"),
        (_set(members={}), "members are not those that its manifest names"),
        (_set(tables=[{"name": "words"}]), "a table's columns is missing"),
        (_set(signatures=[{}]), "a signature's public_key is missing"),
        (
            _set(signatures=[{"public_key": "00" * 32, "signature": "00" * 64}]),
            "signature by 0+ does not hold",
        ),
        (_set(more=1), "says more than this format does"),
        (lambda told: told["tables"].append(told["tables"][0]), "names a table twice"),
        (lambda told: told["members"]["snapshots"].update(size=3), "and its manifest says 3"),
        (lambda told: told["members"]["snapshots"].update(rows=3), "rows, and its manifest says 3"),
        (
            lambda told: told["members"]["snapshots"].update(sha256="11" * 32),
            "is not the one that its manifest",
        ),
        (lambda told: told["tables"][1]["columns"].pop(), "of table words has 5 columns, not 4"),
    ],
)
def test_manifests_that_say_something_else(
    good: Path,
    tmp_path: Path,
    refused: Callable[..., None],
    change: Callable[[dict[str, Any]], None],
    told: str,
) -> None:
    """Other formats, values that cannot be, values that the content belies."""
    refused(forge(good, tmp_path / "file", manifest=change), told)


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"\xff", b"null", b"[]", b"9" * 10_000, b'"\\ud800"']
)
def test_manifests_that_are_none(tmp_path: Path, refused: Callable[..., None], content: bytes) -> None:
    """No JSON, or no manifest."""
    with archive.writing(tmp_path / "file") as writer, writer.member("manifest.json") as member:
        member.write(content)
    refused(tmp_path / "file", "its manifest is no JSON|does not say that its format is")


def test_another_apps_file(good: Path, target: str, tmp_path: Path) -> None:
    """Renamed to the app's name, it is still of other rules, or of another series."""
    before = tables(target)
    file = forge(good, tmp_path / "file", manifest=_set(app="other"))
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
    """Give the code of an app that says the same of itself and begins with another block."""
    [contract] = contracts(words())
    return _Forged(replace(contract, first_block_id=100), contract.fingerprint())


class _Forged:
    """A contract that lies about its fingerprint."""

    def __init__(self, contract: Any, fingerprint: str) -> None:
        self._contract = contract
        self._fingerprint = fingerprint

    def fingerprint(self) -> str:
        """Give the fingerprint of something else."""
        return self._fingerprint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._contract, name)


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path, target: str) -> None:
    """The path is named, and what the system says."""
    with (
        pytest.raises(UsageError, match="nothing cannot be read: No such file"),
        archive.reading(tmp_path / "nothing"),
    ):
        pass
    with pytest.raises(UsageError, match="cannot be written"), archive.writing(tmp_path / "no" / "file"):
        pass


def test_json_of_a_manifest_is_the_same_everywhere(good: Path) -> None:
    """Its keys are sorted, so that the same manifest is the same bytes."""
    with archive.reading(good) as reader:
        content = reader.content("manifest.json", 10**6)
    assert json.dumps(json.loads(content), indent=1, sort_keys=True).encode() + b"\n" == content
