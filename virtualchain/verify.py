"""Hold two builds of an app against each other."""

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from virtualchain.store.sql import queries

_Q = queries("verify")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first block after which two builds have other digests; `other_…` are the second one's."""

    block_id: int
    consensus_hash: str
    other_consensus_hash: str
    ops_hash: str | None
    other_ops_hash: str | None
    state_hash: str | None
    other_state_hash: str | None


def first_difference(
    connection: psycopg.Connection, app: str, build: str, other: str, *, with_state: bool = True
) -> Difference | None:
    """Give the first block after which two builds of an app differ, as far as both came; None: they agree.

    Without `with_state`, only what enters the consensus hash counts.
    """
    wanted = {"app": app, "build": build, "other": other, "with_state": with_state}
    with connection.cursor(row_factory=class_row(Difference)) as cursor:
        return cursor.execute(_Q["first_difference"], wanted).fetchone()
