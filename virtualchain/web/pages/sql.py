"""`/sql`: one statement, and its result as a table, CSV or JSON."""

from http import HTTPStatus
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.reading import journal
from virtualchain.reading.catalog import projections
from virtualchain.reading.views import QueryRejected
from virtualchain.web import sql_box
from virtualchain.web.pages.asking import as_of_of
from virtualchain.web.problems import Problem, problem_of
from virtualchain.web.rendering import page, render, site_of

_FORMS: Final = ("html", "csv", "json")
_EXAMPLES: Final = (
    ("How many ops each app has", "SELECT app, count(*) FROM ops GROUP BY app"),
    (
        "Why inputs were rejected",
        "SELECT step, reason, count(*) FROM rejections GROUP BY step, reason ORDER BY count DESC",
    ),
    ("The last blocks", "SELECT block_id, time, hash FROM blocks ORDER BY block_id DESC LIMIT 20"),
    ("All rollbacks", "SELECT * FROM reorgs ORDER BY reorg_id DESC"),
)
_LOG: Final = ("apps", "blocks", "changes", "inputs", "ops", "pending", "rejections", "reorgs", "snapshots")
"""The views of the log that are listed beside the box."""


@page
def show(request: Request) -> Response:
    """Run the statement, if there is one, and show the box with what came of it."""
    asked = request.query_params
    statement, as_of, form = asked.get("q", ""), as_of_of(asked), asked.get("format") or "html"
    if form not in _FORMS:
        raise UsageError(f"format is one of {', '.join(_FORMS)}")
    site = site_of(request)
    with site.sessions.snapshot() as connection:
        tables = projections(connection)
        glance = journal.deployment(connection)
    result: sql_box.Result | None = None
    problem: Problem | None = None
    error: VirtualchainError | None = None
    if statement.strip():
        try:
            if form == "html":
                result = sql_box.run(site.sessions.url, statement, as_of)
            else:
                return _file(sql_box.export(site.sessions.url, statement, _form(form), as_of), form)
        except VirtualchainError as caught:
            error, problem = caught, problem_of(caught)
    return render(
        "sql.html",
        status=problem.status if problem else HTTPStatus.OK,
        headers={"Cache-Control": "no-store"},
        here="/sql",
        statement=statement.replace("\0", ""),
        marked=_marked(statement, error),
        as_of=as_of,
        result=result,
        problem=problem,
        tables=tables,
        log=_LOG,
        last=glance["last_block"],
        examples=[*_examples_of(tables), *_EXAMPLES],
        limit=sql_box.SHOWN,
        timeout=sql_box.TIMEOUT,
        pairs=[("q", statement), ("as_of", as_of or "")],
    )


def _form(form: str) -> Literal["csv", "json"]:
    return "csv" if form == "csv" else "json"


def _file(content: sql_box.Export, form: str) -> Response:
    kind = "text/csv; charset=utf-8" if form == "csv" else "application/json"
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="result.{form}"',
    }
    return sql_box.Download(content, kind, headers)


def _marked(statement: str, error: VirtualchainError | None) -> dict[str, Any] | None:
    """Return the parts of a statement before, at and after the place of a mistake."""
    if not isinstance(error, QueryRejected) or error.position is None:
        return None
    at = error.position - 1
    if not 0 <= at <= len(statement):
        return None
    end = at + 1
    while (
        end < len(statement)
        and statement[at].isalnum()
        and (statement[end].isalnum() or statement[end] == "_")
    ):
        end += 1
    return {"before": statement[:at], "at": statement[at:end] or "(end)", "after": statement[end:]}


def _examples_of(tables: list[Any]) -> list[tuple[str, str]]:
    return [
        (
            f"Rows of {table.app}.{table.name}",
            f"SELECT * FROM {_quoted(table.schema)}.{_quoted(table.name)} LIMIT 100",  # noqa: S608 - text to edit
        )
        for table in tables[:3]
    ]


def _quoted(name: str) -> str:
    is_plain = (
        name.replace("_", "a").isalnum() and name.islower() and name.isascii() and not name[0].isdigit()
    )
    return name if is_plain else '"' + name.replace('"', '""') + '"'


ROUTES: Final = (("/sql", show),)
