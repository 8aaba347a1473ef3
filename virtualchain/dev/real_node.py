"""A bitcoind of its own for `virtualchain dev`: it gets the blocks of the chain, and has wallets.

A process holds it that ends it, and removes its folder, once the pipe to the session is closed: so nothing is
left of it, however the session ends. The chain itself is the session's, as with the fake node.
"""

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from embit.ec import PrivateKey
from embit.networks import NETWORKS

from virtualchain.dev import process
from virtualchain.errors import NodeError, NodeUnavailable, UsageError, VirtualchainError
from virtualchain.testing import key
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind

PEOPLE: Final = ("alice", "bob", "carol")
"""Who has a wallet on it, under their name and with their key."""
_OLDEST_TIP: Final = "-maxtipage=2000000000"
"""The chain's time begins in 2025, and is not the clock's."""
_GRACE: Final = 60.0
"""Seconds that it has to end."""
_GONE: Final = "the bitcoind of dev does not answer any more: start dev again, which keeps the chain"
_KNOWN: Final = (None, "duplicate", "inconclusive")
"""What the node answers to a block that it has, or that is on a side branch."""


def find() -> Path | None:
    """Return the program, if there is one; raises UsageError if BITCOIND names none."""
    try:
        return find_bitcoind()
    except NodeError as error:
        raise UsageError(str(error)) from error


class RealNode:
    """A regtest bitcoind that follows what it is given."""

    def __init__(self, program: Path) -> None:
        """Start it; raises NodeError."""
        self._pipe, theirs = process.pipe()
        self._process = process.start(_hold, theirs, str(program))
        theirs.close()
        self._known: set[str] = set()
        self.url = str(self._answer())

    def give(self, blocks: Sequence[tuple[str, bytes]], tip: str) -> None:
        """Submit blocks, each after its parent and with its hash, and make `tip` the last of its chain.

        Raises NodeError if it refuses one.
        """
        new = [(block_hash, raw) for block_hash, raw in blocks if block_hash not in self._known]
        self._ask("give", [raw for _, raw in new], tip)
        self._known.update(block_hash for block_hash, _ in new)

    def waiting(self) -> list[bytes]:
        """Return the transactions that wait in its mempool, in an order in which a block can have them."""
        raws: list[bytes] = self._ask("waiting")
        return raws

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(_GRACE)

    def _ask(self, what: str, *arguments: object) -> Any:  # noqa: ANN401 - as it answers
        with suppress(OSError):  # `_answer` says it
            self._pipe.send((what, arguments))
        return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401 - as above
        try:
            well, answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise NodeError(_GONE) from error
        if not well:
            raise NodeError(answer)
        return answer


def _hold(pipe: Connection, program: str) -> None:
    """Start the node, do what is asked for, and end it once nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pipe ends it
    try:
        node = Bitcoind(Path(program), _OLDEST_TIP)
    except VirtualchainError as error:
        pipe.send((False, str(error)))
        return
    try:
        for name in PEOPLE:
            _make_wallet(node, name)
        pipe.send((True, node.url))
        tasks: dict[str, Callable[..., object]] = {"give": _give, "waiting": _waiting}
        with suppress(EOFError, OSError):
            while True:
                what, arguments = pipe.recv()
                try:
                    answer = (True, tasks[what](node, *arguments))
                except NodeUnavailable:
                    answer = (False, _GONE)
                except VirtualchainError as error:
                    answer = (False, str(error))
                pipe.send(answer)
    finally:
        node.stop()


def _make_wallet(node: Bitcoind, name: str) -> None:
    secret = PrivateKey(key(name).secret).wif(NETWORKS["regtest"])
    checked = node.rpc("getdescriptorinfo", f"wpkh({secret})")
    node.rpc("createwallet", name, False, False, "", False, True, True)
    imported = {"desc": f"wpkh({secret})#{checked['checksum']}", "timestamp": 0, "label": name}
    node.rpc("importdescriptors", [imported], wallet=name)


def _give(node: Bitcoind, raws: Sequence[bytes], tip: str) -> None:
    for raw in raws:
        answer = node.rpc("submitblock", raw.hex())
        if answer not in _KNOWN:
            raise NodeError(
                f"bitcoind refuses a block of the chain: {answer}; begin a new chain with `reset`, or with "
                "--fresh"
            )
    if node.rpc("getbestblockhash") != tip:
        node.rpc("preciousblock", tip)  # of two branches with equal work it keeps to the first


def _waiting(node: Bitcoind) -> list[bytes]:
    if not node.rpc("getrawmempool"):
        return []
    template = node.rpc("getblocktemplate", {"rules": ["segwit"]})
    return [bytes.fromhex(each["data"]) for each in template["transactions"]]
