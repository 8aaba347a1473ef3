"""Work in a thread of its own, for which neither its caller nor the end of the process has to wait."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


def begin(work: Callable[[], _T]) -> Future[_T]:
    """Begin to work; what it returns or raises is in the Future. Nothing ends the work early."""
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            result.set_exception(error)

    Thread(target=run, name="background", daemon=True).start()
    return result
