"""The ASGI application: the gate, the kept answers, the pages and the API."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

import anyio.to_thread
from fastapi import FastAPI
from limits import RateLimitItem
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from virtualchain.app.contract import Contract
from virtualchain.metrics import READY_LAG
from virtualchain.web import api, pages, sql_box
from virtualchain.web.cache import Cache
from virtualchain.web.gate import Gate
from virtualchain.web.live import Live
from virtualchain.web.own_pages import OwnPages
from virtualchain.web.probing import Expose, Probes
from virtualchain.web.sessions import SESSIONS, Sessions
from virtualchain.web.site import Site
from virtualchain.web.version import Versions

_FOLDER: Final = Path(__file__).parent
_THREADS: Final = SESSIONS + 4
"""Requests that are worked on at once; the others wait without a thread."""


def make_application(
    url: Callable[[], str],
    *,
    contracts: Mapping[str, Contract] | None = None,
    hosts: Collection[str] | None = None,
    rate: RateLimitItem | None = None,
    origins: Collection[str] = (),
    expose: Expose | None = None,
    ready_lag: int = READY_LAG,
) -> ASGIApp:
    """Return the application that shows the deployment of a database.

    `url` returns the URL of an owner or a reader, and may raise StoreError while there is none; `contracts`
    are those of the apps whose code is at hand, by name; `expose` and `ready_lag` are as for `Probes`, and
    the rest as for `Gate`.
    """
    sessions = Sessions(url)
    versions = Versions(sessions)
    live = Live(versions)
    probes = Probes(url, expose, ready_lag)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield
        hub.close()
        await anyio.to_thread.run_sync(sessions.close)
        await anyio.to_thread.run_sync(probes.close)
        sql_box.close()

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    own_pages = OwnPages(contracts or {})
    application.state.site = Site(sessions, versions, dict(contracts or {}), own_pages)
    application.add_route("/live", live.answer)
    application.mount("/static", StaticFiles(directory=_FOLDER / "static"))
    hub = api.add_to(application)
    pages.add_to(application)
    kept = Cache(application, versions, _salt(contracts or {}, own_pages))
    return Gate(kept, hosts=hosts, rate=rate, origins=origins, probes=probes.router)


def _salt(contracts: Mapping[str, Contract], own_pages: OwnPages) -> str:
    """Return what makes the ETags of this program, these apps and their pages."""
    parts = [installed_version("virtualchain"), *sorted(contracts), own_pages.digest()]
    return sha256("\n".join(parts).encode()).hexdigest()[:8]
