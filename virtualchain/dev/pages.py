"""The pages of `virtualchain dev`: the explorer, and with it a form that sends inputs.

They run in a process of their own, which asks the session for whatever is done. The form is for this machine
only: it is served on loopback, under no other name, and takes what it has made itself. A page elsewhere
neither knows its token nor may read it.
"""

import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.dev.messages import FORM, HOST
from virtualchain.errors import DatabaseUnavailable
from virtualchain.loading import load_app
from virtualchain.model import Json
from virtualchain.web.application import make_application
from virtualchain.web.gate import Gate, hosts_of
from virtualchain.web.rendering import add_to_menu, environment
from virtualchain.web.serving import serve

_TEMPLATES: Final = Path(__file__).parent / "templates"
_LONGEST: Final = 256 * 1024
"""Bytes of a form."""

Ask = Callable[[str, object], Any]
"""Asks the session: for its state, or to do something."""


def main(opened: socket.socket, use: str | None, database: str | None, token: str, pipe: Connection) -> None:
    """Answer at a socket until the process that started this one is gone."""
    os.dup2(2, 1)
    sys.dont_write_bytecode = True

    def url() -> str:
        if database is None:
            raise DatabaseUnavailable(f"no app was loaded yet: {FORM} says why")
        return database

    contracts = {} if use is None else _contracts(use)
    add_to_menu(FORM, "Send")
    hosts = hosts_of(HOST)
    explorer = make_application(url, contracts=contracts, hosts=hosts)
    form = Gate(Form(_Asking(pipe), token).application, hosts=hosts, rate=None)
    serve(_Split(explorer, form), opened)


def _contracts(use: str) -> dict[str, Contract]:
    """Return the app's contract by its name; none if the app is broken again."""
    try:
        contract = read_contract(load_app(use), "regtest")
    except Exception:  # noqa: BLE001 - the app's own code may raise anything, and the session says so
        return {}
    return {contract.name: contract}


class _Asking:
    """Asks the session through a pipe, one question after the other."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def __call__(self, what: str, argument: object) -> Any:  # noqa: ANN401 - as the session answers
        with self._lock:
            self._pipe.send((what, argument))
            return self._pipe.recv()


class _Split:
    """Hands the form's path to the form, and everything else to the explorer."""

    def __init__(self, explorer: ASGIApp, form: ASGIApp) -> None:
        self._explorer, self._form = explorer, form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_form = scope["type"] == "http" and scope["path"] == FORM
        await (self._form if is_form else self._explorer)(scope, receive, send)


class Form:
    """The page with the form: what the app takes, what became of the last input, and what is wrong."""

    def __init__(self, ask: Ask, token: str) -> None:
        """`ask` asks the session; `token` is what the form's own requests have."""
        self._ask = ask
        self._token = token
        self.application = Starlette(
            routes=[Route(FORM, self._show, methods=["GET"]), Route(FORM, self._take, methods=["POST"])]
        )

    async def _show(self, request: Request) -> Response:
        state = await run_in_threadpool(self._ask, "state", request.query_params.get("result"))
        template = environment(_TEMPLATES).get_template("dev.html")
        page = template.render(here=FORM, path=FORM, token=self._token, **_shown(state))
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    async def _take(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return PlainTextResponse(f"Forbidden: {refusal}\n", HTTPStatus.FORBIDDEN)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LONGEST:
                return PlainTextResponse("The form is too long.\n", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            sent = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=200)
        except ValueError:
            return PlainTextResponse("This is not a form.\n", HTTPStatus.BAD_REQUEST)
        if not secrets.compare_digest(dict(sent).get("token", "").encode(), self._token.encode()):
            reason = f"the form is of another run of dev: open {FORM} again"
            return PlainTextResponse(f"Forbidden: {reason}\n", HTTPStatus.FORBIDDEN)
        number = await run_in_threadpool(self._ask, "do", words_of(sent))
        return RedirectResponse(f"{FORM}?result={number}#result", HTTPStatus.SEE_OTHER)

    def _refusal(self, request: Request) -> str | None:
        """Return why a request may come from elsewhere: the gate has checked the name of this server."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
        if origin not in {None, f"http://{request.headers['host']}"} or site != "same-origin":
            return "it was sent by another site"
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        return None if kind == "application/x-www-form-urlencoded" else "it was not sent by the form"


def words_of(sent: Sequence[tuple[str, str]]) -> list[str]:
    """Return what a form has sent as the words of a line."""
    way = next((value for name, value in sent if name == "way"), "")
    values = [(name, value) for name, value in sent if value or not name.startswith("optional.")]
    options: list[str] = []
    words: list[str] = []
    for name, value in values:
        kind, _, rest = name.partition(".")
        match kind:
            case "opcode" | "argument" if value:
                words.append(value)
            case "field" | "optional":
                words.append(f"{rest}={value}")
            case "sender" | "hex" | "burn" if value.strip():
                options += [f"--{name}={value.strip()}"]
            case "to":
                options += [f"--to={each}" for each in value.split()]
    return [way, *options, "--", *words] if way in {"send", "hold", "preview"} else [way, *words]


def _shown(state: Json) -> Json:
    """Return what the template shows of the session."""
    outcome = state["outcome"]
    return {**state, "text": None if outcome is None else "\n".join(outcome["lines"])}
