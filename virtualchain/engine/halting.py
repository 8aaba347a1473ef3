"""Why an app is halted: the record that `virtualchain.apps` shows, and the error that carries it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.app.fields import legible
from virtualchain.errors import AppHalted, MissingData
from virtualchain.model import Block, Input, Json
from virtualchain.store.failures import describe_error, summarize_error

LONGEST_REASON: Final = 1_000
_LONGEST_TRACEBACK: Final = 20_000
"""Characters that are kept: both may quote what a stranger wrote, however long."""


class AppEnded(Exception):
    """A callback tried to end the process, or its block's transaction."""


@contextmanager
def contained() -> Iterator[None]:
    """Run a callback: what would end the engine, or the block's transaction unnoticed, is the app's error."""
    try:
        yield
    except (SystemExit, GeneratorExit, psycopg.Rollback) as error:
        raise AppEnded(f"the callback raised {type(error).__name__}") from error


def halt(contract: Contract, block: Block, callback: str, item: Input | None, error: Exception) -> AppHalted:
    """Describe a failed callback, for the app's record and for the operator."""
    place = f"block {block.block_id}" + (f", transaction {item.txid}" if item else "")
    return AppHalted(
        f"app {contract.name} is halted before {place}: {callback} failed with {summarize_error(error)}",
        {
            "block_id": block.block_id,
            "callback": callback,
            "txid": item.txid if item else None,
            "txindex": item.txindex if item else None,
            "error": legible(describe_error(error), LONGEST_REASON),
            "traceback": legible("".join(traceback.format_exception(error)), _LONGEST_TRACEBACK),
        },
    )


def halted_error(app: str, record: Json) -> AppHalted:
    """Return the error of an app that was halted earlier, from its record."""
    error = record["error"].splitlines()[0]
    return AppHalted(
        f"app {app} is halted before block {record['block_id']}: {record['callback']} failed "
        f"with {error}; fix it, then run `virtualchain resume {app}`",
        record,
    )


def missing_blocks_record(block_id: int, error: MissingData) -> Json:
    """Describe that the node does not have blocks which an app needs to join, in the form of `halt`."""
    return {
        "block_id": block_id,
        "callback": "searching blocks that were never searched for its magic",
        "txid": None,
        "txindex": None,
        "error": f"{error}; use a node that has all blocks, or its files (--blocks)",
        "traceback": "",
    }
