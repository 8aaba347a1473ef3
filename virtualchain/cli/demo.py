"""The command `demo`: a newcomer's first minute.

It makes up a small chain, runs the notary on it, and shows what came out: the same each time, to the last
digit of the last hash. Nothing of it touches a node or another database.
"""

from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.failures import say
from virtualchain.cli.options import EXAMPLE, Command, Given, pass_given
from virtualchain.cli.output import write_fields, write_json, write_rows
from virtualchain.errors import StoreError, UsageError

if TYPE_CHECKING:
    from virtualchain.cli.story import Told
    from virtualchain.model import Json

DATABASE: Final = "virtualchain_demo"
_SUFFIX: Final = "_demo"
_CONFIRMATIONS: Final = 6
_SHOWN: Final = 3
_QUESTION: Final = "SELECT owner, count(*) FROM documents GROUP BY owner"
_FORKS: Final = "SELECT fork_block_id, depth, ops_undone, duration FROM reorgs"
_STATEMENT: Final = "SELECT * FROM notary.documents ORDER BY claimed_at"


@click.command(cls=Command)
@pass_given
def demo(given: Given) -> None:
    """Run the example app on a made-up chain.

    It needs no node. Its database, virtualchain_demo on the embedded server, is made anew each time; another
    one, given by --database, must have a name that ends in _demo, because all that is in it is dropped.
    """
    from virtualchain.cli.story import FIRST_BLOCKS, fork, tell
    from virtualchain.engine.engine import StateEngine
    from virtualchain.examples import notary
    from virtualchain.testing import FakeNode

    url = _fresh_database(given.settings.database)
    with FakeNode(premine=FIRST_BLOCKS) as node:
        engine = StateEngine(notary.app, database=url, source=node.url, confirmations=_CONFIRMATIONS)
        with engine:
            told, tip = tell(node), node.height
            last = engine.build()
            found = _read(url, last)
            forked, new_tip = fork(node), node.height
            after = _read(url, engine.build())
    if given.settings.json:
        write_json({**found, "fork": {**after, "reorg": _reorg(url)}})
        return
    _show_story(told, found, tip, last)
    _show_tables(found)
    _show_hashes(found)
    _show_fork(forked, after, _reorg(url), new_tip)
    _show_next(is_embedded=given.settings.database is None)


def _read(url: str, last: int) -> "Json":
    """Read what the notary has made of the chain up to a block."""
    from virtualchain.reading import views

    with views.snapshot(url) as connection:
        columns, documents = views.query(connection, _STATEMENT)
        return {
            "ops": list(views.ops(connection, views.Selection())),
            "rejections": list(views.rejections(connection, views.Selection())),
            "documents": [dict(zip(columns, row, strict=True)) for row in documents],
            "consensus": [
                digest
                for block_id in range(last - _SHOWN + 1, last + 1)
                for digest in views.digests(connection, block_id)
            ],
        }


def _reorg(url: str) -> "Json":
    """Read what was undone, without what is another one each time."""
    from virtualchain.reading import views

    with views.snapshot(url) as connection:
        row = views.last_reorg(connection)
    assert row is not None, "the story has a fork"
    return {name: value for name, value in row.items() if name not in {"detected_at", "duration"}}


def _fresh_database(database: str | None) -> str:
    """Drop the demonstration's database and make it again; give its URL."""
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from virtualchain.store.database import redact, resolve
    from virtualchain.store.embedded.server import EmbeddedServer
    from virtualchain.store.sql import queries

    if database is None:
        server = EmbeddedServer()
        if not server.status().running:
            say("starting the embedded PostgreSQL server; the first time, this takes a few seconds")
        server.start()
        database = server.url_for(DATABASE)
    name = str(conninfo_to_dict(resolve(database)).get("dbname") or "")
    if not name.endswith(_SUFFIX):
        raise UsageError(
            f"demo drops its database, so it takes only one whose name ends in {_SUFFIX}, and not {name!r}: "
            "give such a name, or no --database at all"
        )
    statements = queries("database")
    try:
        with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
            for statement in ("drop_database", "create_database"):
                connection.execute(sql.SQL(statements[statement]).format(name=sql.Identifier(name)))
    except psycopg.Error as error:
        raise StoreError(f"{redact(database)} cannot be made: {' '.join(str(error).split())}") from error
    return database


def _show_story(told: "list[Told]", found: "Json", tip: int, last: int) -> None:
    from virtualchain.cli.story import PEOPLE
    from virtualchain.testing import key

    names = {key(name).address(): name for name in PEOPLE}
    verdicts = {row["txid"]: "accepted" for row in found["ops"]}
    for row in found["rejections"]:
        words = (names.get(word, word) for word in row["reason"].split())
        verdicts[row["txid"]] = f"refused: {' '.join(words)}"
    _title(f"What happened on a chain of {tip} blocks, and what the notary made of it")
    rows = [(item.block_id, item.step.told, verdicts[item.txid]) for item in told]
    write_rows(("block", "transaction", "verdict"), rows, as_json=False)
    click.echo(
        f"\nA block counts once {_CONFIRMATIONS} blocks stand on it, so it went up to block {last} so far.\n"
        "These are the people, by their addresses:\n"
    )
    for address, name in names.items():
        click.echo(f"{name:5}  {address}")


def _show_tables(found: "Json") -> None:
    documents = found["documents"]
    _title(f"The table that it keeps in PostgreSQL: {_STATEMENT}")
    write_rows(list(documents[0]), (list(row.values()) for row in documents), as_json=False)


def _show_hashes(found: "Json") -> None:
    _title("Its hashes at the last blocks")
    for row in found["consensus"]:
        write_fields(
            f"block {row['block_id']}",
            {"consensus hash": row["consensus_hash"], "state hash": row["state_hash"]},
        )
    click.echo(
        "\nA consensus hash stands for every op up to its block, a state hash for every row of the tables.\n"
        "Whoever runs this app on this chain gets the same ones: two nodes compare a line, not two databases."
    )


def _show_fork(forked: "Told", after: "Json", reorg: "Json", tip: int) -> None:
    _title("Then the chain forks, deeper than the confirmations that were waited for")
    fork, depth = reorg["fork_block_id"], reorg["depth"]
    click.echo(
        f"The node has left everything above block {fork} for a branch with more work, up to block {tip}.\n"
        f"On it, in block {forked.block_id}: {forked.step.told}.\n"
        f"{depth} blocks had been taken of the old one. Undone: {reorg['blocks_undone']} blocks, "
        f"{reorg['ops_undone']} ops, {reorg['rows_undone']} rows of tables,\n"
        "in one transaction; then the new branch was taken. The table, as if the old one had never been:\n"
    )
    documents = after["documents"]
    write_rows(list(documents[0]), (list(row.values()) for row in documents), as_json=False)
    click.echo()
    row = after["consensus"][-1]
    write_fields(
        f"block {row['block_id']}",
        {"consensus hash": row["consensus_hash"], "state hash": row["state_hash"]},
    )


def _show_next(*, is_embedded: bool) -> None:
    _title("What to try next")
    database = f'"$(virtualchain db url {DATABASE})"' if is_embedded else '"the URL that you gave"'
    told = f"""\
export VIRTUALCHAIN_DATABASE={database}
virtualchain sql "{_QUESTION}"
virtualchain ops --rejected
virtualchain consensus 20
virtualchain sql "{_FORKS}"
psql "$VIRTUALCHAIN_DATABASE"

The app is about 100 lines of Python and SQL: virtualchain/examples/notary.py.
With a Bitcoin node on this machine, say on regtest, and a database of its own:

unset VIRTUALCHAIN_DATABASE
virtualchain --network regtest {EXAMPLE} sync"""
    click.echo(told)


def _title(text: str) -> None:
    click.echo()
    click.secho(text, bold=True, underline=True)
    click.echo()
