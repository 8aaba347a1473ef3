"""The command `demo`, for a newcomer's first minute.

It builds a small chain, runs the notary on it, and shows the result, which is the same every time, down to
the last digit of the last hash. It touches no node and no other database.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.options import EXAMPLE, Command, Options, pass_options
from virtualchain.cli.output import say, write_fields, write_json, write_rows
from virtualchain.cli.serve import PORT, port_type, show
from virtualchain.errors import StoreError, UsageError, quoted

if TYPE_CHECKING:
    from virtualchain.model import Json
    from virtualchain.testing import FakeNode, Tx

_DATABASE: Final = "virtualchain_demo"
_SUFFIX: Final = "_demo"
_CONFIRMATIONS: Final = 6
_SHOWN: Final = 3
_QUESTION: Final = "SELECT owner, count(*) FROM documents GROUP BY owner"
_FORKS: Final = "SELECT fork_block_id, depth, ops_undone, duration FROM reorgs"
_STATEMENT: Final = "SELECT * FROM notary.documents ORDER BY claimed_at"


@click.command(cls=Command)
@click.option("--serve", is_flag=True, help="Then show its database to browsers, until Ctrl-C.")
@click.option("--port", type=port_type, default=PORT, show_default=True, help="The port for --serve.")
@pass_options
def demo(options: Options, serve: bool, port: int) -> None:
    """Run the example app on a made-up chain.

    No node is needed. The database, virtualchain_demo on the embedded server, is recreated on each run. The
    name of a database set with --database must end in _demo, because everything in it is dropped.
    """
    from virtualchain.app.declarations import read_contract
    from virtualchain.engine.engine import StateEngine
    from virtualchain.examples import notary
    from virtualchain.testing import FakeNode

    url = _fresh_database(options.settings.database)
    with FakeNode(premine=_FIRST_BLOCKS) as node:
        engine = StateEngine(notary.app, database=url, source=node.url, confirmations=_CONFIRMATIONS)
        with engine:
            story, tip = _mine_story(node), node.height
            last = engine.build()
            before = _read(url, last)
            replacement, new_tip = _mine_fork(node), node.height
            after = _read(url, engine.build())
    reorg = _reorg(url)
    if options.settings.json:
        write_json({**before, "fork": {**after, "reorg": reorg}})
    else:
        _show_story(story, before, tip, last)
        _show_tables(before)
        _show_hashes(before)
        _show_fork(replacement, after, reorg, new_tip)
        _show_next(is_embedded=options.settings.database is None)
    if serve:
        show(options, lambda: url, lambda: {"notary": read_contract(notary.app, "regtest")}, port=port)


# The story: a few people, a few documents, and what they do with them

_PEOPLE: Final = ("alice", "bob", "carol")
_FIRST_BLOCKS: Final = 10
"""Blocks without transactions, which earn the coins that the story spends."""
_BETWEEN: Final = 2
_LAST_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True)
class _Step:
    """One transaction: who does what with which document, in words and as a payload."""

    words: str
    who: str
    opcode: bytes
    document: str
    to: str | None = None
    missing: int = 0
    """How many bytes are missing at the end of the payload."""


@dataclass(frozen=True, slots=True)
class _MinedStep:
    """A step with its block and transaction."""

    block_id: int
    txid: str
    step: _Step


_BLOCKS: Final = (
    (
        _Step("alice claims the contract", "alice", b"c", "contract"),
        _Step("bob claims it in the same block", "bob", b"c", "contract"),
    ),
    (_Step("bob claims the letter", "bob", b"c", "letter"),),
    (_Step("bob claims the contract again", "bob", b"c", "contract"),),
    (_Step("alice gives the contract to carol", "alice", b"t", "contract", to="carol"),),
    (_Step("alice gives it to bob, too", "alice", b"t", "contract", to="bob"),),
    (
        _Step("bob revokes the letter", "bob", b"r", "letter"),
        _Step("carol claims the recipe", "carol", b"c", "recipe"),
    ),
    (_Step("alice claims with half a hash", "alice", b"c", "poem", missing=16),),
)
_FORK: Final = _Step("alice gives the contract to bob instead", "alice", b"t", "contract", to="bob")
_FORK_BLOCK: Final = 3
"""Where the fork begins: the index of the first replaced block among `_BLOCKS`."""


def _mine_story(node: "FakeNode") -> list[_MinedStep]:
    """Mine the story; return its steps in chain order."""
    mined: list[_MinedStep] = []
    for steps in _BLOCKS:
        sent = [(step, _send(node, step)) for step in steps]
        node.mine([tx for _, tx in sent])
        mined += [_MinedStep(node.height, tx.txid, step) for step, tx in sent]
        node.mine(n=_BETWEEN)
    node.mine(n=_LAST_BLOCKS - _BETWEEN)
    return mined


def _mine_fork(node: "FakeNode") -> _MinedStep:
    """Replace the end of the story with a longer branch, on which events take another course."""
    block_id = _FIRST_BLOCKS + 1 + _FORK_BLOCK * (1 + _BETWEEN)
    sent = _send(node, _FORK)
    node.reorg(node.height - block_id + 1, txs=[sent])
    return _MinedStep(block_id, sent.txid, _FORK)


def _send(node: "FakeNode", step: _Step) -> "Tx":
    content = hashlib.sha256(step.document.encode()).digest()
    payload = b"nt" + step.opcode + content[: len(content) - step.missing]
    return node.send(payload, step.who, to=[] if step.to is None else [(step.to, 10_000)])


# The database


def _fresh_database(database: str | None) -> str:
    """Drop and create the demonstration's database; return its URL."""
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
        database = server.url_for(_DATABASE)
    name = str(conninfo_to_dict(resolve(database)).get("dbname") or "")
    if not name.endswith(_SUFFIX):
        raise UsageError(
            f"demo drops its database, so it takes only one whose name ends in {_SUFFIX}, and not "
            f"{quoted(name)}: use such a name, or leave out --database"
        )
    statements = queries("database")
    try:
        with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
            for statement in ("drop_database", "create_database"):
                connection.execute(sql.SQL(statements[statement]).format(name=sql.Identifier(name)))
    except psycopg.Error as error:
        raise StoreError(f"{redact(database)} cannot be created: {' '.join(str(error).split())}") from error
    return database


def _read(url: str, last: int) -> "Json":
    """Read the notary's results up to a block."""
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
    """Read what the rollback undid, without the columns that differ on every run."""
    from virtualchain.reading import views

    with views.snapshot(url) as connection:
        row = views.last_reorg(connection)
    assert row is not None, "the story has a fork"
    return {name: value for name, value in row.items() if name not in {"detected_at", "duration"}}


# What it shows


def _show_story(story: list[_MinedStep], results: "Json", tip: int, last: int) -> None:
    from virtualchain.testing import key

    names = {key(name).address(): name for name in _PEOPLE}
    verdicts = {row["txid"]: "accepted" for row in results["ops"]}
    for row in results["rejections"]:
        words = (names.get(word, word) for word in row["reason"].split())
        verdicts[row["txid"]] = f"refused: {' '.join(words)}"
    _title(f"The transactions of a chain of {tip} blocks, and the notary's verdicts")
    rows = [(mined.block_id, mined.step.words, verdicts[mined.txid]) for mined in story]
    write_rows(("block", "transaction", "verdict"), rows, as_json=False)
    click.echo(
        f"\nA block is processed once {_CONFIRMATIONS} blocks follow it; "
        f"the last one so far is block {last}.\n"
        "The people and their addresses:\n"
    )
    for address, name in names.items():
        click.echo(f"{name:5}  {address}")


def _show_tables(results: "Json") -> None:
    documents = results["documents"]
    _title(f"The table that the notary keeps in PostgreSQL: {_STATEMENT}")
    write_rows(list(documents[0]), (list(row.values()) for row in documents), as_json=False)


def _show_hashes(results: "Json") -> None:
    _title("The notary's hashes at the last blocks")
    for row in results["consensus"]:
        write_fields(
            f"block {row['block_id']}",
            {"consensus hash": row["consensus_hash"], "state hash": row["state_hash"]},
        )
    click.echo(
        "\nA consensus hash covers every op up to its block; a state hash covers every row of the tables.\n"
        "Everyone who runs this app on this chain gets the same hashes. So two nodes can compare one line\n"
        "instead of two databases."
    )


def _show_fork(replacement: _MinedStep, after: "Json", reorg: "Json", tip: int) -> None:
    _title("Then the chain forks, deeper than the number of confirmations")
    fork, depth = reorg["fork_block_id"], reorg["depth"]
    click.echo(
        f"The node has left everything above block {fork} for a branch with more work, up to block {tip}.\n"
        f"On it, in block {replacement.block_id}: {replacement.step.words}.\n"
        f"{depth} blocks of the old branch had been processed. Undone: {reorg['blocks_undone']} blocks, "
        f"{reorg['ops_undone']} ops, {reorg['rows_undone']} rows of tables,\n"
        "in one transaction; then the new branch was processed. The table, as if the old branch had never "
        "existed:\n"
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
    database = f'"$(virtualchain db url {_DATABASE})"' if is_embedded else '"the URL of --database"'
    click.echo(f"""\
export VIRTUALCHAIN_DATABASE={database}
virtualchain sql "{_QUESTION}"
virtualchain ops --rejected
virtualchain consensus 20
virtualchain sql "{_FORKS}"
psql "$VIRTUALCHAIN_DATABASE"

To look at all this in a browser: virtualchain demo --serve

The app is about 100 lines of Python and SQL: virtualchain/examples/notary.py.
With a Bitcoin node on this machine, for example on regtest, and a database of its own:

unset VIRTUALCHAIN_DATABASE
virtualchain --network regtest {EXAMPLE} sync""")


def _title(text: str) -> None:
    click.echo()
    click.secho(text, bold=True, underline=True)
    click.echo()
