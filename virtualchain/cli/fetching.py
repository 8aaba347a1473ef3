"""What commands do with checkpoints at URLs: `checkpoint show`, `checkpoint apply`, `--from-checkpoint`."""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtualchain.cli.output import say
from virtualchain.errors import DeepFork, MissingData, UpstreamLacks, UsageError
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.checkpoint.publication import Entry
    from virtualchain.checkpoint.web import Folder
    from virtualchain.cli.options import Options

_REPEAT: Final = 10.0
"""Seconds between two lines about a download."""


@contextmanager
def opened(options: "Options", place: str, *, keeps: bool = False) -> "Iterator[Path]":
    """Yield the file of a checkpoint, which is downloaded if `place` is a URL.

    A download is removed if nothing fails, unless the caller `keeps` it for the next command.
    """
    from virtualchain.checkpoint import download, publication

    if not download.is_url(place):
        yield Path(place)
        return
    folder = _folder(options, place)
    entries = download.index(folder)
    published = sorted({entry.app for entry in entries})
    names = [name for name in _names(options) if name in published] if options.settings.apps else published
    if len(names) != 1:
        has = f"has checkpoints of {', '.join(published)}" if published else "has no checkpoint yet"
        raise UsageError(f"{folder.name} {has}: name one app with --app")
    entry = publication.newest(entries, names[0])
    assert entry is not None, "the name is from the entries"
    with _downloaded(options, folder, entry, keeps=keeps) as file:
        yield file


def begin_apps(options: "Options", url: str, source: "BlockSource", *, wait: bool) -> None:
    """Let each app that is not installed begin with the newest checkpoint at a URL that fits it.

    Those without one begin with their first block, as they do without the option. Raises DeepFork if there
    are some, and the source has another block at each.
    """
    from virtualchain.app.declarations import read_contract
    from virtualchain.checkpoint import download
    from virtualchain.checkpoint.apply import apply
    from virtualchain.cli.options import cores
    from virtualchain.cli.session import migrated_database
    from virtualchain.engine.options import Options as EngineOptions
    from virtualchain.reading import views

    folder, network = _folder(options, url), source.network.name
    with views.snapshot(migrated_database(options)) as connection:
        installed = {row["name"] for row in views.apps(connection)}
    contracts = [read_contract(app) for app in options.applied_and_kept()[0]]
    for contract in contracts:
        if contract.name in installed:
            _tell(contract.name, "is installed already: it continues without the checkpoint")
    missing = [contract for contract in contracts if contract.name not in installed]
    entries = download.index(folder) if missing else []
    for contract in missing:
        fitting = [
            entry
            for entry in entries
            if (entry.app, entry.version, entry.network) == (contract.name, contract.version, network)
        ]
        if not fitting:
            _tell(
                contract.name,
                f"begins with its first block: {folder.name} has no checkpoint of its version "
                f"{contract.version} on {network}",
            )
            continue
        entry = _on_chain(contract.name, fitting, source)
        with _downloaded(options, folder, entry) as file:
            done = apply(
                options.database,
                file,
                [contract],
                trusted=options.settings.trust,
                workers=cores() + 1,  # this one waits for the database
                options=EngineOptions(history=options.settings.history, wait_for_writer=wait),
            )
        assert done is not None, "nothing ends it early"
        by = ", ".join(done.signers) or "nobody"
        _tell(contract.name, f"continues after block {entry.block_id}, from a checkpoint signed by {by}")


def _on_chain(app: str, entries: "list[Entry]", source: "BlockSource") -> "Entry":
    """Return the newest of an app's checkpoints that is not of another branch than the source's."""
    for entry in sorted(entries, key=lambda item: item.block_id, reverse=True):
        try:
            has = source.block_hash(entry.block_id)
        except (MissingData, UpstreamLacks):
            return entry  # the source may get there; or its tape begins just after it
        if has == entry.block_hash:
            return entry
        other = f"the checkpoint of block {entry.block_id} ({entry.block_hash}): {source} has {has} there"
        _tell(app, f"does not begin with {other}")
    raise DeepFork(
        f"app {app} begins with none of the checkpoints, as {source} is on another branch: follow theirs, "
        "or leave --from-checkpoint out to begin with the app's first block"
    )


@contextmanager
def _downloaded(
    options: "Options", folder: "Folder", entry: "Entry", *, keeps: bool = False
) -> "Iterator[Path]":
    from virtualchain.checkpoint.download import downloaded

    with downloaded(
        folder, entry, trusted=options.settings.trust, keeps=keeps, on_bytes=_reporter(entry)
    ) as file:
        assert file is not None, "nothing ends it early"
        yield file


def _reporter(entry: "Entry") -> "Callable[[int, int], None]":
    """Return what tells now and then how far a download is."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPEAT:
            last = time.monotonic()
            _tell(entry.app, f"has {done:,} of {total:,} bytes of its checkpoint at block {entry.block_id}")

    return report


def _folder(options: "Options", url: str) -> "Folder":
    from virtualchain.checkpoint.web import Folder

    return Folder(url, allows_http=bool(options.settings.trust))


def _names(options: "Options") -> list[str]:
    return [contract.name for contract in options.contracts()]


def _tell(app: str, message: str) -> None:
    say(Notice(f"app {app} {message}", "checkpoint_used", app=app))
