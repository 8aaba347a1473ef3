"""Where the processes of dev begin: each imports what it needs, and the one that starts them does not.

Each ends with the one that has started it, however that ends and whatever it is doing itself. The process
that they are forked from ends once they all have.
"""

import multiprocessing
import os
import signal
import socket
import threading
from multiprocessing.connection import Connection

from virtualchain.dev.messages import Load


def work(connection: Connection, load: Load) -> None:
    """Be the process of one load; see `worker`."""
    _end_with_parent(signal.SIGKILL)
    from virtualchain.dev.worker import main  # noqa: PLC0415 - as above

    main(connection, load)


def show(opened: socket.socket, use: str | None, database: str | None, token: str, pipe: Connection) -> None:
    """Be the process of the pages; see `pages`."""
    _end_with_parent(signal.SIGTERM)
    from virtualchain.dev.pages import main  # noqa: PLC0415 - as above

    main(opened, use, database, token, pipe)


def _end_with_parent(number: int) -> None:
    """Have a signal end this process when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by another one"

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, name="parent", daemon=True).start()
