"""docs/migration.md: an app moves from a real litecoind's chain to a real bitcoind's, as the page says."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.litecoind import program
from virtualchain import StateEngine
from virtualchain.loading import load_app
from virtualchain.testing import ChainBuilder, key
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer

pytestmark = pytest.mark.node
PAGE = Path(__file__).parents[3] / "docs" / "migration.md"
AUTHORITY = key("authority").script_pubkey.hex()
SENDERS = [f"holder {number}" for number in range(20)]
OPS = 1000
BEGIN = 120


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Deployment:
    """A chain that is made here, a real node that has it, and a database of the app's."""

    def __init__(self, name: str, node: Bitcoind, url: str, app: object, chain: ChainBuilder) -> None:
        self.name = name
        self.node = node
        self.url = url
        self.chain = chain
        self._app = app
        self._handed = set[bytes]()

    def mine(self, *txs: Any, n: int = 1) -> None:
        """Mine blocks, and hand the node what it does not have."""
        self.chain.mine(txs)
        if n > 1:
            self.chain.mine(n=n - 1)
        self.hand_over()

    def hand_over(self) -> None:
        """Hand the node the blocks that it does not have."""
        for raw in self.chain.raw_blocks()[1:]:
            if raw not in self._handed:
                assert self.node.rpc("submitblock", raw.hex()) in {None, "inconclusive"}
                self._handed.add(raw)

    def build(self) -> None:
        """Have the app take all blocks."""
        with StateEngine(self._app, database=self.url, source=self.node.url, confirmations=0) as engine:
            engine.build()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    @property
    def hash(self) -> bytes:
        """The last consensus hash."""
        [(text,)] = self.query(
            "SELECT consensus_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1"
        )
        return bytes.fromhex(text)

    def send(
        self, opcode: bytes, number: int, sender: str, more: bytes = b"", at: bytes | None = None
    ) -> Any:
        """Write an input that embeds the last hash, or another one."""
        payload = b"lg" + opcode + (at or self.hash) + number.to_bytes(4, "big") + more
        return self.chain.send(payload, sender)

    def digests(self) -> list[tuple[Any, ...]]:
        """Return all digests, and the rows."""
        return [
            *self.query("SELECT block_id, consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY 1"),
            *self.query("SELECT owner, points FROM ledger.points ORDER BY 1"),
        ]


Open = Callable[[str, Bitcoind], Deployment]


@pytest.fixture
def opened(
    tmp_path: Path, database_server: DatabaseServer, bitcoind_factory: Callable[..., Bitcoind]
) -> Iterator[tuple[Deployment, Deployment, Deployment]]:
    """Open one deployment on Litecoin, and two on Bitcoin, with the page's app and settings."""
    code = blocks("python")[0].replace("0014…", AUTHORITY)
    (tmp_path / "ledger.py").write_text(code)
    app = load_app(str(tmp_path / "ledger.py"))
    with ExitStack() as stack:
        nodes = {"litecoin-regtest": Bitcoind(program(), "-txindex=1"), "regtest": bitcoind_factory()}
        stack.callback(nodes["litecoin-regtest"].stop)
        chains = {name: ChainBuilder(name) for name in nodes}
        deployments = []
        for name, network in (("old", "litecoin-regtest"), ("new", "regtest"), ("other", "regtest")):
            url = database_server.clone()
            stack.callback(database_server.drop, url)
            deployments.append(Deployment(name, nodes[network], url, app, chains[network]))
            settings = {"network": network, "bitcoin": nodes[network].url, "database": url}
            lines = [*(f'{name} = "{value}"' for name, value in settings.items()), "confirmations = 0"]
            text = "\n".join(["[virtualchain]", *lines, "[[apps]]", 'use = "./ledger.py"', ""])
            (tmp_path / f"{name}.toml").write_text(text)
            (tmp_path / f"{name}.toml").chmod(0o600)
        yield deployments[0], deployments[1], deployments[2]


def run(folder: Path, command: str) -> str:
    """Run one of the page's commands; return what it prints."""
    words = shlex.split(command)
    assert words[0] == "virtualchain"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-m", "virtualchain", *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_ledger_moves_from_litecoin_to_bitcoin(
    opened: tuple[Deployment, Deployment, Deployment], tmp_path: Path
) -> None:
    """A thousand ops; two deployments go on with equal hashes, and the old chain's inputs are refused."""
    old, new, other = opened
    make, go_on, look = (text.strip().splitlines() for text in blocks("sh"))
    old.hand_over()
    old.build()
    for at in range(0, OPS, 100):
        old.mine(*(old.send(b"c", at + n, SENDERS[n % 20]) for n in range(100)))
        old.build()
    assert old.query("SELECT sum(points), count(*) FROM ledger.points") == [(OPS * (OPS - 1) // 2, 20)]

    old.mine(old.send(b"x", 0, "eve"), old.send(b"x", 0, "authority"), old.send(b"c", 1, "bob"))
    _, public, _ = (run(tmp_path, command).strip() for command in make)
    file = tmp_path / "ledger.checkpoint"
    sha256 = hashlib.sha256(file.read_bytes())
    closing, last = old.chain.height, old.hash
    announced = [old.send(b"a", BEGIN, name, sha256.digest()) for name in ("mallory", "authority")]
    old.mine(*announced, old.send(b"c", 1, "bob"))
    old.build()
    [(block_id, txid, digest, begin)] = old.query(blocks("sql")[0])
    assert (block_id, txid, digest) == (closing + 1, announced[1].txid, sha256.hexdigest())
    assert begin == str(BEGIN)
    reasons = old.query("SELECT reason, count(*) FROM virtualchain.rejections GROUP BY 1 ORDER BY 1")
    assert reasons == [("only the authority may do this", 2), ("the ledger is closed", 2)]

    new.mine(n=BEGIN + 1 - new.chain.height)
    for command in (*go_on, *(each.replace("new.toml", "other.toml") for each in go_on)):
        run(tmp_path, command.replace("1f0c…", public))
    assert new.query("SELECT sum(points), count(*) FROM ledger.points") == [(OPS * (OPS - 1) // 2, 20)]
    assert closing < BEGIN
    assert new.query("SELECT min(block_id) FROM virtualchain.snapshots") == [(BEGIN,)]
    new.mine(new.send(b"c", 5, "bob", at=last), new.send(b"o", 0, "authority", at=last))
    new.build()
    later = old.hash
    new.mine(
        new.send(b"c", 7, "holder 0"),
        new.send(b"c", 7, "holder 1", at=later),
        new.send(b"c", 7, "bob", at=new.hash),
    )
    for each in (new, other):
        each.build()
    reasons = new.query("SELECT reason FROM virtualchain.rejections ORDER BY block_id, txindex")
    assert len(reasons) == 2
    assert reasons[0] == ("the ledger is closed",)
    assert new.query("SELECT count(*) FROM ledger.points") == [(21,)]
    assert new.digests() == other.digests()
    for command in look:
        assert "regtest" in run(tmp_path, command)

    new.chain.reorg(1)
    new.hand_over()
    for each in (new, other):
        each.build()
    assert new.query("SELECT count(*) FROM ledger.points") == [(20,)]
    assert new.digests() == other.digests()
