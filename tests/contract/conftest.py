"""A generated chain that resembles mainnet's, and a real node that holds it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind

GENERATOR = Path(__file__).parents[3] / "shared" / "tools" / "genchain.py"


@dataclass(frozen=True)
class GeneratedChain:
    """What the generator wrote: 134 regtest blocks, the last five with up to thousands of transactions."""

    file: Path
    """The blocks, in `blk*.dat` framing."""
    index: list[list[Any]]
    """Per block: height, hash, where its bytes lie in the file, their length, …"""
    truth: dict[str, list[dict[str, Any]]]
    """By height, the transactions with the magic `id`: txid, txpos, payload, fee, senders, outputs."""

    def hash(self, block_id: int) -> str:
        """Give a block's hash."""
        return str(self.index[block_id][1])

    def raw(self, block_id: int) -> bytes:
        """Give a block's bytes."""
        offset, length = self.index[block_id][2:4]
        return self.file.read_bytes()[offset : offset + length]

    @property
    def tip(self) -> int:
        """Give the height of the last block."""
        return len(self.index) - 1


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedChain:
    """Generate the chain once; skips where the generator is not here."""
    if not GENERATOR.exists():
        pytest.skip("shared/tools/genchain.py is not here")
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([sys.executable, GENERATOR, "--out", folder, "--full", "3", "--small", "2"], check=True)
    return GeneratedChain(
        file=folder / "blocks.dat",
        index=json.loads((folder / "index.json").read_text()),
        truth=json.loads((folder / "truth.json").read_text()),
    )


@pytest.fixture(scope="session")
def loaded_bitcoind(generated: GeneratedChain) -> Iterator[Bitcoind]:
    """Give a real node, REST on, that holds the generated chain; skips where there is no bitcoind."""
    program = find_bitcoind()
    if program is None:
        reason = "no bitcoind: name one in the environment's BITCOIND, or put it on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (in CI these tests must run)")
        pytest.skip(reason)
    node = Bitcoind(program, f"-loadblock={generated.file}")
    try:
        node.wait_for_height(generated.tip)
        yield node
    finally:
        node.stop()
