"""Sync one block, or some, whose transactions are as large as a stranger can make them; print what it took.

Run as `python -m tests.support.large_transactions CASE DATABASE`. Spent scripts are generated while they are
read, so that the memory of this process is the engine's.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from virtualchain import App, StateEngine
from virtualchain.bitcoin.block import split_transactions
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.model import SpentOutput
from virtualchain.testing import FakeNode
from virtualchain.testing.hostile import Spending, unsigned_transaction
from virtualchain.testing.transactions import Tx
from virtualchain.testing.wire import compact_size

CASES: Final = {
    # blocks, transactions in each, inputs and outputs of each, bytes of each spent script
    "long scripts": (1, 1, 13_300, 1, 10_000),
    "scripts that are kept": (1, 1, 24_000, 1, 5_000),
    "short scripts": (1, 1, 24_000, 1, 100),
    "many transactions": (1, 120, 195, 1, 5_000),
    "many outputs": (1, 1, 1, 100_000, 1),
    "several blocks": (6, 1, 6_000, 1, 10_000),
}


def transactions(number: int, count: int, inputs: int, outputs: int) -> list[Tx]:
    """Make the transactions of a block; what they really spend is declared later."""
    small = Spending(SpentOutput(10**9, b"\x51"))
    paid = [(1, b"")] * (outputs - 1)
    return [
        unsigned_transaction(number * count + n, [small] * inputs, [(0, op_return(b"bg!x")), *paid])
        for n in range(count)
    ]


def answer(raw: bytes, size: int) -> Iterator[bytes]:
    """Generate a node's answer with the spent outputs of a block, each script with `size` bytes."""
    bodies = split_transactions(raw)
    yield compact_size(len(bodies)) + b"\0"
    output = (10**9).to_bytes(8, "little") + compact_size(size) + b"\x61" * size
    for body in bodies[1:]:
        count = len(read_inputs(body))
        yield compact_size(count)
        yield from (output for _ in range(count))


def app(name: str) -> App:
    """Make an app that counts what it is given."""
    made = App(name, magic=b"bg", projections="CREATE TABLE seen (place text PRIMARY KEY, inputs integer)")
    made.add(
        b"!",
        parse=lambda payload, senders, outputs: {"senders": len(senders), "outputs": len(outputs)},
        commit=lambda op, state, block_id, vtxindex: (
            state.execute("INSERT INTO seen VALUES (%s, %s)", [f"{block_id}-{vtxindex}", op["senders"]])
            and None
        ),
    )
    return made


def main(case: str, database: str) -> None:
    """Sync with one app, then with a second that reads the tape; print the peak of memory in bytes."""
    blocks, count, inputs, outputs, size = CASES[case]
    with FakeNode() as node:
        for number in range(blocks):
            node.mine(transactions(number, count, inputs, outputs))
        raws = {stored.block.hash: stored.raw for stored in node.chain.tree.chain}
        source: Any = open_source(node.url)
        read = source._rest.read

        def with_large_scripts(path: str, limit: int, parse: Callable[[Iterator[bytes]], Any]) -> Any:
            if "spenttxouts" not in path:
                return read(path, limit, parse)
            return parse(answer(raws[path.rsplit("/", maxsplit=1)[-1].removesuffix(".bin")], size))

        source._rest.read = with_large_scripts
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for apps in ([app("first")], [app("first"), app("second")]):
            with StateEngine(*apps, database=database, source=source, confirmations=0) as engine:
                assert engine.build() == node.height
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"before": before * unit, "peak": peak * unit}))  # noqa: T201 - our parent process reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
