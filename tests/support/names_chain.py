"""A chain for the name registry's tests: each operation is one call, and `mine` returns the verdicts.

Nothing is signed: the sender is inferred from the key that an input shows, as for recorded transactions.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg.rows import dict_row

from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify, push
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.consensus.hashing import hash160
from virtualchain.engine.preview import preview_transactions
from virtualchain.examples.names import Params, make_app, regtest
from virtualchain.examples.names.conformance.source import RegistrySource
from virtualchain.examples.names.params import BURN_SCRIPT
from virtualchain.examples.names.reading import hash128, preorder_hash
from virtualchain.model import Block, SpentOutput
from virtualchain.testing import key, op_return
from virtualchain.testing.hostile import Spending, unsigned_transaction

_SIGNATURE = b"\x30" + bytes(70)
_CHEAP = (6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
NAMESPACE_FEE = 4 * 10**8
VALUE = "11" * 20

COLLIDES = "it collides with another operation in this block"
NO_IMPORTS = "the namespace does not accept imports"
NO_MATCH = "the hash matches none of the sender's names with any of the last 24 consensus hashes"
NO_PREORDER = "no preorder by this sender for this recipient"


def underpaid(fee: int, price: int) -> str:
    """Return the reason for which a registration is refused if its fee is below the price."""
    return f"the fee of {fee} satoshis is less than the price of {price}"


@dataclass(frozen=True)
class Person:
    """An owner of names, by a key or by a script."""

    name: str
    is_script: bool = False

    @property
    def public_key(self) -> bytes:
        """The public key, 33 bytes."""
        return key(self.name).public_key

    @property
    def script(self) -> bytes:
        """The output script that names belong to."""
        if self.is_script:
            return b"\xa9\x14" + hash160(self._redeem) + b"\x87"
        return b"\x76\xa9\x14" + hash160(self.public_key) + b"\x88\xac"

    @property
    def address(self) -> str:
        """The address of that script on regtest."""
        return classify(self.script, network("regtest"))[1][0]

    @property
    def _redeem(self) -> bytes:
        return b"\x51" + push(self.name.encode())

    def spend(self) -> Spending:
        """Spend an output of theirs, which is inferred from how it is spent."""
        spending = b"\0" + push(_SIGNATURE) + push(self._redeem)
        key_spending = push(_SIGNATURE) + push(self.public_key)
        return Spending(SpentOutput(0, b""), spending if self.is_script else key_spending)


@dataclass(frozen=True)
class KeyHolder(Person):
    """A person known only by a public key, which is in `name` as hex."""

    @property
    def public_key(self) -> bytes:
        """The public key as an input pushes it."""
        return bytes.fromhex(self.name)


ALICE, BOB, CAROL, EVE = (Person(name) for name in ("alice", "bob", "carol", "eve"))
CREATOR, IMPORTER = Person("creator"), Person("importer")
COMPANY, CLUB = Person("company", is_script=True), Person("club", is_script=True)

Outputs = Sequence[tuple[int, bytes]]


class Writer(ABC):
    """Writes an operation's transaction in one call, as of the height of its subclass."""

    params: Params

    def __init__(self) -> None:
        self._numbers = count()

    @property
    @abstractmethod
    def height(self) -> int:
        """The height of the last block."""

    @abstractmethod
    def consensus_at(self, height: int) -> str:
        """Return the consensus hash of a block."""

    def tx(self, payload: bytes, sender: Person, outputs: Outputs = ()) -> bytes:
        """Make a transaction with the payload's output first, then others."""
        return self.raw([sender.spend()], [(0, op_return(b"id" + payload)), *outputs])

    def raw(self, spendings: Sequence[Spending], outputs: Outputs) -> bytes:
        """Make a transaction of any inputs and outputs."""
        return unsigned_transaction(next(self._numbers), spendings, outputs).raw

    # The operations.

    def preorder_namespace(
        self,
        namespace_id: str = "test",
        sender: Person = CREATOR,
        to: Person = IMPORTER,
        fee: int | None = NAMESPACE_FEE,
        seen: str | None = None,
    ) -> bytes:
        """`*`."""
        return self._preorder(b"*", namespace_id, sender, to, fee, seen)

    def reveal(
        self,
        namespace_id: str = "test",
        sender: Person = CREATOR,
        to: Person = IMPORTER,
        *,
        lifetime: int = 1000,
        coeff: int = 4,
        base: int = 2,
        buckets: Sequence[int] = _CHEAP,
        discounts: tuple[int, int] = (1, 1),
        version: int = 1,
    ) -> bytes:
        """`&`; the discounts are for characters other than letters and for names without vowels."""
        nibbles = bytes.fromhex("".join(f"{nibble:x}" for nibble in (*buckets, *discounts)))
        body = lifetime.to_bytes(4, "big") + bytes([coeff, base]) + nibbles + version.to_bytes(2, "big")
        outputs = [(1, to.script), (1, sender.script)]
        return self.tx(b"&" + body + namespace_id.encode(), sender, outputs)

    def ready(self, namespace_id: str = "test", sender: Person = IMPORTER) -> bytes:
        """`!`."""
        return self.tx(b"!." + namespace_id.encode(), sender, [(1, sender.script)])

    def preorder(
        self,
        name: str,
        sender: Person = ALICE,
        to: Person | None = None,
        fee: int | None = 10**6,
        seen: str | None = None,
    ) -> bytes:
        """`?`."""
        return self._preorder(b"?", name, sender, to or sender, fee, seen)

    def register(
        self, name: str, sender: Person = ALICE, to: Person | None = None, fee: int | None = None
    ) -> bytes:
        """`:`; with a fee it may be a renewal."""
        outputs = [(1, (to or sender).script), *self._burn(fee)]
        return self.tx(b":" + name.encode(), sender, outputs)

    def import_name(
        self, name: str, sender: Person = IMPORTER, to: Person = ALICE, value: str = VALUE
    ) -> bytes:
        """`;`."""
        holder = b"\x76\xa9\x14" + bytes.fromhex(value) + b"\x88\xac"
        return self.tx(b";" + name.encode(), sender, [(1, to.script), (1, holder), (1, sender.script)])

    def update(self, name: str, sender: Person = ALICE, value: str = VALUE, seen: str | None = None) -> bytes:
        """`+`."""
        mark = hash128(name + (seen or self.consensus_at(self.height)))
        return self.tx(b"+" + bytes.fromhex(mark + value), sender, [(1, sender.script)])

    def transfer(
        self,
        name: str,
        sender: Person = ALICE,
        to: Person = BOB,
        *,
        keep: bool = True,
        seen: str | None = None,
    ) -> bytes:
        """`>`."""
        body = bytes.fromhex(hash128(name) + (seen or self.consensus_at(self.height)))
        return self.tx(b">" + (b">" if keep else b"~") + body, sender, [(1, to.script), (1, sender.script)])

    def revoke(self, name: str, sender: Person = ALICE) -> bytes:
        """`~`."""
        return self.tx(b"~" + name.encode(), sender, [(1, sender.script)])

    def announce(self, sender: Person = ALICE, message: str = VALUE) -> bytes:
        """`#`."""
        return self.tx(b"#" + bytes.fromhex(message), sender, [(1, sender.script)])

    def _preorder(
        self, opcode: bytes, text: str, sender: Person, to: Person, fee: int | None, seen: str | None
    ) -> bytes:
        (address,) = classify(to.script, self.params.bitcoin)[1]
        committed = preorder_hash(text, sender.script.hex(), address)
        body = bytes.fromhex(committed + (seen or self.consensus_at(self.height)))
        return self.tx(opcode + body, sender, [(1, sender.script), *self._burn(fee)])

    @staticmethod
    def _burn(fee: int | None) -> Outputs:
        return [] if fee is None else [(fee, bytes.fromhex(BURN_SCRIPT))]


class NamesChain(Writer):
    """The registry on its own chain; `mine` returns why each transaction was refused, or None."""

    def __init__(
        self,
        engine: StateEngine,
        source: RegistrySource,
        reader: psycopg.Connection[dict[str, Any]],
        params: Params,
        url: str,
    ) -> None:
        super().__init__()
        self._url = url
        self.foresees = False
        """Whether what is mined is previewed, and compared with what happens."""
        self.engine = engine
        self.params = params
        self._reader = reader
        self._source = source
        self._chain: list[Block] = []

    @property
    def height(self) -> int:
        """The height of the last block."""
        return self.params.first_block - 1 + len(self._chain)

    def mine(self, *raws: bytes, n: int = 1) -> list[str | None]:
        """Mine transactions at txindex 1, 2, …, then empty blocks up to `n` in all; None means accepted."""
        return self.mine_at(dict(enumerate(raws, start=1)), n=n)

    def mine_at(self, placed: Mapping[int, bytes], n: int = 1) -> list[str | None]:
        """Mine transactions at given txindexes; otherwise like `mine`."""
        height = self.height + 1
        foreseen = self._foresee(placed) if self.foresees else None
        self._append([placed, *[{}] * (n - 1)])
        refused = {
            row["txindex"]: row["reason"]
            for row in self.query("SELECT * FROM virtualchain.rejections WHERE block_id = %s", height)
        }
        accepted = {
            row["txindex"]
            for row in self.query("SELECT txindex FROM virtualchain.ops WHERE block_id = %s", height)
        }
        assert set(placed) == accepted | set(refused)
        reasons = [refused.get(txindex) for txindex in sorted(placed)]
        assert foreseen in (None, reasons), "what was foreseen is what happens"
        return reasons

    def _foresee(self, placed: Mapping[int, bytes]) -> list[str | None] | None:
        """Preview transactions; return why each would be refused, unless there are gaps between them."""
        raws = [placed[txindex] for txindex in sorted(placed)]
        if list(placed) != list(range(1, len(raws) + 1)) or not raws:
            return None
        spent = {
            (spending.txid, spending.vout): output
            for raw in raws
            for spending, output in zip(read_inputs(raw), self._source.spent_of(raw), strict=True)
        }
        contract = read_contract(make_app(self.params))
        return [verdict.reason for verdict in preview_transactions(self._url, contract, raws, spent=spent)]

    def mine_unread(self, *raws: bytes) -> None:
        """Mine transactions that the registry may ignore."""
        self._append([dict(enumerate(raws, start=1))])

    def _append(self, contents: Sequence[Mapping[int, bytes]]) -> None:
        parent = self._chain[-1] if self._chain else self._source.base
        self._chain += self._source.make_branch(parent, contents)
        self._source.activate(self._chain)
        self.engine.build()

    def mine_to(self, height: int) -> None:
        """Mine empty blocks up to a height."""
        if height > self.height:
            self.mine(n=height - self.height)

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Query the database in a separate session."""
        return self._reader.execute(statement.encode(), parameters).fetchall()

    def name(self, name: str) -> dict[str, Any]:
        """Return a name's row."""
        return self.query("SELECT * FROM names.names WHERE name = %s", name)[0]

    def fields(self, index: int = -1) -> dict[str, Any]:
        """Return the fields of an accepted op, by default the last."""
        ops = self.query("SELECT * FROM virtualchain.ops ORDER BY block_id, vtxindex")
        return dict(ops[index]["fields"])

    def hashed(self, index: int = -1) -> str:
        """Return the hashed text of an accepted op, by default the last."""
        ops = self.query("SELECT * FROM virtualchain.ops ORDER BY block_id, vtxindex")
        return bytes(ops[index]["canonical"][0]).decode()

    def consensus_at(self, height: int) -> str:
        """Return the consensus hash of a block."""
        consensus_hash = self.engine.get_consensus_at(height)
        assert consensus_hash is not None
        return consensus_hash

    # Common setup, in which everything must be accepted.

    def mine_accepted(self, *raws: bytes) -> None:
        """Mine transactions that must all be accepted."""
        assert self.mine(*raws) == [None] * len(raws)

    def open_namespace(self, namespace_id: str = "test", *imports: bytes, **rules: Any) -> None:
        """Preorder, reveal and make ready a namespace, with imports in between."""
        self.mine_accepted(self.preorder_namespace(namespace_id))
        self.mine_accepted(self.reveal(namespace_id, **rules))
        if imports:
            self.mine_accepted(*imports)
        self.mine_accepted(self.ready(namespace_id))

    def own(self, *names: str, owner: Person = ALICE) -> None:
        """Preorder and register names."""
        self.mine_accepted(*(self.preorder(name, owner) for name in names))
        self.mine_accepted(*(self.register(name, owner) for name in names))


@contextmanager
def names_chain(url: str, params: Params | None = None) -> Iterator[NamesChain]:
    """Open a chain with one empty block."""
    params = params or regtest()
    source = RegistrySource(params.first_block, {}, params.bitcoin)
    with (
        TemporaryDirectory() as folder,
        StateEngine(
            make_app(params), database=url, source=source, confirmations=0, state_folder=Path(folder)
        ) as engine,
        psycopg.connect(url, row_factory=dict_row, autocommit=True) as reader,
    ):
        chain = NamesChain(engine, source, reader, params, url)
        chain.mine()
        yield chain
