"""URLs and logins: input is understood or rejected with a clear message, and no secret is shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.bitcoin.node.fakes import basic
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.node import login
from virtualchain.bitcoin.node.login import (
    Cookie,
    NodeUrl,
    Password,
    clear_text_warning,
    find_login,
    read_url,
)
from virtualchain.errors import NodeError, NodeUnavailable, UsageError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://u:p@127.0.0.1:18443", NodeUrl("127.0.0.1", 18443, "u", "p")),
        ("http://u:p@node.example:8332/", NodeUrl("node.example", 8332, "u", "p")),
        ("http://localhost", NodeUrl("localhost", 8332, None, "")),
        ("http://u%40x:p%3A%25@[::1]:1", NodeUrl("::1", 1, "u@x", "p:%")),
        ("http://u@h:1", NodeUrl("h", 1, "u", "")),
        ("  http://u:p@h:1\n", NodeUrl("h", 1, "u", "p")),
        ("http://h.example.:1", NodeUrl("h.example.", 1, None, "")),
        ("http://bücher.example:1", NodeUrl("xn--bcher-kva.example", 1, None, "")),
        ("https://u:p@h", NodeUrl("h", 443, "u", "p", "https")),
        ("https://h:8332/", NodeUrl("h", 8332, None, "", "https")),
        ("https://h/v2/token/", NodeUrl("h", 443, None, "", "https", "/v2/token")),
        ("https://h/tök%20en", NodeUrl("h", 443, None, "", "https", "/t%C3%B6k%20en")),
        ("http://u:p@h:1/wallet/x", NodeUrl("h", 1, "u", "p", "http", "/wallet/x")),
        ("http://[fe80::1%25eth0]:1", NodeUrl("fe80::1%eth0", 1, None, "")),
        ("http://[fe80::1%Eth0]:1", NodeUrl("fe80::1%Eth0", 1, None, "")),
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
        "http://u:sec ret@h:1",
        "http://u:sec\tret@h:1",
        "http://u:secret@ h:1",
        "http://u:secret%ff@h:1",
        "http://u%e4:secret@h:1",
        "http://u:secret@[::1]h:1",
        "http://u:secret@[v1.a]:1",
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


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://u:secret@a..example:1", "not a name"),
        ("http://u:secret@.example:1", "not a name"),
        (f"http://u:secret@{'a' * 64}.example:1", "not a name"),
        ("http://u:secret@-a.example:1", "not a name"),
        ("http://u:secret@a%20b:1", "not a name"),
        ("http://u:secret@[::g]:1", "cannot be read|not an address"),
        ("http://u:secret@[fe80::1%]:1", "cannot be read|zone"),
        ("http://u:secret@h:0", "port 0"),
        ("http://u%3Av:secret@h:1", "colon"),
    ],
)
def test_read_url_names_what_is_wrong(url: str, reason: str) -> None:
    """A host, port or user that cannot work has a line of its own, without the password."""
    with pytest.raises(UsageError, match=reason) as caught:
        read_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [
        ("http://u:p@127.0.0.1", False),
        ("http://u:p@127.8.0.1", False),
        ("http://u:p@[::1]", False),
        ("http://u:p@localhost", False),
        ("https://u:p@node.example", False),
        ("http://u:p@node.example", True),
        ("http://u:p@10.0.0.1", True),
        ("http://u:p@[fe80::1%25eth0]", True),
        ("http://u:p@localhost.example", True),
        ("http://node.example/token", True),
    ],
)
def test_a_password_in_clear_is_warned_of(url: str, is_warned: bool) -> None:
    """What leaves this machine unencrypted is warned of; the warning shows neither password nor path."""
    address = read_url(url)
    warning = clear_text_warning(address, find_login(address, None, None))
    assert (warning is not None) is is_warned
    assert "token" not in (warning or "")


def test_a_path_needs_no_login() -> None:
    """The path of a hosted node may be its password; if the node asks for another, that is said."""
    address = read_url("https://h/token")
    chosen = find_login(address, None, None)
    assert chosen.authorization() == ""
    with pytest.raises(NodeError, match="asks for a login") as caught:
        chosen.renew("")
    assert "token" not in f"{caught.value}{address}{address!r}"


def test_the_host_header_has_no_zone() -> None:
    """A zone has a meaning on this machine only."""
    assert read_url("http://[fe80::1%25eth0]:1").host_header == "[fe80::1]:1"


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
        ("http://localhost", "signet-54d26fbd", "signet_54d26fbd/.cookie"),
        ("http://localhost:9999", "signet-54d26fbd", "signet/.cookie"),
    ],
)
def test_find_login_of_the_local_node(
    url: str, named: str | None, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without either, the login is the local node's cookie, found by the network or the port."""
    monkeypatch.setattr(login, "data_folder", lambda coin="Bitcoin": tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("__cookie__:abc")
    requested = None if named is None else network(named)
    assert find_login(read_url(url, requested), None, requested).authorization() == basic("__cookie__:abc")


@pytest.mark.parametrize("url", ["http://node.example:8332", "http://localhost:9999"])
def test_find_login_without_any(url: str) -> None:
    """The cookie of a remote node, or of one on an unknown network, has to be named by the user."""
    with pytest.raises(UsageError, match="--cookie"):
        find_login(read_url(url), None, None)


def test_a_signets_own_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if there is no cookie in it, the folder that signets share is looked into, at each reading."""
    monkeypatch.setattr(login, "data_folder", lambda coin="Bitcoin": tmp_path)
    custom = network("signet-54d26fbd")
    chosen = find_login(read_url("http://localhost:9999", custom), None, custom)
    with pytest.raises(NodeUnavailable, match=r"no cookie file .*signet_54d26fbd/.cookie"):
        chosen.authorization()
    for folder, cookie in (("signet", "a:b"), ("signet_54d26fbd", "c:d")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".cookie").write_text(cookie)
        chosen.renew("")
        assert chosen.authorization() == basic(cookie)


def test_each_coin_s_node_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the network's name or its port; if several have that port, whichever has a cookie."""
    monkeypatch.setattr(login, "data_folder", lambda coin="Bitcoin": tmp_path / coin)
    litecoin = network("litecoin-regtest")
    for folder, url, named in (
        ("Litecoin/regtest", "http://localhost", litecoin),
        ("Litecoin/regtest", "http://localhost:19443", None),
        ("Dogecoin/regtest", "http://localhost:18332", None),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / ".cookie").write_text(f"__cookie__:{folder}")
        chosen = find_login(read_url(url, named), None, named)
        assert chosen.authorization() == basic(f"__cookie__:{folder}")


def test_extensions_are_loaded_only_for_a_port_of_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package that cannot be loaded is in nobody's way who follows another chain."""

    def broken() -> Iterator[Network]:
        raise UsageError("a package is out of order")

    monkeypatch.setattr(login, "data_folder", lambda coin="Bitcoin": tmp_path)
    monkeypatch.setattr(login, "every_network", broken)
    login.find_login(read_url("http://localhost:8332"), None, None)
    with pytest.raises(UsageError, match="out of order"):
        login.find_login(read_url("http://localhost:9999"), None, None)


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
