"""The store of small dumps, one of each released revision of the schema, and the program that adds one.

`tests/data/schemas` has a chain (`chain.json.gz`), and for each revision what `pg_dump` wrote of a deployment
that its code had brought to block DUMPED, over a reorganization (`dumps.tar.xz`: packed together, they take
as much space as one of them). So the code of today can be asked to upgrade each, and to continue it.

    python -m tests.support.schema_dumps                    # a dump of the present revision
    python -m tests.support.schema_dumps REVISION FOLDER    # of an earlier one, by the checkout in FOLDER
"""

import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.revision import head
from virtualchain.testing import FakeNode
from virtualchain.testing.database import embedded_server, installations

FOLDER = Path(__file__).parents[1] / "data" / "schemas"
CHAIN, DUMPS = FOLDER / "chain.json.gz", FOLDER / "dumps.tar.xz"
FORKED, DUMPED, END = 9, 12, 18
"""The last block of the branch that is abandoned, of the dumps, and of the chain."""


def nodes() -> list[FakeNode]:
    """Serve the chain three times: up to the fork, as it was when the dumps were made, and all of it."""
    recorded = json.loads(gzip.decompress(CHAIN.read_bytes()))
    blocks = [bytes.fromhex(block) for block in recorded["blocks"]]
    counts = (recorded["forked"], recorded["dumped"], len(blocks))
    return [FakeNode.from_blocks("regtest", blocks[:count]) for count in counts]


@cache
def dumps() -> dict[str, bytes]:
    """Return the SQL of all dumps by their revisions, oldest first."""
    with tarfile.open(DUMPS) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name.removesuffix(".sql"): file.read() for name, file in files.items() if file}


def keep(revision: str, dump: bytes) -> None:
    """Add a dump to the store, or replace it."""
    kept = {**(dumps() if DUMPS.exists() else {}), revision: dump}
    with tarfile.open(DUMPS, "w:xz", preset=9) as archive:
        for name, content in sorted(kept.items()):
            member = tarfile.TarInfo(f"{name}.sql")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def restore(revision: str, url: str) -> None:
    """Restore a dump into an empty database."""
    psql = find_binaries(None, server_account()) / "psql"
    command = [str(psql), "-q", "-v", "ON_ERROR_STOP=1", url]
    subprocess.run(command, input=dumps()[revision], check=True, stdout=subprocess.DEVNULL)


def make_chain() -> None:
    """Write a chain; only for a new store, because every dump is of this one."""
    node, chance, blocks = FakeNode(premine=2), random.Random(18), []

    def mine() -> None:
        texts = [
            f"ttc{chance.choice(['ann', 'bob', 'cy'])} {chance.randrange(30)}",
            f"wdw{chance.choice(['one', 'two', 'thr33'])}",
            f"tt{chance.choice('cl')}{chance.choice(['ann', 'bob'])} {chance.choice(['7', 'x', '12'])}",
        ]
        node.mine([node.send(text.encode()) for text in texts])
        blocks.append(node.chain.tree.tip.raw)

    with node:
        blocks.extend(node.chain.raw_blocks()[1:])
        while node.height < FORKED:
            mine()
        counts = {"forked": len(blocks)}
        node.invalidate(FORKED - 2)
        while node.height < END:
            mine()
            if node.height == DUMPED:
                counts["dumped"] = len(blocks)
    content = json.dumps({**counts, "blocks": [block.hex() for block in blocks]})
    CHAIN.write_bytes(gzip.compress(content.encode(), mtime=0))


def make_dump(revision: str, checkout: Path) -> None:
    """Write the dump of the schema that a checkout's code has; the oldest PostgreSQL here makes it."""
    binaries = next(iter(installations().values()))
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    program = Path(__file__).with_name("dumped_apps.py")
    forked, dumped, whole = nodes()
    with embedded_server(binaries) as url, forked, dumped, whole:
        for node in (forked, dumped):
            subprocess.run([sys.executable, program, url, node.url], env=environment, check=True)
        command: list[Any] = [binaries / "pg_dump", "--no-owner", "--no-privileges", "-d", url]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # psql's protection against hostile servers has a random key, and older ones do not know it.
    kept = [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict", "--"))]
    lines = [line for line in kept if line]
    keep(revision, "\n".join([*lines, ""]).encode())


if __name__ == "__main__":
    if len(sys.argv) == 3:
        make_dump(sys.argv[1], Path(sys.argv[2]).absolute())
    else:
        make_dump(head(), Path(__file__).parents[2])
