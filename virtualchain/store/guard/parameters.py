"""The parameters of a statement: placeholders of psycopg's, numbered for the server, named for the parser."""

import re
from typing import Final

from sqlglot import exp

from virtualchain.store.guard.refusal import forbidden

PARAMETER: Final = "vc_parameter_"
"""How a parameter is named in the text that sqlglot reads; its number follows, from 1."""


def number_parameters(statement: str, *, has_parameters: bool) -> tuple[str, str, tuple[str | int, ...]]:
    """Rewrite psycopg's placeholders: as $1 … for the server, and as names that sqlglot reads as columns."""
    if PARAMETER in statement.lower():
        raise forbidden(f"{PARAMETER} stands for parameters here (use another name)", statement, "sql-text")
    parameters: list[str | int] = []
    if not has_parameters:
        return statement, statement, ()

    def place(match: re.Match[str]) -> int:
        name: str | int = match["name"] if match["name"] is not None else len(parameters)
        if isinstance(name, int) or name not in parameters:
            parameters.append(name)
        return parameters.index(name) + 1

    server: list[str] = []
    reader: list[str] = []
    last = 0
    for match in re.finditer(r"%(?:%|(?:\((?P<name>[^)]*)\))?(?P<form>[sbt]))", statement):
        between = statement[last : match.start()]
        around = (
            statement[max(0, match.start() - 1) : match.start()] + statement[match.end() : match.end() + 1]
        )
        if match["form"] is not None and re.search(r"[\w$]", around):
            raise forbidden("a parameter is part of a word (put spaces around it)", statement, "sql-text")
        number = None if match["form"] is None else place(match)
        server += [between, "%" if number is None else f"${number}"]
        reader += [between, "%" if number is None else f"{PARAMETER}{number}"]
        last = match.end()
    server.append(statement[last:])
    reader.append(statement[last:])
    return "".join(server), "".join(reader), tuple(parameters)


def parameter(node: exp.Expr | None) -> int | None:
    """Return the place of a parameter, from 0; None for anything else."""
    if isinstance(node, exp.Column) and node.name.startswith(PARAMETER) and not node.table:
        return int(node.name.removeprefix(PARAMETER)) - 1
    return None
