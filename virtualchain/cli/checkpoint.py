"""The commands of checkpoints: checkpoint create, show, apply, keygen."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from virtualchain.cli.failures import say
from virtualchain.cli.options import Given, Group, pass_given, remember
from virtualchain.cli.output import write_fields, write_json
from virtualchain.cli.signals import Signals
from virtualchain.errors import InvalidCheckpoint, UsageError

if TYPE_CHECKING:
    from virtualchain.checkpoint.apply import Applied
    from virtualchain.checkpoint.manifest import Manifest

_block = click.IntRange(min=0, max=2**31 - 1)
_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
_trust = click.option(
    "--trust",
    multiple=True,
    metavar="KEY",
    expose_value=False,
    callback=remember,
    help="Refuse a checkpoint that this public key, or another one so named, has not signed.",
)


@click.group(cls=Group)
def checkpoint() -> None:
    """Make, check and apply checkpoints: an app's state at a block, as a file.

    Whoever applies one goes on from there, without the blocks before it. Every digest in it is computed again
    from its rows; who made it is shown by signatures. A KEY is 64 hex digits, or a file with a public key.
    """


@checkpoint.command()
@_file
@click.option("--block", type=_block, metavar="BLOCK", help="As of this block. Default: the app's last one.")
@click.option(
    "--sign",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sign it with the ed25519 key in a file, as `keygen` or `ssh-keygen` makes it.",
)
@pass_given
def create(given: Given, file: Path, block: int | None, keys: tuple[Path, ...]) -> None:
    """Write a checkpoint of an app to FILE.

    --app names the app where there are several, here also by its name. The same state gives the same file
    on every node.
    """
    from virtualchain.checkpoint.create import create as make
    from virtualchain.cli.read import chosen_apps, open_reading
    from virtualchain.reading import views

    with open_reading(given) as connection:
        names = [row["name"] for row in views.apps(connection, chosen_apps(given, connection))]
        if len(names) != 1:
            there = f"the apps are {', '.join(names)}" if names else "there is no app yet"
            raise UsageError(f"a checkpoint is of one app, and {there}: name one with --app")
        manifest = make(connection, names[0], file, block_id=block, keys=keys)
    _write(given, manifest, tuple(item.public_key for item in manifest.signatures))


@checkpoint.command()
@_file
@_trust
@pass_given
def show(given: Given, file: Path) -> None:
    """Show what the checkpoint in FILE is of, having checked all of it.

    That needs neither node nor database: digests of members, the series of consensus hashes, the state
    hash of its rows, signatures.
    """
    from virtualchain.checkpoint import archive
    from virtualchain.checkpoint.verify import manifest_of, verify

    with archive.reading(file) as reader:
        manifest = manifest_of(reader)
        try:
            verified = verify(reader, given.settings.trust)
        except InvalidCheckpoint as error:
            _write(given, manifest, None, str(error))
            raise
    _write(given, manifest, verified.signers)


@checkpoint.command()
@_file
@_trust
@click.option("--migrate", "migrates", is_flag=True, help="Begin on another chain than the checkpoint's.")
@click.option(
    "--rollback",
    type=_block,
    metavar="BLOCK",
    help="Undo every block above this one, for all apps: the last one that both chains have.",
)
@click.option("--wait", is_flag=True, help="Wait while another process writes, instead of giving up.")
@pass_given
def apply(given: Given, file: Path, migrates: bool, rollback: int | None, wait: bool) -> None:
    """Let an app go on from the checkpoint in FILE; its code must be named with --app.

    It takes the place of what the app has here, if it is installed, and is checked before anything changes.
    The next sync or run goes on behind its block. Nothing brings the app back below that. No node is needed.
    """
    from virtualchain.app.contract import read_contract
    from virtualchain.checkpoint.apply import apply as put
    from virtualchain.cli.progress import Reporter
    from virtualchain.engine.options import Listener, Options
    from virtualchain.store.database import resolve

    contracts = [read_contract(app) for app in given.apps()]
    with Signals() as signals, Reporter() as reporter:
        signals.work_in_steps()
        done = put(
            resolve(given.settings.database),
            file,
            contracts,
            trusted=given.settings.trust,
            migrates=migrates,
            rollback=rollback,
            options=Options(history=given.settings.history, wait_for_writer=wait),
            listener=Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_go_on),
        )
    if done is None:
        say("ended early, and nothing was applied: say it again to go on")
    else:
        _tell(given, done, migrates=migrates)


@checkpoint.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@pass_given
def keygen(given: Given, file: Path) -> None:
    """Make a key to sign with in FILE, and print its public key.

    An ed25519 key of `ssh-keygen` without a passphrase does as well.
    """
    from virtualchain.checkpoint.signing import make_key

    public = make_key(file)
    if given.settings.json:
        write_json({"file": str(file), "public_key": public})
    else:
        click.echo(public)


def _tell(given: Given, done: "Applied", *, migrates: bool) -> None:
    manifest = done.manifest
    if given.settings.json:
        undone = None if done.undone is None else done.undone.blocks
        told = {"build": done.build, "is_migration": migrates, "blocks_undone": undone}
        write_json({**_summary(manifest), **told, "signers": list(done.signers)})
        return
    if done.undone is not None:
        say(f"undone: {done.undone.blocks} blocks, {done.undone.ops} ops, {done.undone.rows} rows")
    where = "on this chain" if migrates else "on its own chain"
    click.echo(
        f"app {manifest.app} stands at block {manifest.block_id}, {where}: "
        "the next sync or run goes on behind it"
    )


def _write(
    given: Given, manifest: "Manifest", signers: tuple[str, ...] | None, fault: str | None = None
) -> None:
    rows = {table.name: manifest.members[table.member].rows for table in manifest.tables}
    if given.settings.json:
        told = {"tables": rows, "valid": fault is None, "fault": fault}
        write_json({**_summary(manifest), **told, "signers": None if signers is None else list(signers)})
        return
    holds = ", ".join(f"{name} ({count} rows)" for name, count in rows.items()) or "a saved file"
    fields = {
        "network": f"{manifest.network} (genesis {manifest.genesis_hash})",
        "block": manifest.block_id,
        "block hash": manifest.block_hash,
        "consensus hash": manifest.consensus_hash,
        "state hash": manifest.state_hash,
        "fingerprint": manifest.fingerprint,
        "holds": holds,
        "valid": "yes" if fault is None else f"NO: {fault}",
    }
    if signers is not None:
        fields["signed by"] = ", ".join(signers) or "nobody"
    write_fields(f"{manifest.app} {manifest.version} at block {manifest.block_id}", fields)


def _summary(manifest: "Manifest") -> dict[str, object]:
    names = ("app", "version", "fingerprint", "network", "genesis_hash", "block_id", "block_hash")
    digests = ("consensus_hash", "state_hash", "first_block_id")
    return {name: getattr(manifest, name) for name in (*names, *digests)}
