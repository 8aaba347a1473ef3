"""The explorer and the API of a deployment, served to tests over a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from virtualchain.web.application import make_application
from virtualchain.web.connections import Connection
from virtualchain.web.serving import listen


@contextmanager
def served(database: str, **options: Any) -> Iterator[str]:
    """Serve a deployment from a thread, and yield the beginning of its URLs, without a slash at the end."""
    opened = listen("127.0.0.1", 0)
    application = make_application(lambda: database, **options)
    config = uvicorn.Config(
        application, http=Connection, lifespan="on", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[opened])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
