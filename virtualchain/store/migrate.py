"""Upgrade a database to the schema that this version of the code needs, with Alembic."""

from contextlib import closing
from threading import Lock

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError

from virtualchain.store.database import connect_migrator, connect_reader, require_c_locale
from virtualchain.store.failures import store_error
from virtualchain.store.giving_way import in_use, keep_trying
from virtualchain.store.patience import Patience
from virtualchain.store.revision import current, head, refuse_newer
from virtualchain.store.sql import migrations_root

_ALEMBIC = Lock()
"""Alembic keeps the current run in a module variable, so threads take turns."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_root()))
    return config


def migrate(url: str, patience: Patience | None = None) -> str:
    """Upgrade the database at `url` to this version's schema; return the revision that it now has.

    This includes the views of the installed apps. All steps run in one transaction: if one fails, the
    database stays as it was. If someone reads what is to be changed, it gives way, reports that to
    `patience`, and tries again. Raises StoreError if the schema is newer than this code, if a step fails, or
    if there is no schema yet and the database's locale is not C; InUse if tables or views stay in use.
    """
    with closing(connect_reader(url, patience)) as probe:
        revision = current(probe)
        refuse_newer(revision)
        if revision is None:
            require_c_locale(probe, url)
    config = _config()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_migrator(url, patience), poolclass=pool.NullPool
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
        keep_trying(
            upgrade,
            lambda: f"the schema could not be upgraded: its tables are {in_use(url)}",
            None if patience is None else patience.report,
        )
    except (psycopg.Error, DBAPIError) as error:
        kind = type(store_error(error))
        raise kind(f"the schema could not be upgraded: {' '.join(str(error).split())}") from error
    finally:
        engine.dispose()
    return head()
