"""Statements under the guard of `State`: for tests of what must hold even if the guard misses something."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from virtualchain import State


def unguarded(state: State) -> psycopg.Cursor[dict[str, Any]]:
    """Return a cursor on the block's transaction, as the app's role, that runs any statement."""
    return state._connection.cursor(row_factory=dict_row)


def run_step(state: State, statement: Any, parameters: Any) -> None:
    """Run a query as reducers do, so that its errors may reject, and anything else under the guard."""
    run: Any = state.execute if statement.startswith("SELECT") else unguarded(state).execute
    run(statement, parameters)
