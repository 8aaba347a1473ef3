"""Merkle branches on the tape: what shows, long after a block was taken, that its inputs are in it."""

from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.rides import coin, rides_app, spending
from tests.support.text_app import text_app
from virtualchain.audit.tape import check_tape
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.inclusion import Inclusion, check_inclusion
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.bitcoin.transaction import without_witness
from virtualchain.errors import DamagedTables, NodeError
from virtualchain.proof import ops, transactions
from virtualchain.testing import FakeNode

SHOWN = """
    SELECT block_id, txindex, txid, i.raw, branch, coinbase, coinbase_branch, header
    FROM virtualchain.inputs AS i JOIN virtualchain.blocks USING (block_id) ORDER BY 1, 2
"""


def blocks_with_inputs(node: FakeNode, magic: bytes = b"st") -> None:
    """Mine blocks with one input, with several, and with none."""
    for count in (1, 3, 0, 2, 6):
        node.mine([node.send(magic + b"o%d" % n, sender=f"sender {n}") for n in range(count)])


def faults(url: str) -> list[str]:
    """Return what an audit of the tape finds."""
    with psycopg.connect(url) as connection:
        return [str(fault) for fault in check_tape(connection)]


def require_shown(node: FakeNode, rows: list[dict[str, Any]]) -> None:
    """Check that rows of inputs show by themselves that they are in their blocks."""
    assert rows
    for row in rows:
        transaction = without_witness(row["raw"])
        shown = Inclusion(row["txindex"], transaction, row["branch"], row["coinbase"], row["coinbase_branch"])
        header = read_header(row["block_id"], row["header"])
        assert check_inclusion(shown, header, node.chain.network) == row["txid"]


def test_with_merkle_every_input_is_shown_to_be_in_its_block(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """A block without inputs keeps nothing; with `headers`, none does."""
    blocks_with_inputs(fake_node)
    run(text_app(first_block_id=100), verify="merkle")
    rows = query(SHOWN)
    assert len(rows) == 12
    require_shown(fake_node, rows)
    heights = sorted({row["block_id"] for row in rows})
    assert [row["block_id"] for row in query("SELECT block_id FROM vc.coinbases ORDER BY 1")] == heights
    assert faults(database_url) == []


def test_with_headers_nothing_is_kept(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """What was not compared with the header is not shown; the audit has nothing to say about it."""
    blocks_with_inputs(fake_node)
    run(text_app(first_block_id=100))
    assert {(row["branch"], row["coinbase"], row["coinbase_branch"]) for row in query(SHOWN)} == {
        (None, None, None)
    }
    assert query("SELECT * FROM vc.coinbases") == []
    assert faults(database_url) == []


def test_an_app_that_joins_late_has_branches(fake_node: FakeNode, run: Run, query: Query) -> None:
    """They are kept for blocks in front of the tape and on it, and added to inputs that had none."""
    fake_node.mine([fake_node.send(b"sto1"), fake_node.send(b"jno1")])
    both = fake_node.height
    blocks_with_inputs(fake_node, b"jn")
    blocks_with_inputs(fake_node)
    run(text_app(first_block_id=both))
    run(
        text_app(first_block_id=both),
        text_app("late", magic=b"jn", first_block_id=both - 2),
        verify="merkle",
    )
    rows = query(SHOWN)
    late = [row for row in rows if row["branch"] is not None]
    require_shown(fake_node, late)
    assert len(late) == 13
    assert len(rows) == 26
    # Another rule searches for the same magic, and finds the inputs that had no branch.
    run(
        text_app(first_block_id=both),
        text_app("again", first_block_id=both, needs=("height",)),
        verify="merkle",
    )
    require_shown(fake_node, query(SHOWN))


def test_what_apps_see_because_of_their_outputs_has_branches(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """The transactions without a payload are on the tape like the others."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    fake_node.mine([spending([coin(minted, 1)], outputs=2)])
    run(rides_app(), verify="merkle")
    rows = query(SHOWN)
    assert len(rows) == 2
    require_shown(fake_node, rows)


def test_a_rollback_takes_them_back(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """Afterwards they are those of the other branch."""
    app = text_app(first_block_id=100)
    blocks_with_inputs(fake_node)
    run(app, verify="merkle")
    fake_node.reorg(4, 5, [fake_node.send(b"stoelse", sender="zoe")])
    run(app, verify="merkle")
    rows = query(SHOWN)
    assert len(rows) == 2
    require_shown(fake_node, rows)
    assert query("SELECT count(*) AS n FROM vc.coinbases") == [{"n": 2}]
    assert faults(database_url) == []


FLIP = "set_byte(%(column)s, 5, get_byte(%(column)s, 5) # 1)"
DAMAGE = {
    "a branch": (f"UPDATE vc.inputs SET branch = {FLIP % {'column': 'branch'}}", "does not lead"),
    "a shorter branch": ("UPDATE vc.inputs SET branch = substr(branch, 33)", "differ in length"),
    "no coinbase": ("DELETE FROM vc.coinbases", "not the coinbase's"),
    "a coinbase": (f"UPDATE vc.coinbases SET coinbase = {FLIP % {'column': 'coinbase'}}", "not shown"),
    "a coinbase's branch": (
        f"UPDATE vc.coinbases SET branch = {FLIP % {'column': 'branch'}}",
        "does not lead",
    ),
    "another place": ("UPDATE vc.inputs SET txindex = txindex + 1", "not shown"),
    "a coinbase without inputs": ("UPDATE vc.inputs SET branch = NULL", "no input with a branch"),
    "a coinbase that is none": ("UPDATE vc.coinbases SET coinbase = 'x'", "not shown"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_audit_finds_what_is_not_shown(
    fake_node: FakeNode, run: Run, database_url: str, name: str
) -> None:
    """Whatever is changed by others than the engine."""
    fake_node.mine([fake_node.send(b"sto1"), fake_node.send(b"sto2", sender="bob")])
    run(text_app(first_block_id=100), verify="merkle")
    statement, message = DAMAGE[name]
    with psycopg.connect(database_url) as connection:
        where = " WHERE txindex = (SELECT max(txindex) FROM vc.inputs)" if "txindex +" in statement else ""
        connection.execute((statement + where).encode())
    complaints = faults(database_url)
    assert any(message in fault for fault in complaints), complaints


def test_an_invented_input_is_not_in_its_block(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """A transaction that fits itself, with another's branch, would pass every check without branches."""
    fake_node.mine([fake_node.send(b"sto1")])
    fake_node.mine([fake_node.send(b"sto2", sender="bob")])
    run(text_app(first_block_id=100), verify="merkle")
    query(
        """WITH other AS (SELECT * FROM vc.inputs WHERE block_id = 103)
        UPDATE vc.inputs AS i SET raw = o.raw, txid = o.txid, spent = o.spent, fee = o.fee
        FROM other AS o WHERE i.block_id = 102 RETURNING 1"""
    )
    assert [fault for fault in faults(database_url) if "not shown to be in its block" in fault]


def no_source() -> BlockSource:
    """Fail: nothing is fetched."""
    raise NodeError("there is no node")


def test_a_proof_of_work_takes_what_was_kept(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """It needs no node then; a block that was taken with `headers` is fetched."""
    blocks_with_inputs(fake_node)
    first = fake_node.height
    run(text_app(first_block_id=100), verify="merkle")
    blocks_with_inputs(fake_node)
    run(text_app(first_block_id=100))
    with psycopg.connect(database_url) as connection:
        for block_id, is_kept in ((first, True), (fake_node.height, False)):
            place = ops.prove(connection, "plain", block_id, 2).place
            assert place is not None
            stretch = transactions.read_stretch(connection, block_id)
            kept = transactions.read_kept(connection, place)
            assert (kept is not None) == is_kept
            if is_kept:
                fetched = transactions.show(place, stretch, lambda: open_source(fake_node.url))
                assert transactions.show(place, stretch, no_source, kept) == fetched
            else:
                with pytest.raises(NodeError, match="there is no node"):
                    transactions.show(place, stretch, no_source, kept)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE vc.coinbases SET coinbase = overlay(coinbase PLACING '\\xff' FROM 9)")
        place = ops.prove(connection, "plain", first, 2).place
        assert place is not None
        stretch = transactions.read_stretch(connection, first)
        with pytest.raises(DamagedTables):
            transactions.show(place, stretch, no_source, transactions.read_kept(connection, place))
