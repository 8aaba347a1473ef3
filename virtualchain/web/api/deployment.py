"""What there is: the deployment's state, its apps, and whether all is well."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.metrics import SILENT_AFTER
from virtualchain.model import Json
from virtualchain.reading import journal, reported, search, views
from virtualchain.reading.catalog import projections
from virtualchain.store.builds import code_warning
from virtualchain.web.api.answers import (
    After,
    AppName,
    AsOf,
    Limit,
    body_answer,
    json_answer,
    next_page,
    problem_answer,
    read_height,
    refuse_unknown,
    site_of,
    write_path,
)
from virtualchain.web.problems import NotFound, problem_of

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)], tags=["deployment"])


def find_app(connection: psycopg.Connection, name: str) -> Json:
    """Return an app, with the keys of `views.apps`; raises NotFound."""
    try:
        [row] = views.apps(connection, [name])
    except views.BlockNotShown:
        raise
    except UsageError as error:
        raise NotFound(str(error)) from error
    return row


@router.get("/status", summary="The apps, the writer and the node, as far as the database knows")
def status(request: Request) -> Response:
    """Return an object with the keys of `virtualchain status --json`.

    The node is not asked: `tip` and `waits_for` are those of `report`, what the writer reported last.
    """
    with site_of(request).sessions.snapshot() as connection:
        rows = views.apps(connection)
        last = views.last_start(connection)
        deployment = {
            "writer": views.writer(connection),
            "standby": views.is_standby(connection),
            "pins": views.pins(connection),
            "inputs_pruned_below": views.inputs_pruned_below(connection),
            "builds": views.builds(connection),
            "last_reorg": views.last_reorg(connection),
            "rates": reported.rates(connection),
            "metrics": [sample.as_json() for sample in reported.samples(connection)],
        }
        network = views.network(connection)
    report = views.writer_report(last) or {"node": None, "waits_for": None}
    height = report["node"] and report["node"]["block_id"]
    apps = [views.app_status(row, height) for row in rows]
    return json_answer(
        {
            "network": network,
            "tip": report["node"],
            "pruned_below": None,
            "waits_for": report["waits_for"],
            "confirmations": None if last is None else last["confirmations"],
            **deployment,
            "report": views.writer_report(last),
            "warnings": [code_warning(row["name"], row["version"]) for row in rows if row["code_changed"]],
            "apps": apps,
        },
        keep=False,
    )


@router.get(
    "/health",
    summary="Whether the server can answer",
    responses={503: {"description": "It cannot, or not all is well.", "content": {"application/json": {}}}},
)
def health(
    request: Request,
    check: Annotated[
        int,
        Query(
            ge=0,
            le=1,
            description="1: answer 503 also if an app is halted, stopped or has unexpected digests, or no "
            "writer reports.",
        ),
    ] = 0,
) -> Response:
    """Answer 200 if the database can be read, else 503."""
    try:
        with site_of(request).sessions.snapshot() as connection:
            glance = journal.deployment(connection)
    except VirtualchainError as error:
        return problem_answer(problem_of(error))
    troubles = _troubles(glance)
    last = glance["last_block"] or {}
    state = {
        "status": "trouble" if troubles else "ok",
        "troubles": troubles,
        "block_id": last.get("block_id"),
        "block_hash": last.get("hash"),
        "standby": glance["is_standby"],
        "apps": {app["name"]: app["status"] for app in glance["apps"]},
    }
    answer = json_answer(state, keep=False)
    if check and troubles:
        answer.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return answer


def _troubles(glance: Json) -> list[str]:
    """List what an operator must look at."""
    troubles = []
    for app in glance["apps"]:
        if app["status"] in {"halted", "stopped"}:
            troubles.append(f"app {app['name']} is {app['status']}")
        if app["unexpected"] is not None:
            troubles.append(f"app {app['name']} has other digests than expected")
    report: dict[str, Any] = glance["writer"] or {}
    if report.get("stopped_at") is not None or report.get("seen_at") is None:
        troubles.append("no writer is running")
    else:
        silence = (_moment(glance["now"]) - _moment(report["seen_at"])).total_seconds()
        if silence > SILENT_AFTER:
            troubles.append(f"the writer reported last {silence:.0f} seconds ago")
    return troubles


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@router.get("/apps", summary="The apps")
def list_apps(request: Request, as_of: AsOf = None) -> Response:
    """Return all apps by name, with the columns of `virtualchain.apps`."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        return json_answer(journal.deployment(connection)["apps"])


@router.get("/apps/{app}", summary="An app", tags=["apps"])
def show_app(request: Request, app: AppName, as_of: AsOf = None) -> Response:
    """Return an app with the columns of `virtualchain.apps`, its builds, and its projections."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        find_app(connection, app)
        glance = journal.deployment(connection)
        tables = projections(connection, app)
    [row] = [item for item in glance["apps"] if item["name"] == app]
    builds = [
        {key: item[key] for key in item if key != "app"} for item in glance["builds"] if item["app"] == app
    ]
    described = [
        {
            "name": table.name,
            "comment": table.comment,
            "key": table.key,
            "indexed": table.indexed,
            "row_estimate": table.row_estimate,
            "columns": [
                {
                    "name": column.name,
                    "type": column.type,
                    "nullable": column.nullable,
                    "comment": column.comment,
                }
                for column in table.columns
            ],
        }
        for table in tables
    ]
    return json_answer({**row, "builds": builds, "tables": described})


@router.get("/apps/{app}/consensus", summary="An app's digests", tags=["apps"])
def consensus(
    request: Request,
    app: AppName,
    block_id: Annotated[
        int | None, Query(ge=0, le=views.HIGHEST, description="Only those at this block.")
    ] = None,
    as_of: AsOf = None,
    limit: Limit = journal.SHOWN,
    after: After = None,
) -> Response:
    """Return the columns of `virtualchain.snapshots`, the last block first."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        find_app(connection, app)
        if block_id is None:
            page = journal.snapshots(connection, app, read_height(after), limit)
            return body_answer(page.json, following=next_page(request, page.next))
        page = journal.snapshots(connection, app, block_id + 1, 1)
        if not page.rows or page.rows[0]["block_id"] != block_id:
            raise NotFound(f"app {app} has no digests at block {block_id}")
        return body_answer(page.json)


@router.get("/pending", summary="Inputs that are not in the log yet")
def pending(
    request: Request,
    app: Annotated[str | None, Query(max_length=200, description="Only those of this app.")] = None,
    limit: Limit = journal.MOST_POINTS,
) -> Response:
    """Return the columns of `virtualchain.pending`, in the order in which they were judged.

    It is empty unless a writer runs with `--pending`.
    """
    with site_of(request).sessions.snapshot() as connection:
        if app is not None:
            find_app(connection, app)
        items = journal.pending(connection, app, limit)
    return body_answer(b"[" + b",\n".join(item.json for item in items) + b"]", keep=False)


@router.get("/search", summary="Find whatever has a name, number, hash, address or key")
def find(
    request: Request,
    q: Annotated[
        str,
        Query(
            max_length=400,
            description="A transaction id, block hash, height, address, consensus hash, key, app or table.",
        ),
    ],
    as_of: AsOf = None,
) -> Response:
    """Return what fits all of the text. `url` is its path in this API."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        hits = search.search(connection, q)
    return json_answer(
        [
            {
                "kind": hit.kind,
                "app": hit.app,
                "label": hit.label,
                "url": api_path(hit),
            }
            for hit in hits
        ],
        keep=False,
    )


def api_path(hit: search.Hit) -> str:
    """Return the path in this API of what was found: a row is its table, filtered by its key."""
    path, parameters = hit.path, dict(hit.parameters)
    if hit.kind == "row":
        path = path[:-1]
        parameters = {f"filter.{name}": f"eq.{value}" for name, value in parameters.items()}
    return write_path(*path, **parameters)
