"""The command `compare-nodes`: where two deployments differ first."""

from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.completing import complete_apps
from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import say, visible, write_fields, write_json
from virtualchain.cli.progress import Ticker
from virtualchain.cli.session import existing_database
from virtualchain.errors import NodesDiffer

if TYPE_CHECKING:
    from virtualchain.audit.nodes import AppComparison, Comparison, Divergence

_SHOWN: Final = ("version", "block_id", "consensus_hash", "state_hash")


@click.command("compare-nodes", cls=Command)
@click.argument("url")
@click.argument("names", metavar="[APP]...", nargs=-1, shell_complete=complete_apps)
@pass_options
def compare_nodes(options: Options, url: str, names: tuple[str, ...]) -> None:
    """Find the first block at which another node differs.

    URL is the database of the other node; a reader's role suffices on both sides. Compares the tapes, and the
    digests and inputs of every app that both have, or of those named by APP: first the block, then the
    transaction, then the row, and whether tape, rules or state diverged. Nodes at different blocks are
    compared as far as both have come. The exit code is 1 if they differ.
    """
    from virtualchain.audit.nodes import compare_nodes as compare

    comparison = compare(existing_database(options), url, names, Ticker())
    if options.settings.json:
        _write_json(comparison)
    else:
        _write(comparison)
    divergence = comparison.divergence
    if divergence is not None:
        raise NodesDiffer(
            f"the nodes differ first at block {divergence.block_id}: {divergence.what} diverged"
        )


def _write_json(comparison: "Comparison") -> None:
    from dataclasses import asdict

    write_json(asdict(comparison))


def _write(comparison: "Comparison") -> None:
    for note in comparison.notes:
        say(note)
    ends = {
        side: "empty" if tape["last"] is None else f"blocks {tape['first']} to {tape['last']}"
        for side, tape in comparison.tapes.items()
    }
    write_fields(f"tape of {comparison.network}", ends | _first(comparison.fork))
    for app in comparison.apps:
        _write_app(app)


def _write_app(app: "AppComparison") -> None:
    for note in app.notes:
        say(f"app {app.name}: {note}")
    fields: dict[str, object] = {
        side: ", ".join(f"{name.replace('_id', '').replace('_', ' ')} {row[name]}" for name in _SHOWN)
        for side, row in app.sides.items()
    }
    if app.divergence is None and app.last is not None:
        fields["compared"] = f"the same from block {app.first} to {app.last}"
    write_fields(app.name, fields | _first(app.divergence))


def _first(divergence: "Divergence | None") -> dict[str, object]:
    """Return the lines about what differs first."""
    if divergence is None:
        return {}
    fields: dict[str, object] = {
        "differs first": f"block {divergence.block_id}",
        divergence.what: visible(divergence.message),
    }
    if divergence.txid is not None:
        fields["transaction"] = f"{divergence.txid}, number {divergence.txindex} of its block"
    if divergence.row is not None:
        key = "" if divergence.row["key"] is None else f", key {divergence.row['key']}"
        fields["table"] = f"{divergence.row['table']}{key}"
    for sides in (divergence.input, divergence.op, divergence.row):
        if sides is not None:
            fields |= {f"it is {side}": sides[side] or "-" for side in ("here", "there")}
    return fields
