"""Which recordings a file holds, and how each is compared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from virtualchain.examples.runes.conformance.replay import Replay
from virtualchain.examples.runes.conformance.scenario import read_scenario, scenario_name
from virtualchain.examples.runes.conformance.vectors import RULES, compare_row, compare_transaction
from virtualchain.model import Json
from virtualchain.testing.conformance.checking import Difference, Suite, Task, cloned_database
from virtualchain.testing.conformance.files import MalformedScenario, read_json
from virtualchain.testing.database import DatabaseServer

_SCENARIO: Final = "scenario"
_TRANSACTION: Final = "transaction"


def _read_tasks(file: Path) -> list[Task]:
    """Read the vectors or scenarios of a file; raises MalformedScenario."""
    tasks = list(_tasks(str(file), _by_kind(read_json(file))))
    if not tasks:
        raise MalformedScenario("the file contains neither scenarios nor vectors")
    return tasks


def _by_kind(parsed: object) -> Json:
    """Return the content of a file, which may also be a list of scenarios or vectors, or one scenario."""
    items = parsed if isinstance(parsed, list) else [parsed]
    for key, kind in (("blocks", "scenarios"), ("tx", "vectors")):
        if any(isinstance(item, dict) and key in item for item in items):
            return {kind: items}
    return parsed if isinstance(parsed, dict) else {}


def _tasks(file: str, parsed: Json) -> Iterator[Task]:
    for number, content in enumerate(_list(parsed, "scenarios"), start=1):
        yield Task(file, scenario_name(content, number), (_SCENARIO, content))
    for number, vector in enumerate(_list(parsed, "vectors"), start=1):
        case = vector.get("case") if isinstance(vector, dict) else None
        name = f"vector {number}" + (f" ({case})" if isinstance(case, str) and case.isprintable() else "")
        yield Task(file, name, (_TRANSACTION, vector), needs_database=False)
    if _is_of_rules(parsed):
        for rule in parsed:
            for number, row in enumerate(_list(parsed, rule), start=1):
                yield Task(file, f"{rule} {number}", (rule, row), needs_database=False)


def _is_of_rules(parsed: Json) -> bool:
    """Check whether a file has rows of arguments and results; its format says so, or the names of rules."""
    return str(parsed.get("format")).startswith(("names/", "varint/")) or not RULES.keys().isdisjoint(parsed)


def _compare(task: Task, server: DatabaseServer | None) -> Difference | None:
    """Return the first difference, in a scenario with a seed also over forks; raises MalformedScenario."""
    assert isinstance(task.content, tuple), "as read above"
    kind, content = task.content
    if kind == _TRANSACTION:
        return compare_transaction(content)
    if kind != _SCENARIO:
        return compare_row(kind, content)
    assert server is not None, "every scenario needs one"
    scenario = read_scenario(content, task.name)
    with cloned_database(server) as database:
        difference = next(Replay(scenario, database).differences(), None)
    if difference is not None or task.seed is None:
        return difference
    with cloned_database(server) as database:
        return next(Replay(scenario, database).differences_over_forks(task.seed), None)


def _list(parsed: Json, key: str) -> list[object]:
    items = parsed.get(key)
    return items if isinstance(items, list) else []


SUITE: Final = Suite(_read_tasks, _compare)
"""The recordings of the reference."""
