"""Framed files: records between zeros, partial records and junk, obfuscated or plain, as they are written."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bitcoin.files.writing import KEY, append, frame, obfuscate
from virtualchain.bitcoin.files import framing as framing_module
from virtualchain.bitcoin.files.framing import FramedFile, Framing, deobfuscate, read_part
from virtualchain.bitcoin.networks import network
from virtualchain.errors import MissingData, NodeError

REGTEST = network("regtest")
SIGNET = network("signet")
RECORDS = [bytes([65 + n]) * (20 + n) for n in range(5)]


@pytest.fixture(params=[b"", KEY], ids=["plain", "obfuscated"])
def key(request: pytest.FixtureRequest) -> bytes:
    """Return the key of the test's file."""
    return bytes(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the test's file."""
    return tmp_path / "records"


def framed_file(path: Path, key: bytes, trailer: int = 0) -> FramedFile:
    """Open the file for records of 10 to 100 bytes."""
    return FramedFile(path, Framing(REGTEST, key, 10, 100, head=16, trailer=trailer))


def new_records(file: FramedFile, path: Path, key: bytes) -> list[bytes]:
    """Read the records that were not read before."""
    frames = list(file.new_frames())
    records = [read_part(path, each.offset, each.length, key) for each in frames]
    assert [record[:16] for record in records] == [each.head[: each.length] for each in frames]
    return records


def test_records_come_in_order_and_once(path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are appended later are found by the next call."""
    monkeypatch.setattr(framing_module, "_SETTLING", 0)
    append(path, b"".join(frame(REGTEST, record) for record in RECORDS[:3]), key)
    file = framed_file(path, key)
    assert new_records(file, path, key) == RECORDS[:3]
    assert file.is_unchanged(path.stat())
    assert new_records(file, path, key) == []
    append(path, b"".join(frame(REGTEST, record) for record in RECORDS[3:]), key)
    assert not file.is_unchanged(path.stat())
    assert new_records(file, path, key) == RECORDS[3:]


def test_reserved_zeros_are_filled_later(path: Path, key: bytes) -> None:
    """Records are found although the file keeps its size while they are written."""
    path.write_bytes(bytes(500))
    file = framed_file(path, key)
    assert new_records(file, path, key) == []
    at = 0
    for record in RECORDS:
        with path.open("r+b") as opened:
            opened.seek(at)
            opened.write(obfuscate(frame(REGTEST, record), key, at))
        at += 8 + len(record)
        assert new_records(file, path, key) == [record]
    assert new_records(file, path, key) == []


@pytest.mark.parametrize("reserved", [0, 500])
@pytest.mark.parametrize("trailer", [0, 32])
def test_a_partly_written_record_does_not_count_yet(
    path: Path, key: bytes, trailer: int, reserved: int
) -> None:
    """Wherever the writing stops, the record is found once, complete or at its final place."""
    written = obfuscate(frame(REGTEST, RECORDS[0]) + b"t" * trailer, key)
    for size in (3, 8, 12, len(written) - 1):
        path.write_bytes(written[:size] + bytes(reserved))
        file = framed_file(path, key, trailer)
        early = new_records(file, path, key)
        path.write_bytes(written + bytes(reserved))
        late = [(each.offset, each.length) for each in file.new_frames()]
        assert len(early) == (size == len(written) - 1 and reserved > 0)
        assert late == ([] if early else [(8, len(RECORDS[0]))])


def test_junk_is_skipped(path: Path, key: bytes) -> None:
    """It may be the remains of a crash, an impossible length, zeros, or only a message start."""
    junk = [
        b"left over",
        REGTEST.message_start + b"\xff\xff\xff\xff",
        REGTEST.message_start + bytes(4),
        bytes(3 << 20),
        REGTEST.message_start,
    ]
    for record, between in zip(RECORDS, junk, strict=True):
        append(path, frame(REGTEST, record), key)
        append(path, between, b"" if len(between) > 100 else key)
    file = framed_file(path, key)
    assert new_records(file, path, key) == RECORDS
    append(path, b"more junk" + frame(REGTEST, RECORDS[0]), key)
    assert new_records(file, path, key) == RECORDS[:1]


def test_an_overwritten_file_is_read_again(path: Path, key: bytes) -> None:
    """This happens if it got shorter, or no record starts any longer where the last one ended."""
    append(path, b"".join(frame(REGTEST, record) for record in RECORDS[:3]), key)
    file = framed_file(path, key)
    assert new_records(file, path, key) == RECORDS[:3]
    path.unlink()
    append(path, b"".join(frame(REGTEST, record) for record in RECORDS[:2]), key)
    assert new_records(file, path, key) == RECORDS[:2]
    assert file.rewound
    path.unlink()
    append(path, b"".join(frame(REGTEST, record) for record in RECORDS[1:]), key)
    assert new_records(file, path, key) == RECORDS[1:]
    assert file.rewound
    assert new_records(file, path, key) == []
    assert not file.rewound


def test_a_message_start_across_two_pieces(path: Path, key: bytes) -> None:
    """The search finds a message start that is split between two reads."""
    for shift in range(6):
        path.unlink(missing_ok=True)
        append(path, b"j" * ((1 << 20) + 1 - shift) + frame(REGTEST, RECORDS[0]), key)
        assert new_records(framed_file(path, key), path, key) == RECORDS[:1]


def test_another_networks_record_is_rejected(path: Path, key: bytes) -> None:
    """The error names both networks and the file."""
    append(path, frame(REGTEST, RECORDS[0]) + frame(SIGNET, RECORDS[1]), key)
    with pytest.raises(NodeError, match=r"records holds blocks of signet among those of regtest"):
        list(framed_file(path, key).new_frames())


def test_a_file_that_is_gone_or_truncated(path: Path) -> None:
    """It has no records, and reading its bytes is an error that says what may have happened."""
    assert list(framed_file(path, b"").new_frames()) == []
    with pytest.raises(MissingData, match="records is gone: the node pruned it"):
        read_part(path, 0, 1, b"")
    path.write_bytes(b"12345")
    assert read_part(path, 1, 4, b"") == b"2345"
    with pytest.raises(MissingData, match="records ends before byte 6"):
        read_part(path, 1, 5, b"")


def test_a_file_that_cannot_be_read(path: Path) -> None:
    """The error states the reason and the path."""
    path.mkdir()
    with pytest.raises(NodeError, match="records cannot be read: Is a directory"):
        read_part(path, 0, 1, b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_another_user(path: Path) -> None:
    """The error suggests running as the user whose node it is."""
    path.write_bytes(b"12345")
    path.chmod(0)
    with pytest.raises(NodeError, match="run as the user whose node it is"):
        read_part(path, 0, 1, b"")


@given(st.binary(max_size=40), st.integers(0, 2**40), st.binary(min_size=8, max_size=8))
def test_the_key_is_applied_by_offset(plain: bytes, at: int, key: bytes) -> None:
    """The result equals an XOR of each byte."""
    assert deobfuscate(obfuscate(plain, key, at), at, key) == plain


@pytest.mark.parametrize("size", [16383, 16384, 16385, 40000])
def test_the_key_is_applied_to_many_bytes(size: int) -> None:
    """The pieces that are XORed at once fit together."""
    plain = bytes(n % 251 for n in range(size))
    assert deobfuscate(obfuscate(plain, KEY, 5), 5, KEY) == plain
