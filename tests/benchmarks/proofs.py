"""Size, hops and time of op proofs on a chain that is as long as mainnet's will be.

    python -m tests.benchmarks.proofs [--blocks 1000000] [--proofs 200] [--json]

The chain is made up: the consensus hashes of an app with three ops in every hundredth block, without a
database. Ops are proved from the last block, at random places, and at those that need the most hops. A check
begins with the bytes of the file. Times are of this process; medians and the largest values are shown.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.table import Table

from tests.benchmarks.printing import report
from virtualchain.bitcoin.compiled import consensus_hash
from virtualchain.consensus import make_op_proof, ops_hash, prior_block_ids
from virtualchain.consensus.digests import EMPTY_OPS_HASH
from virtualchain.consensus.proof_file import write_proof
from virtualchain.proof.checking import check_file

_SIZE: Final = 16
_EVERY: Final = 100


@dataclass(frozen=True)
class Result:
    """Medians and largest values of some proofs on a chain of so many blocks."""

    blocks: int
    proofs: int
    bytes: tuple[float, float]
    hops: tuple[float, float]
    make: tuple[float, float]
    """Milliseconds."""
    check: tuple[float, float]
    """Milliseconds."""


class Chain:
    """The consensus hashes of a made-up app from block 0 on."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._hashes = bytearray()
        for block_id in range(blocks):
            priors = [self.consensus_hash(prior) for prior in prior_block_ids(block_id, 0)]
            self._hashes += bytes.fromhex(consensus_hash(self.ops_hash(block_id), priors))

    def consensus_hash(self, block_id: int) -> str:
        """Return a block's consensus hash."""
        return self._hashes[_SIZE * block_id : _SIZE * (block_id + 1)].hex()

    def ops(self, block_id: int) -> list[bytes]:
        """Return a block's ops, of the size of a transfer."""
        if block_id % _EVERY:
            return []
        return [b"t:64:%064d,34:%034d,8:%08d" % (block_id, place, block_id) for place in range(3)]

    def ops_hash(self, block_id: int) -> str:
        """Return a block's ops hash."""
        return EMPTY_OPS_HASH if block_id % _EVERY else ops_hash(self.ops(block_id))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure proofs of ops.")
    parser.add_argument("--blocks", type=int, default=1_000_000, help="blocks (default: 1,000,000)")
    parser.add_argument("--proofs", type=int, default=200, help="proofs (default: 200)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    result = measure(options.blocks, options.proofs)
    report(asdict(result), table(result), as_json=options.json)


def measure(blocks: int, proofs: int) -> Result:
    """Make and check proofs from the chain's last block."""
    chain = Chain(blocks)
    last = blocks - 1
    trusted = chain.consensus_hash(last)
    sizes, hops, made, checked = [], [], [], []
    for block_id in _targets(blocks, proofs):
        started = time.process_time()
        proof = make_op_proof(
            app="transfers",
            first_block_id=0,
            trusted_block_id=last,
            block_id=block_id,
            index=0 if chain.ops(block_id) else None,
            ops_hash_at=chain.ops_hash,
            consensus_hash_at=chain.consensus_hash,
            ops_at=chain.ops,
        )
        data = write_proof(proof).encode()
        made.append(1000 * (time.process_time() - started))
        started = time.process_time()
        check_file(data, trusted)
        checked.append(1000 * (time.process_time() - started))
        sizes.append(len(data))
        hops.append(len(proof["hops"]))
    return Result(blocks, len(sizes), _both(sizes), _both(hops), _both(made), _both(checked))


def _targets(blocks: int, proofs: int) -> list[int]:
    """Choose blocks with ops at random, and those that each gap of the skip list leads to once."""
    chance = random.Random(1)
    distances, total = [], 0
    for power in range(1, blocks.bit_length()):
        total += 2**power - 1
        distances.append(total)
    far = [blocks - 1 - distance for distance in distances if distance < blocks]
    return [*far, *(chance.randrange(blocks) // _EVERY * _EVERY for _ in range(proofs))]


def _both(values: Sequence[float]) -> tuple[float, float]:
    return statistics.median(values), max(values)


def table(result: Result) -> Table:
    """Format the result."""
    grid = Table(f"{result.proofs:,} proofs on {result.blocks:,} blocks", "median", "largest")
    for column in grid.columns[1:]:
        column.justify = "right"
    for name, (median, largest), form in (
        ("size, bytes", result.bytes, ",.0f"),
        ("hops", result.hops, ",.0f"),
        ("making it, ms", result.make, ".2f"),
        ("checking it, ms", result.check, ".2f"),
    ):
        grid.add_row(name, format(median, form), format(largest, form))
    return grid


if __name__ == "__main__":
    main()
