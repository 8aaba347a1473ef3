"""One measurement in a process of its own, whose peak memory is then that of this one thing.

    python -m tests.benchmarks.worker fetch --node URL [--cookie FILE] --first N --last N
    python -m tests.benchmarks.worker sync --database URL … (and the same)

Prints one JSON object: seconds, blocks, bytes (fetch) or inputs (sync), and peak memory in bytes.
"""

import argparse
import http.client
import json
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.accept_all import builder
from virtualchain import StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.options import Progress


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure one thing.")
    parser.add_argument("what", choices=["fetch", "sync"])
    parser.add_argument("--node", required=True)
    parser.add_argument("--cookie", type=Path)
    parser.add_argument("--database")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    given = parser.parse_args()
    source = open_source(given.node, given.cookie, rest=True)
    if given.what == "fetch":
        measured = fetch(source, given.node, given.first, given.last)
    else:
        measured = sync(source, given.database, given.first, given.last)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured["peak"] = peak if sys.platform == "darwin" else peak * 1024
    print(json.dumps(measured))  # noqa: T201 - the one who started us reads it


def fetch(source: BlockSource, url: str, first: int, last: int) -> dict[str, float]:
    """Get the blocks one after the other over one connection, and do nothing with them."""
    block_id, block_hash = first - 1, source.block_hash(first - 1)
    hashes: list[str] = []
    while len(hashes) <= last - first:
        headers = source.headers_after(block_id, block_hash)
        assert headers, f"the node has no block {block_id + 1}"
        hashes += [block.hash for block in headers]
        block_id, block_hash = headers[-1].block_id, headers[-1].hash
    source.close()
    where = urlsplit(url)
    assert where.hostname is not None
    connection = http.client.HTTPConnection(where.hostname, where.port)
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


def sync(source: BlockSource, database: str, first: int, last: int) -> dict[str, float]:
    """Run an app that accepts every op, and keeps a row of it, over the blocks into an empty database."""
    seen: list[int] = []

    def count(progress: Progress) -> None:
        seen.append(progress.inputs)

    builder.first_block_id = first
    with StateEngine(builder, database=database, source=source, confirmations=0, on_block=count) as engine:
        start = time.perf_counter()
        assert engine.build(last) == last
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "blocks": len(seen), "inputs": sum(seen)}


if __name__ == "__main__":
    main()
