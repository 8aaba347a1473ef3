"""The commands of an operator at a deep fork, or with damaged tables: rollback, replay, pin, unpin."""

import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.failures import say
from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_fields, write_json
from virtualchain.cli.progress import Reporter, counted
from virtualchain.cli.signals import Signals
from virtualchain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from virtualchain.engine.deployment import Deployment

_block = click.IntRange(min=0, max=2**31 - 1)
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


@click.command(cls=Command)
@click.argument("block", type=_block, metavar="BLOCK")
@pass_given
def rollback(given: Given, block: int) -> None:
    """Undo every block above BLOCK, for all apps.

    The next sync or run goes on from there with the node's blocks. An app whose history does not reach so far
    back is derived anew, for which it must be named with --app or in virtualchain.toml.
    """
    from virtualchain.engine.options import Listener
    from virtualchain.engine.rollback import operators_reorg, roll_back

    with Signals() as signals, Reporter() as reporter, _deployment(given, signals) as deployment:
        reorg = operators_reorg(deployment.tape, block)
        listener = Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_go_on)
        undone = roll_back(deployment, reorg, listener)
    if undone is None:
        say("ended early, and nothing was undone: say it again to go on")
    elif given.settings.json:
        found = {"block_id": block, "blocks": undone.blocks, "ops": undone.ops, "rows": undone.rows}
        write_json(found)
    else:
        click.echo(
            f"back at block {block}; undone: {counted(undone.blocks, 'block')}, "
            f"{counted(undone.ops, 'op')}, {counted(undone.rows, 'row')}"
        )


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@click.option("--into", metavar="BUILD", help="Make a build beside the live one instead, also by new rules.")
@pass_given
def replay(given: Given, name: str, into: str | None) -> None:
    """Derive the tables of APP anew from the tape, and put them in place of those that are there.

    APP is its name, as `virtualchain status` shows it; its code must be named with --app or in
    virtualchain.toml. The tables that are there can be read meanwhile. No node is needed. With --into, a new
    version of the app may be named: its tables are made beside, while a writer goes on with the old one, and
    `virtualchain swap` puts them in place.
    """
    from virtualchain.cli.versions import replay_into
    from virtualchain.engine.options import Listener
    from virtualchain.engine.rebuild import replay as derive_again

    if into is not None:
        replay_into(given, name, into)
        return
    with (
        Signals() as signals,
        Reporter() as reporter,
        _deployment(given, signals, repairs=name) as deployment,
    ):
        if name not in [machine.contract.name for machine in deployment.machines]:
            raise UsageError(f"app {name} is derived anew by its own code: name it with --app")
        listener = Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_go_on)
        done = derive_again(deployment, name, listener)
    if done is None:
        say("ended early, and nothing was replaced: say it again to go on")
        return
    if given.settings.json:
        write_json(
            {
                "name": name,
                "block_id": done.block_id,
                "state_hash_before": done.state_hash_before,
                "state_hash": done.state_hash,
            }
        )
        return
    same = done.state_hash == done.state_hash_before
    write_fields(
        f"{name} was derived anew up to block {done.block_id}",
        {"state hash": done.state_hash, "before": "the same" if same else done.state_hash_before},
    )


@click.command(cls=Command)
@click.argument("block", type=_block, metavar="BLOCK")
@click.argument("block_hash", metavar="HASH")
@pass_given
def pin(given: Given, block: int, block_hash: str) -> None:
    """Follow only chains whose block BLOCK has this HASH.

    Where the node is on another one, it is waited for; where the tape holds another block, it is left as
    soon as the node follows a chain with this one, however much work that has.
    """
    from virtualchain.store.tape import Tape

    if not _HASH.fullmatch(block_hash):
        raise UsageError(f"{block_hash} is no block hash: it has 64 hex digits")
    with _writing(given) as connection:
        Tape(connection).pin(block, block_hash.lower())
    _tell(given, block, f"the chain must hold block {block} ({block_hash.lower()}) from now on")


@click.command(cls=Command)
@click.argument("block", type=_block, metavar="BLOCK")
@pass_given
def unpin(given: Given, block: int) -> None:
    """Follow any chain again, whatever its block BLOCK is."""
    from virtualchain.store.tape import Tape

    with _writing(given) as connection:
        if not Tape(connection).unpin(block):
            pins = ", ".join(map(str, Tape(connection).pins())) or "none"
            raise UsageError(f"block {block} is not pinned; pinned are: {pins}")
    _tell(given, block, f"block {block} is not pinned any more")


@contextmanager
def _deployment(given: Given, signals: Signals, repairs: str | None = None) -> "Iterator[Deployment]":
    """Open the deployment for writing, with those of the named apps that are installed; no node is asked."""
    from virtualchain.app.contract import read_contract
    from virtualchain.engine.deployment import Deployment
    from virtualchain.engine.options import Options
    from virtualchain.reading import views
    from virtualchain.store.database import resolve
    from virtualchain.store.migrate import migrate

    url = resolve(given.settings.database)
    migrate(url)
    contracts = [read_contract(app) for app in given.named_apps()]
    with views.snapshot(url) as connection:
        installed = [row["name"] for row in views.apps(connection)]
    deployment = Deployment(
        url,
        [contract for contract in contracts if contract.name in installed],
        None,
        Options(history=given.settings.history),
        repairs=repairs,
    )
    signals.work_in_steps()
    with closing(deployment):
        yield deployment


def _writing(given: Given) -> "psycopg.Connection":
    """Open a session for a small change beside the writer: it takes no lock."""
    from virtualchain.store.database import connect_migrator, resolve
    from virtualchain.store.migrate import migrate

    url = resolve(given.settings.database)
    migrate(url)
    return connect_migrator(url)


def _tell(given: Given, block: int, told: str) -> None:
    if given.settings.json:
        from virtualchain.cli.read import open_reading
        from virtualchain.reading import views

        with open_reading(given) as connection:
            write_json({"block_id": block, "pins": views.pins(connection)})
    else:
        click.echo(told)
