"""Checks of the node: that it answers, is the right one, follows its chain, and has what apps need."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from virtualchain.bitcoin.node.client import NotOffered
from virtualchain.bitcoin.node.login import clear_text_warning
from virtualchain.errors import MissingData, NodeError, UsageError, quoted
from virtualchain.operating.doctor.findings import (
    Check,
    Checks,
    Finding,
    combined,
    ok,
    problem,
    skipped,
    warning,
)
from virtualchain.operating.doctor.patient import Away, Node, Patient, Unknown
from virtualchain.store.upstream import UpstreamSource

_OLDEST: Final = 25
_NEWEST: Final = 30
"""Major versions of Bitcoin Core that the tests run on, or that were tried."""
_SILENT: Final = 2 * 3600
"""Seconds without a block: on mainnet that happens once in some thirty years."""
_OFFSET: Final = 70
"""Seconds by which a node's clock may differ from its peers' clocks."""
_FUTURE: Final = 2 * 3600
"""Seconds by which a block may be ahead of a node's clock."""
_CONNECTING: Final = 3.0
"""Seconds to connect to a publisher."""
_RETRIES: Final = 3.0
"""Seconds after which a follower looks for blocks in any case."""
_WITHOUT_PEERS: Final = ("regtest",)
_SPENT: Final = "/rest/spenttxouts/{}.bin"


def reached(patient: Patient) -> Finding:
    """Check that the node answers and accepts the login; of several, that all do."""
    blocks = patient.settings.blocks
    if blocks is not None:
        if os.access(blocks, os.R_OK):
            return ok(f"blocks come from files in {blocks}")
        return problem(f"the block files in {blocks} cannot be read", "correct --blocks, or the permissions")
    if patient.settings.tape is not None:
        return _upstream(patient.settings.tape)
    nodes = patient.open_nodes()
    away = [node for node in nodes if isinstance(node, Away)]
    there = "; ".join(
        f"{node.url} answers: {quoted(node.chain.text('chain'))}, block {node.chain.number('blocks')}"
        for node in nodes
        if isinstance(node, Node)
    )
    if not away:
        return ok(there)
    observed, advice = "; ".join(map(str, away)), "; ".join(dict.fromkeys(each.advice for each in away))
    return warning(f"{observed}; {there}", advice) if there else problem(observed, advice)


def _upstream(url: str) -> Finding:
    """Check that the deployment answers whose tape is followed."""
    try:
        with closing(UpstreamSource(url)) as source:
            tip = source.tip()
            waits = f"which takes blocks with {source.confirmations} confirmations"
            return ok(f"blocks come from {source}, {waits}: {source.network.name}, block {tip.block_id}")
    except NodeError as error:
        return problem(
            " ".join(str(error).split()), "correct --tape, or look at that deployment: docs/state-nodes.md"
        )


def on_each(check: Callable[[Patient, Node], Finding]) -> Check:
    """Make a check of one node a check of all nodes; those that are away are left out."""

    def made(patient: Patient) -> Finding:
        nodes = patient.nodes()
        if len(nodes) == 1:
            return check(patient, nodes[0])
        findings = [_of_one(check, patient, node) for node in nodes]
        bad = [finding for finding in findings if finding.verdict in {"warning", "problem"}]
        return combined(bad, "; ".join(finding.observed for finding in findings))

    return made


def _of_one(check: Callable[[Patient, Node], Finding], patient: Patient, node: Node) -> Finding:
    """Make a check of one node among several, and say which one it is."""
    try:
        finding = check(patient, node)
    except NodeError as error:
        finding = problem(" ".join(str(error).split()), "mend that node, or leave it out")
    return replace(finding, observed=f"{node.url}: {finding.observed}")


def tls(_: Patient, asked: Node) -> Finding:
    """Check that no password crosses a network in clear."""
    complaint = clear_text_warning(asked.url, asked.login)
    if complaint is not None:
        return warning(complaint, "put a proxy with TLS in front of the node, or use a tunnel")
    return ok("encrypted" if asked.url.scheme == "https" else "on this machine")


def network(_: Patient, asked: Node) -> Finding:
    """Check that the node is on the network that the deployment follows."""
    try:
        return ok(asked.network().name)
    except NodeError as error:
        return problem(str(error), "name the node of this deployment's network with --bitcoin")


def version(_: Patient, asked: Node) -> Finding:
    """Check that the node's version is one that is known to work."""
    answer = asked.peers
    major = answer.number("version") // 10_000
    observed = f"{quoted(answer.text('subversion'))} (version {major})"
    if not asked.network().is_bitcoin:
        return ok(f"{observed}; on chains other than Bitcoin's, no version is known to be too old")
    if major < _OLDEST:
        return problem(observed, f"upgrade the node to Bitcoin Core {_OLDEST} or later, or Knots")
    if major > _NEWEST:
        return warning(observed, f"virtualchain is tested with Bitcoin Core {_OLDEST} to {_NEWEST}")
    return ok(observed)


def syncing(_: Patient, asked: Node) -> Finding:
    """Check that the node has all blocks that it knows of."""
    chain = asked.chain
    blocks, headers = chain.number("blocks"), chain.number("headers", chain.number("blocks"))
    observed = f"block {blocks} of {headers}"
    if chain.is_set("initialblockdownload") or headers - blocks > 1:
        return warning(
            f"the node is downloading its chain: {observed}", "wait: virtualchain follows meanwhile"
        )
    return ok(observed)


def warnings(_: Patient, asked: Node) -> Finding:
    """Report the warnings that the node states itself."""
    texts = list(dict.fromkeys([*asked.chain.texts("warnings"), *asked.peers.texts("warnings")]))
    if texts:
        return warning("; ".join(map(quoted, texts)), "look into the node's debug.log")
    return ok("none")


def peers(_: Patient, asked: Node) -> Finding:
    """Check that the node has peers, without which it learns of no block."""
    count = asked.peers.number("connections")
    if count < 1 and asked.chain.text("chain") not in _WITHOUT_PEERS:
        return warning("the node has no peers", "check its connection, and -connect or -proxy")
    return ok(f"{count:,}")


def last_block(_: Patient, asked: Node) -> Finding:
    """Check that blocks still arrive."""
    chain = asked.chain
    age = time.time() - chain.number("time", 0)
    if not chain.number("time", 0):
        return skipped("the node does not state the time of its last block")
    if chain.text("chain") in _WITHOUT_PEERS or chain.is_set("initialblockdownload"):
        return ok("not expected every ten minutes here")
    observed = f"{timedelta(minutes=max(age, 0) // 60)} ago"
    if age > _SILENT:
        return warning(
            f"the node's last block is from {observed}",
            "compare its height with a public explorer's: it may be cut off, or its clock may be wrong",
        )
    return ok(observed)


def clock(_: Patient, asked: Node) -> Finding:
    """Compare the node's clock with its peers', and ours with the last block's time."""
    offset, ahead = asked.peers.number("timeoffset", 0), asked.chain.number("time", 0) - time.time()
    findings = []
    if abs(offset) > _OFFSET:
        findings.append(
            warning(
                f"the node's clock differs from its peers' by {abs(offset):,} s",
                "have the node's machine synchronize its clock",
            )
        )
    if ahead > _FUTURE:
        findings.append(
            problem(
                f"the node's last block is {ahead / 3600:,.0f} hours ahead of this machine's clock",
                "have this machine synchronize its clock",
            )
        )
    return combined(findings, f"{offset:+} s against its peers")


def pruned(patient: Patient, asked: Node) -> Finding:
    """Check that the node still has the blocks that apps need next."""
    chain = asked.chain
    if not chain.is_set("pruned"):
        return ok("the node keeps all blocks")
    lowest = chain.number("pruneheight", 0)
    needed = _next_blocks(patient)
    observed = f"the node keeps blocks from {lowest}"
    if not needed:
        return skipped(f"{observed}; no app is installed or named")
    app, block_id = min(needed.items(), key=lambda item: item[1])
    if block_id < lowest:
        return problem(
            f"{observed}, and app {app} needs block {block_id} next",
            "use a node that still has it, its files (--blocks), or begin with a checkpoint",
        )
    return ok(f"{observed}; the next one that is needed is {block_id}")


def _next_blocks(patient: Patient) -> dict[str, int]:
    """Return the next block of each app that is installed or named."""
    needed = {}
    with suppress(UsageError):  # a check of its own reports that
        needed = {contract.name: contract.first_block_id for contract in patient.contracts}
    with suppress(Unknown):
        for row in patient.apps():
            reached = row["block_id"]
            needed[row["name"]] = row["first_block_id"] if reached is None else reached + 1
    return needed


def rest(_: Patient, asked: Node) -> Finding:
    """Check that the node's REST interface is on, which makes fetching several times as fast."""
    if asked.offers("/rest/chaininfo.json"):
        return ok("on")
    return warning("off, so that fetching takes several times as long", "put rest=1 into its bitcoin.conf")


def spent_outputs(_: Patient, asked: Node) -> Finding:
    """Check that the node states over REST what a block spends."""
    if asked.offers(_SPENT.format(asked.block_hash(0))):
        return ok("over REST")
    if not asked.network().is_bitcoin:
        return ok("by its index of transactions, or over JSON-RPC")
    return ok("over JSON-RPC, which takes longer: Core 30 or Knots 29.4 with REST is faster")


def index(_: Patient, asked: Node) -> Finding:
    """Check that a node of another coin has an index of transactions; on Bitcoin it is only reported."""
    is_needed = not asked.network().is_bitcoin
    try:
        answer = asked.look("getindexinfo")
    except NotOffered:
        return ok("the node does not say" if is_needed else "the node does not say; it is not needed")
    state = answer.content.get("txindex")
    if not isinstance(state, dict) and is_needed:
        return problem("none, so that nobody knows what blocks spend", "start the node with -txindex=1")
    if not isinstance(state, dict):
        return ok("none; it is not needed")
    if state.get("synced") is not True:
        return warning("the index of transactions is being built", "wait: the node is slower meanwhile")
    return ok("there is one")


def announcements(_: Patient, asked: Node) -> Finding:
    """Check that the node announces blocks where the settings expect that."""
    expected_at = asked.publisher
    published = _published(asked)
    if expected_at is None:
        also = f"; it also publishes at {', '.join(map(quoted, published))}" if published else ""
        return ok(f"by long polls{also}")
    findings = []
    if not published:
        findings.append(
            warning(
                "the node publishes no blocks over ZMQ",
                f"put zmqpubhashblock={quoted(expected_at)} into its bitcoin.conf",
            )
        )
    elif _port(expected_at) not in map(_port, published):
        findings.append(
            warning(
                f"the node publishes at {', '.join(map(quoted, published))}, "
                f"but --zmq is {quoted(expected_at)}",
                "name one of the node's addresses with --zmq",
            )
        )
    if not _answers(expected_at):
        findings.append(
            warning(f"nothing listens at {quoted(expected_at)}", "correct --zmq, or open the port in between")
        )
    seen_late = f"; until then blocks are seen up to {_RETRIES:g} s late" if findings else ""
    finding = combined(findings, f"over ZMQ at {quoted(expected_at)}")
    return Finding(finding.verdict, f"{finding.observed}{seen_late}", finding.advice)


def _published(asked: Node) -> list[str]:
    """Return the addresses at which the node publishes hashes of blocks."""
    try:
        answer = asked.ask("getzmqnotifications")
    except NotOffered:  # a node without ZMQ
        return []
    entries = answer if isinstance(answer, list) else []
    addresses = [
        entry.get("address")
        for entry in entries
        if isinstance(entry, dict) and entry.get("type") == "pubhashblock"
    ]
    return [address for address in addresses if isinstance(address, str)]


def _port(address: str) -> object:
    """Return what must be the same in two addresses of a publisher, which may listen at all addresses."""
    with suppress(ValueError):
        parts = urlsplit(address)
        return parts.port if parts.scheme == "tcp" else parts.path
    return None


def _answers(address: str) -> bool:
    """Return whether somebody listens there."""
    try:
        parts = urlsplit(address)
        if parts.scheme != "tcp":
            return os.path.exists(address.removeprefix("ipc://"))  # noqa: PTH110 - of any form
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_CONNECTING).close()
    except (OSError, ValueError):
        return False
    return True


def same_chain(patient: Patient, asked: Node) -> Finding:
    """Check that the tape's last block is on the node's chain."""
    _ = patient.deployment
    tips = patient.database.rows("tape_tip")
    if not tips:
        return skipped("the tape is empty")
    block_id, block_hash = tips[0]["block_id"], tips[0]["hash"]
    try:
        theirs = asked.block_hash(block_id)
    except MissingData:
        return warning(
            f"the tape has block {block_id}, and the node is at block {asked.chain.number('blocks')}",
            "wait until the node has caught up, or name another node",
        )
    if theirs == block_hash:
        return ok(f"block {block_id} is the same")
    shared = _last_shared(patient, asked, tips[0]["first_block_id"], block_id)
    return warning(
        f"the node's chain leaves the tape's after block {shared}, {block_id - shared:,} before its end",
        "see what `virtualchain status` waits for: the writer undoes these blocks, or waits for a decision",
    )


def _last_shared(patient: Patient, asked: Node, first: int, last: int) -> int:
    """Return the last block of the tape that is on the node's chain: the one before `first` if none is."""
    low, high = first - 1, last
    while low + 1 < high:
        middle = (low + high) // 2
        [row] = patient.database.rows("tape_block", block_id=middle)
        try:
            is_shared = asked.block_hash(middle) == row["hash"]
        except MissingData:
            is_shared = False
        low, high = (middle, high) if is_shared else (low, middle)
    return low


NODE: Final[Checks] = {
    "node": reached,
    "node-encryption": on_each(tls),
    "node-network": on_each(network),
    "node-version": on_each(version),
    "node-syncing": on_each(syncing),
    "node-warnings": on_each(warnings),
    "node-peers": on_each(peers),
    "node-last-block": on_each(last_block),
    "node-clock": on_each(clock),
    "node-pruned": on_each(pruned),
    "node-rest": on_each(rest),
    "node-spent-outputs": on_each(spent_outputs),
    "node-index": on_each(index),
    "node-announcements": on_each(announcements),
    "node-chain": on_each(same_chain),
}
