"""One measurement in a process of its own, so that its peak memory is that of the measurement alone.

    python -m tests.benchmarks.worker fetch --node URL [--cookie FILE] --first N --last N
    python -m tests.benchmarks.worker spent … (the same)
    python -m tests.benchmarks.worker sync --databases URL … [--verify LEVEL] [--absent COUNT] [--stages]
        [--source rest|rpc|files] [--blocks PATH] …

The first pass over the blocks only warms up; the number of databases, or `--passes`, is that of all passes.
It prints one JSON object: the median seconds, blocks, bytes (fetch, spent) or inputs (sync), the seconds of
each stage in the last pass, the seconds of CPU that this process used, and its peak memory in bytes.
"""

import argparse
import http.client
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from tests.acceptance.accept_all import MAGIC, builder
from tests.benchmarks.stages import Stages
from virtualchain import App, StateEngine
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.payload import last_op_return
from virtualchain.bitcoin.source import BlockSource
from virtualchain.engine.options import Progress
from virtualchain.model import DEFAULT_RULE, Block, Verification, Watch


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description="Measure fetching or syncing blocks.")
    parser.add_argument("task", choices=["fetch", "spent", "sync"])
    parser.add_argument("--node", required=True)
    parser.add_argument("--cookie", type=Path)
    parser.add_argument("--databases", nargs="+", default=[])
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--source", choices=["rest", "rpc", "files"], default="rest")
    parser.add_argument("--blocks", type=Path, help="the node's files")
    parser.add_argument("--verify", choices=get_args(Verification), help="how much of a block is checked")
    parser.add_argument("--absent", type=int, default=0, help="sync so many apps that find no input")
    parser.add_argument("--stages", action="store_true", help="measure the stages")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    options = parser.parse_args(arguments)

    def open_it() -> BlockSource:
        if options.source == "files":
            return open_blocks(options.blocks)
        return open_source(options.node, options.cookie, rest=options.source == "rest")

    stages = Stages()
    if options.task == "sync":
        apps = [absent_app(number) for number in range(options.absent)] or [builder]
        passes = []
        for database in options.databases:
            stages.seconds.clear()
            with stages.measured() if options.stages else nullcontext():
                passes.append(sync(open_it(), database, apps, options.first, options.last, options.verify))
    else:
        with_spent = options.task == "spent"
        passes = fetch(
            open_it(), options.node, options.first, options.last, options.passes, with_spent=with_spent
        )
    warm = passes[1:] or passes
    measured = warm[-1] | {
        "seconds": statistics.median(each["seconds"] for each in warm),
        "cpu": statistics.median(each["cpu"] for each in warm),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured["peak"] = peak if sys.platform == "darwin" else peak * 1024
    measured["stages"] = dict(stages.seconds)
    print(json.dumps(measured))  # noqa: T201 - our parent process reads it


def fetch(
    source: BlockSource, url: str, first: int, last: int, passes: int, *, with_spent: bool
) -> list[dict[str, Any]]:
    """Fetch the blocks one after the other over one connection, and discard them; in several passes.

    With `with_spent`, also fetch all spent outputs of the blocks in which the magic of the sync's app occurs.
    """
    block_id, block_hash = first - 1, source.block_hash(first - 1)
    headers: list[Block] = []
    while len(headers) <= last - first:
        following = source.headers_after(block_id, block_hash)
        assert following, f"the node has no block {block_id + 1}"
        headers += following
        block_id, block_hash = headers[-1].block_id, headers[-1].hash
    del headers[last - first + 1 :]
    scanner = Scanner([Watch(MAGIC, DEFAULT_RULE, last_op_return, prefilter=True)], source.network)
    paths = []
    for block in headers:
        paths.append(f"/rest/block/{block.hash}.bin")
        if with_spent and scanner.scan(_checked(block, source)).candidates:
            paths.append(f"/rest/spenttxouts/{block.hash}.bin")
    source.close()
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.connect()
    measured = []
    for _ in range(passes):
        size = 0
        start, used = time.perf_counter(), time.process_time()
        for path in paths:
            connection.request("GET", path)
            answer = connection.getresponse()
            size += len(answer.read())
            assert answer.status == http.client.OK
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        measured.append({"seconds": seconds, "cpu": cpu, "blocks": len(headers), "bytes": size})
    connection.close()
    return measured


def _checked(block: Block, source: BlockSource) -> CheckedBlock:
    return CheckedBlock(block, source.raw_block(block.hash), source.network, "headers")


def absent_app(number: int = 0) -> App:
    """Make an app whose inputs occur in no block."""
    app = App(f"absent{number}", magic=b"no such magic %d" % number)
    app.add(b"!", parse=lambda payload: {}, commit=lambda op, state: None)
    return app


def sync(
    source: BlockSource,
    database: str,
    apps: Sequence[App],
    first: int,
    last: int,
    verify: Verification | None,
) -> dict[str, Any]:
    """Sync the blocks into an empty database."""
    inputs: list[int] = []

    def count(progress: Progress) -> None:
        inputs.append(progress.inputs)

    apps = [copy(app) for app in apps]  # which other users of this process have, too
    for app in apps:
        app.first_block_id = first
    with StateEngine(
        *apps, database=database, source=source, confirmations=0, verify=verify, on_block=count
    ) as engine:
        start, used = time.perf_counter(), time.process_time()
        assert engine.build(last) == last
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
    return {"seconds": seconds, "cpu": cpu, "blocks": len(inputs), "inputs": sum(inputs)}


if __name__ == "__main__":
    main()
