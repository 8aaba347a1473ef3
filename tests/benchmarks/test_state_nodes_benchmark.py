"""The benchmark of state nodes runs and shows its results; how long anything takes is not judged."""

import pytest
from rich.console import Console

from tests.benchmarks import state_nodes
from virtualchain import StateEngine
from virtualchain.testing.database import DatabaseServer


def test_state_nodes_are_measured(database_server: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tape that is made has what the apps need; processes are left out, as starting them takes long."""

    def follow_here(server: DatabaseServer, tape: str, nodes: int) -> float:
        with StateEngine(state_nodes.make_app(3), database=server.create(), source=tape) as engine:
            assert engine.build() == state_nodes.FIRST + 1
        return 2.0 / nodes

    monkeypatch.setattr(state_nodes, "follow", follow_here)
    result = state_nodes.measure(database_server, 2, 1, [1, 2], 1)
    assert (result.ops, result.ratios) == (16, {1: 1.0, 2: 2.0})
    console = Console(width=100)
    with console.capture() as printed:
        console.print(state_nodes.table(result))
    assert "2.00" in printed.get()
