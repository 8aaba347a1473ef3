"""Upgrade a database to the schema that this version of the code needs, with Alembic."""

from collections.abc import Iterator
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from alembic.config import Config

from virtualchain.notices import Notice
from virtualchain.store.builds import refresh_views
from virtualchain.store.database import (
    advice,
    connect_migrator,
    connect_reader,
    other_locale,
    redact,
    require_c_locale,
)
from virtualchain.store.failures import store_error
from virtualchain.store.giving_way import in_use, keep_trying
from virtualchain.store.migration_plan import describe, plan
from virtualchain.store.patience import Patience
from virtualchain.store.revision import current, head, refuse_newer
from virtualchain.store.roles import absent_readers
from virtualchain.store.sql import migrations_root, queries

_ALEMBIC = Lock()
"""Alembic keeps the current run in a module variable, so threads take turns."""


def migrate(url: str, patience: Patience | None = None) -> str:
    """Upgrade the database at `url` to this version's schema; return the revision that it now has.

    This includes the views of the installed apps. All steps run in one transaction: if one fails, the
    database stays as it was. How long they may take is reported to `patience` before, and so is what a copy
    that was restored on another server lacks. If someone reads what
    is to be changed, it gives way, reports that, too, and tries again. Raises StoreError if the schema is
    newer than this code, if a step fails, or if there is no schema yet and the database's locale is not C;
    InUse if tables or views stay in use.
    """
    try:
        with closing(connect_reader(url, patience)) as probe:
            revision = current(probe)
            refuse_newer(revision)
            if revision is None:
                require_c_locale(probe, url)
            elif patience is not None:
                for line in _tell(probe, url, revision):
                    patience.report(line)
        change = _refresh if revision == head() else _upgrade
        keep_trying(
            lambda: change(url, patience),
            lambda: f"the schema could not be upgraded: its tables are {in_use(url)}",
            None if patience is None else patience.report,
        )
    except psycopg.Error as error:
        kind = type(store_error(error))
        reason = f"{' '.join(str(error).split())}{advice(url, error)}"
        raise kind(f"the schema could not be upgraded: {reason}") from error
    return head()


def _tell(connection: psycopg.Connection, url: str, revision: str) -> Iterator[Notice]:
    """Yield what is to be known before an existing deployment is written to: it may be a restored copy."""
    if revision != head():
        yield Notice(describe(plan(connection, revision), revision), "schema_upgrades")
        return
    locale = other_locale(connection)
    if locale is not None:
        yield Notice(
            f"the database {redact(url)} has another locale than C ({locale}), so its apps may differ from "
            "those of other nodes: restore it into one with locale C, or see docs/operating.md",
            "database_differs",
        )
    absent = absent_readers(connection)
    if absent:
        yield Notice(
            f"this server has no role {', '.join(absent)}, recorded here to read this deployment: "
            "`virtualchain db grant-reader ROLE --login` makes it again, `db revoke-reader ROLE` forgets it",
            "database_differs",
        )


def alembic_config() -> "Config":
    """Return what Alembic needs to know to find the steps."""
    from alembic.config import Config  # noqa: PLC0415 - see `_upgrade`

    config = Config()
    config.set_main_option("script_location", str(migrations_root()))
    return config


def _refresh(url: str, patience: Patience | None) -> None:
    """Update the views alone, as migrations/env.py does at the end."""
    with closing(connect_migrator(url, patience)) as connection:
        connection.execute(queries("migrate")["lock"])
        connection.execute(queries("giving_way")["short_lock_timeout"])
        refuse_newer(current(connection))
        refresh_views(connection)
        connection.commit()


def _upgrade(url: str, patience: Patience | None) -> None:
    """Run the steps that are missing; raise psycopg.Error if one fails."""
    # Imported only here: they take a quarter of the process's memory, and few starts have steps to run.
    from alembic import command  # noqa: PLC0415
    from sqlalchemy import create_engine, pool  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    config = alembic_config()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_migrator(url, patience), poolclass=pool.NullPool
    )
    try:
        with _ALEMBIC, engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from error
        raise psycopg.OperationalError(str(error)) from error
    finally:
        engine.dispose()
