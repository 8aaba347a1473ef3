"""Where a node listens and how to log in to it: its URL, a password, or the cookie file that it writes."""

import base64
import ipaddress
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, unquote, urlsplit

from virtualchain.bitcoin.networks import NETWORKS, Network, every_network
from virtualchain.errors import NodeError, NodeUnavailable, UsageError, quoted

_HTTPS_PORT: Final = 443
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_IN_BRACKETS: Final = re.compile(r"\[[^]]*:[^]]*\](:[0-9]*)?")
_EXPECTED: Final = (
    "write it as http://user:password@host:port or https://…, with special characters of user and password "
    "percent-encoded"
)


@dataclass(frozen=True, slots=True)
class NodeUrl:
    """A node's address, and the user and password that its URL carried."""

    host: str
    port: int
    user: str | None
    password: str = field(repr=False)
    scheme: str = "http"
    path: str = field(default="", repr=False)
    """What paths start with, without the last slash; often secret, as a hosted node's may be its password."""

    def __str__(self) -> str:
        """Write the address for messages: without the password and the path."""
        return f"{self.scheme}://{self._bracketed(self.host)}:{self.port}{'/…' if self.path else ''}"

    @property
    def host_header(self) -> str:
        """The HTTP header Host: without a zone, which only this machine knows."""
        return f"{self._bracketed(self.host.partition('%')[0])}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays on this machine."""
        if self.host in {"localhost", "localhost."} or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @staticmethod
    def _bracketed(host: str) -> str:
        return f"[{host}]" if ":" in host else host


class Login(Protocol):
    """The credentials for a node."""

    def authorization(self) -> str:
        """Return the HTTP Authorization header; raises NodeUnavailable, NodeError."""
        ...

    def renew(self, authorization: str) -> None:
        """Replace a header that the node rejected; raises if there is no other to try."""
        ...


def read_url(url: str, network: Network | None = None) -> NodeUrl:
    """Parse `http://user:password@host:port/path`, with user and password percent-encoded; or `https://…`.

    The default port is that of `network`, or of mainnet; for https it is 443. Blanks around the URL do not
    count. Raises UsageError; no message shows the password.
    """
    url = url.strip()
    # The library would drop some of these silently, and with them a part of the password.
    if any(character.isspace() or not character.isprintable() for character in url):
        raise UsageError(f"the node's URL has a blank or a control character in it: {_EXPECTED}")
    try:
        parts = urlsplit(url)
        port = parts.port
        user = None if parts.username is None else unquote(parts.username, errors="strict")
        password = unquote(parts.password or "", errors="strict")
    except ValueError:
        # The original error quotes the URL, which must not reach a log.
        raise UsageError(f"the node's URL cannot be read: {_EXPECTED}") from None
    address = parts.netloc.rpartition("@")[2]
    if "[" in address and not _IN_BRACKETS.fullmatch(address):
        raise UsageError(f"the node's URL has brackets around something else than an address: {_EXPECTED}")
    # An @ in the path comes from a password with a slash that is not encoded.
    if parts.scheme not in {"http", "https"} or "@" in parts.path or parts.query or parts.fragment:
        raise UsageError(f"the node's URL is not that of a bitcoind: {_EXPECTED}")
    if port == 0:
        raise UsageError("the node's URL has port 0, on which nothing listens")
    if ":" in (user or ""):
        raise UsageError("the node's URL has a user with a colon, with which nobody can log in")
    default_port = _HTTPS_PORT if parts.scheme == "https" else (network or NETWORKS["mainnet"]).rpc_port
    return NodeUrl(
        host=_read_host(parts.hostname or ""),
        port=port or default_port,
        user=user,
        password=password,
        scheme=parts.scheme,
        path=quote(parts.path.rstrip("/"), safe="/%:!$&'()*+,;=~"),
    )


def _read_host(host: str) -> str:
    """Return a host as sockets take it: an address, with a zone behind %, or a name in ASCII."""
    if not host:
        raise UsageError(f"the node's URL has no host: {_EXPECTED}")
    if ":" in host:
        address, _, zone = host.partition("%")
        zone = zone.removeprefix("25") if zone != "25" else zone  # a URL writes % as %25 (RFC 6874)
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise UsageError(
                f"the node's URL has {quoted(address)} for a host, which is not an address"
            ) from None
        if "%" in host and not zone:
            raise UsageError("the node's URL has an address with an empty zone: write it as %25eth0")
        return f"{address}%{unquote(zone)}" if zone else address
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not name or not all(map(_LABEL.fullmatch, name.removesuffix(".").split("."))):
        raise UsageError(
            f"the node's URL has {quoted(host)} for a host, which is not a name: its parts have 1 to 63 "
            "letters, digits and hyphens each"
        )
    return name


def find_login(url: NodeUrl, cookie: Path | None, network: Network | None) -> Login:
    """Choose how to log in: with the named cookie file, else the URL's password, else a local node's cookie.

    A URL with a path may do without: the path of a hosted node is often its password. Raises UsageError if
    there is none of these.
    """
    if cookie is not None:
        return Cookie(url, cookie)
    if url.user is not None:
        return Password(url, url.user, url.password)
    if url.path:
        return Anonymous(url)
    possible = [known for known in NETWORKS.values() if known.rpc_port == url.port]
    if network is not None:
        possible = [network]
    elif not possible and url.is_local:  # an extension is not loaded where none is needed
        possible = [known for known in every_network() if known.rpc_port == url.port]
    if not url.is_local or not possible:
        raise UsageError(
            f"no way to log in at {url}: put user:password into its URL, or name the cookie file that it "
            "writes with --cookie"
        )
    folders = [data_folder(known.coin) / known.subfolder for known in possible]
    if possible[0].chain == "signet":  # only newer nodes have a folder for each signet
        folders.append(data_folder(possible[0].coin) / NETWORKS["signet"].subfolder)
    return Cookie(url, *(folder / ".cookie" for folder in folders))


def data_folder(coin: str = "Bitcoin") -> Path:
    """Return the default data folder of a coin's node on this platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / coin
    if sys.platform == "win32":
        return Path.home() / "AppData" / "Local" / coin
    return Path.home() / f".{coin.lower()}"


def clear_text_warning(url: NodeUrl, login: Login) -> str | None:
    """Return a warning if a login crosses a network unencrypted; a path may be a password, too."""
    if url.scheme == "https" or url.is_local:
        return None
    secret = "path" if isinstance(login, Anonymous) else "password"
    return (
        f"{url} is asked over http, so that the {secret} and all answers cross the network in clear: anyone "
        "on the way can read and change them; use https, or a tunnel"
    )


class Anonymous:
    """No login, for a node whose URL says enough."""

    def __init__(self, url: NodeUrl) -> None:
        self._url = url

    def authorization(self) -> str:
        """Return no header."""
        return ""

    def renew(self, authorization: str) -> None:  # noqa: ARG002 -- there is none
        """Raise NodeError: there is nothing to try."""
        raise NodeError(
            f"{self._url} asks for a login: put user:password into its URL, or name the cookie file that it "
            "writes with --cookie"
        )


class Password:
    """A user and a password, as set with `rpcauth` or `rpcuser` in the node's configuration."""

    def __init__(self, url: NodeUrl, user: str, password: str) -> None:
        self._url = url
        self._user = user
        self._authorization = _basic(f"{user}:{password}")

    def authorization(self) -> str:
        """Return the header, which never changes."""
        return self._authorization

    def renew(self, authorization: str) -> None:  # noqa: ARG002 -- there is only the one
        """Raise NodeError: the password would not be accepted later either."""
        raise NodeError(
            f"{self._url} refuses the password of user {quoted(self._user)}: check rpcauth in bitcoin.conf"
        )


class Cookie:
    """The file with a new password that bitcoind writes at each start and removes when it stops."""

    def __init__(self, url: NodeUrl, path: Path, *others: Path) -> None:
        """Read the cookie from the first of these files that exists."""
        self._url = url
        self._paths = (path, *others)
        self._path = path
        self._authorization = ""

    def authorization(self) -> str:
        """Return the header made from the file as it was last read."""
        if not self._authorization:
            self._authorization = self._read()
        return self._authorization

    def renew(self, authorization: str) -> None:
        """Read the file again; raises NodeUnavailable if it still has the credentials that were rejected."""
        fresh = self._read()
        if fresh == authorization:
            raise NodeUnavailable(
                f"{self._url} refuses the cookie in {self._path}: "
                "the node is restarting, or the file belongs to another node"
            )
        self._authorization = fresh

    def _read(self) -> str:
        try:
            self._path = next((path for path in self._paths if path.exists()), self._paths[0])
            text = self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise NodeUnavailable(
                f"no cookie file {self._path} for {self._url}: the node is not running or still starting; if "
                "the file is elsewhere, name it with --cookie; if it has a password, put it into its URL"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise NodeError(
                f"the cookie file {self._path} for {self._url} cannot be read: {error}"
            ) from error
        return _basic(text)


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
