"""What an attempt does with receivers of every kind: it ends in time, and says why it failed."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.receivers import KEY, verify
from tests.support.receivers import Receiver as Server
from tests.unit.bitcoin.node.test_transport import TlsFront, certificate
from virtualchain.webhooks import receiver
from virtualchain.webhooks.messages import Message
from virtualchain.webhooks.receiver import NotDelivered, Receiver

BODY = b'{"event": "block"}'
MESSAGE = Message("block", "7-x-0/1", b'{"event": "block", "id": "7-x-0/1"}')
Speak = Callable[[socket.socket], None]


@contextmanager
def listening(speak: Speak) -> Iterator[str]:
    """Run a server that reads a request and then does anything; yield its URL."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    if speak is not never_reads:
                        connection.recv(1 << 16)
                    speak(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/s3cret?token=s3cret"
    finally:
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def says(data: bytes) -> Speak:
    """Answer with these bytes."""
    return lambda connection: connection.sendall(data)


def drips(data: bytes, pause: float = 0.05) -> Speak:
    """Answer byte by byte."""

    def speak(connection: socket.socket) -> None:
        with suppress(OSError):
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(pause)

    return speak


def never_reads(connection: socket.socket) -> None:
    """Read nothing, and hold the connection."""
    time.sleep(0.8)


def post(url: str, headers: Mapping[str, str], body: bytes) -> None:
    """Make one attempt."""
    with closing(Receiver(url)) as sender:
        sender.post(headers, body)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        (says(b"HTTP/1.1 500 Oh no\r\nContent-Length: 0\r\n\r\n"), "it answered 500 Oh no"),
        (
            says(b"HTTP/1.1 301 \r\nLocation: http://s3cret/\r\n\r\n"),
            "it answered 301: redirects are not followed",
        ),
        (says(b"HTTP/1.1 410 Gone\r\n\r\n"), "it answered 410 Gone: the receiver wants no more"),
        (says(b"HTTP/1.1 503 \x1b[31m\x00\xff" + b"x" * 500 + b"\r\n\r\n"), "it answered 503"),
        (says(b"SSH-2.0\r\n"), "its answer is not HTTP"),
        (says(OK + b"a: b\r\n" * 300 + b"\r\n"), "its answer is not HTTP"),
        (says(b"HTTP/1.1 200 " + b"x" * 70_000), "its answer is not HTTP"),
        (says(b""), "it closed the connection without an answer"),
        (drips(OK * 100), "it did not answer in time"),
        (lambda connection: time.sleep(0.8), "it did not answer in time"),
        (drips(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.005), "it did not answer in time"),
        (never_reads, "it did not answer in time"),
    ],
)
def test_an_attempt_that_fails_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, speak: Speak, reason: str
) -> None:
    """The reason is one line, short, and shows nothing of the address."""
    monkeypatch.setattr(receiver, "TOTAL", 0.3)
    monkeypatch.setattr(receiver, "SILENCE", 0.25)
    body = b"x" * (1 << 24 if speak is never_reads else 1)
    with listening(speak) as url:
        started = time.monotonic()
        with pytest.raises(NotDelivered) as failed:
            post(url, {}, body)
        assert time.monotonic() - started < 0.8
    assert str(failed.value).startswith(reason)
    assert len(str(failed.value)) < 220
    assert "\x00" not in str(failed.value)
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize(
    "speak",
    [
        says(OK + b"\r\n" + b"x" * 1_000_000),
        says(OK + b"Content-Length: 99999999\r\n\r\nx"),
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n"),
        says(b"HTTP/1.1 204 No Content\r\n\r\n"),
        says(b"HTTP/1.0 299 \r\n\r\n"),
        drips(OK + b"Content-Length: 999\r\n\r\n" + b"x" * 999, 0.002),
    ],
)
def test_a_status_of_success_is_enough(monkeypatch: pytest.MonkeyPatch, speak: Speak) -> None:
    """Whatever the body is, and however slow, the delivery was accepted."""
    monkeypatch.setattr(receiver, "_READING", 0.2)
    with listening(speak) as url:
        sender = Receiver(url)
        started = time.monotonic()
        sender.post({}, BODY)
        sender.post({}, BODY)
        assert time.monotonic() - started < 2
        sender.close()


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        *(("7", 7.0), ("0", 0.0), ("999999999999", 86400.0), ("-5", None), ("soon", None)),
        *(("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0)),
    ],
)
def test_a_receiver_may_ask_for_a_pause(retry_after: str, pause: float | None) -> None:
    """Seconds or a date, up to a day."""
    with Server(lambda number: 429) as server:
        server.headers = {"Retry-After": retry_after}
        with pytest.raises(NotDelivered) as failed:
            post(server.url, MESSAGE.headers(KEY.encode(), int(time.time())), MESSAGE.body)
    assert failed.value.pause == pause


def test_a_connection_is_kept_until_the_receiver_closes_it() -> None:
    """A receiver that restarts between two deliveries costs no failure."""
    with Server() as server:
        sender = Receiver(server.url)
        for _ in range(3):
            sender.post(MESSAGE.headers(KEY.encode(), int(time.time())), MESSAGE.body)
        assert len(server._connections) == 1
        server.stop()
        server.start()
        sender.post(MESSAGE.headers(KEY.encode(), int(time.time())), MESSAGE.body)
        sender.close()
    assert (len(server.attempts), len(server.events), server.complaints) == (4, 1, [])


def test_an_attempt_can_be_interrupted() -> None:
    """Another thread ends it, and lets no other begin."""
    with listening(lambda connection: time.sleep(0.8)) as url:
        sender = Receiver(url)
        threading.Timer(0.2, sender.abort).start()
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(NotDelivered):
                sender.post({}, BODY)
        assert time.monotonic() - started < 1


def test_encryption_is_checked_and_nobody_may_be_there() -> None:
    """A certificate that nobody trusts, none at all, no server, and no host: each has its own reason."""
    with listening(says(OK + b"\r\n")) as url, pytest.raises(NotDelivered, match="no encrypted connection"):
        Receiver(url.replace("http:", "https:")).post({}, BODY)
    with pytest.raises(NotDelivered, match="the connection was refused"):
        Receiver(url).post({}, BODY)
    with pytest.raises(NotDelivered, match="its host name cannot be resolved"):
        Receiver("http://nobody.invalid/").post({}, BODY)


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the system trusts is needed, and one for the receiver's name."""
    authority, own = certificate(tmp_path, x509.DNSName("localhost"))
    with Server() as server, closing(TlsFront(own, ("127.0.0.1", server.port))) as front:
        url = f"https://127.0.0.1:{front.port}/"
        with pytest.raises(NotDelivered, match="its certificate is not trusted: "):
            post(url, {}, BODY)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with pytest.raises(NotDelivered, match="is not trusted: IP address mismatch"):
            post(url, {}, BODY)
        with closing(Receiver(url.replace("127.0.0.1", "localhost"))) as sender:
            for _ in range(3):
                sender.post(MESSAGE.headers(KEY.encode(), int(time.time())), MESSAGE.body)
    assert (len(server.attempts), len(server.events), server.complaints) == (3, 1, [])


def test_a_signature_covers_time_and_body() -> None:
    """Another body, time or secret does not pass."""
    message = Message("block", "7-x-0/1", BODY)
    headers = dict(message.headers(b"key", 1_000))
    assert verify("key", headers, BODY, 1_100)
    assert not verify("key", headers, BODY + b" ", 1_100)
    assert not verify("other", headers, BODY, 1_100)
    assert not verify("key", headers, BODY, 9_999)
    assert not verify("key", {**headers, "Virtualchain-Timestamp": "1001"}, BODY, 1_100)
