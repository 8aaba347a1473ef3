"""Replace an app by the code that is at hand, in one go: whatever its rules or its code have become.

It is derived from the tape beside the live build, and takes its place in one transaction. Blocks that were
never searched for its inputs, because its magic, payload rule or first block changed, are searched first.
There must be no other writer: its code is the old one.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.backfill import backfill_chunk, holds_tip, scan_for
from virtualchain.engine.compare import Difference, first_difference
from virtualchain.engine.coverage import gaps
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.rebuild import put_in_place
from virtualchain.engine.versions import build_beside, drop, naming_dependents
from virtualchain.errors import AppHalted, InUse, MissingData, NodeUnavailable, UsageError
from virtualchain.model import Block, ScannedBlock
from virtualchain.notices import Notice
from virtualchain.store.builds import Build, builds, is_by, live_build
from virtualchain.store.log import AppLog
from virtualchain.store.state_files import default_folder, discard


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The result of an upgrade: the builds before and now, and where they first differ, if they do."""

    before: Build
    now: Build
    difference: Difference | None


def upgrade(
    url: str,
    contract: Contract,
    open_source: Callable[[], BlockSource],
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
) -> Upgraded | None:
    """Replace an app's live build by one that `contract` makes from the tape.

    `open_source` is called if blocks must be searched. Returns None if the listener ended the work early: the
    app is as it was, and the next call continues. Code that seems to be the same is put in place, too: what
    it imports from elsewhere may have changed. Raises UsageError if the app is not installed, or began with
    a checkpoint, or something depends on the old tables; InUse if readers do not let go of the views;
    AppHalted if a callback fails; WriterBusy while there is another writer. After an error the app is as it
    was.
    """
    app = contract.name
    with ExitStack() as opened:
        deployment = opened.enter_context(closing(Deployment(url, [], None, options, repairs=app)))
        before = live_build(deployment.connection, app)
        if before is None:
            raise UsageError(f"app {app} is not installed: the first sync or run installs it")
        contract = contract.on(deployment.tape.network)
        name = _name(deployment.connection, contract)
        sources: list[BlockSource] = []

        def source() -> BlockSource:
            if not sources:
                sources.append(opened.enter_context(closing(open_source())))
            return sources[0]

        def search(contract: Contract) -> None:
            _search(deployment, contract, source(), listener)

        def fetch(contract: Contract, headers: Sequence[Block]) -> Generator[ScannedBlock, None, None]:
            return _fetch(deployment, contract, source(), headers)

        try:
            now = build_beside(url, contract, name, options, listener, search, fetch)
        except AppHalted:
            # What fixes it is other code, and that makes a build of its own.
            drop(url, app, name, state_folder=options.state_folder)
            raise
        tip = deployment.tape.tip()
        if not listener.may_continue() or (tip is not None and now.block_id < tip.block_id):
            return None
        difference = first_difference(deployment.connection, app, before.name, name)
        try:
            with naming_dependents(app), deployment.connection.transaction():
                put_in_place(deployment.connection, before, name, listener)
                AppLog(deployment.connection, app, name).set_status("running")
        except InUse:
            if listener.may_continue():
                raise
            return None
        discard(options.state_folder or default_folder(url), before.schema, name, is_live=False)
    return Upgraded(before, now, difference)


def _search(
    deployment: Deployment,
    contract: Contract,
    source: BlockSource,
    listener: Listener,
) -> None:
    """Search the blocks that were never searched for an app's inputs."""
    while listener.may_continue() and gaps(deployment.tape, contract):
        searched = backfill_chunk(deployment, source, contract)
        if searched is None and contract.tracks is not None:
            return  # the rest is fetched block by block, as its state decides what it sees
        if searched is None:
            raise _lags()
        first, last = searched
        message = f"app {contract.name}: blocks {first} to {last} were searched for its inputs"
        listener.on_wait(Notice(message, "app_joins", app=contract.name, first=first, last=last))


def _fetch(
    deployment: Deployment, contract: Contract, source: BlockSource, headers: Sequence[Block]
) -> Generator[ScannedBlock, None, None]:
    """Fetch blocks for an app that tracks outputs; close the generator to stop early."""
    try:
        with closing(scan_for(deployment, contract, source, headers)) as scanned_blocks:
            yield from scanned_blocks
    except (MissingData, NodeUnavailable) as error:
        if holds_tip(source, deployment):
            raise
        raise _lags() from error


def _lags() -> NodeUnavailable:
    return NodeUnavailable(
        "the node does not have the tape's last block now: it lags, or is on another branch; "
        "run it again when the node has it"
    )


def _name(connection: psycopg.Connection, contract: Contract) -> str:
    """Return the name of the new build: that of an earlier upgrade that was interrupted, or an unused one."""
    rows = builds(connection, contract.name)
    for row in rows:
        if not row.is_live and row.name.startswith("v") and _runs(connection, row, contract):
            return row.name
    numbers = [int(row.name.removeprefix("v")) for row in rows if row.name.removeprefix("v").isdecimal()]
    return f"v{max(numbers, default=0) + 1}"


def _runs(connection: psycopg.Connection, build: Build, contract: Contract) -> bool:
    """Return whether a build was made by these rules, and by this code."""
    return is_by(connection, build, contract) and build.code_digest == contract.code_digest()
