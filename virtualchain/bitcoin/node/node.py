"""The source that asks a running bitcoind, over REST if it is on, else over JSON-RPC.

The choice follows from times measured on full blocks. REST takes 1 to 3 ms for a block and as long for its
spent outputs, `getblock` in hex takes 10 ms, and a block as JSON 300 ms, which the node spends printing. One
`getrawtransaction` takes 15 ms with the outputs that it spends, as the node reads the whole block for it,
but 0.2 ms for bytes that an index of transactions (`txindex=1`) finds. So JSON is only for what nothing else
returns, and what can be asked at once is asked in batches, for the sake of nodes that are far away.
"""

import ssl
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from virtualchain.bitcoin import networks
from virtualchain.bitcoin.block import LARGEST_BLOCK, LARGEST_SPENDABLE_SCRIPT, MOST_INPUTS
from virtualchain.bitcoin.encoding import plain_transaction, read_headers, read_whole_header
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.node.announcements import Announcements, Channel, LongPolls, Zmq
from virtualchain.bitcoin.node.answers import well_formed
from virtualchain.bitcoin.node.client import NotOffered, Offer, Rest, Rpc
from virtualchain.bitcoin.node.login import NodeUrl, clear_text_warning, find_login, read_url
from virtualchain.bitcoin.node.transport import tls_for
from virtualchain.bitcoin.source import MOST_HEADERS, BlockSource, Tip, Wake
from virtualchain.bitcoin.spending import capped
from virtualchain.bitcoin.transaction import Transaction, read_outputs, read_transaction
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable, UsageError, quoted
from virtualchain.model import Block, SpentOutput, SpentOutputs

T = TypeVar("T")

HEADER_PAGE: Final = 100
"""Headers in one answer over RPC, at two calls each: few, so that the first blocks can soon be fetched."""
FEW_TRANSACTIONS: Final = 15
"""Up to this many transactions of a block are requested as JSON; for more, the whole block is cheaper."""
MOST_INDEXED: Final = 1000
"""As many as this are requested from the index; for more, the whole block as JSON is cheaper."""
LARGEST_SPENT: Final = MOST_INPUTS * (LARGEST_SPENDABLE_SCRIPT + 11)
"""Bytes: each spent output is a script with its length and an amount."""

_SECOND_OF_SIGNET: Final = "00000086d6b2636cb2a392d45edc4ec544a10024d30141c9adf4bfd9de533b53"
"""The hash of the public signet's block 1."""
_PROBE: Final = "/rest/chaininfo.json"
_LARGEST_HEADER: Final = 100_000
"""Bytes: with an AuxPoW, the coinbase of another chain comes along."""
_MOST_ANCESTORS: Final = 5000
"""How many blocks above a block are searched for it, in all branches, at one call each: some seconds."""
_ATTEMPTS: Final = 5
"""How often headers are read over RPC while the chain changes in between."""


def open_source(
    url: str,
    cookie: Path | None = None,
    network: Network | None = None,
    *,
    rest: bool | None = None,
    cacert: Path | None = None,
    zmq: str | None = None,
    warn: Callable[[str], None] = warnings.warn,
    notice: Callable[[str], None] | None = None,
) -> BlockSource:
    """Open the node at `url`, http://user:password@host:port or https://…, and probe once what it offers.

    The login is the file `cookie`, else the URL's password, else the cookie in a local node's default data
    folder. `cacert` is a file with the certificates to trust for https, PEM; None trusts the system's. The
    node must be on `network`; None accepts any. `rest=False` uses RPC only, `rest=True` requires REST, None
    uses it if it is on. Waiting ends early if the node announces a block: to long polls, or at the address
    `zmq` of its publisher (`zmqpubhashblock`). `warn` is called before a password crosses a network in clear,
    and `notice` in `wait`, with what keeps announcements from coming. Raises UsageError for a URL that cannot
    be used, NodeUnavailable, and NodeError for a node that is on another network or rejects the login.
    """
    address = read_url(url, network)
    tls = tls_for(address, cacert)
    login = find_login(address, cookie, network)
    publisher = None if zmq is None else Zmq(zmq)  # a mistake in it is reported first
    warning = clear_text_warning(address, login)
    if warning is not None:
        warn(warning)
    with ExitStack() as opened:  # closes everything if a probe fails
        rpc = Rpc(address, login, tls)
        opened.callback(rpc.close)
        if publisher is not None:
            opened.callback(publisher.cut)
        actual = _network_of(address, rpc, network)
        rest_client = None if rest is False else _open_rest(address, tls)
        if rest_client is not None:
            opened.callback(rest_client.close)
        elif rest:
            raise NodeError(f"REST is off at {address}: put rest=1 into its bitcoin.conf and restart it")
        # Every node has the spent outputs of the genesis block, even a pruned one: there are none.
        probe = f"/rest/spenttxouts/{actual.genesis_hash}.bin"
        spent_by_rest = rest_client is not None and rest_client.offers(probe)
        source = NodeSource(
            address,
            actual,
            rpc,
            rest_client,
            spent_by_rest=spent_by_rest,
            channel=publisher or LongPolls(address, login, tls),
            publisher=zmq,
            notice=notice,
        )
        opened.pop_all()
    return source


class NodeSource:
    """A running node as a `BlockSource`."""

    def __init__(
        self,
        url: NodeUrl,
        network: Network,
        rpc: Rpc,
        rest: Rest | None,
        *,
        spent_by_rest: bool,
        channel: Channel | None = None,
        publisher: str | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.publisher: Final = publisher
        """The address at which the node publishes over ZMQ, if one was named."""
        self._url = url
        self._network = network
        self._rpc = rpc
        self._rest = rest
        self._rest_is_on = rest is not None
        self._spent_by_rest = spent_by_rest
        self._spent_by_transaction = True  # until the node leaves prevouts out (before Core 25)
        self._index = Offer()
        self._wake = Wake()
        self._announcements = None if channel is None else Announcements(channel, self._wake.call)
        self._notice = notice
        self._tip: Tip | None = None
        self._end: Tip | None = None
        """The tip that headers were read up to since the last wait: `tip` may be a later one."""
        self._has_fetched = False
        self._has_run_out = False
        """Whether the last wait was not ended early."""

    def __str__(self) -> str:
        return str(self._url)

    @property
    def network(self) -> Network:
        """The network that the node is on; its genesis block has been checked."""
        return self._network

    @property
    def url(self) -> NodeUrl:
        """Where the node is; written as text, it shows no secret."""
        return self._url

    @property
    def rpc(self) -> Rpc:
        """The node's JSON-RPC interface, for what is no source's business, such as its wallets."""
        return self._rpc

    @property
    def over_rest(self) -> bool:
        """Whether blocks come over REST; over RPC they take several times as long."""
        return self._rest_is_on

    def tip(self) -> Tip:
        """Return the active chain's last block."""
        with well_formed(self._url, "getblockchaininfo"):
            info = self._rpc.call("getblockchaininfo")
            self._tip = Tip(answers.height(info["blocks"]), answers.block_hash(info["bestblockhash"]))
        return self._tip

    def is_syncing(self) -> bool:
        """Check whether the node says that it is far from the chain's last block."""
        with well_formed(self._url, "getblockchaininfo"):
            return self._rpc.call("getblockchaininfo")["initialblockdownload"] is True

    def pruned_below(self) -> int | None:
        """Return the lowest block that a pruned node still has; None if it has them all."""
        with well_formed(self._url, "getblockchaininfo"):
            info = self._rpc.call("getblockchaininfo")
            return answers.height(info.get("pruneheight", 0)) or None if info.get("pruned") else None

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the active block at a height; raises MissingData above the tip."""
        with well_formed(self._url, "getblockhash"):
            return answers.block_hash(self._rpc.call("getblockhash", block_id))

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers that follow a block on the active chain, see `BlockSource`."""
        following = self._read_headers(block_id, block_hash)
        self._end = Tip(block_id, block_hash) if following == [] else None
        return following

    def _read_headers(self, block_id: int, block_hash: str) -> list[Block] | None:
        # Every version knows this old form of the path. The node reads all headers under one lock.
        path = f"/rest/headers/{MOST_HEADERS}/{block_hash}.bin"
        largest = HEADER_SIZE if self._network.auxpow_chain_id is None else _LARGEST_HEADER
        answer = self._by_rest(path, MOST_HEADERS * largest, b"".join)
        if answer is not None:
            try:
                headers = read_headers(block_id, answer, self._network, MOST_HEADERS)
            except MalformedBlock as error:
                raise MalformedBlock(
                    f"{self._url} answers {path} with {len(answer):,} bytes, not with headers: {error}"
                ) from error
            if not headers:
                return None
            if headers[0].hash != block_hash or not answers.is_chain(headers):
                raise NodeError(f"{self._url} answers {path} with headers that were not requested")
            return headers[1:]
        for _ in range(_ATTEMPTS):
            with suppress(MissingData):
                following = self._headers_by_rpc(block_id, block_hash)
                if not following:
                    return following
                if following[0].prev_hash == block_hash and answers.is_chain(following):
                    return following
        raise NodeUnavailable(f"{self._url} changes its chain faster than the headers can be read")

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Check whether the node calls the branch that contains this block invalid, see `BlockSource`."""
        try:
            with well_formed(self._url, "getchaintips"):
                tips = [tip for tip in self._rpc.call("getchaintips") if tip["status"] == "invalid"]
                # A branch has `branchlen` blocks that are not on the active chain.
                branches = [
                    (tip["hash"], answers.height(tip["height"]), answers.height(tip["branchlen"]))
                    for tip in tips
                ]
                left = _MOST_ANCESTORS
                for last, top, length in sorted(branches, key=lambda branch: branch[1]):
                    steps = top - block_id
                    if 0 <= steps < min(length, left):
                        if self._ancestor(last, steps) == block_hash:
                            return True
                        left -= steps
                return False
        except NotOffered:
            return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, whose header has exactly this hash; raises MissingData, MalformedBlock."""
        self._has_fetched = True
        with self._naming_block(block_hash):
            raw = self._by_rest(f"/rest/block/{block_hash}.bin", LARGEST_BLOCK, b"".join)
            if raw is None:
                with well_formed(self._url, "getblock"):
                    raw = bytes.fromhex(self._rpc.call("getblock", block_hash, 0))
        if display_hash(sha256d(raw[:HEADER_SIZE])) != block_hash:
            raise MalformedBlock(f"{self._url} answers a request for block {block_hash} with another block")
        return raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return the outputs that some transactions of a block spend, see `BlockSource`."""
        if not transactions:
            return {}
        with self._naming_block(block_hash):
            if self._spent_by_rest:
                spent = self._by_rest(
                    f"/rest/spenttxouts/{block_hash}.bin",
                    LARGEST_SPENT,
                    lambda pieces: answers.read_spent_outputs(
                        pieces, transactions.keys(), self._network.largest_amount
                    ),
                )
                if spent is not None:
                    return spent
                self._spent_by_rest = False
            return self._spent_by_rpc(block_hash, transactions)

    def spent_outputs_with_heights(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return them with the heights of the blocks that made them, which only the node's JSON states."""
        if not transactions:
            return {}
        with self._naming_block(block_hash):
            return self._spent_by_json(block_hash, transactions, heights=True)

    def transactions(self, txids: Collection[str]) -> Mapping[str, bytes]:
        """Return transactions that the node's index finds; raises MissingData if it has none (txindex=1)."""
        if not self._index.is_due():
            raise MissingData(f"{self._url} has no index of transactions: txindex=1 in its bitcoin.conf")
        try:
            raws = list(self._rpc.call_each("getrawtransaction", [(txid, 0) for txid in txids]))
        except (MissingData, NotOffered) as error:
            self._index.refuse()
            raise MissingData(f"{self._url} does not find transactions by their ids: {error}") from error
        with well_formed(self._url, "getrawtransaction"):
            return dict(zip(txids, map(self._plain, raws), strict=True))

    def coins(self, outpoints: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], SpentOutput]:
        """Return outputs that are unspent in the chain's last block, or unconfirmed; see `CoinSource`."""
        asked = sorted(outpoints)
        coins: dict[tuple[str, int], SpentOutput] = {}
        heights: dict[str, int] = {}
        unknown: dict[str, list[int]] = {}
        with well_formed(self._url, "gettxout"):
            questions = [(txid, vout, False) for txid, vout in asked]
            for (txid, vout), coin in zip(asked, self._rpc.call_each("gettxout", questions), strict=True):
                if coin is None:
                    unknown.setdefault(txid, []).append(vout)
                    continue
                tip = answers.block_hash(coin["bestblock"])
                if tip not in heights:
                    heights[tip] = answers.height(self._rpc.call("getblockheader", tip)["height"])
                coins[txid, vout] = answers.coin(coin, heights[tip], self._network.largest_amount)
        for txid, numbers in unknown.items():
            with suppress(MissingData), well_formed(self._url, "getrawtransaction"):
                actual, outputs = read_outputs(
                    self._plain(self._rpc.call("getrawtransaction", txid, 0)),
                )
                if actual != txid:
                    raise ValueError(f"{actual} is another transaction than {txid}")
                coins |= {(txid, vout): outputs[vout] for vout in numbers if vout < len(outputs)}
        return coins

    def _plain(self, text: str) -> bytes:
        """Decode a transaction in hex, which must be more than MWEB data."""
        raw = plain_transaction(bytes.fromhex(text), self._network)
        if raw is None:
            raise ValueError("a transaction with nothing but MWEB data")
        return raw

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until `wake`, or until the node announces a block."""
        seen = self._end or self._tip
        if self._announcements is not None and seen is not None:
            self._announcements.expect(seen, timeout, had_news=self._has_fetched, ran_out=self._has_run_out)
            self._has_fetched, self._end = False, None
            for message in self._announcements.messages():
                self.notify(message)
        self._has_run_out = not self._wake.wait(timeout)

    def is_woken(self) -> bool:
        """Return whether the next wait would end at once, because a block was announced or by `wake`."""
        return self._wake.is_called()

    def notify(self, message: str) -> None:
        """Report what keeps news from coming to whoever opened the source."""
        if self._notice is not None:
            self._notice(message)

    def wake(self) -> None:
        """End the current or the next `wait`; may be called from another thread or a signal handler."""
        self._wake.call()

    def cut(self) -> None:
        """Have all questions fail, those that wait for their answers, too; for another thread."""
        self._rpc.cut()
        if self._rest is not None:
            self._rest.cut()

    def close(self) -> None:
        """Close the connections."""
        self.wake()
        if self._announcements is not None:
            self._announcements.close()
        self._rpc.close()
        if self._rest is not None:
            self._rest.close()

    def _by_rest(self, path: str, limit: int, parse: Callable[[Iterator[bytes]], T]) -> T | None:
        """Parse what is at a path; None if REST is off or, since a restart, no longer has the path."""
        if self._rest is None or not self._rest_is_on:
            return None
        try:
            return self._rest.read(path, limit, parse)
        except NotOffered:
            self._rest_is_on = self._rest.offers(_PROBE)
            return None

    def _headers_by_rpc(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Read some headers that follow an active block; None for an inactive or unknown one.

        Each header takes its own calls; raises MissingData if the chain gets shorter between them.
        """
        with well_formed(self._url, "getblockheader"):
            try:
                answer = self._rpc.call("getblockheader", block_hash)
                confirmations = answers.whole_number(answer["confirmations"])
                hashes = [answers.block_hash(answer["nextblockhash"])] if confirmations > 1 else []
            except MissingData:
                return None
        if confirmations < 1:
            return None
        last = block_id + min(confirmations, HEADER_PAGE + 1) - 1
        with well_formed(self._url, "getblockhash"):
            heights = [(height,) for height in range(block_id + 2, last + 1)]
            hashes += map(answers.block_hash, self._rpc.call_each("getblockhash", heights))
        with well_formed(self._url, "getblockheader"):
            raws = self._rpc.call_each("getblockheader", [(each, False) for each in hashes])
            headers = [
                self._whole_header(height, bytes.fromhex(raw))
                for height, raw in enumerate(raws, block_id + 1)
            ]
        for header, expected in zip(headers, hashes, strict=True):
            if header.hash != expected:
                raise NodeError(
                    f"{self._url} answers a request for header {header.block_id} ({expected}) with the "
                    f"header {header.hash}"
                )
        return headers

    def _whole_header(self, height: int, raw: bytes) -> Block:
        header = read_whole_header(height, raw, self._network)
        if len(raw) != HEADER_SIZE + len(header.auxpow):
            raise ValueError(f"a header of {len(raw)} bytes")
        return header

    def _ancestor(self, block_hash: str, steps: int) -> str:
        for _ in range(steps):
            block_hash = answers.block_hash(self._rpc.call("getblockheader", block_hash)["previousblockhash"])
        return block_hash

    def _spent_by_rpc(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Read what transactions spend from those before them, or else from JSON."""
        if self._index.is_due():
            try:
                indexed = self._spent_by_index(transactions)
            except (MissingData, NotOffered):
                self._index.refuse()
            else:
                if indexed is not None:
                    return indexed
        return self._spent_by_json(block_hash, transactions)

    def _spent_by_index(self, transactions: Mapping[int, str]) -> SpentOutputs | None:
        """Take spent outputs from the transactions that created them, checked by their ids.

        None if there are too many. Raises MissingData if the node has no index of transactions.
        """
        if len(transactions) > MOST_INDEXED:
            return None
        spendings = {
            txindex: transaction.inputs
            for txindex, transaction in zip(transactions, self._indexed(transactions.values()), strict=True)
        }
        created_by = sorted({each.txid for inputs in spendings.values() for each in inputs})
        if len(created_by) > MOST_INDEXED:
            return None
        spent = {(each.txid, each.vout) for inputs in spendings.values() for each in inputs}
        outputs = {
            (txid, vout): output
            for txid, transaction in zip(created_by, self._indexed(created_by), strict=True)
            for vout, output in enumerate(transaction.paid)
            if (txid, vout) in spent
        }
        with well_formed(self._url, "getrawtransaction"):
            return SpentOutputs(
                {
                    txindex: capped(outputs[each.txid, each.vout] for each in inputs)
                    for txindex, inputs in spendings.items()
                },
                "transaction",
            )

    def _indexed(self, txids: Collection[str]) -> Iterator[Transaction]:
        """Read transactions that the node finds by their ids alone."""
        results = self._rpc.call_each("getrawtransaction", [(txid, 0) for txid in txids])
        for txid, result in zip(txids, results, strict=True):
            with well_formed(self._url, "getrawtransaction"):
                transaction = read_transaction(self._plain(result), self._network)
                if transaction.txid != txid:
                    raise ValueError(f"transaction {txid} is {transaction.txid}")
            yield transaction

    def _spent_by_json(
        self, block_hash: str, transactions: Mapping[int, str], *, heights: bool = False
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Read prevouts from JSON; the node silently leaves out those that it does not have."""
        is_few = self._spent_by_transaction and len(transactions) <= FEW_TRANSACTIONS
        if is_few:
            with suppress(NotOffered), well_formed(self._url, "getrawtransaction"):
                questions = [(txid, 2, block_hash) for txid in transactions.values()]
                results = dict(
                    zip(transactions, self._rpc.call_each("getrawtransaction", questions), strict=True)
                )
                spent = answers.read_prevouts_of(
                    results, transactions, heights=heights, largest=self._network.largest_amount
                )
                if spent is not None:
                    return spent
        with well_formed(self._url, "getblock"):
            block = self._rpc.call("getblock", block_hash, 3)["tx"]
            results = {txindex: block[txindex] for txindex in transactions}
            spent = answers.read_prevouts_of(
                results, transactions, heights=heights, largest=self._network.largest_amount
            )
            counts = [0, *(len(transaction["vin"]) for transaction in block[1:])]
        if spent is None:
            raise MissingData(f"{self._url} returns block {block_hash} without the outputs that it spends")
        if is_few:
            self._spent_by_transaction = False
        return SpentOutputs(spent, "node", counts)

    @contextmanager
    def _naming_block(self, block_hash: str) -> Iterator[None]:
        """Add the block's name to errors about it, and what can be done if its data is missing."""
        try:
            yield
        except MissingData as error:
            raise MissingData(
                f"the node lacks block {block_hash} or what it spends: {error}. A pruned node does not have "
                "everything, nor does one that loaded a snapshot of the UTXO set, or any before Core 23: "
                "use a node with the whole chain; one of another coin needs -txindex=1 for what blocks spend"
            ) from error
        except MalformedBlock as error:
            raise MalformedBlock(f"block {block_hash} from {self._url}: {error}") from error


def _network_of(url: NodeUrl, rpc: Rpc, requested: Network | None) -> Network:
    """Determine which network the node is on; raises NodeError if it is not the requested one."""
    with well_formed(url, "getblockchaininfo"):
        info = rpc.call("getblockchaininfo")
        chain, genesis_hash = info["chain"], rpc.call("getblockhash", 0)
        actual = _find_network(url, chain, genesis_hash, requested)
        if actual.chain == "signet":
            actual = _signet_of(url, rpc, info)
    if requested is not None and actual.name != requested.name:
        raise NodeError(f"{url} is on {actual.name}, but {requested.name} was asked for")
    if genesis_hash != actual.genesis_hash:
        raise NodeError(
            f"{url} should be on {actual.name}, whose first block is {actual.genesis_hash}, "
            f"but its first block is {quoted(genesis_hash)}"
        )
    return requested or actual


def _find_network(url: NodeUrl, chain: object, genesis_hash: object, requested: Network | None) -> Network:
    """Find the network that a node's answers fit: names like `main` and `regtest` are those of many coins.

    Bitcoin's regtest and Namecoin's look the same: it is the requested one, or else Bitcoin's.
    """
    if not isinstance(chain, str):
        raise ValueError(f"{quoted(chain)} is not the name of a network")  # noqa: TRY004 one error for all answers
    if requested is not None and (chain, genesis_hash) == (requested.chain, requested.genesis_hash):
        return requested
    for known in networks.every_network():
        if (chain, genesis_hash) == (known.chain, known.genesis_hash):
            return known
    if requested is not None and chain == requested.chain:
        return requested
    try:
        return networks.network(chain)
    except UsageError as error:
        raise NodeError(f"{url} is on {quoted(chain)}, a network that virtualchain does not know") from error


def _signet_of(url: NodeUrl, rpc: Rpc, info: Mapping[str, Any]) -> Network:
    """Determine which signet the node is on: all have the same genesis block.

    Raises NodeError if a node before Bitcoin Core 28, which does not state the challenge, is on a custom one.
    """
    challenge = info.get("signet_challenge")
    if challenge is not None:
        return networks.signet_of(bytes.fromhex(challenge))
    if answers.height(info["blocks"]) > 0 and rpc.call("getblockhash", 1) != _SECOND_OF_SIGNET:
        raise NodeError(
            f"{url} is on a custom signet and does not state which: use Bitcoin Core 28 or later there"
        )
    return networks.NETWORKS["signet"]


def _open_rest(url: NodeUrl, tls: ssl.SSLContext | None) -> Rest | None:
    """Open the node's REST interface; None if it is off.

    What is in front of a node may answer anything with status 200, so the answer must be a node's, too.
    """
    rest = Rest(url, tls)
    with ExitStack() as opened:
        opened.callback(rest.close)
        try:
            answer = rest.get(_PROBE, 1 << 16).lstrip()
            is_on = answer.startswith(b"{") and b'"error"' not in answer
        except NodeUnavailable:
            raise
        except NodeError:
            is_on = False
        if is_on:
            opened.pop_all()
    return rest if is_on else None
