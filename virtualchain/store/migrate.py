"""Bring a database's schema to what this version of the code needs, with alembic."""

from contextlib import closing
from threading import Lock

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError

from virtualchain.errors import StoreError
from virtualchain.store.database import connect_migrator, connect_reader
from virtualchain.store.sql import migrations_root, queries

_Q = queries("migrate")
_ALEMBIC = Lock()
"""Alembic keeps the run that is under way in its module: threads take turns."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_root()))
    return config


def head() -> str:
    """Give the revision that this version of the code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, "the package carries no migration"
    return revision


def current(connection: psycopg.Connection) -> str | None:
    """Give the revision that the database is at; None where there is no schema of ours."""
    row = connection.execute(_Q["has_revision"]).fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute(_Q["revision"]).fetchone()
    return None if row is None else str(row[0])


def migrate(url: str) -> str:
    """Upgrade the database at `url` to this version's schema; give the revision it has now.

    The views of the apps that are installed are part of it. All steps run in one transaction: a failing one
    leaves the database as it was. Raises StoreError where the schema is newer than this code, or a step
    fails.
    """
    with closing(connect_reader(url)) as probe:
        _refuse_newer(current(probe))
    config = _config()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_migrator(url), poolclass=pool.NullPool
    )
    try:
        with _ALEMBIC, engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except (psycopg.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        message = f"the schema could not be brought up to date: {' '.join(str(cause).split())}"
        raise StoreError(message) from error
    finally:
        engine.dispose()
    return head()


def _refuse_newer(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreError(
            f"the database's schema ({revision}) is newer than this virtualchain ({head()}): "
            "upgrade virtualchain, or use another database"
        )
