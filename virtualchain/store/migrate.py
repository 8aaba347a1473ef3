"""Upgrade a database to the schema that this version of the code needs, with Alembic."""

from contextlib import closing
from threading import Lock

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError

from virtualchain.errors import StoreError
from virtualchain.store.database import connect_migrator, connect_reader, require_c_locale
from virtualchain.store.giving_way import in_use, keep_trying
from virtualchain.store.sql import migrations_root, queries

_Q = queries("migrate")
_ALEMBIC = Lock()
"""Alembic keeps the current run in a module variable, so threads take turns."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_root()))
    return config


def head() -> str:
    """Return the revision that this version of the code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, "the package contains no migration"
    return revision


def current(connection: psycopg.Connection) -> str | None:
    """Return the revision of the database; None if it has no virtualchain schema yet."""
    row = connection.execute(_Q["has_revision"]).fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute(_Q["revision"]).fetchone()
    return None if row is None else str(row[0])


def migrate(url: str) -> str:
    """Upgrade the database at `url` to this version's schema; return the revision that it now has.

    This includes the views of the installed apps. All steps run in one transaction: if one fails, the
    database stays as it was. If someone reads what is to be changed, it gives way and tries again. Raises
    StoreError if the schema is newer than this code, if a step fails, or if there is no schema yet and the
    database's locale is not C; InUse if tables or views stay in use.
    """
    with closing(connect_reader(url)) as probe:
        revision = current(probe)
        _refuse_newer(revision)
        if revision is None:
            require_c_locale(probe, url)
    config = _config()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_migrator(url), poolclass=pool.NullPool
    )

    def upgrade() -> None:
        try:
            with _ALEMBIC, engine.connect() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except DBAPIError as error:
            raise error.orig or error from error

    try:
        keep_trying(upgrade, lambda: f"the schema could not be upgraded: its tables are {in_use(url)}")
    except (psycopg.Error, DBAPIError) as error:
        message = f"the schema could not be upgraded: {' '.join(str(error).split())}"
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
