"""Connections: answers that are too long, slow or deep are given up, https is checked, paths are kept."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.bitcoin.node.fakes import Reply, ScriptedServer, basic, result
from virtualchain.bitcoin.node import client, transport
from virtualchain.bitcoin.node.client import Rest, Rpc
from virtualchain.bitcoin.node.login import find_login, read_url
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.node.transport import tls_for
from virtualchain.errors import NodeError, NodeUnavailable, UsageError
from virtualchain.testing import FakeNode

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture
def drip() -> Iterator[Callable[[bytes], str]]:
    """Return a function that starts a server: it sends some bytes at once, then one every 20 ms for ever."""
    servers: list[socket.socket] = []
    ended = threading.Event()

    def answer(connection: socket.socket, start: bytes) -> None:
        with closing(connection):
            connection.recv(65536)
            try:
                connection.sendall(start)
                while not ended.wait(0.02):
                    connection.sendall(b" ")
            except OSError:
                return

    def serve(server: socket.socket, start: bytes) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, start), daemon=True).start()

    def start_server(start: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=serve, args=(server, start), daemon=True).start()
        return f"http://u:p@127.0.0.1:{server.getsockname()[1]}"

    yield start_server
    ended.set()
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX-A:", HEAD, HEAD + b'{"result":'],
    ids=["at once", "status", "headers", "body", "middle"],
)
@pytest.mark.parametrize("over_rest", [True, False])
def test_an_answer_that_drips_is_given_up(
    drip: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, start: bytes, over_rest: bool
) -> None:
    """Bytes now and then do not keep a question alive, whichever part of the answer they are of."""
    monkeypatch.setattr(client, "ANSWER_TIME", 0.4)
    monkeypatch.setattr(client, "RETRY_TIME", 0.01)
    url = read_url(drip(start))
    started = time.monotonic()
    rest, rpc = Rest(url), Rpc(url, find_login(url, None, None))
    with pytest.raises(NodeUnavailable, match="timed out"):
        rest.get("/rest/x", 10_000) if over_rest else rpc.call("getblockcount")
    assert time.monotonic() - started < 5


def test_a_json_answer_has_a_limit(
    scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is too long is an error, and its rest is not taken for the next answer."""
    monkeypatch.setattr(client, "LARGEST_ANSWER", 1000)
    scripted.plan(result("x" * 1000), result(7), result("x" * 900))
    with pytest.raises(NodeError, match="more than 1000 bytes") as caught:
        rpc.call("getblockcount")
    assert not isinstance(caught.value, NodeUnavailable)
    assert rpc.call("getblockcount") == 7
    assert rpc.call("getblockcount") == "x" * 900


@pytest.mark.parametrize("value", [[], [[]], [{}], [0], [[[[[]]]]], [{"a": 0}], [""]])
def test_the_values_of_an_answer_have_a_limit(
    scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch, value: list[object]
) -> None:
    """They take far more memory than their text."""
    monkeypatch.setattr(client, "MOST_VALUES", 1000)
    allowed, refused = result(value * 100), result((value or [[]]) * 1100)
    scripted.plan(allowed, refused, result(["x" * 2000]))
    assert rpc.call("getblock", "00", 3) == value * 100
    with pytest.raises(NodeError, match="more than 1000 values: no Bitcoin node does that"):
        rpc.call("getblock", "00", 3)
    assert rpc.call("getblock", "00", 3) == ["x" * 2000]


def test_blocks_may_be_longer(scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """What prints scripts has a limit of its own, after they were shortened."""
    monkeypatch.setattr(client, "LARGEST_ANSWER", 1000)
    scripted.plan(result({"asm": "x" * 5000, "hex": "61" * 6000, "n": 1, "text": "x" * 2000}))
    answer = rpc.call("getblock", "00", 3)
    assert answer["hex"].startswith("6a0470170000")
    assert len(answer["text"]) == 2000
    scripted.plan(result("x" * 2000))
    with pytest.raises(NodeError, match="more than 1000 bytes: no Bitcoin node does that"):
        rpc.call("getblock", "00", 0)  # in hex


@pytest.mark.parametrize("over_rest", [True, False])
def test_an_end_in_the_head_is_no_answer(scripted: ScriptedServer, rpc: Rpc, over_rest: bool) -> None:
    """The head has no end, so it is not known whether there is a body: the question is asked again."""
    scripted.plan(Reply(200, cuts_head=True), result("x"))
    if over_rest:
        with closing(Rest(rpc._url)) as rest:
            assert rest.get("/rest/x", 1000) == result("x").body
    else:
        assert rpc.call("getblockcount") == "x"


@pytest.mark.parametrize("depth", [2_000, 100_000, 3_000_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_that_is_nested_deeply_is_an_error(
    scripted: ScriptedServer, rpc: Rpc, depth: int, opening: bytes
) -> None:
    """No depth of JSON is taken for a bug of ours."""
    scripted.plan(Reply(200, opening * depth), Reply(200, opening * depth))
    with pytest.raises(NodeError):
        rpc.call("getblockcount")


@pytest.mark.parametrize("size", [b"-1", b"-5", b"zz", b""])
@pytest.mark.parametrize("over_rest", [True, False])
def test_a_chunk_of_no_size_is_not_read(
    drip: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, size: bytes, over_rest: bool
) -> None:
    """Python would read a chunk with a negative size up to its end, past every limit."""
    monkeypatch.setattr(client, "ANSWER_TIME", 2)
    monkeypatch.setattr(client, "RETRY_TIME", 0.01)
    url = read_url(drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % size))
    rest, rpc = Rest(url), Rpc(url, find_login(url, None, None))
    with pytest.raises(NodeUnavailable, match="IncompleteRead"):
        rest.get("/rest/x", 1000) if over_rest else rpc.call("getblockcount")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length:5\r\nX: y\r\n\r\nhello",
        b"HTTP/1.1 200 \r\nContent-Length:   5\r\n\r\nhello",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5 \r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length : 3\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nhello",
        b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3000 + b"\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 2",
        b"",
    ],
)
@pytest.mark.parametrize("at", [0, 9, 30])
def test_heads_of_any_form_mean_the_same(monkeypatch: pytest.MonkeyPatch, answer: bytes, at: int) -> None:
    """The quick way with heads of a node's form agrees with Python's class, also if they come in parts."""
    monkeypatch.setattr(client, "RETRY_TIME", -1.0)

    def serve(server: socket.socket) -> None:
        with suppress(OSError):  # the server is closed
            while True:
                connection, _ = server.accept()
                with closing(connection):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.recv(65536)
                    connection.sendall(answer[:at])
                    time.sleep(0.01 if at else 0)
                    connection.sendall(answer[at:])

    def ask(url: str) -> tuple[object, ...]:
        with closing(Rest(read_url(url))) as rest:
            try:
                return (rest.get("/rest/x", 1000),)
            except NodeError as error:
                return type(error), str(error)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        quick = ask(url)
        monkeypatch.setattr(transport, "_PLAIN_HEAD", re.compile(rb"(?!)"))
        assert quick == ask(url)
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "start", [b"", HEAD, HEAD + b"x", HEAD[:20]], ids=["at once", "body", "middle", "head"]
)
@pytest.mark.parametrize(
    ("clock", "over_rest"), [("READ_TIMEOUT", True), ("ANSWER_TIME", True), ("ANSWER_TIME", False)]
)
def test_a_node_that_falls_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch, start: bytes, clock: str, over_rest: bool
) -> None:
    """Silence has its own clock, whichever part of the answer it interrupts, and heeds the other."""
    monkeypatch.setattr(client, clock, 0.3)
    monkeypatch.setattr(client, "RETRY_TIME", 0.01)
    ended = threading.Event()

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with closing(connection):
            connection.recv(65536)
            connection.sendall(start)
            ended.wait(20)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        started = time.monotonic()
        url = read_url(f"http://u:p@127.0.0.1:{server.getsockname()[1]}")
        rpc = Rpc(url, find_login(url, None, None))
        with closing(Rest(url)) as rest, closing(rpc), pytest.raises(NodeUnavailable, match="timed out"):
            rest.get("/rest/x", 10_000) if over_rest else rpc.call("getblockcount")
        assert time.monotonic() - started < 5
        ended.set()


def test_a_number_that_no_decimal_holds_is_an_error(scripted: ScriptedServer, rpc: Rpc) -> None:
    """It is not taken for a bug of ours."""
    scripted.plan(result(b"1e" + b"9" * 30))
    with pytest.raises(NodeError, match="not a Bitcoin node"):
        rpc.call("getblockcount")


def test_what_is_not_http_is_quoted(drip: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer's first line is cut, and cannot command a terminal."""
    monkeypatch.setattr(client, "RETRY_TIME", 0.01)
    url = read_url(drip(b"\x1b[2J" + b"x" * 20_000 + b"\r\n"))
    with pytest.raises(NodeUnavailable) as caught:
        Rest(url).get("/rest/x", 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_an_endless_error_text_is_cut(scripted: ScriptedServer, rest: Rest) -> None:
    """A reason is read up to a limit."""
    scripted.plan(Reply(500, b"x" * 60_000))
    with pytest.raises(NodeError) as caught:
        rest.get("/rest/x", 10)
    assert len(str(caught.value)) < 1000


# Paths


def test_a_path_is_kept(scripted: ScriptedServer) -> None:
    """JSON-RPC goes to the path itself, REST to what is below it, and no message shows it."""
    url = read_url(f"http://{scripted.address}/v2/token/")
    scripted.plan(result(7), Reply(200, b"x"), Reply(401))
    rpc, rest = Rpc(url, find_login(url, None, None)), Rest(url)
    assert rpc.call("getblockcount") == 7
    assert rest.get("/rest/x", 10) == b"x"
    with pytest.raises(NodeError, match="asks for a login") as caught:
        rpc.call("getblockcount")
    assert [request.path for request in scripted.requests] == ["/v2/token", "/v2/token/rest/x", "/v2/token"]
    assert {request.authorization for request in scripted.requests} == {""}
    assert "token" not in str(caught.value)
    rpc.close()
    rest.close()


# https

_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
AUTHORITY = x509.KeyUsage(
    **dict.fromkeys((*_USES, "encipher_only", "decipher_only"), False), key_cert_sign=True, crl_sign=True
)


def certificate(folder: Path, *names: x509.GeneralName) -> tuple[Path, Path]:
    """Write the certificate of an authority, and one that it signed for a server, with its key."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    subjects = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "node")]
    written = []
    for key, subject in zip(keys, subjects, strict=True):
        is_authority = key is keys[0]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subjects[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False
            )
        )
        if is_authority:  # from Python 3.13 on, it must say what it signs
            builder = builder.add_extension(AUTHORITY, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        text = builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        if not is_authority:
            text += key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        file = folder / f"{subject.rdns[0].rfc4514_string()[3:]}.pem"
        file.write_bytes(text)
        written.append(file)
    return written[0], written[1]


class TlsFront:
    """Speaks https in front of a server: what a hosted node has."""

    def __init__(self, certificate: Path, address: tuple[str, int]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._context, self._address = context, address
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._connect, args=(accepted,)))
            self._threads[-1].start()

    def _connect(self, accepted: socket.socket) -> None:
        try:
            front = self._context.wrap_socket(accepted, server_side=True)
        except OSError:
            accepted.close()
            return
        with closing(front), closing(socket.create_connection(self._address)) as back:
            answers = threading.Thread(target=self._copy, args=(back, front))
            answers.start()
            self._copy(front, back)
            answers.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Accept no more connections, and wait until the others have ended."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)


LOOPBACK = x509.IPAddress(ip_address("127.0.0.1"))


def test_a_node_over_https(tmp_path: Path, node: FakeNode) -> None:
    """A node whose certificate an authority of one's own signed works like any other, by REST and RPC."""
    authority, server = certificate(tmp_path, LOOPBACK)
    plain = read_url(node.url)
    with closing(TlsFront(server, (plain.host, plain.port))) as front:
        url = node.url.replace("http:", "https:").replace(f":{plain.port}", f":{front.port}")
        warnings: list[str] = []
        source = open_source(url, cacert=authority, warn=warnings.append)
        assert source.raw_block(node.tip) == node.chain.tree.chain[-1].raw
        assert source.tip().hash == node.tip
        assert str(source) == f"https://127.0.0.1:{front.port}"
        assert not warnings
        source.close()


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, node: FakeNode) -> None:
    """The login is not sent: neither without the authority, nor if the certificate is for another name."""
    authority, server = certificate(tmp_path, x509.DNSName("elsewhere.example"))
    plain = read_url(node.url)
    with closing(TlsFront(server, (plain.host, plain.port))) as front:
        for cacert in (None, authority):
            with pytest.raises(NodeError, match=r"certificate .* --cacert") as caught:
                open_source(f"https://u:secret@127.0.0.1:{front.port}", cacert=cacert)
            assert not isinstance(caught.value, NodeUnavailable)
            assert "secret" not in str(caught.value)


def test_https_to_a_node_that_speaks_http(node: FakeNode) -> None:
    """The message asks the right question."""
    with pytest.raises(NodeError, match="does it speak http"):
        open_source(node.url.replace("http:", "https:"))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates(tmp_path: Path, content: bytes | None) -> None:
    """The message names the file."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"ca\.pem"):
        tls_for(read_url("https://u:p@h:1"), file)


def test_certificates_are_for_https(tmp_path: Path) -> None:
    """Whoever names certificates expects encryption."""
    with pytest.raises(UsageError, match="write https"):
        tls_for(read_url("http://u:p@h:1"), tmp_path / "ca.pem")


def test_a_password_in_clear_is_warned_of_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning comes even if the node then does not answer."""
    monkeypatch.setattr(client, "RETRY_PAUSES", ())
    warnings: list[str] = []
    with pytest.raises(NodeUnavailable):
        open_source("http://u:secret@node.invalid:1", warn=warnings.append)
    assert len(warnings) == 1
    assert "secret" not in warnings[0]


def test_the_login_is_sent_over_https(tmp_path: Path, scripted: ScriptedServer) -> None:
    """A password reaches the node as it does over http."""
    authority, server = certificate(tmp_path, LOOPBACK)
    host, _, port = scripted.address.partition(":")
    with closing(TlsFront(server, (host, int(port)))) as front:
        url = read_url(f"https://alice:secret@127.0.0.1:{front.port}")
        scripted.plan(result(7), result(8))
        rpc = Rpc(url, find_login(url, None, None), tls_for(url, authority))
        assert [rpc.call("getblockcount"), rpc.call("getblockcount")] == [7, 8]
        assert {request.authorization for request in scripted.requests} == {basic("alice:secret")}
        assert len({request.connection for request in scripted.requests}) == 1
        rpc.close()
