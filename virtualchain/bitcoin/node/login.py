"""Where a node listens and how we log in: its URL, a password, or the cookie file that it writes."""

import base64
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import NodeError, NodeUnavailable, UsageError

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
    """What proves to the node who we are."""

    def authorization(self) -> str:
        """Give the HTTP Authorization header; raises NodeUnavailable, NodeError."""
        ...

    def refused(self, authorization: str) -> None:
        """Take note that the node refused this header; raises unless there is another to try."""
        ...


def read_url(url: str, network: Network | None = None) -> NodeUrl:
    """Read `http://user:password@host:port`, each of user and password percent-encoded.

    Without a port it is that of `network`, or mainnet. Raises UsageError; no message shows the password.
    """
    form = (
        "write it as http://user:password@host:port, with special characters of the password percent-encoded"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The original error quotes the URL: it must not reach a log.
        raise UsageError(f"the node's URL cannot be read: {form}") from None
    if (
        parts.scheme != "http"
        or not parts.hostname
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise UsageError(f"the node's URL is not one of bitcoind: {form}")
    return NodeUrl(
        host=parts.hostname,
        port=port or (network or NETWORKS["mainnet"]).rpc_port,
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )


def find_login(where: NodeUrl, cookie: Path | None, network: Network | None) -> Login:
    """Choose how to log in: the given cookie file, else the URL's password, else the local node's cookie.

    Raises UsageError where none of them can be.
    """
    if cookie is not None:
        return Cookie(where, cookie)
    if where.user is not None:
        return Password(where, where.user, where.password)
    by_port = {known.rpc_port: known for known in NETWORKS.values()}
    assumed = network or by_port.get(where.port)
    if where.host not in _LOCAL or assumed is None:
        raise UsageError(
            f"no way to log in at {where}: put user:password into its URL, or name the cookie file it writes"
        )
    return Cookie(where, data_folder() / assumed.subfolder / ".cookie")


def data_folder() -> Path:
    """Tell where bitcoind keeps its data unless told otherwise."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Bitcoin"
    if sys.platform == "win32":
        return Path.home() / "AppData" / "Local" / "Bitcoin"
    return Path.home() / ".bitcoin"


class Password:
    """A user and a password, as `rpcauth` or `rpcuser` of the node's configuration know them."""

    def __init__(self, where: NodeUrl, user: str, password: str) -> None:
        self._where = where
        self._user = user
        self._authorization = _basic(f"{user}:{password}")

    def authorization(self) -> str:
        """Give the header, always the same."""
        return self._authorization

    def refused(self, authorization: str) -> None:  # noqa: ARG002 -- there is only the one
        """Raise NodeError: the same password will not do later."""
        raise NodeError(
            f"{self._where} refuses the password of user {self._user!r}: look at rpcauth in bitcoin.conf"
        )


class Cookie:
    """The file with a fresh password that bitcoind writes at each start and removes at its end."""

    def __init__(self, where: NodeUrl, path: Path) -> None:
        self._where = where
        self._path = path
        self._authorization = ""

    def authorization(self) -> str:
        """Give the header made from the file as it was read last."""
        if not self._authorization:
            self._authorization = self._read()
        return self._authorization

    def refused(self, authorization: str) -> None:
        """Read the file again; raises NodeUnavailable where it still says what was refused."""
        fresh = self._read()
        if fresh == authorization:
            raise NodeUnavailable(
                f"{self._where} refuses the cookie in {self._path}: "
                "the node is restarting, or the file is that of another node"
            )
        self._authorization = fresh

    def _read(self) -> str:
        try:
            text = self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise NodeUnavailable(
                f"no cookie file {self._path} for {self._where}: the node is not running or only starting; "
                "if the file lies elsewhere name it, if the node has a password put that into its URL"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise NodeError(
                f"the cookie file {self._path} for {self._where} cannot be read: {error}"
            ) from error
        return _basic(text)


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
