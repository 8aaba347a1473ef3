"""Several nodes as one source: one of them is asked, and the others are looked at now and then.

The node that was named first is asked as long as it is well. If it is not, another one is, and the first one
again once it is well. Whichever node is asked, its blocks are the same: they pass the gate, and extend the
tape only by their parent's hash. Two chains are never followed in turns: a node on another branch is asked
only if that branch has more work, by headers whose work is checked here, and never if one of the two nodes
calls the other one's branch invalid.
"""

import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from virtualchain.background import begin
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.node.login import NodeUrl, read_url
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.bitcoin.node.relation import BEHIND, Relation, compare, invalid_note
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import MissingData, NodeError, NodeUnavailable, UsageError
from virtualchain.model import Block, SpentOutput
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

LOOK: Final = 30.0
"""Seconds between two looks at the nodes that are not asked."""
PATIENCE: Final = 120.0
"""Seconds for which it may be further behind, or on a branch with less work."""
SLOW: Final = 10.0
"""Seconds for a question that a node answers in a millisecond: it is as good as hung."""
HELD_OFF: Final = 60.0
"""Seconds before a node that failed is asked again; doubled with each failure, up to `_LONGEST`."""
_LONGEST: Final = 3600.0
_CLOSING: Final = 0.5
"""Seconds that closing waits for a look at the other nodes."""


def open_nodes(
    urls: Sequence[str],
    cookie: Path | None = None,
    network: Network | None = None,
    *,
    cacert: Path | None = None,
    zmq: str | None = None,
    warn: Callable[[str], None] = warnings.warn,
    notice: Callable[[str], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> BlockSource:
    """Open one node, or several as one source; the first that answers is asked first.

    For one node, this is `open_source`. Of several, `cookie` is for those on this machine whose URLs have no
    password, `cacert` for those with https, and `zmq` is the publisher of the first. All must be on
    `network`, or else on that of the first that answers. `report` is called with what changes: which node is
    asked, and why. Raises what `open_source` raises, if it is so for all nodes.
    """
    if len(urls) == 1:
        return open_source(urls[0], cookie, network, cacert=cacert, zmq=zmq, warn=warn, notice=notice)
    addresses = [read_url(url, network) for url in urls]
    names = [str(address) for address in addresses]
    repeated = [address for address in addresses if addresses.count(address) > 1]
    if repeated or not urls:
        raise UsageError(f"the node {repeated[0]} is named twice" if repeated else "no node is named")
    nodes = []
    for place, (url, address) in enumerate(zip(urls, addresses, strict=True)):
        own_cookie, own_cacert = files_of_one(address, cookie, cacert)
        opener = partial(
            open_source,
            url,
            own_cookie,
            cacert=own_cacert,
            zmq=zmq if place == 0 else None,
            notice=notice,
        )
        nodes.append(_Node(place, names[place], opener, warn))
    return SeveralNodes(nodes, network, report or (lambda _: None))


def files_of_one(
    address: NodeUrl, cookie: Path | None, cacert: Path | None
) -> tuple[Path | None, Path | None]:
    """Return which of the files `cookie` and `cacert` of several nodes are for the one at an address."""
    takes_cookie = address.is_local and not address.password
    return cookie if takes_cookie else None, cacert if address.scheme == "https" else None


def source_of(
    source: BlockSource | str | Sequence[str], cookie: Path | None, report: Callable[[str], None]
) -> BlockSource:
    """Return a source as it is, or open the node or nodes with these URLs."""
    if isinstance(source, str):
        return open_source(source, cookie)
    if isinstance(source, Sequence):
        return open_nodes(source, cookie, report=report)
    return source


def node_of(source: BlockSource) -> NodeSource | None:
    """Return the node that a source asks now; None if it asks none."""
    if isinstance(source, SeveralNodes):
        return source.current
    return source if isinstance(source, NodeSource) else None


def standing_of(source: BlockSource) -> tuple[int, bool]:
    """Return which node a source asks now, and whether another one disagrees with it.

    The first is 1 for the node that was named first, or the only one.
    """
    return (source.place, source.is_disputed) if isinstance(source, SeveralNodes) else (1, False)


def cut(source: BlockSource) -> None:
    """Have all questions to a node or several ones fail, for another thread; other sources just answer."""
    if isinstance(source, NodeSource | SeveralNodes):
        source.cut()


def asks_another(source: BlockSource, error: NodeError) -> bool:
    """Have another one of several nodes asked from now on, if an error shows that one answers wrongly.

    Returns whether another one is asked.
    """
    if isinstance(error, NodeUnavailable | MissingData) or not isinstance(source, SeveralNodes):
        return False
    return source.doubt(error)


class _Node:
    """One of several nodes, and what is known of it."""

    def __init__(
        self, place: int, name: str, opener: Callable[..., BlockSource], warn: Callable[[str], None]
    ) -> None:
        self.place: Final = place
        self._name = name
        self._opener = opener
        self._warn = warn
        self.source: NodeSource | None = None
        self.trouble: str | None = None
        """Why it is not to be asked; None: it may be."""
        self.is_disputed = False
        """Whether that is because it and the node that is asked call each other's blocks invalid."""
        self.lacks: str | None = None
        """A block that it does not have, or not what that spends."""
        self._failures = 0
        self._held_off_until = 0.0

    def __str__(self) -> str:
        return self._name

    def open(self, network: Network | None) -> NodeSource:
        """Connect to it, beside the connections that there are; checks its network, raises NodeError."""
        source = self._opener(network=network, warn=self._warn)
        assert isinstance(source, NodeSource), "it was opened by its URL"
        self._warn = _ignore  # once is enough
        return source

    def use(self, source: NodeSource) -> None:
        """Use these connections in place of others; only whoever holds the lock may do so."""
        if self.source not in {None, source}:
            self.close()
        self.source = source

    def opened(self, network: Network | None) -> NodeSource:
        """Return its connections, made again if it has failed, as another node may listen there by now."""
        if self.source is None or self.trouble is not None:
            self.use(self.open(network))
        assert self.source is not None, "it was just opened"
        return self.source

    def close(self) -> None:
        """Close the connections."""
        if self.source is not None:
            self.source.close()

    def fail(self, trouble: str, *, is_held_off: bool = True) -> None:
        """Note why it is not to be asked, and not to be looked at for a while, the longer the more often."""
        self.trouble = trouble
        if not is_held_off:
            return
        now = time.monotonic()
        if now > self._held_off_until + _LONGEST:
            self._failures = 0
        self._held_off_until = now + min(HELD_OFF * 2**self._failures, _LONGEST)
        self._failures = min(self._failures + 1, 10)

    def is_held_off(self) -> bool:
        """Return whether it has failed a moment ago."""
        return self.trouble is not None and time.monotonic() < self._held_off_until


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a look at another node has shown: what is wrong with it, or how its chain relates to ours."""

    trouble: str | None
    relation: Relation | None = None
    opened: NodeSource | None = None
    """New connections to it, if it had none that work."""


class SeveralNodes:
    """Some nodes as one `BlockSource`, see the module."""

    def __init__(
        self, nodes: Sequence[_Node], network: Network | None, report: Callable[[str], None]
    ) -> None:
        """Open the first node that answers; raises NodeUnavailable or NodeError if none does."""
        self._nodes = nodes
        self._report = report
        self._lock = threading.RLock()
        self._look: tuple[_Node, Future[dict[_Node, _Finding]]] | None = None
        """The look that is under way, and the node that was asked when it began."""
        self._look_due = 0.0
        self._behind_since: float | None = None
        self._splits: dict[_Node, tuple[int, bool]] = {}
        """Above which block other nodes were on another branch at the last look; whether it was reported."""
        self._last_block: str | None = None
        self._tip: Tip | None = None
        self._turns = self._turns_before = 0
        """How often another node was turned to, until now and until `tip` was called last."""
        self._asked = self._open_first(network)

    def _open_first(self, network: Network | None) -> _Node:
        errors: list[NodeError] = []
        for node in self._nodes:
            try:
                self._network = node.opened(network).network
            except NodeError as error:
                node.fail(str(error))
                errors.append(error)
            else:
                for failed in self._nodes[: node.place]:
                    message = f"{failed} is not used: {failed.trouble}; {node} is asked"
                    self._report(Notice(message, "node_unused", node=str(failed)))
                return node
        may_come = any(isinstance(error, NodeUnavailable) for error in errors)
        raise (NodeUnavailable if may_come else NodeError)(
            f"none of {len(self._nodes)} nodes can be used: {'; '.join(map(str, errors))}"
        ) from errors[0]

    def __str__(self) -> str:
        return str(self._asked)

    @property
    def current(self) -> NodeSource:
        """The node that is asked now."""
        source = self._asked.source
        assert source is not None, "a node is opened before it is asked"
        return source

    @property
    def place(self) -> int:
        """Which node is asked now: 1 for the one that was named first."""
        return self._asked.place + 1

    @property
    def is_disputed(self) -> bool:
        """Whether another node is on another branch, or calls ours invalid, as far as that was reported."""
        is_split = any(was_reported for _, was_reported in self._splits.values())
        return is_split or any(node.is_disputed for node in self._nodes)

    @property
    def network(self) -> Network:
        """The network that all of the nodes are on."""
        return self._network

    def tip(self) -> Tip:
        """Return the last block of the node that is asked; another one may be from now on."""
        self._look_around()
        self._turns_before = self._turns
        self._tip, taken = self._ask(_timed_tip)
        if taken > SLOW and self._leave(self._asked, _slow(taken), well=True):
            self._tip, _ = self._ask(_timed_tip)
        return self._tip

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the active block at a height; raises MissingData above the tip."""
        return self._ask(lambda node: node.block_hash(block_id))

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers that follow a block on the active chain, see `BlockSource`."""
        return self._ask(lambda node: node.headers_after(block_id, block_hash))

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Check whether the node calls the branch that contains this block invalid, see `BlockSource`."""
        return self._ask(lambda node: node.is_invalid(block_id, block_hash))

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, from the first node that has it; see `BlockSource`."""
        raw = self._ask(lambda node: node.raw_block(block_hash), block_hash)
        self._last_block = block_hash
        return raw

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return what transactions of a block spend, from the first node that has it; see `BlockSource`."""
        return self._ask(lambda node: node.spent_outputs(block_hash, transactions), block_hash)

    def spent_outputs_with_heights(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return it with the heights of the blocks that made it; see `HeightSource`."""
        return self._ask(lambda node: node.spent_outputs_with_heights(block_hash, transactions), block_hash)

    def transactions(self, txids: Collection[str]) -> Mapping[str, bytes]:
        """Return transactions that the node's index finds; raises MissingData if it has none (txindex=1)."""
        return self._ask(lambda node: node.transactions(txids))

    def coins(self, outpoints: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], SpentOutput]:
        """Return outputs that are unspent in the chain's last block, or unconfirmed; see `CoinSource`."""
        return self._ask(lambda node: node.coins(outpoints))

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until `wake`, or until the node announces a block."""
        self.current.wait(timeout)

    def wake(self) -> None:
        """End the current or the next `wait`; may be called from another thread or a signal handler."""
        for node in self._nodes:
            source = node.source
            if source is not None:
                source.wake()

    def cut(self) -> None:
        """Have all questions fail, those that wait for their answers, too; for another thread."""
        for node in self._nodes:
            if node.source is not None:
                node.source.cut()

    def close(self) -> None:
        """Close the connections to all nodes; a look that is under way is waited for briefly."""
        for node in self._nodes:
            node.close()
        if self._look is not None:
            look = self._look[1]
            look.add_done_callback(lambda look: _close_all(look.result()))
            wait([look], _CLOSING)

    def doubt(self, error: NodeError) -> bool:
        """Ask another node from now on, as what this one answered cannot be right.

        If that has happened since `tip` was called last, the answer may be that of the node before. Returns
        False if no other one is well.
        """
        return self._turns > self._turns_before or self._leave(self._asked, str(error), well=True)

    # Asking

    def _ask(self, question: Callable[[NodeSource], T], block_hash: str | None = None) -> T:
        """Ask the current node, and others if it fails, or lacks the block that the question is about."""
        for _ in self._nodes:
            node = self._asked
            assert node.source is not None, "a node is opened before it is asked"
            try:
                return question(node.source)
            except MissingData as error:
                if block_hash is None:
                    raise
                return self._ask_elsewhere(node, question, block_hash, error)
            except NodeError as error:
                if not self._leave(node, str(error)):
                    others = (f"{other}: {other.trouble}" for other in self._nodes if other is not node)
                    error.args = (f"{error}; no other node can be asked ({'; '.join(others)})",)
                    raise
        return question(self.current)

    def _ask_elsewhere(
        self, node: _Node, question: Callable[[NodeSource], T], block_hash: str, error: MissingData
    ) -> T:
        """Ask the other nodes for what one lacks; it is left only if another one has it."""
        for other in self._others(node):
            with self._lock:
                try:
                    answer = question(other.opened(self._network))
                except NodeError:
                    continue
                node.lacks = block_hash
                if self._asked is node:
                    node.fail(str(error))
                    self._turn_to(other, f"{node} is not asked any more: {error}")
            return answer
        raise error

    def _leave(self, node: _Node, trouble: str, *, well: bool = False) -> bool:
        """Turn to another node because one failed; return False if none can be asked.

        With `well`, only to one that has not failed itself. Another thread may have done so already.
        """
        with self._lock:
            if self._asked is not node:
                return True
            for other in self._others(node):
                if well and other.trouble is not None:
                    continue
                try:
                    source = other.opened(self._network)
                    source.tip()
                    tip = self._tip
                    if tip is not None and source.is_invalid(tip.block_id, tip.hash):
                        other.is_disputed = True
                        note = invalid_note(other, node, tip.block_id, tip.hash)
                        other.fail(note, is_held_off=False)
                        message = f"{other} is not used: {other.trouble}"
                        self._report(Notice(message, "node_unused", node=str(other)))
                        continue
                except NodeError as error:
                    other.fail(str(error))
                    continue
                node.fail(trouble)
                self._turn_to(other, f"{node} is not asked any more: {trouble}")
                return True
        return False

    def _others(self, node: _Node) -> list[_Node]:
        """Return the nodes that may be asked instead of one, those that have not failed first."""
        others = [other for other in self._nodes if other is not node and not other.is_disputed]
        return sorted(others, key=lambda other: (other.trouble is not None, other.place))

    def _turn_to(self, node: _Node, why: str) -> None:
        self._asked, node.trouble = node, None
        self._turns += 1
        self._behind_since = None
        self._splits.clear()
        self._look_due = time.monotonic() + LOOK
        message = f"{why}; {node} is asked from now on"
        self._report(Notice(message, "node_switched", node=str(node), reason=why))

    # Looking at the others

    def _look_around(self) -> None:
        """Act on what the last look at the other nodes has shown, and begin the next one if it is due."""
        with self._lock:
            if self._look is not None and self._look[1].done():
                (asked, look), self._look = self._look, None
                if asked is self._asked:
                    self._act(look.result())
                else:
                    _close_all(look.result())
            if self._look is None and time.monotonic() >= self._look_due:
                self._look_due = time.monotonic() + LOOK
                others = [node for node in self._nodes if node is not self._asked and not node.is_held_off()]
                self._look = self._asked, begin(partial(self._look_at, self.current, others))

    def _look_at(self, ours: NodeSource, others: Sequence[_Node]) -> dict[_Node, _Finding]:
        """Look at other nodes, in a thread of its own: one that hangs holds nobody up."""
        findings: dict[_Node, _Finding] = {}
        for node in others:
            is_new = node.source is None or (node.trouble is not None and not node.is_disputed)
            with ExitStack() as unless_used:
                try:
                    theirs = node.open(self._network) if is_new else node.source
                    assert theirs is not None, "it is new, or was there"
                    if is_new:
                        unless_used.callback(theirs.close)
                    _, taken = _timed_tip(theirs)
                    if node.lacks is not None and self._last_block is not None:
                        theirs.raw_block(self._last_block)
                except NodeError as error:
                    findings[node] = _Finding(str(error))
                    continue
                trouble = _slow(taken) if taken > SLOW else None
                with suppress(NodeError):  # whichever it is of: whoever asks next finds out
                    relation = compare(ours, theirs)
                    findings[node] = _Finding(trouble, relation, theirs if is_new else None)
                    unless_used.pop_all()
        return findings

    def _act(self, findings: Mapping[_Node, _Finding]) -> None:
        """Note which nodes are well, and turn to a better one than is asked."""
        better: list[tuple[_Node, Relation]] = []
        for node, finding in findings.items():
            relation = finding.relation
            if finding.opened is not None:
                node.use(finding.opened)
            trouble = finding.trouble or (relation.dispute if relation is not None else None)
            if trouble is not None or relation is None:
                was_disputed, node.is_disputed = node.is_disputed, finding.trouble is None
                if node.trouble is None or (node.is_disputed and not was_disputed):
                    message = f"{node} is not used: {trouble}"
                    self._report(Notice(message, "node_unused", node=str(node)))
                node.fail(trouble or "", is_held_off=not node.is_disputed)
                continue
            is_behind = relation.is_split or relation.ours > BEHIND
            if node.trouble is not None and (relation.has_more_work or not is_behind):
                self._report(Notice(f"{node} is well again", "node_recovered", node=str(node)))
                node.trouble, node.is_disputed, node.lacks = None, False, None
            self._report_split(node, relation)
            if relation.has_more_work or (relation.ours == 0 and relation.theirs == 0):
                better.append((node, relation))
        ahead = [(node, each) for node, each in better if each.is_split or each.theirs > BEHIND]
        preferred = [node for node, each in better if node.place < self._asked.place and not each.is_split]
        if preferred:
            self._turn_to(preferred[0], f"{preferred[0]} is well, and was named first")
        elif not ahead:
            self._behind_since = None
        else:
            self._fall_behind(*max(ahead, key=lambda pair: pair[1].theirs - pair[1].ours))

    def _fall_behind(self, node: _Node, relation: Relation) -> None:
        """Turn to a node that is ahead of the one that is asked, if that lasts, or this one is syncing."""
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        if relation.is_syncing or now - self._behind_since >= PATIENCE:
            where = (
                f"it is on a branch with less work above block {relation.fork}"
                if relation.is_split
                else f"it is more than {BEHIND} blocks behind{' and syncing' if relation.is_syncing else ''}"
            )
            self._asked.fail(where)
            self._turn_to(node, f"{self._asked} is not asked any more: {where}")

    def _report_split(self, node: _Node, relation: Relation) -> None:
        """Report a node on another branch, once; a branch of one block only if it is still there later."""
        if not relation.is_split:
            self._splits.pop(node, None)
            return
        fork, was_reported = self._splits.get(node, (None, False))
        is_new = fork != relation.fork
        is_due = min(relation.ours, relation.theirs) > 1 or not is_new
        if is_due and (is_new or not was_reported):
            more, less = (node, self._asked) if relation.has_more_work else (self._asked, node)
            message = (
                f"the nodes disagree from block {relation.fork + 1} on: {self._asked} has "
                f"{_blocks(relation.ours)} there and {node} has {_blocks(relation.theirs)}, and {less} is on "
                f"the branch with less work; compare both with a node that you trust, and name only those "
                f"that agree with it; until then, {more} counts"
            )
            nodes = [str(self._asked), str(node)]
            self._report(Notice(message, "nodes_disagree", nodes=nodes, fork_block_id=relation.fork))
        self._splits[node] = relation.fork, is_due


def _ignore(_: str) -> None:
    """Report nothing."""


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


def _slow(seconds: float) -> str:
    return f"it takes {seconds:.0f} seconds for its last block's hash"


def _timed_tip(node: NodeSource) -> tuple[Tip, float]:
    """Ask a node for its tip; return the seconds that it took as well."""
    began = time.monotonic()
    return node.tip(), time.monotonic() - began


def _close_all(findings: Mapping[_Node, _Finding]) -> None:
    for finding in findings.values():
        if finding.opened is not None:
            finding.opened.close()
