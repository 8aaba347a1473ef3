"""The commands for webhooks: webhooks list, replay, run."""

from typing import TYPE_CHECKING

import click

from virtualchain.cli.options import BLOCK_ID, Group, Options, pass_options
from virtualchain.cli.output import counted, moment, say, write_json, write_rows
from virtualchain.cli.process import Signals
from virtualchain.cli.session import migrated_deployment, open_reading
from virtualchain.errors import UsageError

if TYPE_CHECKING:
    from virtualchain.model import Json


@click.group(cls=Group)
def webhooks() -> None:
    """Deliver events of apps to other programs, over HTTP.

    The [[webhooks]] of virtualchain.toml say what is delivered where. `virtualchain run` and `serve` deliver
    as well, and of several processes one does.
    """


@webhooks.command("list")
@pass_options
def list_(options: Options) -> None:
    """Show how far the deliveries of each webhook are."""
    from virtualchain.webhooks.listing import listed

    with open_reading(options) as connection:
        rows = listed(connection, options.settings.webhooks)
    if options.settings.json:
        write_json(rows)
        return
    columns = ("name", "app", "receiver", "block_id", "delivered", "state")
    shown = ({**row, "state": _state(row)} for row in rows)
    write_rows(columns, ([row[name] for name in columns] for row in shown), as_json=False)


def _state(row: "Json") -> str:
    """Describe what a webhook is at."""
    if row["receiver"] is None:
        return "not in the settings"
    doer = "" if row["is_delivered"] else "; no process delivers it"
    if row["failures"]:
        due = moment(row["next_try"])
        return f"{counted(row['failures'], 'failure')}: {row['error']}; next attempt {due}{doer}"
    if row["block_id"] is None:
        return f"new{doer}"
    if row["app_block_id"] is None:
        return f"there is no app {row['app']} yet{doer}"
    left = row["app_block_id"] - row["block_id"]
    return (f"{counted(left, 'block')} to go" if left > 0 else "up to date") + doer


@webhooks.command()
@click.argument("name")
@click.option(
    "--from",
    "first",
    type=BLOCK_ID,
    metavar="BLOCK",
    required=True,
    help="The first block whose events are delivered again, or next.",
)
@pass_options
def replay(options: Options, name: str, first: int) -> None:
    """Deliver the events of webhook NAME again from a block on.

    A later block than the last one skips those between. A process that delivers it notices within seconds.
    """
    from contextlib import closing

    from virtualchain.webhooks.cursors import Cursors
    from virtualchain.webhooks.messages import Webhook

    named = [Webhook(setting, b"") for setting in options.settings.webhooks if setting.name == name]
    with closing(Cursors(migrated_deployment(options))) as cursors:
        cursors.add(named)
        pruned = cursors.replay(name, first)
    if pruned is not None:
        say(f"history is kept from block {pruned + 1} on: events of earlier blocks have their ops alone")
    if options.settings.json:
        write_json({"name": name, "block_id": first})
    else:
        click.echo(f"webhook {name} is delivered from block {first} on")


@webhooks.command()
@pass_options
def run(options: Options) -> None:
    """Deliver all webhooks until Ctrl-C or SIGTERM.

    It needs neither a node nor the apps' code, and takes turns with other processes that deliver.
    """
    from virtualchain.webhooks.deliverer import Deliverer

    ours = options.webhooks()
    if not ours:
        raise UsageError("there are no [[webhooks]] in virtualchain.toml")
    options.warn_of_exposed_passwords()
    with Signals() as signals:
        deliverer = Deliverer(migrated_deployment(options), ours, say)
        signals.stop = deliverer.stop
        deliverer.run()
