"""The state hash computed from a dump of an app's rows, as docs/protocol/digests.md describes it."""

from contextlib import closing

from psycopg import sql

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
