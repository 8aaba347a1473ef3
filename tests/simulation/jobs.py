"""What an engine can be asked to do: by the world in its own process, and in one that is killed."""

from virtualchain import StateEngine
from virtualchain.engine.rebuild import replay
from virtualchain.engine.rollback import operators_reorg, roll_back

Job = tuple[str, str | int | None]


def perform(engine: StateEngine, job: Job) -> None:
    """Build (up to a block, or some blocks), roll back some as an operator does, or replay an app."""
    what, argument = job
    deployment = engine._deployment
    if what == "build":
        assert not isinstance(argument, str)
        engine.build(argument)
    elif what == "part":
        tip = deployment.tape.tip()
        engine.build(int(str(argument)) + (deployment.first_block_id() if tip is None else tip.block_id))
    elif what == "replay":
        names = [machine.contract.name for machine in deployment.machines]
        app = str(argument) if argument in names else names[0]
        replay(deployment, app, engine._listener)
    else:
        tip, bottom = deployment.tape.tip(), deployment.tape.bottom()
        if tip is not None and bottom is not None:
            to = max(bottom.block_id - 1, tip.block_id - int(str(argument)))
            roll_back(deployment, operators_reorg(deployment.tape, to), engine._listener)
