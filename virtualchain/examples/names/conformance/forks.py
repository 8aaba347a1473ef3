"""The same scenarios on a chain that forks: blocks are taken from a rival branch first, and given up."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from virtualchain.examples.names.conformance.comparing import Difference, Log
from virtualchain.examples.names.conformance.running import engine, log_of, make_source
from virtualchain.examples.names.conformance.scenario import Scenario, places
from virtualchain.examples.names.conformance.source import Placed

_DEEPEST: Final = 6
"""The most blocks of a rival branch."""
_FURTHEST: Final = 4
"""The most recorded blocks above a rival's height before the chain forks again."""


def replay_with_forks(scenario: Scenario, database: str, seed: int) -> Log:
    """Run a scenario to its end over rival branches, with a restart between some; give the engine's log.

    The same seed gives the same branches.
    """
    chance = Random(f"{seed} {scenario.name}")  # noqa: S311 - it chooses tests
    source, chain = make_source(scenario)
    contents = [
        {tx.txindex: tx.raw for tx in txs} for _, txs in places(scenario.blocks, scenario.params.first_block)
    ]
    # Behind the last block, too, more work must come than a rival of it has.
    chain += source.make_branch(chain[-1], [{}])
    at = 0
    while at < len(contents):
        with engine(scenario, source, database) as running:
            restart = False
            while at < len(contents) and not restart:
                depth = min(chance.randint(1, _DEEPEST), len(contents) - at)
                parent = chain[at - 1] if at else source.base
                rival = source.make_branch(parent, _rival(contents, at, depth, chance), b"rival")
                source.show([*chain[:at], *rival])
                running.build()
                at = min(at + depth + chance.randint(1, _FURTHEST), len(chain))
                source.show(chain[:at])
                restart = chance.random() < 0.2
                if not restart:
                    running.build()
    with engine(scenario, source, database) as running:
        running.build()
    return log_of(database)


def state_difference(straight: Log, forked: Log) -> Difference | None:
    """Give the first block behind which the tables differ between two runs."""
    for block_id, found in sorted(straight.items()):
        other = forked[block_id].state_hash if block_id in forked else "nothing"
        if other != found.state_hash:
            return Difference(block_id, None, "state_hash behind forks", found.state_hash, other)
    return None


def _rival(contents: Sequence[Placed], at: int, depth: int, chance: Random) -> Iterator[Placed]:
    """Make blocks in place of recorded ones: others' transactions join, some go, all change places."""
    for recorded in contents[at : at + depth]:
        others = chance.choice(contents)
        pool = list(dict.fromkeys([*recorded.values(), *others.values()]))
        chance.shuffle(pool)
        kept = pool[: chance.randint(0, len(pool))]
        yield dict(enumerate(kept, start=1))
