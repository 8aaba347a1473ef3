"""Where the processes of dev begin: each imports what it needs, and the one that starts them does not."""

import socket
from multiprocessing.connection import Connection

from virtualchain.dev.messages import Load


def work(connection: Connection, load: Load) -> None:
    """Be the process of one load; see `worker`."""
    from virtualchain.dev.worker import main  # noqa: PLC0415 - as above

    main(connection, load)


def show(opened: socket.socket, use: str | None, database: str | None, token: str, pipe: Connection) -> None:
    """Be the process of the pages; see `pages`."""
    from virtualchain.dev.pages import main  # noqa: PLC0415 - as above

    main(opened, use, database, token, pipe)
