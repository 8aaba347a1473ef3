"""How a command ends: its exit code, and what it says where it fails.

A mistake of the user's or a failure of node or database gets one line on standard error; only a bug of
ours, or --verbose, shows a traceback. The codes are in `virtualchain.errors`.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import click

from virtualchain.errors import StoreError, VirtualchainError

INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""
_BUG: Final = 70
"""EX_SOFTWARE: none of our own codes, so that no script mistakes a crash for an answer."""

_ADVICE: Final = {
    "42501": "the URL's user lacks that right: have it granted, or give the URL of the database's owner",
    "53100": "the database's disk is full: free some space there, and start again; what is committed is kept",
    "53300": "end some of its connections, or raise the server's max_connections",
}
"""What helps, by SQLSTATE."""


def guarded(work: Callable[[], object], is_verbose: Callable[[], bool]) -> int:
    """Do a command's work; give the exit code, having said what went wrong."""
    try:
        work()
        click.echo(nl=False)  # what is not written yet, while a closed pipe can still be told from success
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _close_pipe()
        return 0
    except click.ClickException as error:
        say(_of_click(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return _told(error, is_verbose)
    return 0


def say(message: str) -> None:
    """Write to the user on standard error, in our name."""
    for line in message.splitlines():
        click.echo(f"virtualchain: {visible(line)}", err=True)


def visible(text: str) -> str:
    """Write control characters as escapes: text from the chain or a server must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _told(error: Exception, is_verbose: Callable[[], bool]) -> int:
    ours = error if isinstance(error, VirtualchainError) else _of_database(error) or _of_disk(error)
    if ours is None:
        traceback.print_exception(error)
        say("this is a bug: please report it, with the lines above")
        return _BUG
    if is_verbose():
        traceback.print_exception(error)
    say(f"{ours}{_advice(error)}")
    return ours.exit_code


def _of_database(error: Exception) -> VirtualchainError | None:
    """Take what the driver raises where nobody expected it for what it is: the database's failure."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
        return None
    return StoreError(f"the database failed: {' '.join(str(error).split())}")


def _of_disk(error: Exception) -> VirtualchainError | None:
    """Take a full disk for what it is, whoever met it."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    _close_pipe()  # where it was standard output, Python would try once more at the end
    where = error.filename or "standard output, or a file of ours,"
    return StoreError(f"{where} cannot be written: {error.strerror}: free some space there, and start again")


def _advice(error: BaseException) -> str:
    """Say what helps against a failure of the database that has nothing to do with the statement."""
    psycopg = sys.modules.get("psycopg")
    cause: BaseException | None = error
    while psycopg is not None and cause is not None:
        if isinstance(cause, psycopg.Error) and cause.sqlstate in _ADVICE:
            return f" ({_ADVICE[cause.sqlstate]})"
        cause = cause.__cause__
    return ""


def _of_click(error: click.ClickException) -> str:
    """Put click's message into one line, and say where there is help."""
    message = error.format_message().strip().removesuffix(".")
    message = " ".join(f"{message[:1].lower()}{message[1:]}".split())
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see `{context.command_path} --help`)"


def _close_pipe() -> None:
    """Point standard output to nowhere: whoever read it has gone, and Python would flush it once more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
