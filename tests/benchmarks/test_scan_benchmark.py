"""The benchmark of scans runs and shows its results; the test does not judge how long anything takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks import scan
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer import scanning
from virtualchain.transfer.parts import Job, scan_file


def test_scan_and_import_are_measured(
    database_server: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way is measured on the same files; processes are left out, as starting them takes long."""

    def scan_here(jobs: Sequence[Job], *_: object) -> Iterator[Job]:
        return (job for job in jobs if scan_file(job))

    monkeypatch.setattr(scanning, "scan_here", scan_here)
    scan.write_files(tmp_path / "blocks", 1, 5)
    result = scan.measure(tmp_path, database_server, [1], 1)
    assert result.blocks == 8
    assert result.rows > 2000
    assert result.estimate(64) < result.estimate(16)
    console = Console(width=100)
    with console.capture() as printed:
        console.print(scan.table(result))
    assert "640 GB, 64 workers (arithmetic)" in printed.get()
