"""Every app of the repository has the same verdicts, rows and digests on machines that differ in all else."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.names.test_poison import SAMPLES as NAMES
from tests.simulation import apps as simulation
from tests.support.names_chain import ALICE, CREATOR, NamesChain, names_chain
from virtualchain.app.declarations import read_contract
from virtualchain.examples import notary
from virtualchain.examples.names import make_app
from virtualchain.testing import check_determinism, determinism
from virtualchain.testing.database import DatabaseServer, other_version
from virtualchain.testing.determinism import Course, run_everywhere
from virtualchain.testing.differences import verdicts

SECONDS = 300.0
"""For each app: more than it takes, so that its checkpoint is tried, too."""


@pytest.fixture(scope="module")
def other(database_server: DatabaseServer) -> Iterator[DatabaseServer | None]:
    """Run a server of another version for all tests of this file, if there is one."""
    with other_version(database_server) as server:
        yield server


@pytest.fixture(autouse=True)
def _fewer_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use every setting of the planner once: on all machines together, not on each."""
    monkeypatch.setattr(determinism, "_STRETCHES", 4)


def ignore(_: str) -> None:
    """Disregard the steps of a simulation's app."""


@dataclass(frozen=True)
class Tried:
    """An app, samples of its payloads, and whether it can begin with a checkpoint."""

    make: Callable[[], Any]
    samples: list[bytes]
    has_checkpoint: bool = True


DIGEST = hashlib.sha256(b"a document").digest()
OPS = [
    simulation.MAGIC + b"o" + f"{verb} {name} {number}".encode()
    for number, verb in enumerate(simulation.VERBS)
    for name in ("ab" if verb in {"add", "trade"} else "a")
]
APPS = {
    "notary": Tried(lambda: notary.app, [b"nt" + code + DIGEST for code in (b"c", b"t", b"r")]),
    "simulation, tables": Tried(lambda: simulation.table_app("plain", ignore), OPS),
    "simulation, saved state": Tried(lambda: simulation.Tally(ignore), OPS),
    "simulation, forgotten state": Tried(lambda: simulation.Forgetful(ignore), OPS, has_checkpoint=False),
}


@pytest.mark.parametrize("name", APPS)
def test_apps(
    database_url: str, other: DatabaseServer | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runs on a chain of its samples, repeated and changed."""
    monkeypatch.setattr(determinism, "_MOST_CASES", 120)
    tried = APPS[name]
    report = check_determinism(
        tried.make(),
        tried.samples,
        database_url=database_url,
        other_database_url=None if other is None else other.url,
        seconds=SECONDS,
    )
    assert report.accepted > 20
    assert report.refused > 20
    require_all(report.machines, other, has_checkpoint=tried.has_checkpoint)


def require_all(machines: Sequence[str], other: DatabaseServer | None, *, has_checkpoint: bool) -> None:
    """Check that no machine was left out, and that all but the first were other processes."""
    kinds = ["with other plans, heaps and forks"]
    kinds += [] if other is None else [f"with PostgreSQL {other.version()}"]
    kinds += ["begun by a checkpoint"] if has_checkpoint else []
    assert len(machines) == 1 + len(kinds)
    for machine, kind in zip(machines[1:], kinds, strict=True):
        assert machine.startswith(f"another process {kind}")


def fill(chain: NamesChain) -> None:
    """Register, renew, move and lose names, with many operations that are refused."""
    chain.open_namespace()
    chain.mine_accepted(chain.preorder_namespace("open"))
    chain.mine_accepted(chain.reveal("open"), chain.preorder_namespace("late"))
    chain.mine_accepted(chain.import_name("name.open"))
    for number in range(2):
        chain.own(f"name{number}.test", f"more{number}.test")
        chain.mine_accepted(chain.update(f"name{number}.test"), chain.transfer(f"more{number}.test"))
        chain.mine(chain.update(f"more{number}.test"), chain.revoke(f"name{number}.test"))
        chain.mine(chain.update(f"name{number}.test"), chain.announce())
    chain.mine_accepted(chain.ready("open"))
    for sender in (ALICE, CREATOR):
        chain.mine_unread(*(chain.tx(payload.removeprefix(b"id"), sender) for payload in NAMES))


def test_the_name_registry(
    database_url: str, database_server: DatabaseServer, other: DatabaseServer | None, tmp_path: Path
) -> None:
    """On a chain of its own, where a branch of empty blocks is followed and left."""
    with names_chain(database_url) as chain:
        fill(chain)
        app, source, blocks = make_app(chain.params), chain._source, chain._chain
    first, last = chain.params.first_block, chain.height
    middle = (first + last) // 2
    branch = copy.deepcopy(source)
    kept = blocks[: middle - first + 1]
    branch.activate([*kept, *branch.make_branch(kept[-1], [{}, {}, {}], b"another branch")])
    course = Course(
        app, read_contract(app), source, branch, first, middle, last, middle + 3, folder=tmp_path, names={}
    )
    with ExitStack() as opened:
        url = None if other is None else other.url
        machines = run_everywhere(course, database_server, url, SECONDS, opened)
        assert sum(row[2] == "accepted" for row in verdicts(machines[0])) > 20
        require_all([machine.name for machine in machines], other, has_checkpoint=True)
