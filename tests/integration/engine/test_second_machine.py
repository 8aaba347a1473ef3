"""Every app of the repository has the same verdicts, rows and digests on machines that differ in all else."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_ten_apps import MAGICS, made_up
from tests.integration.names.test_poison import SAMPLES as NAMES
from tests.integration.testing.test_poison import Tally
from tests.simulation import apps as simulation
from tests.support.engine_app import Questions
from tests.support.names_chain import NamesChain, names_chain
from virtualchain.examples import notary
from virtualchain.examples.names import app as names
from virtualchain.examples.names import make_app
from virtualchain.testing import check_determinism
from virtualchain.testing.database import DatabaseServer, other_version
from virtualchain.testing.differences import describe_difference, verdicts
from virtualchain.testing.machines import FOREIGN, PLANS, Job, Machine, Stretch, other_hash_seed, packed

SECONDS = 15.0
"""For each app: its checkpoint is tried if the other machines took less."""


@pytest.fixture(scope="module")
def other(database_server: DatabaseServer) -> Iterator[DatabaseServer | None]:
    """Run a server of another version for all tests of this file, if there is one."""
    with other_version(database_server) as server:
        yield server


def ignore(_: str) -> None:
    """Disregard the steps of a simulation's app."""


@dataclass(frozen=True)
class Tried:
    """An app, samples of its payloads, and how many ops must at least be accepted."""

    make: Callable[[], Any]
    samples: list[bytes]
    accepted: int = 20


DIGEST = hashlib.sha256(b"a document").digest()
OPS = [
    simulation.MAGIC + b"o" + f"{verb} {name} {number}".encode()
    for number, verb in enumerate(simulation.VERBS)
    for name in "ab"
]
# Not the simulation's app of tables: the order of rows decides its statements, so the guard forbids them.
APPS = {
    "notary": Tried(lambda: notary.app, [b"nt" + code + DIGEST for code in (b"c", b"t", b"r")]),
    "names": Tried(lambda: names, NAMES, accepted=0),
    "an opaque state": Tried(lambda: Tally, [b"ta\x00abc", b"ly\x01"]),
    "an engine's subclass": Tried(lambda: Questions, [b"qu?-1", b"qu?-2 zz"]),
    "simulation, tally": Tried(lambda: simulation.Tally(ignore), OPS),
    "simulation, forgetful": Tried(lambda: simulation.Forgetful(ignore), OPS),
    **{
        f"made up {number}": Tried(
            partial(made_up, number),
            [MAGICS[number] + bytes([number % 2 + 2 * n]) + b"a" * n for n in range(5)],
        )
        for number in (3, 6)
    },
}


@pytest.mark.parametrize("name", APPS)
def test_apps(database_url: str, other: DatabaseServer | None, name: str) -> None:
    """Each runs on a chain of its samples, repeated and changed."""
    tried = APPS[name]
    report = check_determinism(
        tried.make(),
        tried.samples,
        database_url=database_url,
        other_database_url=None if other is None else other.url,
        seconds=SECONDS,
    )
    assert report.accepted >= tried.accepted
    assert report.refused + report.accepted > 20
    assert all(name.startswith("another process ") for name in report.machines[1:])
    assert len(report.machines) >= (2 if other is None else 3)


def fill(chain: NamesChain) -> None:
    """Register, renew, move and lose names, with some operations that are refused."""

    def accepted(*raws: bytes) -> None:
        assert chain.mine(*raws) == [None] * len(raws)

    chain.open_namespace()
    accepted(chain.preorder_namespace("open", fee=4 * 10**8))
    accepted(chain.reveal("open"), chain.preorder_namespace("late"))
    accepted(chain.import_name("name.open"))
    for number in range(4):
        chain.own(f"name{number}.test", f"more{number}.test")
        accepted(chain.update(f"name{number}.test"), chain.transfer(f"more{number}.test"))
        chain.mine(chain.update(f"more{number}.test"), chain.revoke(f"name{number}.test"))
        chain.mine(chain.update(f"name{number}.test"), chain.announce())
    accepted(chain.ready("open"))


def test_the_name_registry(
    database_url: str, database_server: DatabaseServer, other: DatabaseServer | None, tmp_path: Path
) -> None:
    """On its own chain, in short stretches, with another branch on the way and a replay at the end."""
    with names_chain(database_url) as chain:
        fill(chain)
        app, source, blocks = make_app(chain.params), chain._source, chain._chain
    first, last = chain.params.first_block, chain.height
    middle = (first + last) // 2
    branch = copy.deepcopy(source)
    kept = blocks[: middle - first + 1]
    empty = branch.make_branch(kept[-1], [{}, {}, {}], b"another branch")
    branch.activate([*kept, *empty])

    def job(folder: str, stretches: list[Stretch], **options: Any) -> Job:
        (tmp_path / folder).mkdir()
        return Job(source, 0, tmp_path / folder, stretches, **options)

    plain = Machine("one session", database_server, job("plain", [Stretch(last)]))
    plain.run_here(app)
    assert plain.ran.halt is None
    parcel = packed(app)
    assert parcel is not None
    assert sum(row[2] == "accepted" for row in verdicts(plain)) > 30
    machines = [plain]
    for server in filter(None, (database_server, other)):
        stops = sorted({*range(first, last, 9), middle, last})
        stretches = [
            Stretch(
                stop,
                {**FOREIGN, **PLANS[number % len(PLANS)]},
                shuffle=str(number),
                analyzes=number % 2 == 1,
                fork=(branch, middle + 3) if stops[number - 1] == middle else None,
                undoes=2 if number % 3 == 2 else 0,
            )
            for number, stop in enumerate(stops)
        ]
        folder = f"on {server.version()}"
        machine = Machine(
            folder,
            server,
            job(folder, stretches, replays=server is database_server, is_deep=True),
            other_hash_seed(),
            processes=2,
        )
        machines.append(machine)
        machine.run_elsewhere(parcel)
        assert machine.ran.is_elsewhere
        assert describe_difference("names", plain, machine, {}) == []
    for machine in machines:
        machine.drop()
