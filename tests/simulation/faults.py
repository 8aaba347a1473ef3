"""The faults of engine, node and database, and the tables of which fault struck at which step."""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import psycopg

from tests.simulation.jobs import Job
from tests.simulation.others import OTHERS
from tests.simulation.steps import ANSWER, CALLBACKS, CONTEXTS, NAMES, REQUESTS
from virtualchain.errors import AppHalted, BuildChanged, InUse, NodeError, StoreError, UsageError
from virtualchain.testing.fakenode import FAULT_KINDS

if TYPE_CHECKING:
    from tests.simulation.world import World

REQUEST_STEPS: Final = tuple(step for _, _, step in REQUESTS)
THREADED: Final = (*REQUEST_STEPS, "read ahead", "scan of bytes")
"""Steps that a thread without a database connection may reach, as it reads ahead."""

DATABASE: Final = ("ended", "full", "restart", "crash", "unanswered")
NODE: Final = ("fork", "lag", "invalidate", "node down")
ENGINE: Final = ("kill", "stop", "halt")
FAULTS: Final = (*DATABASE, *NODE, *ENGINE, *OTHERS, *FAULT_KINDS)

MEANING: Final = {
    "ended": "the server ends the engine's session",
    "full": "the database reports a full disk",
    "restart": "the database stops (-m fast) and starts again",
    "crash": "the database stops (-m immediate) and recovers",
    "unanswered": "the transaction is committed, but the answer is lost",
    "fork": "the node switches to another branch",
    "lag": "the node falls behind",
    "invalidate": "the node marks blocks as invalid",
    "node down": "the node stops",
    "kill": "SIGKILL",
    "stop": "the engine is asked to stop",
    "halt": "the app's callback fails",
    "make": "another process makes a build of the app",
    "swap": "another process swaps in another build",
    "drop": "another process drops a build",
    "pin": "another process pins the tape's tip",
    **FAULT_KINDS,
}

ENDPOINTS: Final = {
    "tip": ("getblockchaininfo", "getblockchaininfo"),
    "headers": ("/rest/headers/", "getblockheader"),
    "fork search": ("getblockhash", "getblockhash"),
    "chain tips": ("getchaintips", "getchaintips"),
    "fetch": ("/rest/block/", "getblock"),
    "spent": ("/rest/spenttxouts/", "getrawtransaction"),
}
"""By step, the REST path or else the RPC method that it requests."""

_WRITERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'virtualchain writer%'
"""
_FULL = "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"


def possible(fault: str, step: str) -> bool:  # noqa: PLR0911 - a table of rules
    """Check whether a fault can strike at a step.

    Only callbacks can halt an app, only a commit can remain unanswered, and only statements see a full disk.
    Only requests to the node have the node's faults, and only those for blocks have the faults of blocks.
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
    if fault in FAULT_KINDS:
        return step in REQUEST_STEPS
    return step in NAMES


def allowed(fault: str, job: Job) -> tuple[type[Exception], ...]:
    """Return the errors with which a run may end after a fault."""
    if fault in DATABASE:  # an operator's command does not retry
        return (StoreError,) if job[0] in {"build", "part"} else (StoreError, psycopg.Error)
    if fault in NODE or fault in FAULT_KINDS:
        return (NodeError,)
    if fault in OTHERS:  # a build that was swapped in may need its own code for a rebuild
        return (UsageError, BuildChanged, InUse)
    return (AppHalted,) if fault == "halt" else ()


class AnswerLost(psycopg.OperationalError):
    """The answer of a commit was lost."""


def strike(world: "World", fault: str, step: str, seed: int) -> None:
    """Let a fault strike at a step."""
    if fault == "ended":
        end_writers(world.url)
    elif fault == "full":
        world.connection().execute(_FULL)
    elif fault in {"restart", "crash"}:
        world.restart_database("fast" if fault == "restart" else "immediate")
    elif fault == "unanswered":
        world.connection().close()
        raise AnswerLost("the connection broke before the answer")
    elif fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "halt":
        raise RuntimeError("a simulated error")
    elif fault == "stop":
        world.ask_to_stop()
    elif fault in OTHERS:
        world.disturb_builds(fault, seed)
    elif fault in NODE:
        world.disturb_node(fault, seed)
    else:
        over_rest, over_rpc = ENDPOINTS[step]
        endpoint = over_rest if world.setup.rest and (step != "spent" or world.setup.spent) else over_rpc
        world.node.fail(fault, 1, on=endpoint, seconds=0.02)


def end_writers(url: str) -> None:
    """End the sessions that write to a database, as an operator or a failover may."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_WRITERS)


def report(struck: Counter[tuple[str, str]]) -> str:
    """Format tables of steps and faults, and list the pairs that never occurred.

    A dot stands for a pair that cannot occur, a hyphen for one that did not.
    """
    in_contexts = sorted({step for _, step in struck} - set(NAMES))
    return "\n".join(
        [
            *_table(struck, [*NAMES, *in_contexts], (*DATABASE, *NODE, *ENGINE)),
            "",
            *_table(struck, [*NAMES, *in_contexts], OTHERS),
            "",
            *_table(struck, REQUEST_STEPS, tuple(FAULT_KINDS)),
            "",
            "never struck:",
            *(
                f"  {fault} ({MEANING[fault]}): {', '.join(steps)}"
                for fault, steps in missing(struck).items()
            ),
        ]
    )


def missing(struck: Counter[tuple[str, str]]) -> dict[str, list[str]]:
    """Return, by fault, the steps at which it could have struck and did not, in any context."""
    steps: defaultdict[str, list[str]] = defaultdict(list)
    for fault in FAULTS:
        for step in NAMES:
            places = [step, *(f"{step} ({context})" for _, _, context in CONTEXTS)]
            if possible(fault, step) and not any(struck[fault, place] for place in places):
                steps[fault].append(step)
    return steps


def _table(struck: Counter[tuple[str, str]], steps: Sequence[str], faults: Sequence[str]) -> list[str]:
    width = max(map(len, steps)) + 2
    lines = [" " * width + " ".join(f"{fault:>12}" for fault in faults)]
    for step in steps:
        cells = [
            str(struck[fault, step] or "-") if possible(fault, step.partition(" (")[0]) else "."
            for fault in faults
        ]
        lines.append(f"{step:{width}}" + " ".join(f"{cell:>12}" for cell in cells))
    return lines
