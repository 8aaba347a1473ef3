"""Scans of block files: the bytes of an export, whoever scans what, and whatever ends in between."""

import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import psycopg
import pytest
from dask.distributed import LocalCluster
from pyarrow import parquet

from tests.unit.bitcoin.files.writing import KEY, append, frame, write_blocks, write_undo
from virtualchain import StateEngine
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.errors import MissingData, NodeError, UsageError
from virtualchain.loading import load_app
from virtualchain.testing import ChainBuilder
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer import files, importing, parts, scanning
from virtualchain.transfer.exporting import export
from virtualchain.transfer.importing import import_tape
from virtualchain.transfer.manifest import read_manifest
from virtualchain.transfer.parts import Searches, scan_file
from virtualchain.transfer.scanning import PARTS, Progress, Request, Scanned, scan

APPS = '''
import os
import signal
from pathlib import Path

from virtualchain import App
from virtualchain.bitcoin.payload import runestone

HERE = Path(__file__).parent


def find(outputs):
    """End the process if the test says so; otherwise find what follows OP_RETURN and a push."""
    scripts = [bytes.fromhex(output["script_pubkey"]) for output in outputs]
    for script in scripts:
        if script[:1] == b"j" and script[2:].startswith(b"id!deadly") and (HERE / "deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if script[:1] == b"j" and script[2:].startswith(b"id!deadly") and (HERE / "once").exists():
            (HERE / "once").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return next((script[2:] for script in reversed(scripts) if script[:1] == b"j"), None)


own = App("own", magic=b"id", payload_rule=find)
own.add(b"!", parse=lambda payload: {"text": payload.hex()})
aged = App("aged", magic=b"st", needs=["height"])
aged.add(b"o", parse=lambda payload, senders: {"height": senders[0]["height"]})
TABLE = "CREATE TABLE held (txid text, vout integer, PRIMARY KEY (txid, vout))"
tracking = App("tracking", magic=b"tr", projections=TABLE, tracks="held")
tracking.add(b"o", parse=lambda payload: {})
tracking.spend(type("Spend", (), {"parse": lambda self, payload: {}}))
'''


INPUTS = "SELECT to_jsonb(i) FROM vc.inputs AS i ORDER BY block_id, txindex"
DIGESTS = "SELECT app, block_id, ops_hash, consensus_hash FROM virtualchain.snapshots ORDER BY app, block_id"


@dataclass(frozen=True)
class Story:
    """Block files, what a sync and an export make of them, and the scan that shall make the same."""

    folder: Path
    blocks: Path
    export: Path
    url: str
    request: Request

    def scan(self, out: Path, **options: object) -> Scanned:
        """Scan into a folder."""
        return scan(replace(self.request, folder=out, **options))  # type: ignore[arg-type]  # any of its fields


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def sync(url: str, blocks: Path, apps: list[object]) -> None:
    """Take the blocks of files that have two confirmations."""
    with StateEngine(*apps, database=url, source=open_blocks(blocks), confirmations=2) as engine:
        engine.build()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, database_server: DatabaseServer) -> Iterator[Story]:
    """Write the files of a node that saw a fork and got blocks out of order, and sync and export them."""
    folder = tmp_path_factory.mktemp("scan")
    (folder / "apps.py").write_text(APPS)
    blocks = folder / "blocks"
    blocks.mkdir()
    chain = ChainBuilder()
    for n in range(12):
        long = b"8" * 2500 if n == 8 else b""
        sent = [chain.send(b"id!%d" % n, sender=f"someone {n}"), chain.send(b"sto" + long, sender="bob")]
        chain.mine([*sent, chain.send(b"id!deadly") if n == 5 else chain.send(b"no!")])
    chain.mine([chain.send(b"id!stale")])
    chain.reorg(1, 3, [chain.send(b"id!instead", sender="carol")])
    stale = next(tip.stored for tip in chain.tree.tips() if tip.branch_length)
    order = list(chain.tree.chain)
    lists = [order[:40], [*order[40:60], *order[105:108]], [*order[60:105], stale], order[108:]]
    (blocks / "xor.dat").write_bytes(KEY)
    for n, each in enumerate(lists):
        write_blocks(blocks / f"blk{n:05}.dat", chain, each, KEY)
        write_undo(blocks / f"rev{n:05}.dat", chain, each, KEY)
    # The node is writing: half a block, in room that it has reserved.
    half = frame(chain.network, order[-1].raw)[:120]
    append(blocks / "blk00003.dat", half, KEY)
    uses = [f"{folder}/apps.py:{name}" for name in ("own", "aged")]
    url = database_server.clone()
    apps = [load_app(use) for use in uses]
    sync(url, blocks, apps)
    request = Request(blocks, folder, Searches(tuple(uses)), confirmations=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_GROUP_ROWS", 7)
        patch.setattr(files, "_GROUP_BYTES", 6_000)
        export(url, folder / "export", what=["tape"])
        yield Story(folder, blocks, folder / "export", url, request)
    database_server.drop(url)


def test_a_scan_has_the_bytes_of_an_export(story: Story, tmp_path: Path) -> None:
    """One worker, or three of which one is killed: nothing differs but what follows from apps' states."""
    one = story.scan(tmp_path / "one")
    (story.folder / "once").touch()
    three = story.scan(tmp_path / "three", workers=3)
    assert not (story.folder / "once").exists()
    assert three.sha256 == one.sha256
    exported = read_manifest(story.export)
    assert replace(one.manifest, apps=exported.apps) == exported
    for name in ("blocks.parquet", "inputs.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (story.export / name).read_bytes()
        assert (tmp_path / "three" / name).read_bytes() == (story.export / name).read_bytes()
    names = ["blocks.parquet", "inputs.parquet", "manifest.json"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names


def test_what_was_scanned_is_imported(
    story: Story,
    tmp_path: Path,
    database_url: str,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The apps reach the same digests as those of the sync, whether processes check the rows or nobody."""
    story.scan(tmp_path / "scan")
    monkeypatch.setattr(importing, "_ROWS", 5)
    import_tape(database_url, tmp_path / "scan", workers=2)
    import_tape(empty_database_url, tmp_path / "scan", is_checked=False)
    assert rows(database_url, INPUTS) == rows(empty_database_url, INPUTS)
    apps = [load_app(use) for use in story.request.searches.apps]
    sync(database_url, story.blocks, apps)
    assert rows(database_url, DIGESTS) == rows(story.url, DIGESTS)


def test_a_dask_cluster_that_loses_a_worker(story: Story, tmp_path: Path) -> None:
    """Two workers of a cluster, of which one is killed while it scans, write the same bytes."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        (story.folder / "once").touch()
        done = story.scan(tmp_path / "dask", dask=cluster.scheduler_address)
        assert not (story.folder / "once").exists()
    assert done.manifest.files == read_manifest(story.export).files


def test_a_deadly_file_is_named_and_the_rest_is_kept(story: Story, tmp_path: Path) -> None:
    """A file that ends every process is given up; the next scan goes on with it alone."""
    (story.folder / "deadly").touch()
    with pytest.raises(NodeError, match=r"blk00001\.dat was not scanned: it cost .* by signal 9"):
        story.scan(tmp_path / "out")
    (story.folder / "deadly").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / PARTS).glob("*.arrow")}
    assert any(name.startswith("blk00000-") for name in kept)
    seen: list[Progress] = []
    done = scan(replace(story.request, folder=tmp_path / "out"), on_file=seen.append)
    assert seen[0].files == len(kept)
    assert done.manifest.files == read_manifest(story.export).files


def test_a_part_is_read_batch_by_batch(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups are those of an export, wherever files, batches and forks divide the rows."""
    monkeypatch.setattr(parts, "_ROWS", 3)
    monkeypatch.setattr(scanning, "scan_here", lambda jobs, *_: (job for job in jobs if scan_file(job)))
    done = story.scan(tmp_path / "out")
    exported = parquet.ParquetFile(story.export / "inputs.parquet").metadata
    *sizes, _ = (exported.row_group(n).num_rows for n in range(exported.num_row_groups))
    assert max(sizes) == 7
    assert min(sizes) < 7
    assert done.manifest.files == read_manifest(story.export).files


def test_other_searches_do_not_take_the_parts_that_are_there(story: Story, tmp_path: Path) -> None:
    """A part belongs to one chain and one set of searches."""
    stop = Progress(1, 4, 0, 0)

    def interrupt(progress: Progress) -> None:
        if progress.files == stop.files:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(replace(story.request, folder=tmp_path / "out"), on_file=interrupt)
    seen: list[Progress] = []
    other = replace(story.request, folder=tmp_path / "out", searches=Searches(magics=("6964",)))
    done = scan(other, on_file=seen.append)
    assert seen[0].files == 0
    assert [(row.magic, row.rule) for row in done.manifest.coverage] == [(b"id", "last_op_return")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"searches": Searches()}, "name what to scan for"),
        ({"searches": Searches(magics=("xy",))}, "write the magic in hex"),
        ({"searches": Searches(magics=("6964:mine",))}, "there is no rule 'mine'"),
        ({"searches": Searches(magics=("",))}, "needs a magic"),
        ({"first": 5000}, "there is no block to scan from 5000"),
        ({"dask": "tcp://127.0.0.1:1"}, "there is no Dask scheduler"),
    ],
)
def test_wrong_requests(story: Story, tmp_path: Path, options: dict[str, object], message: str) -> None:
    """Each is refused with what to do."""
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100ms"}),
        pytest.raises(UsageError, match=message),
    ):
        story.scan(tmp_path / "out", **options)


def test_an_app_that_tracks_outputs_is_refused(story: Story, tmp_path: Path) -> None:
    """What it sees depends on its state."""
    searches = Searches((f"{story.folder}/apps.py:tracking",))
    with pytest.raises(UsageError, match="app tracking tracks outputs"):
        story.scan(tmp_path / "out", searches=searches)


def test_what_a_node_has_pruned_and_what_is_missing(story: Story, tmp_path: Path) -> None:
    """Without the first files, the scan begins where the blocks do; a block without undo data is named."""
    pruned = tmp_path / "blocks"
    shutil.copytree(story.blocks, pruned, ignore=shutil.ignore_patterns("*00000.dat"))
    options = {"blocks": pruned, "searches": Searches(magics=("6964",)), "workers": 2}
    done = story.scan(tmp_path / "out", **options)
    assert done.manifest.first is not None
    assert done.manifest.first.block_id == 40
    (pruned / "rev00002.dat").unlink()
    with pytest.raises(MissingData, match=r"has no undo data of block [0-9a-f]{64}"):
        story.scan(tmp_path / "other", **options)


def test_a_plan_that_somebody_changed_is_not_read(story: Story, tmp_path: Path) -> None:
    """It can hold code, so a worker reads only what the one who asks has written."""
    plan = parts.Plan(open_blocks(story.blocks).store, story.request.searches, (), "merkle", "node")
    digest = parts.write_plan(tmp_path, plan)
    (tmp_path / digest).write_bytes((tmp_path / digest).read_bytes() + b".")
    with pytest.raises(UsageError, match="was changed"):
        scan_file(parts.Job(str(tmp_path), digest, 0, array("I"), "part"))


def test_a_worker_with_other_rules_ends_the_scan(story: Story, tmp_path: Path) -> None:
    """Its version of an app may be another one: what it finds would not be what was asked for."""
    plan = parts.Plan(open_blocks(story.blocks).store, story.request.searches, (), "merkle", "node")
    digest = parts.write_plan(tmp_path, plan)
    with pytest.raises(UsageError, match="searches by other rules than the scan's"):
        scan_file(parts.Job(str(tmp_path), digest, 0, array("I"), "part"))
