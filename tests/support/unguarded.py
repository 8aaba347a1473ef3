"""Statements under the guard of `State`: for tests of what must hold even if the guard misses something."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from virtualchain import State


def unguarded(state: State) -> psycopg.Cursor[dict[str, Any]]:
    """Return a cursor on the block's transaction, as the app's role, that runs any statement."""
    return state._connection.cursor(row_factory=dict_row)
