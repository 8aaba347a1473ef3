"""A generated chain that resembles mainnet's, and a real node that has it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind

GENERATOR = Path(__file__).parents[3] / "shared" / "tools" / "genchain.py"


@dataclass(frozen=True)
class GeneratedChain:
    """The generator's output: regtest blocks, the last few with up to thousands of transactions."""

    file: Path
    """The blocks, in `blk*.dat` framing."""
    index: list[list[Any]]
    """By block: height, hash, offset of its bytes in the file, their length, …"""
    truth: dict[str, list[dict[str, Any]]]
    """By height, the transactions with the magic `id`: txid, txpos, payload, fee, senders, outputs."""

    def hash(self, block_id: int) -> str:
        """Return a block's hash."""
        return str(self.index[block_id][1])

    def raw(self, block_id: int) -> bytes:
        """Return a block's bytes."""
        offset, length = self.index[block_id][2:4]
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    @property
    def tip(self) -> int:
        """The height of the last block."""
        return len(self.index) - 1


def generate(folder: Path, **options: int) -> GeneratedChain:
    """Run the generator with options such as `full=4`; the same options produce the same chain."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command: list[str | Path] = [sys.executable, GENERATOR, "--out", folder, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read(folder)


def read(folder: Path) -> GeneratedChain:
    """Read a chain that the generator has written."""
    return GeneratedChain(
        file=folder / "blocks.dat",
        index=json.loads((folder / "index.json").read_text()),
        truth=json.loads((folder / "truth.json").read_text()),
    )


def load(chain: GeneratedChain, *arguments: str) -> Bitcoind:
    """Start a real node with REST and load the chain into it; skip if there is no bitcoind."""
    program = find_bitcoind()
    if program is None:
        reason = "no bitcoind: set BITCOIND to its path, or put it on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (in CI these tests must run)")
        pytest.skip(reason)
    node = Bitcoind(program, f"-loadblock={chain.file}", *arguments)
    try:
        node.wait_for_height(chain.tip, timeout=300)
    except BaseException:
        node.stop()
        raise
    return node
