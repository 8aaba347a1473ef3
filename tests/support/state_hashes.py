"""The state hash computed from a dump of an app's rows, as docs/protocol/digests.md describes it."""

import importlib.util
import sys
from contextlib import closing
from types import ModuleType
from unittest.mock import patch

from psycopg import sql

from virtualchain.consensus import state_hash
from virtualchain.consensus.state_hash import EMPTY, digest_number, row_element, update_number
from virtualchain.store.database import connect_reader

_COLUMNS = """
    SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = %s::regnamespace GROUP BY 1
"""


def state_hash_of_rows(url: str, schema: str) -> str:
    """Compute the state hash (hex) of the rows in the views of an app's schema."""
    number = EMPTY
    with closing(connect_reader(url)) as reader:
        for table, columns in reader.execute(_COLUMNS, [schema]).fetchall():
            name = sql.Identifier(schema, table)
            with reader.cursor().copy(sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(name)) as copy:
                copy.set_types(["text"] * len(columns))
                rows = [row_element(table, row) for row in copy.rows()]
            number = update_number(number, rows, [])
    return digest_number(number)


def without_gmpy2() -> ModuleType:
    """Load the module of state hashes again as if gmpy2 were not installed."""
    spec = importlib.util.spec_from_file_location("state_hash_without_gmpy2", state_hash.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, {"gmpy2": None}):
        spec.loader.exec_module(module)
    return module
