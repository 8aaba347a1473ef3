"""Databases with the schema of an earlier version."""

import pytest
from alembic import command
from sqlalchemy import create_engine, pool

from virtualchain.store import migrate as migrations
from virtualchain.store.database import connect_migrator


def upgrade_to(url: str, revision: str) -> None:
    """Upgrade an empty database to a revision of the schema that is not the last."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_migrator(url), poolclass=pool.NullPool
    )
    with pytest.MonkeyPatch.context() as patch, engine.connect() as connection:
        patch.setattr("virtualchain.store.builds.refresh_views", lambda _: None)
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()
