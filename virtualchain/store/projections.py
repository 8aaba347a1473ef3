"""Install the projections of one build of an app: run its DDL, check the tables, and add their history.

Rollback, replay and equal tables on every node depend on what the checks verify.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from virtualchain.errors import InvalidApp
from virtualchain.store.failures import is_transient
from virtualchain.store.sql import queries

_Q = queries("projections")
MOST_BYTES: Final = 2000
"""The longest entry of a B-tree index. PostgreSQL takes 2,704 bytes, with the block in a history's key."""
_ADDED_COLUMNS = ("since_block", "until_block")
_CHECKS = (
    "objects_elsewhere",
    "other_objects",
    "unsuitable_tables",
    "taken_names",
    "triggers_and_rules",
    "unsuitable_foreign_keys",
    "unsuitable_columns",
    "unsuitable_types",
    "unsuitable_collations",
    "unstable_expressions",
)
"""Queries that return what is wrong with the tables, one message a row."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A table that an app's reducers build; `columns` are the app's own, in order."""

    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def table(self) -> sql.Identifier:
        """The table itself."""
        return sql.Identifier(self.schema, self.name)

    @property
    def history(self) -> sql.Identifier:
        """Its twin, which holds earlier versions of its rows."""
        return sql.Identifier(self.schema, f"{self.name}_history")

    @property
    def births(self) -> sql.Identifier:
        """The record of the keys that each block made or changed."""
        return sql.Identifier(self.schema, f"{self.name}_births")

    def texts(self, row: str = "r") -> sql.Composed:
        """Return the texts of a row's columns, as they enter the state hash; `row` is the row's alias."""
        return _texts(self.columns, row)

    def key_texts(self, row: str = "r") -> sql.Composed:
        """Return the texts of the columns of a row's primary key."""
        return _texts(self.key, row)

    def order(self, row: str = "r") -> sql.Composed:
        """Return what to order rows by for the state root: the texts of their keys, by their bytes."""
        return _texts(self.key, row, "text_order")


def _texts(columns: Sequence[str], row: str, form: str = "text") -> sql.Composed:
    names = (sql.Identifier(row, column) for column in columns)
    return sql.SQL(", ").join(sql.SQL(_Q[form]).format(column=name) for name in names)


def build_schema(schema: str, build: str) -> str:
    """Return the name of the schema that holds the tables of one build."""
    return f"{schema}__{build}"


def create_schema(connection: psycopg.Connection, app: str, schema: str) -> None:
    """Create a schema of an app's views or tables; raise InvalidApp if the name is taken."""
    try:
        connection.execute(sql.SQL(_Q["create_schema"]).format(schema=sql.Identifier(schema)))
    except psycopg.errors.DuplicateSchema as error:
        raise InvalidApp(
            f"app {app}: the database already has a schema {schema} that is not this app's: "
            "rename the app, or use another database"
        ) from error


def install(
    connection: psycopg.Connection, app: str, schema: str, build: str, ddl: str, tracks: str | None = None
) -> list[Projection]:
    """Create the schema, tables and history of one build of an app; `schema` is that of its views.

    `tracks` names the table whose outputs the app tracks. Needs a transaction of its own. Raises InvalidApp
    if the DDL fails, or makes something that cannot be rolled back or would differ between nodes, and
    psycopg.Error for a transient fault of the database.
    """
    tables = build_schema(schema, build)
    create_schema(connection, app, tables)
    connection.execute(_Q["search_path"], {"tables": tables})
    _run(connection, app, ddl)
    complaints = _complaints(connection, schema, tables, ddl)
    if complaints:
        page = "docs/mistakes.md#projections"
        raise InvalidApp("\n".join(f"app {app}: {complaint} ({page})" for complaint in complaints))
    installed = projections(connection, tables)
    connection.execute(_Q["no_search_path"])
    if tracks is not None:
        _provide_outpoints(connection, app, tracks, installed)
    for projection in installed:
        _refuse_rows(connection, app, projection)
        try:
            _add_history(connection, projection)
        except psycopg.Error as error:
            if is_transient(error):
                raise
            raise InvalidApp(f"app {app}: no history can be kept of {projection.name}: {error}") from error
    identify_rows(connection, tables)
    return installed


def drop(connection: psycopg.Connection, tables: str) -> None:
    """Drop the schema `tables` with the tables of one build."""
    connection.execute(sql.SQL(_Q["drop_schema"]).format(schema=sql.Identifier(tables)))


def projections(connection: psycopg.Connection, tables: str) -> list[Projection]:
    """Return the projections in the schema `tables` of a build, sorted by name."""
    rows = [
        Projection(tables, name, tuple(c for c in columns if c not in _ADDED_COLUMNS), tuple(key))
        for name, columns, key in connection.execute(_Q["tables"], {"tables": tables})
    ]
    twins = {f"{row.name}{suffix}" for row in rows for suffix in ("_history", "_births")}
    return [row for row in rows if row.name not in twins]


def renew_triggers(connection: psycopg.Connection, projection: Projection) -> None:
    """Bring the trigger that keeps a projection's history up to date with this version of the code.

    The search path must be empty.
    """
    place = {"tables": projection.schema, "table": projection.name}
    body = _trigger_body(connection, projection)
    if connection.execute(_Q["kept_body"], place).fetchone() != (body,):
        for (name,) in connection.execute(_Q["births_key"], place).fetchall():
            statement = sql.SQL(_Q["drop_births_key"])
            connection.execute(statement.format(births=projection.births, constraint=sql.Identifier(name)))
        _create_function(connection, projection, body)


def identify_rows(connection: psycopg.Connection, tables: str) -> None:
    """Add a replica identity to each table of the schema `tables` that has none.

    Without one, a publication of all tables, or of those in this schema, makes PostgreSQL refuse updates and
    deletes, and so stops the writer.
    """
    for (name,) in connection.execute(_Q["without_identity"], {"tables": tables}).fetchall():
        connection.execute(sql.SQL(_Q["identify_rows"]).format(table=sql.Identifier(tables, name)))


def has_long_entry(connection: psycopg.Connection, projection: Projection) -> bool:
    """Return whether a row is too long for an index, as the trigger would not have let it in.

    The search path must be empty.
    """
    for index in _indexes(connection, projection, is_in_trigger=False):
        statement = sql.SQL(_Q["long_entry"]).format(table=projection.table, **index.parts)
        if connection.execute(statement).fetchone():
            return True
    return False


class DroppedIndex(NamedTuple):
    """An index that is made again once its table is filled."""

    name: sql.Identifier
    definition: str
    comment: str | None


def drop_indexes(connection: psycopg.Connection, projection: Projection) -> list[DroppedIndex]:
    """Drop the indexes of an empty projection on which nothing depends; return what `restore_index` takes.

    The search path must be empty.
    """
    rows = connection.execute(_Q["plain_indexes"], [projection.table.as_string(connection)]).fetchall()
    dropped = [DroppedIndex(sql.Identifier(schema, name), *others) for schema, name, *others in rows]
    for index in dropped:
        connection.execute(sql.SQL(_Q["drop_index"]).format(index=index.name))
    return dropped


def restore_index(connection: psycopg.Connection, index: DroppedIndex) -> None:
    """Make an index again that was dropped."""
    connection.execute(index.definition.encode())
    if index.comment is not None:
        comment = sql.Literal(index.comment)
        connection.execute(sql.SQL(_Q["comment_index"]).format(index=index.name, comment=comment))


def index_columns(connection: psycopg.Connection, projection: Projection) -> list[list[str] | None]:
    """Return the columns of each index whose entries differ in size; None for an index that is computed."""
    indexes = _indexes(connection, projection, is_in_trigger=False)
    return [None if index.is_computed else index.columns for index in indexes]


def _run(connection: psycopg.Connection, app: str, ddl: str) -> None:
    """Run an app's DDL in a PL/pgSQL block, so that it can neither end the transaction nor start a COPY."""
    before = _session_settings(connection)
    try:
        block = sql.SQL("BEGIN EXECUTE {ddl}; END").format(ddl=sql.Literal(ddl)).as_string(connection)
        connection.execute(sql.SQL("DO {block}").format(block=sql.Literal(block)))
    except (psycopg.Error, UnicodeEncodeError) as error:
        if is_transient(error):
            raise
        message = _message_with_line(error, ddl)
        raise InvalidApp(f"app {app}: its projections cannot be created: {message}") from error
    changed = sorted(name for name, _ in _session_settings(connection) ^ before)
    if changed:
        names = ", ".join(changed)
        raise InvalidApp(f"app {app}: its projections set {names}, which would outlast them: leave SET out")


def _provide_outpoints(
    connection: psycopg.Connection, app: str, tracks: str, installed: Sequence[Projection]
) -> None:
    """Check that a table can be tracked, and give it an index for that if its key is none."""
    tracked = next((projection for projection in installed if projection.name == tracks), None)
    if tracked is None:
        names = ", ".join(projection.name for projection in installed) or "none"
        raise InvalidApp(f"app {app} tracks {tracks}, which is not one of its projections: {names}")
    place = {"tables": tracked.schema, "table": tracks}
    types: dict[str, str] = dict(connection.execute(_Q["outpoint_types"], place).fetchall())
    if types != {"txid": "text", "vout": "integer"} or not set(types) <= set(tracked.key):
        raise InvalidApp(
            f"app {app} tracks {tracks}, whose primary key must have the columns txid text and vout integer"
        )
    if set(tracked.key[:2]) != set(types):
        connection.execute(sql.SQL(_Q["index_outpoints"]).format(table=tracked.table))


def _session_settings(connection: psycopg.Connection) -> set[tuple[str, str]]:
    return set(connection.execute(_Q["session_settings"]).fetchall())


def _message_with_line(error: Exception, ddl: str) -> str:
    """Return the database's message, and the line of the DDL that it points to, if any."""
    if not isinstance(error, psycopg.Error) or error.diag.message_primary is None:
        return str(error)
    position = error.diag.internal_position
    line = f" (line {ddl[: int(position) - 1].count(chr(10)) + 1})" if position else ""
    return f"{error.diag.message_primary}{line}"


def _complaints(connection: psycopg.Connection, schema: str, tables: str, ddl: str) -> list[str]:
    """Return what is wrong with the tables that `ddl` has made in the schema `tables`, in this transaction.

    `schema` is that of the app's views. The search path must be `tables`: it decides how names are written.
    """
    parameters = {"schema": schema, "tables": tables, "ddl": ddl}
    expressions = sql.SQL(_Q["expressions"])
    statements = (sql.SQL(_Q[check]).format(expressions=expressions) for check in _CHECKS)
    return [row[0] for statement in statements for row in connection.execute(statement, parameters)]


def _refuse_rows(connection: psycopg.Connection, app: str, projection: Projection) -> None:
    """Refuse rows that the DDL wrote: they belong to no block, so history and hash would not cover them."""
    if connection.execute(sql.SQL(_Q["any_row"]).format(table=projection.table)).fetchone():
        raise InvalidApp(f"app {app}: its projections put rows into {projection.name}: reducers do that")


@dataclass(frozen=True, slots=True)
class _Index:
    """A B-tree index whose entries differ in size: expressions for the size, and for the rows that it has."""

    name: str
    is_primary: bool
    is_computed: bool
    """Whether it has an expression or a predicate."""
    columns: list[str]
    predicate: str | None
    size: str

    @property
    def parts(self) -> dict[str, sql.Composable]:
        """What the statements about its entries contain."""
        return {  # the database wrote these expressions, for its own use
            "predicate": sql.SQL(self.predicate or "true"),
            "size": sql.SQL(self.size),
            "most_bytes": sql.Literal(MOST_BYTES),
        }


def _indexes(connection: psycopg.Connection, projection: Projection, *, is_in_trigger: bool) -> list[_Index]:
    """Return the indexes of a projection that may refuse a row, in terms of the trigger or of a query."""
    query = sql.SQL(_Q["entry_sizes"]).format(most_bytes=sql.Literal(MOST_BYTES))
    place = {"tables": projection.schema, "table": projection.name, "is_in_trigger": is_in_trigger}
    with connection.cursor(row_factory=class_row(_Index)) as cursor:
        return cursor.execute(query, place).fetchall()


def _add_history(connection: psycopg.Connection, projection: Projection) -> None:
    names = _names(projection)
    connection.execute(sql.SQL(_Q["keep_history"]).format(**names))
    _create_function(connection, projection, _trigger_body(connection, projection))
    connection.execute(sql.SQL(_Q["keep_triggers"]).format(**names))


def _create_function(connection: psycopg.Connection, projection: Projection, body: str) -> None:
    names = _names(projection)
    connection.execute(sql.SQL(_Q["keep_function"]).format(**names, body=sql.Literal(body)))


def _trigger_body(connection: psycopg.Connection, projection: Projection) -> str:
    """Return what the trigger that keeps a projection's history does."""
    checks = [
        _entry_check(projection, index) for index in _indexes(connection, projection, is_in_trigger=True)
    ]
    body = sql.SQL(_Q["keep_body"]).format(**_names(projection), checks=sql.SQL("").join(checks))
    return body.as_string(connection)


def _entry_check(projection: Projection, index: _Index) -> sql.Composed:
    subject = "its key takes" if index.is_primary else f"the values in its index {index.name} take"
    message = f"a row of {projection.name} is too long: {subject} more than {MOST_BYTES} bytes"
    parts = {**index.parts, "message": sql.Literal(message)}
    if index.is_computed:
        check = sql.SQL(_Q["computed_entry_check"]).format(row=sql.Identifier(projection.name), **parts)
    else:
        old, new = _columns(index.columns, "old"), _columns(index.columns, "new")
        check = sql.SQL(_Q["entry_check"]).format(old=old, new=new, **parts)
    return sql.SQL("\n{};").format(check)


def _names(projection: Projection) -> dict[str, sql.Composable]:
    """Return what the statements about a projection's history contain."""
    return {
        "table": projection.table,
        "history": projection.history,
        "births": projection.births,
        "function": sql.Identifier(projection.schema, f"{projection.name}_keep"),
        "key": _columns(projection.key),
        "old_key": _columns(projection.key, "old"),
        "new_key": _columns(projection.key, "new"),
    }


def _columns(names: Sequence[str], row: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*([row] if row else []), name) for name in names)
