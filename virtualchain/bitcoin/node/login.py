"""Where a node listens and how to log in to it: its URL, a password, or the cookie file that it writes."""

import base64
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import NodeError, NodeUnavailable, UsageError, quoted

_LOCAL = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class NodeUrl:
    """A node's address, and the user and password that its URL carried."""

    host: str
    port: int
    user: str | None
    password: str = field(repr=False)

    def __str__(self) -> str:
        """Write the address for messages: without the password."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Login(Protocol):
    """The credentials for a node."""

    def authorization(self) -> str:
        """Return the HTTP Authorization header; raises NodeUnavailable, NodeError."""
        ...

    def renew(self, authorization: str) -> None:
        """Replace a header that the node rejected; raises if there is no other to try."""
        ...


def read_url(url: str, network: Network | None = None) -> NodeUrl:
    """Parse `http://user:password@host:port`, with user and password percent-encoded.

    The default port is that of `network`, or of mainnet. Raises UsageError; no message shows the password.
    """
    expected = (
        "write it as http://user:password@host:port, with special characters of the password percent-encoded"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The original error quotes the URL, which must not reach a log.
        raise UsageError(f"the node's URL cannot be read: {expected}") from None
    if (
        parts.scheme != "http"
        or not parts.hostname
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise UsageError(f"the node's URL is not that of a bitcoind: {expected}")
    return NodeUrl(
        host=parts.hostname,
        port=port or (network or NETWORKS["mainnet"]).rpc_port,
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )


def find_login(url: NodeUrl, cookie: Path | None, network: Network | None) -> Login:
    """Choose how to log in: with the named cookie file, else the URL's password, else a local node's cookie.

    Raises UsageError if there is none of these.
    """
    if cookie is not None:
        return Cookie(url, cookie)
    if url.user is not None:
        return Password(url, url.user, url.password)
    by_port = {known.rpc_port: known for known in NETWORKS.values()}
    assumed = network or by_port.get(url.port)
    if url.host not in _LOCAL or assumed is None:
        raise UsageError(
            f"no way to log in at {url}: put user:password into its URL, or name the cookie file it writes"
        )
    return Cookie(url, data_folder() / assumed.subfolder / ".cookie")


def data_folder() -> Path:
    """Return bitcoind's default data folder on this platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Bitcoin"
    if sys.platform == "win32":
        return Path.home() / "AppData" / "Local" / "Bitcoin"
    return Path.home() / ".bitcoin"


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

    def __init__(self, url: NodeUrl, path: Path) -> None:
        self._url = url
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
            text = self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise NodeUnavailable(
                f"no cookie file {self._path} for {self._url}: the node is not running or still starting; "
                "if the file is elsewhere, name it; if the node has a password, put that into its URL"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise NodeError(
                f"the cookie file {self._path} for {self._url} cannot be read: {error}"
            ) from error
        return _basic(text)


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
