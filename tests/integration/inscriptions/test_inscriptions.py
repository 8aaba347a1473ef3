"""The example `inscriptions`: what an envelope says, where an inscription begins, and who has it later."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from tests.support.inscriptions import Coin, address, coin, envelope, fund, leaf, owner, spend
from virtualchain.app.fields import to_json
from virtualchain.examples.inscriptions import app, read_inscription
from virtualchain.testing import FakeNode

PLAIN = envelope(b"\1", b"text/plain", b"", b"hello ", b"world")
BURN = b"\x6a\1\1"
INSCRIPTIONS = "SELECT * FROM inscriptions.inscriptions ORDER BY block_id, txindex, number"
LOCATIONS = (
    "SELECT txid, vout, position, value, owner, inscription FROM inscriptions.locations ORDER BY 1, 2, 3, 6"
)
MOVES = """SELECT status, vout, position, owner FROM inscriptions.moves
    WHERE inscription = %s ORDER BY block_id, txindex"""

Inscribe = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def inscribe(fake_node: FakeNode, run: Run, query: Query) -> Inscribe:
    """Return a function that reveals envelopes in one input, and returns their rows."""

    def reveal(
        *envelopes: bytes, value: int = 1000, outputs: Any = (("alice", 900),)
    ) -> list[dict[str, Any]]:
        coins = fund(fake_node, (leaf(*envelopes), value))
        fake_node.mine([spend(coins, *outputs)])
        run(app)
        return query(INSCRIPTIONS)

    return reveal


def test_an_inscription_is_recorded_as_it_was_revealed(inscribe: Inscribe, query: Query) -> None:
    """Content type, digest and size of the joined body, and the output that it is in."""
    [row] = inscribe(PLAIN)
    assert row["id"] == f"{row['txid']}i0"
    assert (row["number"], row["input"], row["vout"]) == (0, 0, 0)
    assert (row["content_type"], row["content_type_text"]) == (b"text/plain", "text/plain")
    assert row["body_size"] == 11
    assert row["body_sha256"] == hashlib.sha256(b"hello world").hexdigest()
    assert (row["metaprotocol"], row["delegate"], row["pointer"], row["metadata_size"]) == (None,) * 4
    assert (row["is_incomplete"], row["has_repeated"], row["has_unknown_even"]) == (False,) * 3
    [place] = query(LOCATIONS)
    expected = {"txid": row["txid"], "vout": 0, "position": 0, "value": 900}
    assert place == {**expected, "owner": address("alice"), "inscription": row["id"]}


def test_every_field_is_read(inscribe: Inscribe, query: Query) -> None:
    """Metaprotocol, encoding, metadata in pieces, parents without repetitions, and a delegate."""
    first, second = bytes(range(32)), b"\xab" * 32
    fields = (
        *(b"\7", b"brc-20", b"\x09", b"br", b"\5", b"meta", b"\5", b"data", b"\x0b", second + b"\xff\0\1"),
        *(b"\3", first, b"\3", first + b"\0\1", b"\3", first, b"\3", first + b"\1\0", b"\3", b"short"),
    )
    [row] = inscribe(envelope(*fields))
    assert (row["metaprotocol"], row["metaprotocol_text"]) == (b"brc-20", "brc-20")
    assert (row["content_encoding"], row["content_type"], row["body_size"]) == (b"br", None, None)
    assert row["metadata_size"] == 8
    assert row["metadata_sha256"] == hashlib.sha256(b"metadata").hexdigest()
    assert row["delegate"] == f"{'ab' * 32}i65791"
    txid = first[::-1].hex()
    parents = query("SELECT parent, is_present FROM inscriptions.parents ORDER BY parent")
    assert parents == [{"parent": f"{txid}i{n}", "is_present": False} for n in (0, 256)]
    assert (row["has_repeated"], row["has_unknown_even"]) == (True, False)


HOSTILE = {
    "no push at all": (),
    "only a tag": (b"\1",),
    "an empty body": (b"",),
    "a body in place of a value": (b"\1", b"", b"", b"x"),
    "invalid UTF-8": (b"\1", b"\xff\xfe", b"\7", b"\xc3\x28", b"", b"x"),
    "NUL": (b"\1", b"a\0b", b"\7", b"\0", b"\x09", b"\0", b"", b"\0"),
    "a lone surrogate": (b"\1", b"\xed\xa0\x80", b"", b"x"),
    "long values": (b"\1", b"x" * 3000, b"\7", b"y" * 3000, b"\x09", bytes(70_000), b"", b"x"),
    "empty values": (b"\1", b"", b"\2", b"", b"\3", b"", b"\5", b"", b"\7", b"", b"\x0b", b""),
    "long tags": (b"\1" * 600, b"x", b"\1\0", b"y", b"", b"x"),
    "malformed ids": (b"\3", bytes(31), b"\3", bytes(37), b"\x0b", bytes(33), b"", b"x"),
    "every tag": tuple(each for tag in range(1, 256) for each in (bytes([tag]), b"v")),
    "a repeated field": (b"\1", b"a", b"\1", b"b", b"", b"x"),
    "a huge pointer": (b"\2", b"\xff" * 8, b"", b"x"),
    "a pointer of no number": (b"\2", b"\xff" * 9, b"", b"x"),
}


@pytest.mark.parametrize("pushes", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_in_an_envelope_is_an_inscription(
    inscribe: Inscribe, query: Query, pushes: tuple[bytes, ...]
) -> None:
    """Nothing is rejected or halts the app, and bytes that are not text are kept as bytes."""
    [row, follower] = inscribe(envelope(*pushes), PLAIN)
    assert follower["number"] == 1
    for name in ("content_type", "metaprotocol"):
        raw, text = row[name], row[f"{name}_text"]
        if text is not None:
            assert text.encode() == raw
        elif raw is not None:
            assert b"\0" in raw or raw.decode(errors="replace") != raw.decode(errors="ignore")
    assert query("SELECT count(*) FROM virtualchain.rejections") == [{"count": 0}]
    if pushes and pushes[0] == b"\1" and len(pushes) > 1:
        assert row["content_type"] == pushes[1]


@pytest.mark.parametrize(
    ("pushes", "flags"),
    [
        ((b"\1",), (True, False, False)),
        ((b"\1", b"a", b"\1", b"b"), (False, True, False)),
        ((b"\x0f", b"a note"), (False, False, False)),
        ((b"\x16", b"?"), (False, False, True)),
        ((b"\x16\1", b"?"), (False, False, True)),
        ((b"\2", b"\0", b"\2", b"\0"), (False, True, True)),
        ((b"\1", b"a", b"", b"\x16", b"\1"), (False, False, False)),
    ],
)
def test_what_is_odd_about_an_envelope_is_recorded(
    inscribe: Inscribe, pushes: tuple[bytes, ...], flags: tuple[bool, ...]
) -> None:
    """Incomplete, repeated and unknown even fields; a body is not looked at."""
    [row] = inscribe(envelope(*pushes))
    assert (row["is_incomplete"], row["has_repeated"], row["has_unknown_even"]) == flags


@pytest.mark.parametrize(
    ("pointer", "outputs", "expected"),
    [
        (b"", [("alice", 300), ("bob", 600)], ("held", 0, 0)),
        (b"\x2b\1", [("alice", 300), ("bob", 600)], ("held", 0, 299)),
        (b"\x2c\1", [("alice", 300), ("bob", 600)], ("held", 1, 0)),
        (b"\x2c\1", [("alice", 300), ("carol", 0), ("bob", 600)], ("held", 2, 0)),
        (b"\x83\3" + bytes(20), [("alice", 300), ("bob", 600)], ("held", 1, 599)),
        (b"\x84\3", [("alice", 300), ("bob", 600)], ("held", 0, 0)),
        (b"\1" + bytes(7) + b"\1", [("alice", 300), ("bob", 600)], ("held", 0, 0)),
        (b"\x2c\1", [("alice", 300), (BURN, 600)], ("burned", 1, 0)),
        (b"\1", [], ("fees", None, None)),
        (None, [], ("fees", None, None)),
        (None, [("alice", 0)], ("fees", None, None)),
        (None, [("alice", 0), ("bob", 5)], ("held", 1, 0)),
        (None, [(BURN, 1), ("bob", 5)], ("burned", 0, 0)),
    ],
)
def test_where_a_new_inscription_begins(
    inscribe: Inscribe, query: Query, pointer: bytes | None, outputs: list[Any], expected: tuple[Any, ...]
) -> None:
    """On its input's first satoshi, or where a pointer within the outputs' total says."""
    outputs = outputs or [(b"\x6a", 0)]  # a transaction has an output
    [row] = inscribe(envelope(*(() if pointer is None else (b"\2", pointer))), outputs=outputs)
    [move] = query(MOVES, [row["id"]])
    assert (move["status"], move["vout"], move["position"]) == expected
    assert row["vout"] == expected[1]
    assert len(query(LOCATIONS)) == (expected[0] == "held")


def test_an_inscription_without_a_satoshi_is_recorded_and_not_followed(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """An input without value has none, and an unknown even field may mean anything."""
    coins = fund(fake_node, (leaf(PLAIN), 0), (leaf(envelope(b"\x16", b"")), 100), (leaf(PLAIN), 100))
    fake_node.mine([spend(coins, ("alice", 150))])
    run(app)
    rows = query(INSCRIPTIONS)
    assert [(row["input"], row["vout"]) for row in rows] == [(0, None), (1, None), (2, 0)]
    assert [query(MOVES, [row["id"]])[0]["status"] for row in rows] == ["unbound", "unbound", "held"]
    assert [row["position"] for row in query(LOCATIONS)] == [100]


def test_inscriptions_move_first_in_first_out(fake_node: FakeNode, run: Run, query: Query) -> None:
    """They go to the output that gets their satoshi, in the middle of one, to an OP_RETURN or to the fee."""
    coins = fund(fake_node, *((leaf(PLAIN), 1000) for _ in range(4)))
    revealed = spend(coins, ("alice", 500), ("alice", 1000), ("alice", 1000), ("alice", 1000))
    fake_node.mine([revealed])
    run(app)
    ids = [f"{revealed.txid}i{n}" for n in range(4)]
    assert [(row["vout"], row["position"]) for row in query(LOCATIONS)] == [
        (0, 0),
        (1, 500),
        (2, 500),
        (3, 500),
    ]
    mine = [coin(revealed, vout, "alice") for vout in (3, 0, 2, 1)]
    moved = spend(mine, ("bob", 501), (BURN, 1000), ("carol", 1000))
    fake_node.mine([moved])
    run(app)
    last = [query(MOVES, [each])[-1] for each in ids]
    carol = {"status": "held", "vout": 2, "position": 499, "owner": address("carol")}
    assert last == [
        {"status": "burned", "vout": 1, "position": 499, "owner": None},
        {"status": "fees", "vout": None, "position": None, "owner": None},
        carol | {"position": 499},
        {"status": "held", "vout": 0, "position": 500, "owner": address("bob")},
    ]
    assert [(row["vout"], row["position"], row["value"]) for row in query(LOCATIONS)] == [
        (0, 500, 501),
        (2, 499, 1000),
    ]
    [op] = query("SELECT opcode, payload, fields FROM virtualchain.ops ORDER BY block_id DESC LIMIT 1")
    assert (op["payload"], op["fields"]) == (None, {"moved": 4})


def test_several_inscriptions_of_one_satoshi_move_together(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """Also one that is inscribed later on the same satoshi, by the transaction that moves the others."""
    [first] = fund(fake_node, (leaf(PLAIN, PLAIN, PLAIN), 1000))
    again = leaf(PLAIN, PLAIN, name="again")
    revealed = spend([first], (Coin("", 0, 0, again).pays, 1000))
    moved = spend([Coin(revealed.txid, 0, 1000, again)], ("bob", 700))
    fake_node.mine([revealed, moved, spend([coin(moved, 0, "bob")], ("carol", 600))])
    run(app)
    rows = query(LOCATIONS)
    assert [(row["position"], row["owner"]) for row in rows] == [(0, address("carol"))] * 5
    assert {row["inscription"] for row in rows} == {
        *(f"{revealed.txid}i{n}" for n in range(3)),
        *(f"{moved.txid}i{n}" for n in range(2)),
    }
    ops = query("SELECT payload_index, fields->>'moved' AS moved FROM virtualchain.ops ORDER BY txindex, 1")
    assert [(op["payload_index"], op["moved"]) for op in ops] == [
        *((n, "0") for n in range(3)),
        *((0, "3"), (1, "0")),
        (0, "5"),
    ]


def test_a_parent_is_present_if_the_transaction_moves_it(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Anyone may name a parent; only its owner can spend it."""
    script, _ = owner("alice")
    revealed = spend(fund(fake_node, (leaf(PLAIN), 1000)), ("alice", 1000))
    fake_node.mine([revealed])
    child = leaf(envelope(b"\3", bytes.fromhex(revealed.txid)[::-1], b"\3", b"\7" * 32))
    with_it, without = fund(fake_node, (child, 500), (child, 500))
    fake_node.mine([spend([without], ("bob", 500))])
    fake_node.mine([spend([with_it, Coin(revealed.txid, 0, 1000, script)], ("bob", 500), ("alice", 1000))])
    run(app)
    rows = query(
        """SELECT parent, is_present FROM inscriptions.parents AS p
        JOIN inscriptions.inscriptions AS i ON i.id = p.inscription ORDER BY i.block_id, parent DESC"""
    )
    parents = [f"{revealed.txid}i0", f"{'07' * 32}i0"]
    assert {(row["parent"], row["is_present"]) for row in rows[:2]} == {(each, False) for each in parents}
    assert {(row["parent"], row["is_present"]) for row in rows[2:]} == {
        (parents[0], True),
        (parents[1], False),
    }


def test_an_annex_hides_nothing(fake_node: FakeNode, run: Run, query: Query) -> None:
    """It follows the control block."""
    fake_node.mine([spend(fund(fake_node, (leaf(PLAIN), 1000)), ("alice", 900), annex=True)])
    run(app)
    assert len(query(INSCRIPTIONS)) == 1


def test_a_body_of_almost_a_block(inscribe: Inscribe) -> None:
    """Only digest and size of a body are in the table."""
    body = bytes(range(256)) * 15_000
    pieces = [body[at : at + 520] for at in range(0, len(body), 520)]
    [row] = inscribe(envelope(b"\1", b"image/png", b"", *pieces))
    assert (row["body_size"], row["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_thousands_of_envelopes_and_inputs(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A transaction with both is no burden, and neither is one that spends hundreds of tracked outputs."""
    coins = fund(
        fake_node, *((leaf(name=f"{n}"), 1000) for n in range(299)), (leaf(*[envelope()] * 3000), 1000)
    )
    revealed = spend(coins, *[("alice", 1000)] * 300)
    fake_node.mine([revealed])
    run(app)
    assert query("SELECT count(*) FROM inscriptions.locations WHERE vout = 299") == [{"count": 3000}]
    more = [spend([coin(revealed, n, "alice")], (leaf_output(n), 900)) for n in range(299)]
    fake_node.mine(more)
    gathered = [Coin(tx.txid, 0, 900, leaf(PLAIN, name=f"more {n}")) for n, tx in enumerate(more)]
    spread = spend(gathered, *[("alice", 900)] * 299)
    fake_node.mine([spread])
    fake_node.mine([spend([coin(spread, n, "alice") for n in range(299)], ("bob", 299 * 900))])
    run(app)
    rows = query("SELECT position FROM inscriptions.locations WHERE owner = %s ORDER BY 1", [address("bob")])
    assert [row["position"] for row in rows] == [900 * n for n in range(299)]


def leaf_output(n: int) -> bytes:
    """Return an output script whose spending inscribes."""
    return Coin("", 0, 0, leaf(PLAIN, name=f"more {n}")).pays


def _naming(parents: int) -> list[bytes]:
    return [each for n in range(1, parents + 1) for each in (b"\3", n.to_bytes(32))]


def test_an_envelope_full_of_parents(inscribe: Inscribe, query: Query) -> None:
    """Thousands of them, all different; as many as a block has room for still fit into an op."""
    [row] = inscribe(envelope(*_naming(5_000)))
    assert query("SELECT count(DISTINCT parent) FROM inscriptions.parents") == [{"count": 5_000}]
    assert row["has_repeated"]
    payload = b"\0" + b"".join(bytes([len(each)]) + each for each in _naming(115_000))
    assert to_json(read_inscription(payload))["parents"].count(" ") == 114_999


def test_an_envelope_that_is_one_long_content_type(inscribe: Inscribe) -> None:
    """It is as large as a block allows, and as an op's field twice that."""
    content_type = b"\xff" * 3_900_000
    [row] = inscribe(envelope(b"\1", content_type, b"", b"x"))
    assert (row["content_type"], row["content_type_text"]) == (content_type, None)
