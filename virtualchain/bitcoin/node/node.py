"""The source that asks a running bitcoind, over REST where it is on and over JSON-RPC where it is not.

Which way answers what was measured on full blocks (house.md, Sources): REST takes 1 to 3 ms for a block and
as long for its spent outputs, `getblock` in hex 10, one `getrawtransaction` 8, and a block as JSON 300, since
the node spends its time printing. So JSON is only for what nothing else gives.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from virtualchain.bitcoin import networks
from virtualchain.bitcoin.header import HEADER_SIZE, display, headers_from, read_header, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.node.login import NodeUrl, find_login, read_url
from virtualchain.bitcoin.node.rest import Rest
from virtualchain.bitcoin.node.rpc import NotOffered, Rpc
from virtualchain.bitcoin.node.spent import read_prevouts, read_spent_outputs
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.bitcoin.wake import Wake
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable, UsageError
from virtualchain.model import Block, SpentOutput

MOST_HEADERS: Final = 2000
"""Headers in one answer of REST: the node allows no more."""
HEADER_PAGE: Final = 100
"""Headers in one answer over RPC, at two calls each: so few that the first blocks can soon be fetched."""
FEW_TRANSACTIONS: Final = 15
"""Up to so many transactions of a block are asked for one by one; for more, the whole block is cheaper."""
LARGEST_BLOCK: Final = 4_000_000
"""Bytes: a byte weighs at least one unit (BIP 141)."""
LARGEST_SPENT: Final = LARGEST_BLOCK // (41 * 4) * (10_000 + 11)
"""Bytes: an input weighs four units for each of its 41 bytes, a script that can be spent has 10,000."""

_PROBE: Final = "/rest/chaininfo.json"
_LOOKS: Final = 5


def open_source(
    url: str, cookie: Path | None = None, network: Network | None = None, *, rest: bool | None = None
) -> BlockSource:
    """Open the node at `url`, http://user:password@host:port, and probe once what it offers.

    Without a password it is the cookie file, without that the one in the local node's usual data folder.
    `network` is what the node must be on; None takes any. `rest=False` asks over RPC alone, `rest=True`
    insists on REST, None takes it where it is on. Raises UsageError for a URL that cannot be used,
    NodeUnavailable, and NodeError for a node that is on another network or refuses us.
    """
    where = read_url(url, network)
    with ExitStack() as opened:  # and closed where a probe fails
        rpc = Rpc(where, find_login(where, cookie, network))
        opened.callback(rpc.close)
        found = _network_of(where, rpc, network)
        binary = None if rest is False else _rest_of(where)
        if binary is not None:
            opened.callback(binary.close)
        elif rest:
            raise NodeError(f"REST is off at {where}: put rest=1 into its bitcoin.conf and restart it")
        # The genesis block is asked for since it is never pruned of what it spends: nothing.
        spent = binary is not None and binary.offers(f"/rest/spenttxouts/{found.genesis_hash}.bin")
        source = NodeSource(where, found, rpc, binary, spent_by_rest=spent)
        opened.pop_all()
    return source


class NodeSource:
    """A running node; the contract is that of `BlockSource`."""

    def __init__(
        self, where: NodeUrl, network: Network, rpc: Rpc, rest: Rest | None, *, spent_by_rest: bool
    ) -> None:
        self._where = where
        self._network = network
        self._rpc = rpc
        self._rest = rest
        self._rest_is_on = rest is not None
        self._spent_by_rest = spent_by_rest
        self._spent_by_transaction = True  # until it is seen to give no prevouts (before Core 25)
        self._wake = Wake()

    def __str__(self) -> str:
        return str(self._where)

    @property
    def network(self) -> Network:
        """The network that the node is on; its genesis block was compared."""
        return self._network

    @property
    def over_rest(self) -> bool:
        """Whether REST is on, so that blocks do not come over RPC, which takes several times as long."""
        return self._rest_is_on

    def tip(self) -> Tip:
        """Tell the active chain's last block."""
        with _sense(self._where, "getblockchaininfo"):
            info = self._rpc.call("getblockchaininfo")
            return Tip(_whole(info["blocks"]), _hash(info["bestblockhash"]))

    def block_hash(self, block_id: int) -> str:
        """Tell which block is active at a height; raises MissingData above the tip."""
        with _sense(self._where, "getblockhash"):
            return _hash(self._rpc.call("getblockhash", block_id))

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Give the headers that follow a block on the active chain, see `BlockSource`."""
        # The old form of the path, which every version understands. The node reads it under one lock.
        path = f"/rest/headers/{MOST_HEADERS}/{block_hash}.bin"
        answer = self._by_rest(path, MOST_HEADERS * HEADER_SIZE)
        if answer is not None:
            headers = headers_from(block_id, answer)
            if not headers:
                return None
            if headers[0].hash != block_hash or not _is_chain(headers):
                raise NodeError(f"{self._where} answers {path} with other headers than were asked for")
            return headers[1:]
        for _ in range(_LOOKS):
            with suppress(MissingData):
                headers = self._headers_by_rpc(block_id, block_hash)
                if not headers:
                    return None
                if _is_chain(headers):
                    return headers[1:]
        raise NodeUnavailable(f"{self._where} changes its chain faster than its headers can be read")

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Tell whether the node calls the branch that holds this block invalid, see `BlockSource`."""
        try:
            with _sense(self._where, "getchaintips"):
                tips = [tip for tip in self._rpc.call("getchaintips") if tip["status"] == "invalid"]
                # A branch holds `branchlen` blocks that are not on the active chain.
                tips = [tip for tip in tips if 0 <= tip["height"] - block_id < tip["branchlen"]]
                return any(
                    self._ancestor(tip["hash"], tip["height"] - block_id) == block_hash for tip in tips
                )
        except NotOffered:
            return False

    def raw_block(self, block_hash: str) -> bytes:
        """Give a block's bytes, whose header has this very hash; raises MissingData, MalformedBlock."""
        with self._about(block_hash):
            raw = self._by_rest(f"/rest/block/{block_hash}.bin", LARGEST_BLOCK)
            if raw is None:
                with _sense(self._where, "getblock"):
                    raw = bytes.fromhex(self._rpc.call("getblock", block_hash, 0))
        if display(sha256d(raw[:HEADER_SIZE])) != block_hash:
            raise MalformedBlock(
                f"{self._where} was asked for block {block_hash} and answers with another one"
            )
        return raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Give the outputs that some transactions of a block spend, see `BlockSource`."""
        if not transactions:
            return {}
        with self._about(block_hash):
            if self._spent_by_rest:
                data = self._by_rest(f"/rest/spenttxouts/{block_hash}.bin", LARGEST_SPENT)
                if data is not None:
                    return read_spent_outputs(data, transactions.keys())
            return self._spent_by_rpc(block_hash, transactions)

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until `wake`."""
        self._wake.wait(timeout)

    def wake(self) -> None:
        """End the present or the next `wait`; may be called from another thread or a signal handler."""
        self._wake.call()

    def close(self) -> None:
        """Let go of the connections."""
        self.wake()
        self._rpc.close()
        if self._rest is not None:
            self._rest.close()

    def _by_rest(self, path: str, limit: int) -> bytes | None:
        """Fetch what stands at a path; None where REST is off, or lacks the path since the node's restart."""
        if self._rest is None or not self._rest_is_on:
            return None
        try:
            return self._rest.get(path, limit)
        except NotOffered:
            self._rest_is_on = self._rest.offers(_PROBE)
            self._spent_by_rest = False
            return None

    def _headers_by_rpc(self, block_id: int, block_hash: str) -> list[Block]:
        """Read an active block's header and some that follow; none of an inactive or unknown block.

        Each is a call of its own; raises MissingData where the chain gets shorter between them.
        """
        with _sense(self._where, "getblockheader"):
            try:
                confirmations = _whole(self._rpc.call("getblockheader", block_hash)["confirmations"])
            except MissingData:
                return []
        if confirmations < 1:
            return []
        following = range(block_id + 1, block_id + min(confirmations, HEADER_PAGE + 1))
        return [
            self._header(block_id, block_hash),
            *(self._header(height, self.block_hash(height)) for height in following),
        ]

    def _header(self, block_id: int, block_hash: str) -> Block:
        with _sense(self._where, "getblockheader"):
            header = read_header(block_id, bytes.fromhex(self._rpc.call("getblockheader", block_hash, False)))
        if header.hash != block_hash:
            raise NodeError(
                f"{self._where} was asked for header {block_hash} and answers with that of {header.hash}"
            )
        return header

    def _ancestor(self, block_hash: str, steps: int) -> str:
        for _ in range(steps):
            block_hash = _hash(self._rpc.call("getblockheader", block_hash)["previousblockhash"])
        return block_hash

    def _spent_by_rpc(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> dict[int, Sequence[SpentOutput]]:
        """Read prevouts from JSON; the node leaves out, without a word, what it does not have."""
        one_by_one = self._spent_by_transaction and len(transactions) <= FEW_TRANSACTIONS
        if one_by_one:
            with suppress(NotOffered), _sense(self._where, "getrawtransaction"):
                answers = {
                    txindex: self._rpc.call("getrawtransaction", txid, 2, block_hash)
                    for txindex, txid in transactions.items()
                }
                if (found := _prevouts(answers, transactions)) is not None:
                    return found
        with _sense(self._where, "getblock"):
            block = self._rpc.call("getblock", block_hash, 3)["tx"]
            found = _prevouts({txindex: block[txindex] for txindex in transactions}, transactions)
        if found is None:
            raise MissingData(f"{self._where} gives block {block_hash} without the outputs that it spends")
        if one_by_one:
            self._spent_by_transaction = False
        return found

    @contextmanager
    def _about(self, block_hash: str) -> Iterator[None]:
        """Name the block in the errors about it, and say what can be done where its data is missing."""
        try:
            yield
        except MissingData as error:
            raise MissingData(
                f"the node lacks block {block_hash} or what it spends: {error}. A pruned node does, one that "
                "loaded a snapshot of the UTXO set, and one before Core 23: use a node with the whole chain"
            ) from error
        except MalformedBlock as error:
            raise MalformedBlock(f"block {block_hash} from {self._where}: {error}") from error


def _network_of(where: NodeUrl, rpc: Rpc, wanted: Network | None) -> Network:
    """Find out which network the node is on; raises NodeError where it is not the wanted one."""
    with _sense(where, "getblockchaininfo"):
        chain = rpc.call("getblockchaininfo")["chain"]
        genesis_hash = rpc.call("getblockhash", 0)
        try:
            found = networks.network(chain)
        except UsageError as error:
            raise NodeError(f"{where} is on {chain!r}, a network that virtualchain does not know") from error
    if wanted is not None and found != wanted:
        raise NodeError(f"{where} is on {found.name}, but {wanted.name} was asked for")
    if genesis_hash != found.genesis_hash:
        raise NodeError(
            f"{where} says that it is on {found.name}, whose first block is {found.genesis_hash}, "
            f"but its own is {genesis_hash}"
        )
    return found


def _rest_of(where: NodeUrl) -> Rest | None:
    """Open the node's REST interface; None where it is off."""
    rest = Rest(where)
    try:
        if rest.offers(_PROBE):
            return rest
    except BaseException:
        rest.close()
        raise
    rest.close()
    return None


@contextmanager
def _sense(where: NodeUrl, method: str) -> Iterator[None]:
    """Turn what is met where an answer is not of the form that it should have into a NodeError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise NodeError(f"{where} answers {method} in a way that no node does: {error!r}") from error


def _is_chain(headers: Sequence[Block]) -> bool:
    return all(block.prev_hash == before.hash for before, block in pairwise(headers))


def _prevouts(
    answers: Mapping[int, Any], transactions: Mapping[int, str]
) -> dict[int, Sequence[SpentOutput]] | None:
    """Take the prevouts of these transactions; None where one is left out."""
    found: dict[int, Sequence[SpentOutput]] = {}
    for txindex, txid in transactions.items():
        if answers[txindex]["txid"] != txid:
            raise ValueError(f"transaction {txindex} is {answers[txindex]['txid']} and not {txid}")
        prevouts = read_prevouts(answers[txindex])
        if prevouts is None:
            return None
        found[txindex] = prevouts
    return found


def _hash(value: object) -> str:
    if not isinstance(value, str) or len(bytes.fromhex(value)) != 32:
        raise ValueError(f"{value!r} is no hash")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value
