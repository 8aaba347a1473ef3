"""Which fault met which step of the engine: tables, and the pairs that were never met."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.simulation.faults import DATABASE, ENGINE, FAULTS, MEANING, NODE, REQUEST_STEPS, possible
from tests.simulation.probe import CONTEXTS, NAMES
from virtualchain.testing.faults import KINDS

Met = Counter[tuple[str, str]]


def report(met: Met) -> str:
    """Return the tables as text: a row a step, a column a fault; a dot where they cannot meet."""
    inside = sorted({step for _, step in met} - set(NAMES))
    steps = [*NAMES, *inside]
    return "\n".join(
        [
            *_table(met, steps, (*DATABASE, *NODE, *ENGINE)),
            "",
            *_table(met, REQUEST_STEPS, tuple(KINDS)),
            "",
            "never met:",
            *(f"  {fault} ({MEANING[fault]}): {', '.join(steps)}" for fault, steps in never(met).items()),
        ]
    )


def never(met: Met) -> dict[str, list[str]]:
    """Return the steps that each fault could have met, and did not in any context."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for fault in FAULTS:
        for step in NAMES:
            anywhere = [step, *(f"{step} ({context})" for _, _, context in CONTEXTS)]
            if possible(fault, step) and not any(met[fault, place] for place in anywhere):
                found[fault].append(step)
    return found


def _table(met: Met, steps: Sequence[str], faults: Sequence[str]) -> list[str]:
    width = max(map(len, steps)) + 2
    lines = [" " * width + " ".join(f"{fault:>12}" for fault in faults)]
    for step in steps:
        cells = [
            str(met[fault, step] or "-") if possible(fault, step.partition(" (")[0]) else "."
            for fault in faults
        ]
        lines.append(f"{step:{width}}" + " ".join(f"{cell:>12}" for cell in cells))
    return lines
