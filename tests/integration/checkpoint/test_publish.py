"""Published checkpoints: a folder on a real web server, which fails and lies, and whoever starts from it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest

from tests.support.checkpoints import content, contracts, create_checkpoint, say, words
from tests.support.tables import tables
from virtualchain.checkpoint import publish as publishing
from virtualchain.checkpoint.apply import apply
from virtualchain.checkpoint.download import downloaded, index
from virtualchain.checkpoint.publication import Entry
from virtualchain.checkpoint.publish import Published, publish
from virtualchain.checkpoint.signing import make_key
from virtualchain.checkpoint.web import Folder
from virtualchain.engine.options import Options
from virtualchain.errors import DownloadFailed, InvalidCheckpoint, UsageError
from virtualchain.reading import views
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Run = Callable[..., int]
MANY = tuple(" ".join(f"{block}-{word}-{'x' * 30}" for word in range(12)) for block in range(4))


class Server(ThreadingHTTPServer):
    """Serves a folder; `faults` changes a body by its path, and `cuts` says which answers break off."""

    daemon_threads = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults: Callable[[str, bytes], bytes] = lambda _path, body: body
        self.cuts: Callable[[str, int], bool] = lambda _path, _time: False
        self.leads_to: str | None = None
        self.asked: Counter[str] = Counter()


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        if self.server.leads_to is not None:
            self.send_response(302)
            self.send_header("Location", self.server.leads_to)
            self.end_headers()
            return
        try:
            body = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        except FileNotFoundError:
            self.send_error(404)
            return
        body = self.server.faults(self.path, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        is_cut = self.server.cuts(self.path, self.server.asked[self.path])
        self.wfile.write(body[: len(body) // 2] if is_cut else body)

    def log_message(self, *_: object) -> None:
        """Print nothing: the requests are no output of the test."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve the folder `web`."""
    (tmp_path / "web").mkdir()
    with Server(tmp_path / "web") as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into small chunks, so that a small app has several."""
    monkeypatch.setattr("virtualchain.checkpoint.chunks._SMALLEST", 200)
    monkeypatch.setattr("virtualchain.checkpoint.chunks._SPACING", 500)


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def put(url: str, folder: Path, **options: Any) -> Published:
    """Publish the app words."""
    with views.snapshot(url) as connection:
        return publish(connection, "words", folder, **options)


def folder_at(server: Server, **options: Any) -> Folder:
    """Return the server's folder, without pauses."""
    return Folder(server.url, **{"allows_http": False, "pauses": (0.0, 0.0), **options})


def fetch(server: Server, cache: Path, trusted: tuple[str, ...] = (), entry: Entry | None = None) -> bytes:
    """Download the newest checkpoint; return its file."""
    folder = folder_at(server)
    with downloaded(folder, entry or index(folder)[-1], trusted=trusted, cache=cache) as file:
        assert file is not None
        return file.read_bytes()


def files(folder: Path, kind: str) -> set[str]:
    """Return the names of the files of a kind."""
    return {path.name for path in (folder / kind).iterdir()}


def instead_of_index(other: str, path: str, body: bytes) -> bytes:
    """Serve another index."""
    return other.encode() if "index" in path else body


def test_a_folder_is_kept_up_to_date(
    fake_node: FakeNode, run: Run, server: Server, database_url: str, tmp_path: Path
) -> None:
    """It has the newest and the regular blocks; unchanged chunks stay, others go one publication later."""
    web, mirror = tmp_path / "web", tmp_path / "mirror"
    say(fake_node, *MANY)
    first = run(words())
    put(database_url, web, every=1000)
    before, old_index = files(web, "chunks"), index(folder_at(server))
    assert [entry.block_id for entry in old_index] == [first]
    again = put(database_url, web, every=1000)
    assert (again.added, again.new_bytes, again.removed) == (0, 0, 0)
    say(fake_node, "new")
    run(words())
    second = put(database_url, web, every=first)
    assert [entry.block_id for entry in second.entries] == [first, first + 1]
    assert second.new_bytes < second.entries[-1].size / 2
    assert len(before & files(web, "chunks")) == len(before)
    put(database_url, mirror, every=first)
    assert json.loads((mirror / "index.json").read_bytes()) == json.loads((web / "index.json").read_bytes())
    say(fake_node, "third", *[f"-{word}" for word in MANY[0].split()])
    last = run(words())
    put(database_url, web, every=1000)
    fetch(server, tmp_path / "cache", entry=old_index[0])  # the index before this one may still be in use
    say(fake_node, "fourth")
    run(words())
    done = put(database_url, web, every=1000)
    assert done.removed
    assert last + 1 == done.entries[-1].block_id
    with pytest.raises(DownloadFailed, match=r"404 .*the folder has changed meanwhile"):
        fetch(server, tmp_path / "cache", entry=old_index[0])
    newest_only = put(database_url, tmp_path / "late", every=1, keep=0)
    assert (newest_only.added, newest_only.entries) == (1, done.entries[-1:])
    late = put(database_url, tmp_path / "late", every=1, keep=last + 2 - first)
    assert [entry.block_id for entry in late.entries] == [*range(first, last + 2)]
    assert late.entries[:2] == second.entries
    assert late.missed == ()


def test_a_folder_lacks_what_history_does_not_reach(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path
) -> None:
    """Such multiples are named, but none before the app's first block; what was published before stays."""
    say(fake_node, *MANY)
    first = run(words(), history=2)
    done = put(database_url, tmp_path / "web", every=1, keep=100)
    assert [entry.block_id for entry in done.entries] == [*range(done.oldest, first + 1)]
    assert done.missed == tuple(range(102, done.oldest)) != ()
    say(fake_node, *MANY)
    last = run(words(), history=2)
    again = put(database_url, tmp_path / "web", every=1, keep=100)
    later = range(again.oldest, last + 1)
    assert [entry.block_id for entry in again.entries] == [*range(done.oldest, first + 1), *later]
    assert again.missed == (*done.missed, *range(first + 1, again.oldest))


def test_an_interrupted_publication_leaves_the_last_one(
    fake_node: FakeNode,
    run: Run,
    server: Server,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever file is not written any more, the folder serves what it served, and the next one finishes."""
    say(fake_node, *MANY)
    run(words())
    put(database_url, tmp_path / "web")
    served = fetch(server, tmp_path / "cache")
    say(fake_node, "more")
    run(words())
    write, left = publishing._replace, 0

    def stop(path: Path, content: bytes) -> None:
        nonlocal left
        if not left:
            raise OSError(28, "No space left on device")
        left -= 1
        write(path, content)

    monkeypatch.setattr(publishing, "_replace", stop)
    for allowed in range(100):
        left = allowed
        try:
            put(database_url, tmp_path / "web")
        except UsageError:
            assert fetch(server, tmp_path / "cache") == served
        else:
            break
    assert allowed > 0
    assert fetch(server, tmp_path / "cache") != served
    assert not [path for path in (tmp_path / "web").iterdir() if path.name == ".draft"]


def test_a_download_is_the_file_and_goes_on(
    fake_node: FakeNode, run: Run, server: Server, database_url: str, tmp_path: Path
) -> None:
    """Broken connections are tried again; what arrived is not downloaded twice; a flipped byte is refused."""
    say(fake_node, *MANY)
    run(words())
    put(database_url, tmp_path / "web")
    create_checkpoint(database_url, tmp_path / "file", in_chunks=True)
    server.cuts = lambda path, time: "chunks" in path and time == 1
    assert fetch(server, tmp_path / "cache") == (tmp_path / "file").read_bytes()
    assert not list((tmp_path / "cache").iterdir())
    chunks = {path for path in server.asked if "chunks" in path}
    assert len(chunks) > 4
    assert {server.asked[path] for path in chunks} == {2}
    damaged = min(chunks)
    server.cuts = lambda path, _time: path == damaged
    server.asked.clear()
    with pytest.raises(DownloadFailed, match=rf"{damaged} cannot be downloaded: it broke off after \d+ of"):
        fetch(server, tmp_path / "cache")
    had = {path for path in server.asked if "chunks" in path}
    server.cuts = lambda _path, _time: False
    server.faults = lambda path, body: bytes([body[0] ^ 1]) + body[1:] if path == damaged else body
    with pytest.raises(
        InvalidCheckpoint, match=r"chunk \d+ of its member \S+, from byte \d+ to \d+, has other"
    ):
        fetch(server, tmp_path / "cache")
    assert server.asked[damaged] == 3 + 2
    server.faults = lambda _path, body: body
    server.asked.clear()
    assert fetch(server, tmp_path / "cache") == (tmp_path / "file").read_bytes()
    assert len([path for path in server.asked if path in chunks]) < len(chunks)
    assert damaged in had


def test_nothing_large_is_read_before_the_signature(
    fake_node: FakeNode, run: Run, server: Server, database_url: str, tmp_path: Path
) -> None:
    """A key that did not sign, or an index that disagrees with the manifest, ends it before the chunks."""
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    say(fake_node, *MANY)
    run(words())
    put(database_url, tmp_path / "web")
    put(database_url, tmp_path / "web", keys=[tmp_path / "key"])
    assert fetch(server, tmp_path / "cache", trusted=(key,))
    server.asked.clear()
    with pytest.raises(InvalidCheckpoint, match=f"not by a trusted key: {other}"):
        fetch(server, tmp_path / "cache", trusted=(other,))
    honest = (tmp_path / "web" / "index.json").read_bytes()
    document = json.loads(honest)
    last = document["checkpoints"][-1]
    lies: list[tuple[str, object]] = [("block_id", 999_999), ("app", "other"), ("size", 10**15)]
    for name, value in [*lies, ("network", "bitcoin"), ("version", "9"), ("fingerprint", "00" * 32)]:
        forged = json.dumps({**document, "checkpoints": [{**last, name: value}]})
        server.faults = partial(instead_of_index, forged)
        with pytest.raises(InvalidCheckpoint, match=f"its index says {name} {value}, but the manifest"):
            fetch(server, tmp_path / "cache")
    for digest in ("../../etc/passwd", "A" * 64, 5):
        odd = {**last, "manifest": digest}
        forged = json.dumps({**document, "checkpoints": [odd]})
        server.faults = partial(instead_of_index, forged)
        with pytest.raises(InvalidCheckpoint, match="of its index: manifest is missing or invalid"):
            fetch(server, tmp_path / "cache")
    server.faults = lambda _path, _body: b"<html>not found</html>"
    with pytest.raises(InvalidCheckpoint, match="its index is not JSON"):
        fetch(server, tmp_path / "cache")
    server.faults = lambda path, body: body if "index" in path else b"x" * (2**24 + 1)
    with pytest.raises(InvalidCheckpoint, match="has more than 16,777,216 bytes"):
        fetch(server, tmp_path / "cache")
    assert not [path for path in server.asked if "chunks" in path]


def test_where_it_may_be_read_from(server: Server, tmp_path: Path) -> None:
    """Only https, or http from this machine or with trusted keys, wherever a server leads."""
    for url in ("file:///etc", "ftp://host/", "http://host/"):
        with pytest.raises(UsageError, match="https"):
            Folder(url, allows_http=False)
    assert Folder("http://user:secret@host/a/index.json", allows_http=True).name == "http://host/a"
    (tmp_path / "secret").write_text("{}")
    for place in ("http://198.51.100.1/index.json", f"file://{tmp_path}/secret", "ftp://198.51.100.1/x"):
        server.leads_to = place
        with pytest.raises((UsageError, DownloadFailed)):
            index(folder_at(server, pauses=()))


def test_a_server_that_does_not_answer_is_given_up(server: Server, tmp_path: Path) -> None:
    """An answer that drips counts as a broken connection once its time is up."""
    (tmp_path / "web" / "index.json").write_bytes(b"{}")

    def drip(_path: str, body: bytes) -> bytes:
        ended.result()
        return body

    ended: Future[None] = Future()
    server.faults = drip
    others = set(enumerate_threads())  # those that earlier tests have left wait for ever
    with pytest.raises(DownloadFailed, match="it was not complete within 0 seconds"):
        index(folder_at(server, complete=0.05, pauses=(0.0,)))
    ended.set_result(None)
    for thread in enumerate_threads():
        if thread.name == "background" and thread not in others:
            thread.join()


def test_an_app_begins_with_what_was_published(
    fake_node: FakeNode,
    run: Run,
    server: Server,
    database_url: str,
    other_url: str,
    tmp_path: Path,
) -> None:
    """The rows and digests are those of the deployment that published it."""
    say(fake_node, *MANY)
    run(words(), database=other_url)
    put(other_url, tmp_path / "web")
    before = tables(database_url)
    folder = folder_at(server)
    server.faults = lambda path, body: bytes(len(body)) if "chunks" in path else body
    with (
        pytest.raises(InvalidCheckpoint, match="has other bytes"),
        downloaded(folder, index(folder)[-1], cache=tmp_path / "cache"),
    ):
        pass
    assert tables(database_url) == before
    server.faults = lambda _path, body: body
    folder = folder_at(server)
    with downloaded(folder, index(folder)[-1], cache=tmp_path / "cache") as file:
        assert file is not None
        apply(database_url, file, contracts(words()), options=Options(state_folder=tmp_path))
    assert content(database_url)["words.words"] == content(other_url)["words.words"]
