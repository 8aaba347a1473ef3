"""The commands for checkpoints: checkpoint create, show, apply, keygen."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from virtualchain.cli.fetching import opened
from virtualchain.cli.options import (
    BLOCK_ID,
    Group,
    Options,
    cores,
    pass_options,
    sign_option,
    trust_option,
    wait_option,
)
from virtualchain.cli.output import say, write_fields, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter
from virtualchain.cli.session import chosen_apps, open_reading
from virtualchain.errors import InvalidCheckpoint, UsageError

if TYPE_CHECKING:
    import psycopg

    from virtualchain.checkpoint.apply import Applied
    from virtualchain.checkpoint.manifest import Manifest
    from virtualchain.checkpoint.publish import Published

_file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
_place_argument = click.argument("file", metavar="FILE")


@click.group(cls=Group)
def checkpoint() -> None:
    """Create, verify and apply checkpoints of an app's state.

    A checkpoint is a file with an app's state at a block. Whoever applies it continues from there, without
    the earlier blocks. Every digest in it is recomputed from its rows; signatures show who made it. A KEY is
    64 hex digits, or a file with a public key.
    """


@checkpoint.command()
@_file_argument
@click.option("--block", type=BLOCK_ID, metavar="BLOCK", help="The block. Default: the app's last one.")
@sign_option("Sign it")
@pass_options
def create(options: Options, file: Path, block: int | None, keys: tuple[Path, ...]) -> None:
    """Write a checkpoint of an app to FILE.

    If there are several apps, --app selects one; here it also accepts the app's name. The same state produces
    the same file on every node.
    """
    from virtualchain.checkpoint.create import create as create_file

    with open_reading(options) as connection:
        manifest = create_file(connection, _one_app(options, connection), file, block_id=block, keys=keys)
    _write_manifest(options, manifest, tuple(item.public_key for item in manifest.signatures))


@checkpoint.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    metavar="BLOCKS",
    default=10_000,
    show_default=True,
    help="Also publish at the last multiples of this height.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    default=3,
    show_default=True,
    help="How many of those to keep, besides the newest.",
)
@sign_option("Sign them")
@pass_options
def publish(options: Options, folder: Path, every: int, keep: int, keys: tuple[Path, ...]) -> None:
    """Keep checkpoints of an app in FOLDER, for any web server.

    FOLDER gets the one of the app's last block. Rows that did not change since the last publication are
    shared with it. Others may download meanwhile. Run it again to bring FOLDER up to date. If there are
    several apps, --app selects one, and each can be published in the same FOLDER.
    """
    from virtualchain.checkpoint.publish import publish as publish_in

    with open_reading(options) as connection:
        done = publish_in(
            connection, _one_app(options, connection), folder, every=every, keep=keep, keys=keys
        )
    checkpoints = [
        {"app": entry.app, "block_id": entry.block_id, "block_hash": entry.block_hash, "size": entry.size}
        for entry in done.entries
    ]
    if options.settings.json:
        write_json(
            {
                "folder": str(folder),
                "added": done.added,
                "new_bytes": done.new_bytes,
                "removed_files": done.removed,
                "missed": list(done.missed),
                "checkpoints": checkpoints,
            }
        )
        return
    blocks = ", ".join(str(entry.block_id) for entry in done.entries)
    click.echo(
        f"{folder} has app {done.entries[0].app} at block {blocks}: {done.added} new, {done.new_bytes:,} "
        f"bytes of new chunks, {done.removed} files removed{_describe_missed(done)}"
    )


def _describe_missed(done: "Published") -> str:
    if not done.missed:
        return ""
    blocks = ", ".join(map(str, done.missed))
    return f"; not at block {blocks}, as the app's history reaches back to block {done.oldest} (--history)"


@checkpoint.command()
@_place_argument
@trust_option
@pass_options
def show(options: Options, file: str) -> None:
    """Verify the checkpoint in FILE, and show what it holds.

    FILE can be the URL of what `checkpoint publish` keeps: then it is the newest one there.

    Checks its files' digests, the series of consensus hashes, the state hash of its rows, and the signatures.
    Needs neither a node nor a database.
    """
    from virtualchain.checkpoint import archive
    from virtualchain.checkpoint.verify import manifest_of, verify

    with opened(options, file, keeps=True) as path, archive.reading(path) as reader:
        manifest = manifest_of(reader)
        try:
            verified = verify(reader, options.settings.trust, cores())
        except InvalidCheckpoint as error:
            _write_manifest(options, manifest, None, str(error))
            raise
    _write_manifest(options, manifest, verified.signers)


@checkpoint.command()
@_place_argument
@trust_option
@click.option("--migrate", "migrates", is_flag=True, help="Continue on another chain than the checkpoint's.")
@click.option(
    "--begin-after",
    type=BLOCK_ID,
    metavar="BLOCK",
    help="With --migrate: continue after BLOCK of this chain. Default: the checkpoint's height.",
)
@click.option(
    "--rollback",
    type=BLOCK_ID,
    metavar="BLOCK",
    help="First undo every block above BLOCK, for all apps: BLOCK is the last one that both chains share.",
)
@wait_option
@pass_options
def apply(
    options: Options,
    file: str,
    migrates: bool,
    begin_after: int | None,
    rollback: int | None,
    wait: bool,
) -> None:
    """Let an app continue from the checkpoint in FILE.

    FILE can be the URL of what `checkpoint publish` keeps: then it is the newest one there.

    The app's code must be named with --app or in virtualchain.toml. The checkpoint is verified before
    anything changes, and replaces the app's state if the app is installed. The next sync or run continues
    after its block; the app can never be rolled back below that block. No node is needed.
    """
    from virtualchain.checkpoint.apply import apply as apply_file
    from virtualchain.engine.options import Listener
    from virtualchain.engine.options import Options as EngineOptions

    contracts = options.contracts()
    with Signals() as signals, Reporter() as reporter, opened(options, file) as path:
        signals.work_in_steps()
        done = apply_file(
            options.database,
            path,
            contracts,
            trusted=options.settings.trust,
            workers=cores() + 1,  # this one waits for the database
            migrates=migrates,
            begins_after=begin_after,
            rollback=rollback,
            options=EngineOptions(history=options.settings.history, wait_for_writer=wait),
            listener=Listener(
                on_catch_up=reporter.catching_up, on_wait=reporter.waiting, may_continue=signals.may_continue
            ),
        )
    if done is None:
        say("interrupted, and nothing was applied: run it again to continue")
    else:
        _write_applied(options, done, migrates=migrates)


@checkpoint.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@pass_options
def keygen(options: Options, file: Path) -> None:
    """Create a signing key in FILE, and print its public key.

    An ed25519 key of `ssh-keygen` without a passphrase works as well.
    """
    from virtualchain.checkpoint.signing import make_key

    public = make_key(file)
    if options.settings.json:
        write_json({"file": str(file), "public_key": public})
    else:
        click.echo(public)


def _one_app(options: Options, connection: "psycopg.Connection") -> str:
    """Return the name of the one app that is there or that --app selects."""
    from virtualchain.reading import views

    names = [row["name"] for row in views.apps(connection, chosen_apps(options, connection))]
    if len(names) != 1:
        choice = f"the apps are {', '.join(names)}" if names else "there is no app yet"
        raise UsageError(f"a checkpoint is of one app, and {choice}: name one with --app")
    return str(names[0])


def _write_applied(options: Options, done: "Applied", *, migrates: bool) -> None:
    manifest = done.manifest
    if options.settings.json:
        undone = None if done.undone is None else done.undone.blocks
        outcome = {
            "build": done.build,
            "is_migration": migrates,
            "begins_after": done.block_id,
            "blocks_undone": undone,
        }
        write_json({**_summary(manifest), **outcome, "signers": list(done.signers)})
        return
    if done.undone is not None:
        say(f"undone: {done.undone.blocks} blocks, {done.undone.ops} ops, {done.undone.rows} rows")
    chain = "on this chain" if migrates else "on its own chain"
    click.echo(
        f"app {manifest.app} is at block {done.block_id}, {chain}: the next sync or run continues from there"
    )


def _write_manifest(
    options: Options, manifest: "Manifest", signers: tuple[str, ...] | None, fault: str | None = None
) -> None:
    """Print what a checkpoint holds; `fault` is why it is not valid."""
    rows = {table.name: manifest.members[table.member].rows for table in manifest.tables}
    if options.settings.json:
        verdict = {"tables": rows, "valid": fault is None, "fault": fault}
        write_json({**_summary(manifest), **verdict, "signers": None if signers is None else list(signers)})
        return
    content = ", ".join(f"{name} ({count} rows)" for name, count in rows.items()) or "a saved file"
    fields = {
        "network": f"{manifest.network} (genesis {manifest.genesis_hash})",
        "block": manifest.block_id,
        "block hash": manifest.block_hash,
        "consensus hash": manifest.consensus_hash,
        "state hash": manifest.state_hash,
        "state root": manifest.state_root,
        "fingerprint": manifest.fingerprint,
        "holds": content,
        "valid": "yes" if fault is None else f"NO: {fault}",
    }
    if signers is not None:
        fields["signed by"] = ", ".join(signers) or "nobody"
    write_fields(f"{manifest.app} {manifest.version} at block {manifest.block_id}", fields)


def _summary(manifest: "Manifest") -> dict[str, object]:
    names = ("app", "version", "fingerprint", "network", "genesis_hash", "block_id", "block_hash")
    digests = ("consensus_hash", "state_hash", "state_root", "first_block_id")
    return {name: getattr(manifest, name) for name in (*names, *digests)}
