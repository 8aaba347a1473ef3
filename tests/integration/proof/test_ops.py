"""Proofs of ops from a deployment, checked without it: after forks and checkpoints, and for readers."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.checkpoints import contracts, create_checkpoint, say, words
from tests.support.easy_signet import easy_signet
from virtualchain import App, Rejected, State
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource, Offline
from virtualchain.checkpoint.apply import apply
from virtualchain.consensus.proof_file import write_proof
from virtualchain.engine.options import Options
from virtualchain.errors import DamagedTables, InvalidProof, MalformedBlock, NodeError, UsageError
from virtualchain.proof import ops, transactions
from virtualchain.proof.checking import CheckedOps, Known, check_file
from virtualchain.proof.ops import MadeProof
from virtualchain.reading import views
from virtualchain.store.database import connect_migrator
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Prove = Callable[..., MadeProof]


def lists(name: str = "lists", **options: Any) -> App:
    """Return an app whose commits return as many ops as the payload has words; `no` is rejected at check."""
    app = App(name, magic=b"ls", **options)

    def parse(payload: bytes) -> dict[str, str] | None:
        return None if payload == b"unreadable" else {"text": payload.decode()}

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        return op["text"] != "no" or Rejected("we do not take no")

    def commit(op: dict[str, Any], state: State) -> list[dict[str, str]]:
        return [{"text": word} for word in op["text"].split()]

    app.add(b"o", fields=["text"], parse=parse, check=check, commit=commit)
    return app


def mine(node: FakeNode, *blocks: list[str]) -> None:
    """Mine a block for each list of texts."""
    for texts in blocks:
        node.mine([node.send(b"lso" + text.encode()) for text in texts])


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Yield the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


@pytest.fixture
def prove(database_url: str) -> Prove:
    """Return a function that proves an op of the test's database."""

    def make(app: str, *place: int, database: str = database_url, **options: Any) -> MadeProof:
        with views.snapshot(database) as connection:
            return ops.prove(connection, app, *place, **options)

    return make


def checked(made: MadeProof, **known: Any) -> CheckedOps:
    """Check a proof as its receiver does, from the file."""
    data = write_proof(made.proof).encode()
    app = made.proof["app"]
    shown = check_file(data, made.trusted_hash, Known(app=app, block_id=made.trusted_block_id, **known))
    assert isinstance(shown, CheckedOps)
    return shown


def op_in(made: MadeProof) -> bytes:
    """Check a proof; return the op that it proves."""
    proven = checked(made).proven
    assert proven.index is not None
    return proven.ops[proven.index]


def test_every_op_of_a_deployment_is_proved_from_every_later_block(
    fake_node: FakeNode, run: Run, prove: Prove, query: Query
) -> None:
    """The rows of virtualchain.ops, with each part; the hash to trust is that of virtualchain.snapshots."""
    mine(fake_node, ["one two three", "four"], [], ["five", "no", "unreadable", "six seven"], ["eight"])
    last = run(lists())
    hashes = {
        row["block_id"]: row["consensus_hash"]
        for row in query("SELECT block_id, consensus_hash FROM virtualchain.snapshots WHERE app = 'lists'")
    }
    rows = query("SELECT block_id, vtxindex, canonical FROM virtualchain.ops")
    assert [len(row["canonical"]) for row in rows] == [3, 1, 1, 2, 1]
    for row in rows:
        for trusted in range(row["block_id"], last + 1):
            for part, canonical in enumerate(row["canonical"]):
                made = prove("lists", row["block_id"], row["vtxindex"], part=part, trusted_block_id=trusted)
                assert (made.trusted_hash, op_in(made)) == (hashes[trusted], canonical)
                with pytest.raises(InvalidProof, match="do not produce the trusted hash"):
                    check_file(write_proof(made.proof).encode(), hashes[trusted - 1])
        assert prove("lists", row["block_id"], row["vtxindex"]).trusted_block_id == last


def test_the_whole_list_shows_what_a_block_has_and_has_not(
    fake_node: FakeNode, run: Run, prove: Prove
) -> None:
    """All parts of all ops; a block without ops has none."""
    mine(fake_node, ["one two", "no", "three"], [], ["four"])
    last = run(lists())
    made = prove("lists", last - 2)
    assert checked(made, absent=b"o:2:no").proven.ops == (b"o:3:one", b"o:3:two", b"o:5:three")
    with pytest.raises(InvalidProof, match="the op is not absent"):
        checked(made, absent=b"o:3:two")
    assert checked(prove("lists", last - 1), absent=b"o:3:one").proven.ops == ()
    with pytest.raises(InvalidProof, match="what is absent is shown by a block's whole list"):
        checked(prove("lists", last, 0), absent=b"o:3:one")


def test_equal_ops_of_a_block_are_proved(fake_node: FakeNode, run: Run, prove: Prove) -> None:
    """The list is cut to the shortest with its hash, so a place in it may be that of an equal op."""
    mine(fake_node, ["x", "x", "x x x", "y", "x", "x"])
    last = run(lists())
    for vtxindex, part, op in ((0, 0, b"o:1:x"), (2, 2, b"o:1:x"), (3, 0, b"o:1:y"), (5, 0, b"o:1:x")):
        made = prove("lists", last, vtxindex, part=part)
        assert op_in(made) == op
    assert set(checked(prove("lists", last)).proven.ops) == {b"o:1:x", b"o:1:y"}


def test_what_cannot_be_proved_is_refused_with_the_reason(
    fake_node: FakeNode, run: Run, prove: Prove, query: Query
) -> None:
    """Unknown apps and blocks, candidates that were rejected, and ops of which nothing was hashed."""
    mine(fake_node, ["unreadable", "one", "no", "   ", "two three"], [])
    last = run(lists(first_block_id=102))
    block = last - 1
    txid = query("SELECT txid FROM virtualchain.rejections WHERE step = 'check'")[0]["txid"]
    rejected = f"candidate 1 of block {block}, in transaction {txid}, is not an op: it was rejected at check"
    for arguments, options, reason in (
        (("other", block, 0), {}, "has no app other; it has lists"),
        (("lists", 101), {}, "has no block 101: its blocks are 102 to "),
        (("lists", last + 1), {}, f"has no block {last + 1}"),
        (("lists", block, 0), {"trusted_block_id": block - 1}, "at block 101"),
        (("lists", block, 0), {"trusted_block_id": last + 1}, f"at block {last + 1}"),
        (("lists", block, 1), {}, f"{rejected}: we do not take no"),
        (("lists", block, 2), {}, "op 2 of block 102 was accepted, but its commit returned an empty list"),
        (("lists", block, 3), {"part": 2}, "op 3 of block 102 has the parts 0 to 1"),
        (("lists", block, 4), {}, "has no op with the vtxindex 4; those of its ops: 0, 2, 3"),
        (("lists", last, 0), {}, "has no op with the vtxindex 0; those of its ops: none"),
        (("lists", block), {"part": 1}, "name the op by its vtxindex"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            prove(*arguments, **options)
        assert reason in str(caught.value), arguments


def test_an_app_before_its_first_block_proves_nothing(fake_node: FakeNode, run: Run, prove: Prove) -> None:
    """It has no snapshot, or only initial ones."""
    run(lists(first_block_id=1000), lists("later", first_block_id=500, initial_snapshots={499: "ab" * 16}))
    for name in ("lists", "later"):
        with pytest.raises(UsageError, match=f"{name} has not processed any block yet"):
            prove(name, 1000, 0)


def test_initial_snapshots_are_hashed_in_but_are_not_proved(
    fake_node: FakeNode, run: Run, prove: Prove
) -> None:
    """Those at or above the first block are prior hashes; a proof that would need one in a gap is refused."""
    mine(fake_node, *[["one"] for _ in range(8)])
    whole = {block_id: f"{block_id:032x}" for block_id in range(100, 104)}
    last = run(lists(first_block_id=100, initial_snapshots=whole))
    for block_id in range(104, last + 1):
        assert op_in(prove("lists", block_id, 0)) == b"o:3:one"
    for block_id in (100, 103):
        with pytest.raises(UsageError, match="began after block 103, with a checkpoint or with initial"):
            prove("lists", block_id, 0)
    run(lists("gap", first_block_id=100, initial_snapshots={103: "ab" * 16}))
    with pytest.raises(UsageError, match="no consensus hash of block 101, which is in a gap"):
        prove("gap", 104, 0, trusted_block_id=104)


def test_proofs_follow_a_rollback(fake_node: FakeNode, run: Run, prove: Prove) -> None:
    """After a fork, the other branch's ops are proved; a proof of the old one leads to no hash of now."""
    mine(fake_node, ["base"], ["old"], ["old too"])
    last = run(lists())
    old = prove("lists", last - 1, 0)
    assert op_in(old) == b"o:3:old"
    fake_node.reorg(2, 1, [fake_node.send(b"lsonew")])
    mine(fake_node, ["newer"], [])
    last = run(lists())
    made = prove("lists", last - 2, 0)
    assert op_in(made) == b"o:3:new"
    assert op_in(prove("lists", last - 3, 0)) == b"o:4:base"
    with pytest.raises(InvalidProof, match="do not produce the trusted hash"):
        check_file(write_proof(old.proof).encode(), made.trusted_hash)


def test_a_checkpoint_has_hashes_but_not_the_ops_below_it(
    fake_node: FakeNode, run: Run, prove: Prove, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """An app that continues from one proves ops above it, from the same hashes; those below, another can."""
    say(fake_node, "one two", "two three", "", "one")
    base = run(words())
    create_checkpoint(database_url, tmp_path / "file")
    say(fake_node, "four five", "six")
    last = run(words())
    apply(other_url, tmp_path / "file", contracts(words()), options=Options(state_folder=tmp_path))
    run(words(), database=other_url)
    for block_id, vtxindex in ((base + 1, 1), (last, 0)):
        ours, theirs = (prove("words", block_id, vtxindex, database=url) for url in (database_url, other_url))
        assert ours.proof == theirs.proof
        assert op_in(theirs)
    with pytest.raises(UsageError, match=f"words began after block {base}, with a checkpoint"):
        prove("words", base, 0, database=other_url)
    assert op_in(prove("words", base, 0))


def test_a_migrated_app_proves_its_ops_on_the_new_chain(
    fake_node: FakeNode, run: Run, prove: Prove, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """Its first block is the checkpoint's, and the hash there the one initial snapshot."""
    say(fake_node, "one", "two")
    base = run(words())
    create_checkpoint(database_url, tmp_path / "file")
    with easy_signet(base) as node:
        say(node, "three four", "", "five")
        apply(
            other_url,
            tmp_path / "file",
            contracts(words()),
            options=Options(state_folder=tmp_path),
            migrates=True,
        )
        last = run(words(), database=other_url, source=node.url)
    made = prove("words", base + 1, 1, database=other_url)
    assert (made.proof["first_block_id"], made.trusted_block_id) == (base, last)
    assert op_in(made).endswith(b"4:four")
    with pytest.raises(UsageError, match=f"words began after block {base}"):
        prove("words", base, 0, database=other_url)


def test_a_reader_s_rights_are_enough(fake_node: FakeNode, run: Run, prove: Prove, database_url: str) -> None:
    """Ops, their absence and headers are read through the views."""
    mine(fake_node, ["one", "no"], [])
    last = run(lists())
    url = _reader_of(database_url)
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT FROM vc.ops")
    assert op_in(prove("lists", last - 1, 0, database=url)) == b"o:3:one"
    with pytest.raises(UsageError, match="was rejected at check"):
        prove("lists", last - 1, 1, database=url)
    with views.snapshot(url) as connection:
        assert len(transactions.read_stretch(connection, last - 1).headers) == 2


def _reader_of(url: str) -> str:
    with connect_migrator(url) as connection:
        reader = grant_reader(connection, f"{urlsplit(url).path[1:]}:reader", None, login=True)
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    role = quote(f"{parts.path[1:]}:reader", safe="")
    return parts._replace(netloc=f"{role}:{reader.password}@{place}").geturl()


@pytest.mark.parametrize(
    "damage",
    [
        r"UPDATE vc.ops SET canonical = ARRAY['o:3:six'::bytea] WHERE vtxindex = 0 AND block_id = 103",
        "UPDATE vc.snapshots SET ops_hash = sha256('') WHERE block_id = 103",
        "UPDATE vc.snapshots SET consensus_hash = substr(sha256(''), 1, 16) WHERE block_id = 103",
        "UPDATE vc.snapshots SET consensus_hash = substr(sha256(''), 1, 16) WHERE block_id = 102",
        "UPDATE vc.snapshots SET consensus_hash = substr(sha256(''), 1, 16) WHERE block_id = 104",
    ],
)
def test_a_damaged_log_proves_nothing(
    fake_node: FakeNode, run: Run, prove: Prove, database_url: str, damage: str
) -> None:
    """A changed op or hash is noticed before anybody receives the proof."""
    mine(fake_node, ["one"], ["two"], ["three"])
    assert run(lists()) == 104
    assert op_in(prove("lists", 103, 0)) == b"o:3:two"
    with psycopg.connect(database_url) as connection:
        assert connection.execute(damage.encode()).rowcount == 1
    with pytest.raises(DamagedTables, match="the log does not fit its digests"):
        prove("lists", 103, 0)


# The transaction, and the headers on top of it


def shown(
    made: MadeProof, url: str, open_it: Callable[[], BlockSource], last: int | None = None
) -> MadeProof:
    """Add the transaction to a proof, as the command does."""
    assert made.place is not None
    with views.snapshot(url) as connection:
        stretch = transactions.read_stretch(connection, made.place.block_id, last)
    made.proof["spv"] = transactions.show(made.place, stretch, open_it)
    return made


def test_the_transaction_of_an_op_is_shown_up_to_the_tape_s_tip(
    fake_node: FakeNode, run: Run, prove: Prove, database_url: str, query: Query
) -> None:
    """The block is fetched from the node; the headers are the tape's."""
    mine(fake_node, ["one", "two", "three"], [], ["four"], [])
    last = run(lists())
    for row in query("SELECT block_id, vtxindex, txindex, txid, block_hash FROM virtualchain.ops"):
        made = prove("lists", row["block_id"], row["vtxindex"])
        shown(made, database_url, lambda: open_source(fake_node.url))
        transaction = checked(made, network="regtest", last_hash=fake_node.tip).in_chain
        assert transaction is not None
        assert (transaction.txid, transaction.txindex, transaction.block.hash) == (
            row["txid"],
            row["txindex"],
            row["block_hash"],
        )
        assert transaction.blocks_on_top == last - row["block_id"]
        shorter = shown(made, database_url, lambda: open_source(fake_node.url), row["block_id"])
        transaction = checked(shorter).in_chain
        assert transaction is not None
        assert (transaction.blocks_on_top, transaction.last.hash) == (0, row["block_hash"])


def test_headers_that_the_tape_does_not_have_are_not_shown(
    fake_node: FakeNode, run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end at its tip, and there are not more than fit into a file."""
    mine(fake_node, ["one"], [], [])
    last = run(lists())
    with views.snapshot(database_url) as connection:
        for first, end in ((last + 1, None), (last - 2, last + 1), (last - 2, last - 3)):
            with pytest.raises(UsageError, match="tape"):
                transactions.read_stretch(connection, first, end)
        monkeypatch.setattr(transactions, "MOST_HEADERS", 2)
        with pytest.raises(UsageError, match="--spv-to BLOCK"):
            transactions.read_stretch(connection, last - 2)
        assert len(transactions.read_stretch(connection, last - 1).headers) == 2


def test_a_source_without_the_block_or_with_another_shows_nothing(
    fake_node: FakeNode, run: Run, prove: Prove, database_url: str
) -> None:
    """Nothing is taken on its word: it must be the block of the tape, with the transaction of the tape."""
    mine(fake_node, ["one", "two"], [])
    last = run(lists())
    made = prove("lists", last - 1, 0)
    source = open_source(fake_node.url)
    with pytest.raises(NodeError, match="has to be fetched"):
        shown(made, database_url, lambda: Offline(source.network))
    right, other = (source.raw_block(source.block_hash(n)) for n in (last - 1, last))
    swapped = bytearray(right)
    swapped[-1] ^= 1
    for raw in (other, bytes(swapped), right[:-1], b""):
        with pytest.raises(MalformedBlock):
            shown(made, database_url, partial(_Liar, source, raw))
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.inputs SET txid = sha256(txid)")
    with pytest.raises(DamagedTables, match="but the tape has"):
        shown(prove("lists", last - 1, 0), database_url, lambda: open_source(fake_node.url))
    source.close()


class _Liar:
    """A source that answers with other bytes."""

    def __init__(self, source: Any, raw: bytes) -> None:
        self._source = source
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def raw_block(self, _block_hash: str) -> bytes:
        """Return the bytes."""
        return self._raw

    def close(self) -> None:
        """Keep the other source open."""


@pytest.mark.node
def test_a_real_node_s_blocks_are_shown(bitcoind: Any, run: Run, prove: Prove, database_url: str) -> None:
    """A transaction of its wallet, with the headers that it mined."""
    txid = bitcoind.send(b"lsohello world")
    bitcoind.mine(1)
    bitcoind.mine(3)
    last = run(lists(), source=bitcoind.url)
    made = shown(prove("lists", last - 3, 0, part=1), database_url, lambda: open_source(bitcoind.url))
    transaction = checked(made, network="regtest").in_chain
    assert op_in(made) == b"o:5:world"
    assert transaction is not None
    assert (transaction.txid, transaction.blocks_on_top) == (txid, 3)
    spv = made.proof["spv"]
    for key in ("transaction", "coinbase"):
        made.proof["spv"] = {**spv, key: spv[key][:-2] + "01"}
        with pytest.raises(InvalidProof):
            checked(made)
    made.proof["spv"] = {**spv, "headers": [*spv["headers"][:2], *spv["headers"][3:]]}
    with pytest.raises(InvalidProof, match="not a child"):
        checked(made)
    json.loads(write_proof(made.proof))
