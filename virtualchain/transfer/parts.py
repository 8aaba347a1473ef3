"""The inputs in one block file, which a worker of a scan writes to a part: an Arrow file of the tape's rows.

A part has a name that is a digest of all that its content depends on, so one that an earlier scan left is
taken only if it is what would be written now. A worker has nothing but a job and the folder of the scan, so
it may be another process or on another machine.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.files.source import FileSource
from virtualchain.bitcoin.files.store import BlockStore
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.payload import shipped_rule, watch
from virtualchain.bitcoin.prefetch import fetch
from virtualchain.bitcoin.senders import Senders
from virtualchain.engine.coverage import watches_of
from virtualchain.errors import UsageError
from virtualchain.loading import load_app
from virtualchain.model import Block, Input, Json, SenderLevel, Verification, Watch
from virtualchain.transfer.files import INPUT_COLUMNS, Row, arrow_type, row_size

if TYPE_CHECKING:
    from array import array

FORMAT: Final = 1
"""Of parts; another one is never taken."""
SIZE: Final = "size"
"""The column of a part that the tape does not have: the bytes that a row counts for in a row group."""
_ROWS: Final = 2_000
_BYTES: Final = 4_000_000
"""A batch of rows is written once it reaches either limit; that bounds the memory in use."""
_WITHOUT_OPCODE: Final = " without opcode"
_WITH_HEIGHTS: Final = " with heights"


@dataclass(frozen=True, slots=True)
class Searches:
    """What a scan searches for, in a form that another process can make the same of."""

    apps: tuple[str, ...] = ()
    """As `load_app` takes them, with full paths."""
    magics: tuple[str, ...] = ()
    """Each is a magic in hex, and after a colon the rule as a manifest's coverage names it."""

    def contracts(self, network: Network) -> list[Contract]:
        """Load the apps; raises UsageError for one that needs state."""
        contracts = [read_contract(load_app(use)).on(network.name) for use in self.apps]
        for contract in contracts:
            if contract.tracks is not None:
                raise UsageError(
                    f"app {contract.name} tracks outputs: which transactions it sees follows from its state, "
                    "and a scan has none. Sync it from the same files: virtualchain sync --blocks PATH"
                )
        return contracts

    def watches(self, network: Network) -> list[Watch]:
        """Return the searches; raises UsageError as `contracts` does, and for a magic in error."""
        watches = watches_of(self.contracts(network))
        known = {(each.magic, each.rule) for each in watches}
        for named in map(_named_watch, self.magics):
            if (named.magic, named.rule) not in known:
                watches.append(named)
                known.add((named.magic, named.rule))
        return watches


def _named_watch(text: str) -> Watch:
    """Make the search that MAGIC or MAGIC:RULE names; raises UsageError."""
    magic, _, name = text.partition(":")
    try:
        prefix = bytes.fromhex(magic)
    except ValueError as error:
        raise UsageError(
            f"--magic {text}: write the magic in hex, and after a colon its rule unless that is the default, "
            "as in 6964 or 6964:first_op_return:6964"
        ) from error
    rest = name.removesuffix(_WITH_HEIGHTS)
    rule = shipped_rule(rest.removesuffix(_WITHOUT_OPCODE))
    if not prefix and not rule.patterns:
        raise UsageError(f"--magic {text}: the rule {rule.name} needs a magic, of one byte or more")
    has_opcode = not rest.endswith(_WITHOUT_OPCODE)
    return watch(prefix, rule, rule.name, has_opcode=has_opcode, needs_heights=rest != name)


@dataclass(frozen=True)
class Plan:
    """What all workers of a scan need: the index of the blocks, and what to do with each."""

    store: BlockStore
    searches: Searches
    rules: tuple[tuple[str, str], ...]
    """Magic (hex) and rule of each search: a worker with other code of an app must not go on."""
    verify: Verification
    senders: SenderLevel

    def identity(self) -> Json:
        """Return what the content of parts depends on, beside the blocks."""
        network = self.store.network
        return {
            "format": FORMAT,
            "network": [network.name, network.message_start.hex()],
            "rules": self.rules,
            "verify": self.verify,
            "senders": self.senders,
        }


@dataclass(frozen=True, slots=True)
class Job:
    """One block file to scan."""

    folder: str
    """The folder of parts."""
    plan: str
    """The SHA-256 of the plan, which is a file of that name."""
    file: int
    heights: "array[int]"
    """Of the active blocks in it, ascending."""
    part: str
    """The name of the part."""


def write_plan(folder: Path, plan: Plan) -> str:
    """Write a plan into the folder of parts; return its SHA-256, which is also its name."""
    content = pickle.dumps(plan)
    digest = hashlib.sha256(content).hexdigest()
    _replace(folder / digest, [content])
    return digest


class PartName:
    """Computes the name of a part from all that its content depends on."""

    def __init__(self, identity: Json) -> None:
        self._digest = hashlib.sha256(json.dumps(identity).encode())

    def add(self, header: Block) -> None:
        """Add the next block whose inputs are in it."""
        self._digest.update(b"\n%d %s" % (header.block_id, header.hash.encode()))

    def of(self, file: int) -> str:
        """Return the name of the part of a block file."""
        return f"blk{file:05}-{self._digest.hexdigest()[:40]}.arrow"


def scan_file(job: Job) -> str:
    """Scan a block file, and write its part, which gets its name once it is complete; return the name.

    Raises what `fetch` raises, and OSError if the part cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only

    worker = _worker(job.folder, job.plan)
    path = Path(job.folder) / job.part
    writing = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with writing.open("wb") as file:
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            schema = part_schema()
            with pa.ipc.new_file(file, schema, options=options) as writer:
                for rows in _batches(worker.rows(job.heights)):
                    columns = zip(*rows, strict=True)
                    arrays = [
                        pa.array(list(values), field.type)
                        for values, field in zip(columns, schema, strict=True)
                    ]
                    writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            file.flush()
            os.fsync(file.fileno())
        writing.replace(path)
    except BaseException as error:
        with suppress(OSError):
            writing.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk is reported with it
        raise
    return job.part


def part_schema() -> Any:  # noqa: ANN401 - pyarrow has no type hints
    """Return the columns of a part: those of the tape's inputs, and the size."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only

    return pa.schema([(name, arrow_type(kind)) for name, kind in (*INPUT_COLUMNS, (SIZE, "int64"))])


@lru_cache(maxsize=1)
def _worker(folder: str, digest: str) -> "_Worker":
    """Read the plan: only what the one who asks has written, as it can hold code."""
    content = (Path(folder) / digest).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UsageError(f"{Path(folder) / digest} was changed: start the scan again")
    return _Worker(pickle.loads(content))  # noqa: S301 - its digest came with the job


class _Worker:
    """Reads blocks from the files, and makes the rows of their inputs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._source = FileSource(plan.store)
        watches = plan.searches.watches(self._source.network)
        if rules_of(watches) != plan.rules:
            raise UsageError(
                "this worker's code of the apps searches by other rules than the scan's: install the same "
                f"version of {', '.join(plan.searches.apps)} on every machine, then start the scan again"
            )
        self._scanner = Scanner(watches, self._source.network)

    def rows(self, heights: Sequence[int]) -> Iterator[Row]:
        """Yield the rows of the inputs of some active blocks."""
        store, senders = self._plan.store, Senders(self._plan.senders)
        for height in heights:
            number = store.index.active(height)
            assert number is not None, "the plan's chain has it"
            header = store.header(number, height)
            block = fetch(self._source, self._scanner, header, verify=self._plan.verify, senders=senders)
            for item in block.inputs:
                row = as_row(item)
                yield (*row, row_size(row))


def rules_of(watches: Iterable[Watch]) -> tuple[tuple[str, str], ...]:
    """Return magic (hex) and rule of each search."""
    return tuple((each.magic.hex(), each.rule) for each in watches)


def as_row(item: Input) -> Row:
    """Return an input as the view `virtualchain.inputs` has it, in the order of the file's columns."""
    return (
        item.block_id,
        item.txindex,
        item.txid,
        list(item.magics),
        _jsonb([sender.as_dict() for sender in item.senders]),
        _jsonb([output.as_dict() for output in item.outputs]),
        item.fee,
        item.raw,
        None if item.spent_at is None else list(item.spent_at),
        list(item.tracked_by),
    )


def _jsonb(items: Sequence[Json]) -> str:
    """Write objects as PostgreSQL writes jsonb: shorter keys first, then in the order of their bytes."""
    ordered = [{key: item[key] for key in sorted(item, key=_key_order)} for item in items]
    return json.dumps(ordered, ensure_ascii=False)


def _key_order(key: str) -> tuple[int, str]:
    return len(key), key


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Divide rows, whose last value is their size, into batches."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row[-1]
        if len(batch) == _ROWS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _replace(path: Path, content: Iterable[bytes]) -> None:
    """Write a file that has its name only once it is complete."""
    writing = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    with writing.open("wb") as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)
