"""URLs and logins: input is understood or rejected with a clear message, and no secret is shown."""

from pathlib import Path

import pytest

from tests.unit.bitcoin.node.fakes import basic
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node import login
from virtualchain.bitcoin.node.login import Cookie, NodeUrl, Password, find_login, read_url
from virtualchain.errors import NodeError, NodeUnavailable, UsageError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://u:p@127.0.0.1:18443", NodeUrl("127.0.0.1", 18443, "u", "p")),
        ("http://u:p@node.example:8332/", NodeUrl("node.example", 8332, "u", "p")),
        ("http://localhost", NodeUrl("localhost", 8332, None, "")),
        ("http://u%40x:p%3A%25@[::1]:1", NodeUrl("::1", 1, "u@x", "p:%")),
        ("http://u@h:1", NodeUrl("h", 1, "u", "")),
    ],
)
def test_read_url(url: str, expected: NodeUrl) -> None:
    """Host, port, user and password are separated and percent-decoded."""
    assert read_url(url) == expected


def test_read_url_uses_the_port_of_the_network() -> None:
    """The default is the port on which bitcoind listens for that network."""
    assert read_url("http://localhost", network("signet")).port == 38332


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8332",
        "ftp://u:secret@h:1",
        "http://u:secret@:8332",
        "http://u:secret@h:port",
        "http://u:secret@h:99999",
        "http://u:12/secret@h/wallet/x",
        "http://u:secret/more@h:1",
        "http://u:secret?@h:1",
        "http://u:secret#@h:1",
        "http://u:secret@[h:1",
    ],
)
def test_read_url_rejects_others(url: str) -> None:
    """The message shows the expected form, and never the password."""
    with pytest.raises(UsageError, match="http://user:password@host:port") as caught:
        read_url(url)
    assert (
        "secret"
        not in f"{caught.value!r}{caught.value.__context__ if not caught.value.__suppress_context__ else ''}"
    )


def test_url_in_a_message_has_no_password() -> None:
    """Neither str nor repr of an address shows the password."""
    url = read_url("http://u:secret@[::1]:8332")
    assert str(url) == "http://[::1]:8332"
    assert "secret" not in repr(url)


def test_find_login_prefers_the_named_cookie(tmp_path: Path) -> None:
    """A cookie file that the user named takes precedence over the URL's password."""
    (tmp_path / "cookie").write_text("__cookie__:abc\n")
    chosen = find_login(read_url("http://u:p@h:1"), tmp_path / "cookie", None)
    assert chosen.authorization() == basic("__cookie__:abc")


def test_find_login_uses_the_password() -> None:
    """Without a cookie file, the login is the URL's user and password."""
    chosen = find_login(read_url("http://u:p@h:1"), None, None)
    assert isinstance(chosen, Password)
    assert chosen.authorization() == basic("u:p")


@pytest.mark.parametrize(
    ("url", "named", "file"),
    [
        ("http://127.0.0.1:8332", None, ".cookie"),
        ("http://localhost", None, ".cookie"),
        ("http://[::1]:18332", None, "testnet3/.cookie"),
        ("http://localhost:18443", None, "regtest/.cookie"),
        ("http://localhost:9999", "signet", "signet/.cookie"),
    ],
)
def test_find_login_of_the_local_node(
    url: str, named: str | None, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without either, the login is the local node's cookie, found by the network or the port."""
    monkeypatch.setattr(login, "data_folder", lambda: tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("__cookie__:abc")
    requested = None if named is None else network(named)
    assert find_login(read_url(url, requested), None, requested).authorization() == basic("__cookie__:abc")


@pytest.mark.parametrize("url", ["http://node.example:8332", "http://localhost:9999"])
def test_find_login_without_any(url: str) -> None:
    """The cookie of a remote node, or of one on an unknown network, has to be named by the user."""
    with pytest.raises(UsageError, match="cookie"):
        find_login(read_url(url), None, None)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_data_folder(platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The node's folder is the one that its documentation names for each system."""
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {
        "linux": ".bitcoin",
        "darwin": "Library/Application Support/Bitcoin",
        "win32": "AppData/Local/Bitcoin",
    }
    assert login.data_folder() == tmp_path / names[platform]


def test_cookie_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that exists but cannot be read is not a temporary fault."""
    (tmp_path / ".cookie").mkdir()
    with pytest.raises(NodeError, match="cannot be read") as caught:
        Cookie(read_url("http://h:1"), tmp_path / ".cookie").authorization()
    assert not isinstance(caught.value, NodeUnavailable)
