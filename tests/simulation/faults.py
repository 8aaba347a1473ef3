"""What may happen to the engine, the node and the database when a step is met."""

import os
import signal
from typing import TYPE_CHECKING, Final

import psycopg

from tests.simulation.jobs import Job
from tests.simulation.probe import ANSWER, CALLBACKS, NAMES, REQUESTS
from virtualchain.errors import AppHalted, NodeError, StoreError
from virtualchain.testing.faults import KINDS

if TYPE_CHECKING:
    from tests.simulation.world import World

REQUEST_STEPS: Final = tuple(step for _, _, step in REQUESTS)
THREADED: Final = (*REQUEST_STEPS, "read ahead", "scan of bytes")
"""Steps that may be met in a thread that reads ahead, which has no connection to the database."""

DATABASE: Final = ("ended", "full", "restart", "crash", "unanswered")
NODE: Final = ("fork", "lag", "invalidate", "node down")
ENGINE: Final = ("kill", "stop", "halt")
FAULTS: Final = (*DATABASE, *NODE, *ENGINE, *KINDS)

MEANING: Final = {
    "ended": "the engine's session is ended by the server",
    "full": "the database says that its disk is full",
    "restart": "the database is stopped (-m fast) and started",
    "crash": "the database is stopped (-m immediate) and recovers",
    "unanswered": "the transaction is committed, and the answer gets lost",
    "fork": "the node goes to another branch",
    "lag": "the node falls behind",
    "invalidate": "the node calls blocks invalid",
    "node down": "the node is gone",
    "kill": "SIGKILL",
    "stop": "somebody asks the engine to stop",
    "halt": "the app's callback fails",
    **KINDS,
}

ENDPOINTS: Final = {
    "tip": ("getblockchaininfo", "getblockchaininfo"),
    "headers": ("/rest/headers/", "getblockheader"),
    "fork search": ("getblockhash", "getblockhash"),
    "chain tips": ("getchaintips", "getchaintips"),
    "fetch": ("/rest/block/", "getblock"),
    "spent": ("/rest/spenttxouts/", "getrawtransaction"),
}
"""What a request asks for: over REST, and without."""

_WRITERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'virtualchain writer%'
"""
_FULL = "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"


def possible(fault: str, step: str) -> bool:  # noqa: PLR0911 - a table of rules
    """Whether a fault can meet a step at all.

    Only a callback halts its app; only a commit may be done and not answered; only statements meet a full
    disk; and only what asks the node meets its faults, of blocks where they are blocks'.
    """
    if fault == "halt":
        return step in CALLBACKS
    if fault == "unanswered":
        return step == ANSWER
    if fault == "full":
        return step not in (*THREADED, "open", ANSWER)
    if fault in {"truncate", "wrong_block"}:
        return step == "fetch" or (step == "spent" and fault == "truncate")
    if fault == "unauthorized":
        return step in {"tip", "fork search", "chain tips"}
    if fault in KINDS:
        return step in REQUEST_STEPS
    return step in NAMES


def allowed(fault: str, job: Job) -> tuple[type[Exception], ...]:
    """Return the errors that a run may end with where this happened."""
    if fault in DATABASE:  # an operator's command does not try again
        return (StoreError,) if job[0] in {"build", "part"} else (StoreError, psycopg.Error)
    if fault in NODE or fault in KINDS:
        return (NodeError,)
    return (AppHalted,) if fault == "halt" else ()


class Lost(psycopg.OperationalError):
    """A commit was not answered."""


def strike(world: "World", fault: str, step: str, seed: int) -> None:
    """Let it happen, now."""
    if fault == "ended":
        end_writers(world.url)
    elif fault == "full":
        world.connection().execute(_FULL)
    elif fault in {"restart", "crash"}:
        world.restart_database("fast" if fault == "restart" else "immediate")
    elif fault == "unanswered":
        world.connection().close()
        raise Lost("the connection broke before the answer")
    elif fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "halt":
        raise RuntimeError("a fuse is blown")
    elif fault == "stop":
        world.ask_to_stop()
    elif fault in NODE:
        world.upset(fault, seed)
    else:
        over_rest, over_rpc = ENDPOINTS[step]
        where = over_rest if world.options.rest and (step != "spent" or world.options.spent) else over_rpc
        world.node.fail(fault, 1, on=where, seconds=0.02)


def end_writers(url: str) -> None:
    """End the sessions that write to a database, as an operator or a failover does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_WRITERS)
