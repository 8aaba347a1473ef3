"""A real Bitcoin node on regtest, for tests: in its own folder, on loopback, and removed at the end."""

import base64
import hmac
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtualchain.errors import NodeError, NodeUnavailable

_CACHE = Path("~/.cache/virtualchain-bitcoind/bin")
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0
_RPC_TIMEOUT = 120.0
_USER = "test"
_WALLET = "virtualchain"
_MATURE = 101
"""Blocks after which the first coinbase can be spent."""
_FEE_RATE = 2
"""Satoshi per vbyte."""
_OPTIONS = (
    "-regtest",
    "-server",
    "-rest=1",
    "-listen=0",
    "-txindex=0",
    "-dnsseed=0",
    "-fallbackfee=0.0001",
    "-datacarriersize=100000",
    "-acceptnonstdtxn=1",
    "-rpcthreads=8",
    "-rpcworkqueue=64",
    "-dbcache=50",
    "-printtoconsole=0",
)


def find_bitcoind() -> Path | None:
    """Find bitcoind: the environment variable BITCOIND (program or folder), then PATH, then CI's cache."""
    named = os.environ.get("BITCOIND")
    if named:
        path = Path(named).expanduser()
        path = path / "bitcoind" if path.is_dir() else path
        if not path.is_file():
            raise NodeError(f"BITCOIND does not name a program: {named}")
        return path
    program = shutil.which("bitcoind") or shutil.which("bitcoind", path=_CACHE.expanduser())
    return Path(program) if program else None


class _PortTaken(NodeError):
    """Another program has taken the port before the node could."""


class Bitcoind:
    """A running node: `url` has what a client needs to log in; `cookie` is its cookie file."""

    def __init__(self, program: Path, *arguments: str) -> None:
        """Start a node; `arguments` override the defaults. Raises NodeError if it does not come up."""
        for _ in range(2):
            with suppress(_PortTaken):
                self._start_anew(program, arguments)
                return
        self._start_anew(program, arguments)

    def _start_anew(self, program: Path, arguments: tuple[str, ...]) -> None:
        """Start a node in a new folder, at a port that is free now."""
        self.datadir = Path(tempfile.mkdtemp(prefix="virtualchain-bitcoind-"))
        self.port = _free_port()
        password = secrets.token_hex(16)
        self.url = f"http://{_USER}:{password}@127.0.0.1:{self.port}"
        self.cookie = self.datadir / "regtest" / ".cookie"
        self._output = self.datadir / "output.log"
        self._command: list[str | Path] = [
            program,
            f"-datadir={self.datadir}",
            f"-rpcport={self.port}",
            f"-rpcauth={_rpcauth(password)}",
            *_OPTIONS,
        ]
        self._start(arguments)

    def rpc(self, method: str, *arguments: object, wallet: str | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Call a method of the node, or of one of its wallets.

        Raises NodeUnavailable if there is no answer, and NodeError with the node's message if it is an error.
        """
        body = json.dumps({"id": 0, "method": method, "params": arguments})
        path = f"/wallet/{wallet}" if wallet is not None else "/"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_RPC_TIMEOUT)
        try:
            credentials = base64.b64encode(self.cookie.read_bytes()).decode("ascii")
            connection.request("POST", path, body, {"Authorization": f"Basic {credentials}"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NodeUnavailable(f"the test node does not answer {method}: {error}") from error
        finally:
            connection.close()
        if answer["error"] is not None:
            raise NodeError(f"{method}: {answer['error']['message']} ({answer['error']['code']})")
        return answer["result"]

    def mine(self, n: int = 1) -> list[str]:
        """Mine blocks with what was sent; return their hashes. The coins are for `send`."""
        address = self.rpc("getnewaddress", wallet=self._wallet())
        hashes: list[str] = self.rpc("generatetoaddress", n, address)
        return hashes

    def send(self, payload: bytes) -> str:
        """Send a transaction that carries a payload in an OP_RETURN; return its id. `mine` confirms it."""
        wallet = self._wallet()
        if not self.rpc("getbalances", wallet=wallet)["mine"]["trusted"]:
            self.mine(_MATURE)
        sent = self.rpc("send", [{"data": payload.hex()}], None, "unset", _FEE_RATE, wallet=wallet)
        return str(sent["txid"])

    def _wallet(self) -> str:
        """Return the name of the wallet that mines and sends; the first call creates it."""
        if _WALLET not in self.rpc("listwallets"):
            self.rpc("createwallet", _WALLET, False, False, "", False, True, True)  # loaded at each start
        return _WALLET

    def wait_for_height(self, height: int, timeout: float = 60.0) -> None:
        """Wait until the node has connected so many blocks, as after `-loadblock`; else NodeError."""
        deadline = time.monotonic() + timeout
        while (reached := self.rpc("getblockcount")) < height:
            if time.monotonic() > deadline:
                raise NodeError(f"the test node is at height {reached}, not {height}, after {timeout} s")
            time.sleep(0.1)

    def restart(self, *arguments: str) -> None:
        """Stop the node and start it with these arguments: same folder and port, a new cookie."""
        self._end()
        self._start(arguments)

    def stop(self) -> None:
        """Stop the node and remove its folder; a second call does nothing."""
        self._end()
        shutil.rmtree(self.datadir, ignore_errors=True)

    def _start(self, arguments: tuple[str, ...]) -> None:
        try:
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603 - the program that the tester chose
                    [*self._command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        except OSError as error:
            shutil.rmtree(self.datadir)
            raise NodeError(f"{self._command[0]} cannot be run: {error.strerror}") from error
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            if self._process.poll() is not None:
                output = self._output.read_text("utf-8", "replace").strip()
                kind = _PortTaken if "Unable to start HTTP server" in output else NodeError
                raise kind(f"bitcoind exited with {self._process.returncode}: {output}")
            try:
                self.rpc("getblockchaininfo")
            except NodeError as error:
                # No cookie yet, no listener yet, or an error during warm-up.
                if time.monotonic() > deadline:
                    raise NodeUnavailable(f"bitcoind is not up after {_START_TIMEOUT} s: {error}") from error
                time.sleep(0.05)
            else:
                return


def _rpcauth(password: str) -> str:
    """Return a user with a salted digest of the password, as bitcoind's option takes it."""
    salt = secrets.token_hex(16)
    return f"{_USER}:{salt}${hmac.digest(salt.encode(), password.encode(), 'sha256').hex()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
