"""Statements under the guard of `State`: for tests of what must hold even if the guard misses something."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from virtualchain import State
from virtualchain.store.failures import ValueDoesNotFit, does_not_fit


def unguarded(state: State) -> psycopg.Cursor[dict[str, Any]]:
    """Return a cursor on the block's transaction, as the app's role, that runs any statement."""
    state._open()
    state._wrote = state.has_written = True
    return state._connection.cursor(row_factory=dict_row)


def run_step(state: State, statement: Any, parameters: Any) -> None:
    """Run any statement; a value that does not fit rejects the input, whatever the statement's shape."""
    try:
        unguarded(state).execute(statement, parameters)
    except psycopg.Error as error:
        if does_not_fit(error):
            raise ValueDoesNotFit from error
        raise
