"""Check the tape: headers, the chain that they form, and what raw transactions say of themselves.

A header determines its hash, parent, time and work, which the network's rules must allow; a raw transaction
its id, its outputs and what it spends; a Merkle branch, if it was kept, that the transaction is in its block.
The values and scripts of spent outputs are not on the tape: only another look at the chain can show them.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

import psycopg

from virtualchain.audit.checking import check_block, check_input
from virtualchain.audit.fault import Fault, OnProgress, ignore
from virtualchain.audit.log import HIGHEST, AuditedBuild
from virtualchain.bitcoin.difficulty import check_targets, check_times, check_work
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.inclusion import Inclusion, check_inclusion
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.transaction import without_witness
from virtualchain.engine.coverage import uncovered
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.model import Block
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape, is_tracking_rule

_Q = queries("audit")
_STRETCH: Final = 500
"""Blocks read at once."""
_ROWS: Final = 100
"""Inputs fetched at once: one may have megabytes."""


def check_tape(
    connection: psycopg.Connection, first: int = 0, last: int = HIGHEST, on_progress: OnProgress = ignore
) -> Iterator[Fault]:
    """Yield what is wrong with the blocks from `first` to `last`, with their inputs, and with pins there.

    Must run in a transaction.
    """
    tape, chain = Tape(connection), chain_of(connection)
    bottom, tip = _height(connection, "bottom"), _height(connection, "tip")
    if bottom is not None and tip is not None:
        if chain is None:
            yield Fault("the database has blocks, but does not say of which network")
            return
        bound = tape.deployment()
        if bound is not None and bound[1] != chain.genesis_hash:
            yield Fault(f"the database has {bound[1]} as the genesis hash of {bound[0]}", table="deployment")
        lowest, highest = max(first, bottom), min(last, tip)
        recent = {block.block_id: block for block in tape.blocks(lowest - chain.period - 1, lowest - 1)}
        pruned = tape.pruned_until()
        for start in range(lowest, highest + 1, _STRETCH):
            until = min(start + _STRETCH - 1, highest)
            blocks: dict[int, Block] = {}
            yield from _check_blocks(connection, start, until, blocks)
            yield from _check_rules(blocks, recent, chain)
            yield from _check_inputs(connection, start, until, blocks, chain, pruned)
            yield from _check_branches(connection, start, until, blocks, chain)
            on_progress(f"tape: block {until:,} of {highest:,}")
            if 0 in blocks and bound is not None and blocks[0].hash != bound[1]:
                yield Fault(f"it is not the genesis block of {bound[0]}, {bound[1]}", block_id=0)
    if bottom is not None and tip is not None:
        yield from _check_coverage(tape, bottom, tip)
    for query, message, table in (
        ("homeless_inputs", "it has inputs, but is not on the tape", None),
        ("false_pins", "it is not the block that is pinned there", "pins"),
    ):
        for (block_id,) in connection.execute(_Q[query], {"first": first, "last": last}).fetchall():
            yield Fault(message, table=table, block_id=block_id)


def chain_of(connection: psycopg.Connection) -> Network | None:
    """Return the network that a database says it follows; None if it names none, or one that is unknown."""
    bound = Tape(connection).deployment()
    try:
        chain = None if bound is None else network(bound[0])
    except UsageError:
        return None
    return chain if bound is not None and chain is not None and chain.name == bound[0] else None


def _check_coverage(tape: Tape, bottom: int, tip: int) -> Iterator[Fault]:
    """Check that what was searched is on the tape; a search that is open may begin with the next block."""
    for row in tape.coverage():
        name = f"coverage of {row.magic.hex() or 'no magic'} by {row.rule}"
        last = tip if row.until_block is not None else tip + 1
        if not (bottom <= row.from_block <= last and (row.until_block or 0) <= tip):
            until = "" if row.until_block is None else f" to {row.until_block}"
            yield Fault(
                f"{name} is recorded from block {row.from_block}{until}, but the tape has blocks {bottom} to "
                f"{tip}",
                table="coverage",
            )
        if row.is_tracking and (row.magic or row.until_block is None or not is_tracking_rule(row.rule)):
            yield Fault(f"{name} is not what an app that tracks outputs can have", table="coverage")


def check_searches(connection: psycopg.Connection, build: AuditedBuild) -> Iterator[Fault]:
    """Yield blocks that a build has taken although they were not searched for its magics, as coverage says.

    Of an app that tracks outputs, other blocks may be on the tape as well: its coverage is another one.
    """
    first, last = max(build.first_block_id, build.base_block_id + 1), build.block_id
    if build.tracking is not None or last is None:
        return
    tape = Tape(connection)
    rows, pruned = tape.coverage(), tape.pruned_until()
    first = first if pruned is None else max(first, pruned + 1)
    for magic in build.magics:
        searched = [row for row in rows if row.magic == magic and _is_search_by(row.rule, build.rule)]
        for start, end in uncovered(searched, first, last) if first <= last else ():
            yield build.fault(
                f"it has taken blocks {start} to {end}, but no search of them for "
                f"{magic.hex() or 'no magic'} is recorded",
                table="coverage",
                block_id=start,
            )


def _is_search_by(search: str, rule: str) -> bool:
    """Return whether a search was by a payload rule: what else it asked for follows the rule's name."""
    return search == rule or search.startswith((f"{rule} without ", f"{rule} with "))


def _height(connection: psycopg.Connection, query: str) -> int | None:
    row = connection.execute(queries("tape")[query]).fetchone()
    return None if row is None else int(row[0])


def _check_blocks(
    connection: psycopg.Connection, first: int, last: int, blocks: dict[int, Block]
) -> Iterator[Fault]:
    """Check a stretch of blocks and the link to the one before; put those with a header into `blocks`."""
    before: tuple[Block, int] | None = None
    following = first
    for row in connection.execute(_Q["blocks"], {"first": first - 1, "last": last}).fetchall():
        block_id, block_hash, prev_hash, seconds, chainwork, header = row
        time = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
        for gap in range(following, block_id):
            yield Fault("it is missing on the tape", block_id=gap)
            before = None
        following = max(following, block_id + 1)
        try:
            before = check_block((block_id, block_hash, prev_hash, time, chainwork, header), before)
            blocks[block_id] = before[0]
        except ValueError as error:
            before = None
            if block_id >= first:  # the one before belongs to another stretch
                yield Fault(_reason(error), block_id=block_id)
            try:
                blocks[block_id] = read_header(block_id, header)
            except MalformedBlock:
                continue
    for gap in range(following, last + 1):
        yield Fault("it is missing on the tape", block_id=gap)


def _check_rules(blocks: Mapping[int, Block], recent: dict[int, Block], chain: Network) -> Iterator[Fault]:
    """Check work, target and time of a stretch of headers by the network's rules.

    `recent` has the headers below them, as far as these rules look back; they are added there.
    """
    for block_id, block in sorted(blocks.items()):
        try:
            check_work(block, chain, is_stored=True)
            check_targets([block], chain, recent.get)
            check_times([block], chain, recent.get)
        except MalformedBlock as error:
            yield Fault(str(error), block_id=block_id)
        recent[block_id] = block
        recent.pop(block_id - chain.period - 1, None)


def _check_inputs(
    connection: psycopg.Connection,
    first: int,
    last: int,
    blocks: dict[int, Block],
    network: Network,
    pruned: int | None,
) -> Iterator[Fault]:
    """Check the inputs of a stretch of blocks; of those up to `pruned` there may be nothing to check."""
    with connection.cursor("audited_inputs") as cursor:
        cursor.itersize = _ROWS
        for row in cursor.execute(_Q["inputs"], {"first": first, "last": last}):
            block_id, txindex = int(row[0]), int(row[1])
            if block_id not in blocks:  # reported with its block
                continue
            if row[7] is None:
                if pruned is None or block_id > pruned:
                    yield Fault(
                        "its raw transaction is missing, and was not pruned",
                        block_id=block_id,
                        txindex=txindex,
                    )
                continue
            try:
                check_input(row, blocks, network)
            except ValueError as error:
                yield Fault(_reason(error), block_id=block_id, txindex=txindex)


def _check_branches(
    connection: psycopg.Connection, first: int, last: int, blocks: dict[int, Block], network: Network
) -> Iterator[Fault]:
    """Check that inputs whose branches were kept are in their blocks."""
    with connection.cursor("audited_branches") as cursor:
        cursor.itersize = _ROWS
        for row in cursor.execute(_Q["branches"], {"first": first, "last": last}):
            block_id, txindex, raw, branch, coinbase, coinbase_branch = row
            if block_id not in blocks:  # reported with its block
                continue
            if txindex is None:
                yield Fault("its coinbase is kept, but no input with a branch", block_id=block_id)
                continue
            try:
                if coinbase is None:
                    raise MalformedBlock("its branch is kept, but not the coinbase's")
                transaction = without_witness(raw)
                inclusion = Inclusion(txindex, transaction, branch, coinbase, coinbase_branch)
                check_inclusion(inclusion, blocks[block_id], network)
            except (MalformedBlock, IndexError) as error:
                yield Fault(
                    f"it is not shown to be in its block: {error}", block_id=block_id, txindex=txindex
                )


def _reason(error: ValueError) -> str:
    """Return an error's message without the place before it, which a fault states itself."""
    place, colon, reason = str(error).partition(": ")
    return reason if colon and place.startswith(("block", "transaction")) else str(error)
