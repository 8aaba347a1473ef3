"""The command line of a conformance runner."""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import click
import psycopg

from virtualchain.errors import VirtualchainError
from virtualchain.store.database import resolve
from virtualchain.testing.conformance.checking import Suite, Task, check_all, read_tasks
from virtualchain.testing.database import DatabaseServer, embedded_server


def run(
    suite: Suite,
    module: str,
    description: str,
    arguments: Sequence[str] | None = None,
    *,
    status_of_unreadable: int,
) -> int:
    """Check the recordings of all files, and print a line for each; `module` is what is run with `-m`.

    Returns the exit status: 1 if any failed, 3 without a database; `status_of_unreadable` if a file cannot be
    read.
    """
    options = _parser(module, description).parse_args(arguments)
    tasks = [
        replace(task, seed=options.forks) if isinstance(task, Task) else task
        for file in options.files
        for task in read_tasks(suite, file)
    ]
    needs_database = any(isinstance(task, Task) and task.needs_database for task in tasks)
    results = []
    try:
        with _server(options.database, is_needed=needs_database) as server:
            for result in check_all(suite, tasks, server, options.jobs):
                results.append(result)
                if not options.json:
                    click.echo(result)
    except (VirtualchainError, psycopg.Error) as error:
        click.echo(f"no database: {' '.join(str(error).split())}", err=True)
        return 3
    passed = sum(result.has_passed for result in results)
    failed = len(results) - passed
    if options.json:
        report = {"passed": passed, "failed": failed, "scenarios": [result.as_dict() for result in results]}
        click.echo(json.dumps(report, indent=1))
    else:
        click.echo(f"{passed} passed, {failed} failed")
    if any(result.scenario is None for result in results):
        return status_of_unreadable
    return 1 if failed else 0


def _parser(module: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("files", nargs="+", metavar="FILE", help="scenarios as JSON, plain or gzip")
    parser.add_argument(
        "--jobs",
        type=_at_least_one,
        default=os.cpu_count() or 1,
        metavar="N",
        help="the number of worker processes (default: one per processor)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a database of a PostgreSQL server, with a role that may create databases there; each scenario "
        "gets its own, which is dropped afterwards (default: an embedded server, started for the run)",
    )
    parser.add_argument(
        "--forks",
        type=int,
        metavar="SEED",
        help="replay each scenario again on a chain that forks at random, and compare the tables as well",
    )
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


@contextmanager
def _server(url: str | None, *, is_needed: bool) -> Iterator[DatabaseServer | None]:
    if not is_needed:
        yield None
        return
    if url is None:
        with embedded_server() as embedded_url:
            yield DatabaseServer(embedded_url, "conformance")
        return
    server = DatabaseServer(resolve(url), "conformance")
    server.template()  # find out now, and not in the first scenario, whether the server and the role will do
    try:
        yield server
    finally:
        server.drop_template()
