"""Clients that are slow on purpose hold little, and not for long."""

import socket
import time
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest

from tests.integration.web.conftest import Served
from virtualchain.web import connections


def opened(deployment: Served) -> socket.socket:
    """Connect to the server."""
    place = urlsplit(deployment.base)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def is_closed(client: socket.socket) -> bool:
    """Wait until the server ends the connection."""
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_head_that_does_not_come(deployment: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a whole request ends, also after an answer; one with a request stays."""
    monkeypatch.setattr(connections, "_HEAD_TIME", 0.5)
    request = b"GET /api/v1/apps HTTP/1.1\r\nHost: x\r\n\r\n"
    for start in (b"", b"GET /api/v1/apps HT", request + b"GET /api/v1/apps HTTP/1.1\r\nHost"):
        with opened(deployment) as client:
            client.sendall(start)
            began = time.monotonic()
            assert is_closed(client), start
            assert time.monotonic() - began < 5
    with opened(deployment) as client:
        for _ in range(3):
            client.sendall(request)
            answer = HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.read() != b"") == (200, True)
            time.sleep(0.6)


def test_a_head_without_an_end(deployment: Served) -> None:
    """It is not collected."""
    line = b"X-Header: " + b"x" * 1000 + b"\r\n"
    with opened(deployment) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(b"GET /api/v1/apps HTTP/1.1\r\n" + 20_000 * line)


def test_an_answer_that_is_not_taken(deployment: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for much and reads none of it is cut off, although the answer is whole."""
    monkeypatch.setattr(connections, "_STALL_TIME", 0.5)
    monkeypatch.setattr(connections, "_SLOWEST", 10**9)
    statement = "select+repeat('x',30000000)+as+x"
    with opened(deployment) as client:
        client.sendall(f"GET /api/v1/sql?q={statement} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(3)
        received = 0
        try:
            while part := client.recv(1 << 20):
                received += len(part)
        except OSError:
            pass
        assert received < 30_000_000
    assert deployment.ask("apps").status == 200
