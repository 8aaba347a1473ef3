"""The first scan of block files, by many processes: the tape as an export, without a database or a node.

The index of the blocks is read first, which says where the active chain's blocks are. Each file with some of
them is then scanned on its own, and leaves a part in the folder `.parts`. At the end, the parts are joined in
the order of the chain. So the result does not depend on who scanned what, and a scan that was interrupted
goes on with the files that have no part yet.
"""

import fcntl
import shutil
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.difficulty import check_targets, check_times, check_work
from virtualchain.bitcoin.files.index import BlockIndex
from virtualchain.bitcoin.files.source import FileSource, open_blocks
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.networks import Network
from virtualchain.engine.options import Options, check_runnable
from virtualchain.engine.planner import require_chain
from virtualchain.errors import MalformedBlock, MissingData, UsageError
from virtualchain.model import Block, SenderLevel, Verification
from virtualchain.store.tape import Covered
from virtualchain.transfer.cluster import scan_by_dask, scan_here
from virtualchain.transfer.files import require_library
from virtualchain.transfer.joining import join_blocks, join_inputs
from virtualchain.transfer.manifest import NAME, BlockRef, Manifest, write_manifest
from virtualchain.transfer.parts import Job, PartName, Plan, Searches, rules_of, write_plan

PARTS: Final = ".parts"
"""The folder of what a scan keeps until it is complete."""
_LOCK: Final = "lock"
_PAGE: Final = 2000
"""Headers that are checked at once."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is: block files, and the bytes of the blocks in them."""

    files: int
    all_files: int
    size: int
    all_size: int


OnFile = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was written, and the SHA-256 of the manifest, which commits to all of it."""

    manifest: Manifest
    sha256: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to scan, and how."""

    blocks: Path
    folder: Path
    searches: Searches
    network: Network | None = None
    first: int | None = None
    last: int | None = None
    confirmations: int | None = None
    """None: as many as the network should have."""
    verify: Verification = "merkle"
    senders: SenderLevel = "node"
    workers: int = 1
    dask: str | None = None


def scan(
    request: Request,
    *,
    on_file: OnFile = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Scanned:
    """Scan block files for what is searched for, and write the tape to a folder as an export.

    The folder must be new or empty, or have what an interrupted scan left. `on_file` is called when work
    begins, and with each file that is done; `say` with what the operator should know. Raises UsageError for
    a wrong request, NodeError for files that do not hold what is needed, StoreError and OSError if the result
    cannot be written.
    """
    require_library("parquet")
    if not (request.searches.apps or request.searches.magics):
        raise UsageError("name what to scan for: --app, or --magic")
    source = open_blocks(request.blocks, request.network)
    with closing(source):
        contracts = request.searches.contracts(source.network)
        depth = source.network.confirmations if request.confirmations is None else request.confirmations
        options = Options(depth, request.verify, request.senders)
        check_runnable(contracts, options)
        options.check_confirmations(contracts)
        rules = rules_of(request.searches.watches(source.network))
        first, last = _ends(request, source, contracts, depth)
        if not source.store.has_undo and request.dask is not None:
            raise UsageError(
                f"{source} has no rev*.dat, so each worker would read every block to know what transactions "
                "spend: scan without --dask, or add these files"
            )
        plan = Plan(source.store, request.searches, rules, request.verify, request.senders)
        with _claimed(request.folder) as parts:
            jobs, files = _jobs(parts, plan, _headers(source, first, last, request.verify))
            _scan_missing(request, plan, jobs, parts, on_file, say)
            blocks = join_blocks(request.folder, _headers(source, first, last, "off"))
            paths = {job.file: parts / job.part for job in jobs}
            inputs = join_inputs(request.folder, paths, enumerate(files, first))
            manifest = Manifest(
                version=version("virtualchain"),
                network=source.network.name,
                genesis_hash=source.network.genesis_hash,
                first=BlockRef(first, source.block_hash(first)),
                last=BlockRef(last, source.block_hash(last)),
                coverage=_coverage(rules, first),
                apps=(),
                files=(blocks, inputs),
            )
            digest = write_manifest(request.folder, manifest)
            shutil.rmtree(parts, ignore_errors=True)
    return Scanned(manifest, digest)


@contextmanager
def _claimed(folder: Path) -> Iterator[Path]:
    """Make the folder of parts, and keep other scans out of it."""
    if (folder / NAME).exists():
        raise UsageError(f"{folder} holds a complete export: scan into a new or empty folder")
    parts = folder / PARTS
    if folder.exists() and any(folder.iterdir()) and not parts.is_dir():
        raise UsageError(
            f"{folder} is not empty, and no scan has begun in it: scan into a new or empty folder"
        )
    try:
        parts.mkdir(parents=True, exist_ok=True)
        lock = (parts / _LOCK).open("wb")
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be written: {error.strerror}: choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another scan writes to {folder}: wait for it, or choose another folder"
            ) from error
        yield parts


def _ends(request: Request, source: FileSource, contracts: Sequence[Contract], depth: int) -> tuple[int, int]:
    """Return the first and the last block to scan; raises UsageError if there is none."""
    index = source.store.index
    stable = index.height(index.tip) - depth
    start = min((contract.start for contract in contracts), default=index.base)
    first = start if request.first is None else request.first
    last = stable if request.last is None else min(stable, request.last)
    if first > last:
        raise UsageError(
            f"there is no block to scan from {first} to {last}: {source} holds blocks {index.base} to "
            f"{index.height(index.tip)}, of which the last {depth} are not confirmed "
            "(--confirmations)"
        )
    return first, last


def _headers(source: FileSource, first: int, last: int, verify: Verification) -> Iterator[Block]:
    """Yield the headers of the chain to scan, checked as those of a node are."""
    store, network = source.store, source.network
    recent: dict[int, Block] = {}
    for start in range(first, last + 1, _PAGE):
        page = [_header(store, height) for height in range(start, min(start + _PAGE, last + 1))]
        try:
            require_chain(page, start, recent.get(start - 1))
            if verify != "off":
                for header in page:
                    check_work(header, network)
                check_targets(page, network, recent.get)
                check_times(page, network, recent.get)
        except MalformedBlock as error:
            raise MalformedBlock(f"{source}: {error}") from error
        recent.update((header.block_id, header) for header in page)
        for old in range(min(recent), page[-1].block_id - network.period - 1):
            del recent[old]
        yield from page


def _header(store: BlockStore, height: int) -> Block:
    number = store.index.active(height)
    if number is None:
        raise MissingData(
            f"{store} holds blocks {store.index.base} to {store.index.height(store.index.tip)} of the chain, "
            f"but not {height}: use files from there on (--from), or a node"
        )
    return store.header(number, height)


def _jobs(parts: Path, plan: Plan, headers: Iterable[Block]) -> tuple[list[Job], Sequence[int]]:
    """Divide the blocks by files: return the jobs without the plan's digest, and the file of each block."""
    index, files = plan.store.index, array("I")
    heights: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
    names: defaultdict[int, PartName] = defaultdict(partial(PartName, plan.identity()))
    for header in headers:
        number = index.active(header.block_id)
        assert number is not None, "the header was read from it"
        file = index.place(number).file
        files.append(file)
        heights[file].append(header.block_id)
        names[file].add(header)
    return [
        Job(str(parts.absolute()), "", file, heights[file], names[file].of(file)) for file in sorted(heights)
    ], files


def _scan_missing(
    request: Request,
    plan: Plan,
    jobs: Sequence[Job],
    parts: Path,
    on_file: OnFile,
    say: Callable[[str], None],
) -> None:
    """Have the files scanned that have no part yet, and forget what this scan cannot use."""
    _forget_others(parts, {job.part for job in jobs})
    index = plan.store.index
    sizes = {job.file: sum(map(partial(_size, index), job.heights)) for job in jobs}
    missing = [job for job in jobs if not (parts / job.part).exists()]
    done, size = len(jobs) - len(missing), sum(sizes.values()) - sum(sizes[job.file] for job in missing)
    on_file(Progress(done, len(jobs), size, sum(sizes.values())))
    if not missing:
        return
    digest = write_plan(parts, plan)
    missing = [replace(job, plan=digest) for job in missing]
    if request.dask is not None:
        finished = scan_by_dask(request.dask, missing)
    else:
        # Without undo data, each process would read all blocks to know what transactions spend.
        workers = request.workers if plan.store.has_undo else 1
        finished = scan_here(missing, workers, say)
    with closing(finished):
        for job in finished:
            done, size = done + 1, size + sizes[job.file]
            on_file(Progress(done, len(jobs), size, sum(sizes.values())))


def _size(index: BlockIndex, height: int) -> int:
    number = index.active(height)
    assert number is not None, "the header was read from it"
    return index.place(number).length


def _coverage(rules: Iterable[tuple[str, str]], first: int) -> tuple[Covered, ...]:
    searches = sorted({(bytes.fromhex(magic), rule) for magic, rule in rules})
    return tuple(Covered(magic, rule, first, None) for magic, rule in searches)


def _forget_others(parts: Path, needed: Collection[str]) -> None:
    """Remove what an earlier scan left and this one cannot use."""
    for path in parts.iterdir():
        if path.name not in needed and path.name != _LOCK:
            with suppress(OSError):
                path.unlink()
