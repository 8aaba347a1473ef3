"""One measurement in a process of its own, so that its peak memory is that of the measurement alone.

    python -m tests.benchmarks.worker fetch --node URL [--cookie FILE] --first N --last N
    python -m tests.benchmarks.worker sync --database URL [--verify header|merkle] … (and the same)

It prints one JSON object: seconds, seconds of the process's own work (sync), blocks, bytes (fetch) or inputs
(sync), and peak memory in bytes.
"""

import argparse
import http.client
import json
import resource
import sys
import time
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from tests.acceptance.accept_all import builder
from virtualchain import StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.options import Progress
from virtualchain.model import Verification


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description="Measure fetching or syncing blocks.")
    parser.add_argument("task", choices=["fetch", "sync"])
    parser.add_argument("--node", required=True)
    parser.add_argument("--cookie", type=Path)
    parser.add_argument("--database")
    parser.add_argument("--verify", choices=get_args(Verification), help="how much of a block is checked")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    options = parser.parse_args()
    source = open_source(options.node, options.cookie, rest=True)
    if options.task == "fetch":
        measured = fetch(source, options.node, options.first, options.last)
    else:
        measured = sync(source, options.database, options.first, options.last, options.verify)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured["peak"] = peak if sys.platform == "darwin" else peak * 1024
    print(json.dumps(measured))  # noqa: T201 - our parent process reads it


def fetch(source: BlockSource, url: str, first: int, last: int) -> dict[str, float]:
    """Fetch the blocks one after the other over one connection, and discard them."""
    block_id, block_hash = first - 1, source.block_hash(first - 1)
    hashes: list[str] = []
    while len(hashes) <= last - first:
        headers = source.headers_after(block_id, block_hash)
        assert headers, f"the node has no block {block_id + 1}"
        hashes += [block.hash for block in headers]
        block_id, block_hash = headers[-1].block_id, headers[-1].hash
    source.close()
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.connect()
    size = 0
    start = time.perf_counter()
    for block_hash in hashes[: last - first + 1]:
        connection.request("GET", f"/rest/block/{block_hash}.bin")
        answer = connection.getresponse()
        size += len(answer.read())
        assert answer.status == http.client.OK
    seconds = time.perf_counter() - start
    connection.close()
    return {"seconds": seconds, "blocks": last - first + 1, "bytes": size}


def sync(
    source: BlockSource, database: str, first: int, last: int, verify: Verification | None
) -> dict[str, float]:
    """Sync the blocks into an empty database with an app that accepts every op and stores a row for it."""
    inputs: list[int] = []

    def count(progress: Progress) -> None:
        inputs.append(progress.inputs)

    builder.first_block_id = first
    with StateEngine(
        builder, database=database, source=source, confirmations=0, verify=verify, on_block=count
    ) as engine:
        start, busy = time.perf_counter(), time.process_time()
        assert engine.build(last) == last
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return {"seconds": seconds, "cpu_seconds": busy, "blocks": len(inputs), "inputs": sum(inputs)}


if __name__ == "__main__":
    main()
