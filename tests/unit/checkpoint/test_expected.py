"""Lists of expected digests: read from files and URLs, signed or not; anything else is refused."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from virtualchain.checkpoint import expected
from virtualchain.checkpoint.expected import read_lists, signed_list
from virtualchain.checkpoint.signing import make_key
from virtualchain.errors import UnreadableList
from virtualchain.model import Expected

ROW = {
    "name": "notes",
    "block_id": 7,
    "block_hash": "aa" * 32,
    "ops_hash": "bb" * 32,
    "consensus_hash": "cc" * 16,
    "state_hash": "dd" * 32,
}


def write(file: Path, document: Any) -> str:
    """Write a document as JSON; return the file's name."""
    file.write_text(json.dumps(document))
    return str(file)


def test_lists_add_up_by_app(tmp_path: Path) -> None:
    """What another node printed is read as it is; digests that it does not have are not compared."""
    first = write(tmp_path / "first", {"apps": [ROW, {**ROW, "name": "other", "state_hash": None}]})
    second = write(tmp_path / "second", {"apps": [{"name": "notes", "block_id": 9, "state_hash": "ee" * 32}]})
    assert read_lists([first, second]) == {
        "notes": [
            Expected(7, "aa" * 32, "cc" * 16, "dd" * 32, first),
            Expected(9, state_hash="ee" * 32, origin=second),
        ],
        "other": [Expected(7, "aa" * 32, "cc" * 16, None, first)],
    }


def test_one_trusted_key_must_have_signed(tmp_path: Path) -> None:
    """A list without a signature, by another key, or that was changed, is refused if keys are trusted."""
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    document = json.loads(json.dumps(signed_list([ROW], [tmp_path / "ours"])))
    good = write(tmp_path / "good", document)
    assert read_lists([good], [other, ours]) == read_lists([good])
    bad = {
        "unsigned": {"apps": [ROW]},
        "changed": {**document, "apps": [{**ROW, "block_id": 8}]},
        "emptied": {**document, "signatures": []},
    }
    for name, content in bad.items():
        with pytest.raises(UnreadableList, match=r"sign"):
            read_lists([write(tmp_path / name, content)], [ours])
    with pytest.raises(UnreadableList, match="not by a trusted key"):
        read_lists([good], [other])
    with pytest.raises(UnreadableList, match="is invalid"):
        read_lists([str(tmp_path / "changed")])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"apps": {}}',
        b'{"apps": [], "more": 1}',
        b'{"apps": [7]}',
        b'{"apps": [], "signatures": [{}]}',
        b'{"apps": [], "signatures": [{"public_key": "00", "signature": "00"}]}',
        *(
            json.dumps({"apps": [{**ROW, **changed}]}).encode()
            for changed in (
                {"name": 7},
                {"block_id": "7"},
                {"block_id": True},
                {"block_id": 7.0},
                {"block_id": -2},
                {"block_id": 2**31},
                {"consensus_hash": "CC" * 16},
                {"state_hash": "cc" * 16},
                {"block_hash": 7},
                {"ops_hash": "x"},
                {"more": None},
                {"consensus_hash": None, "state_hash": None},
            )
        ),
        json.dumps({"apps": [{"block_id": 7, "consensus_hash": "cc" * 16}]}).encode(),
    ],
)
def test_what_is_not_a_list_is_refused(tmp_path: Path, content: bytes) -> None:
    """The error names the file."""
    file = tmp_path / "list"
    file.write_bytes(content)
    with pytest.raises(UnreadableList, match="is not a list of expected digests"):
        read_lists([str(file)])


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    """So is a scheme that would read something else than a file or a page."""
    with pytest.raises(UnreadableList, match="No such file"):
        read_lists([str(tmp_path / "missing")])
    with pytest.raises(UnreadableList, match="http"):
        read_lists([f"ftp://127.0.0.1/{tmp_path}"])


class _Answers(BaseHTTPRequestHandler):
    """Answers with the list, with an error, with nothing, or drips without end."""

    def do_GET(self) -> None:
        if self.path == "/nothing":
            return
        if self.path == "/drip":
            with suppress(OSError):
                for _ in range(600):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.1)
            return
        self.send_response(200 if self.path.startswith("/list") else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"apps": [ROW]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    """Serve on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_list_may_be_at_a_url(page: str) -> None:
    """A page that is not there, and a server that hangs up, are named."""
    assert read_lists([f"{page}/list"])["notes"][0].consensus_hash == "cc" * 16
    assert read_lists([f"{page}/list?token=secret"])["notes"][0].origin == f"{page}/list"
    with pytest.raises(UnreadableList, match=f"{page}/missing cannot be read: .*Not Found"):
        read_lists([f"{page}/missing"])
    with pytest.raises(UnreadableList, match=f"{page}/nothing cannot be read: "):
        read_lists([f"{page}/nothing"])
    with pytest.raises(UnreadableList, match="cannot be read"):
        read_lists(["http://127.0.0.1:1/list"])


def test_an_answer_that_drips_is_given_up(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little time passes between two parts of it."""
    monkeypatch.setattr(expected, "_TIMEOUT", 1.0)
    with pytest.raises(UnreadableList, match="no complete answer within 1 seconds"):
        read_lists([f"{page}/drip"])
