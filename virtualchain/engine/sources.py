"""The sources that an engine may be given, and what follows from each for its options."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.node import several
from virtualchain.bitcoin.source import BlockSource, InputSource
from virtualchain.engine.options import Options
from virtualchain.errors import UsageError
from virtualchain.model import Verification
from virtualchain.notices import Notice
from virtualchain.store.database import connect_reader, redact
from virtualchain.store.failures import store_error
from virtualchain.store.upstream import UpstreamSource, is_same_database, is_upstream, server_of


def source_of(
    source: BlockSource | str | Sequence[str], cookie: Path | None, report: Callable[[str], None]
) -> BlockSource:
    """Return a source as it is, or open the upstream, the node or the nodes with these URLs."""
    if isinstance(source, str) and is_upstream(source):
        return UpstreamSource(source, report=report)
    return several.source_of(source, cookie, report)


def cut(source: BlockSource) -> None:
    """Have all questions to nodes or an upstream fail, for another thread; other sources just answer."""
    if isinstance(source, UpstreamSource):
        source.cut()
    several.cut(source)


def options_for(
    options: Options,
    source: BlockSource,
    contracts: Sequence[Contract],
    verify: Verification | None,
    confirmations: int | None,
) -> Options:
    """Return the options with the defaults that suit a source, for what is None.

    An upstream has waited for confirmations already. Raises UsageError if the apps cannot be run so.
    """
    takes_inputs = isinstance(source, InputSource)
    if verify is None and (takes_inputs or several.node_of(source) is not None):
        options = replace(options, verify="headers")
    if confirmations is None:
        options = replace(options, confirmations=0 if takes_inputs else source.network.confirmations)
    if takes_inputs and options.senders == "proved":
        raise UsageError(
            f"{source} does not have the transactions and blocks that made what inputs spend, which "
            "--senders proved takes: use it there, with a node, and --senders node or bound here"
        )
    waited = source.confirmations if isinstance(source, UpstreamSource) else 0
    replace(options, confirmations=options.confirmations + waited).check_confirmations(contracts)
    return options


def check_upstream(source: BlockSource, url: str, report: Callable[[str], None]) -> None:
    """Raise UsageError if a source is the deployment's own database at `url`; report what it is believed."""
    if not isinstance(source, UpstreamSource):
        return
    refuse_itself(source, url)
    message = (
        f"{source} is believed that it left out no input, and what inputs spend and reveal; what else it is "
        "believed depends on --verify: see docs/trust.md"
    )
    report(Notice(message, "upstream_believed"))


def refuse_itself(source: BlockSource, url: str) -> None:
    """Raise UsageError if a source is the deployment's own database at `url`."""
    if not isinstance(source, UpstreamSource):
        return
    try:
        with closing(connect_reader(url)) as connection:
            own = server_of(connection)
    except psycopg.Error as error:
        raise store_error(error) from error
    if is_same_database(source.server(), own):
        raise UsageError(
            f"{source} is the database of this deployment itself, {redact(url)}, or a standby of it: a state "
            "node needs a database of its own (--database)"
        )
