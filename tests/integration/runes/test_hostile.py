"""Messages that strangers may send never halt the app, however large or odd they are."""

import hashlib
from random import Random

import pytest

from tests.support.runes_chain import (
    ETCHING,
    OP_RETURN,
    TERMS,
    Spent,
    fresh_coin,
    leb128,
    owner,
    runestone,
    script_of,
    txid_of,
)
from tests.support.runes_engine import runes_chain
from tests.support.runes_model import U32, U64, U128
from virtualchain.bitcoin.script import push

ANN = owner("ann")


def test_values_at_the_edges_are_stored(database_url: str) -> None:
    """Symbols up to NUL, amounts of 128 bits and limits of 64 bits come out as they went in."""
    symbols = [0, 1, 0x7F, 0xD7FF, 0xE000, 0xFFFE, 0xFFFF, 0x10FFFF]
    with runes_chain(database_url) as chain:
        txs = [
            chain.tx(
                [Spent(fresh_coin(90))],
                runestone(
                    flags=ETCHING | TERMS,
                    symbol=symbol,
                    premine=U128,
                    height_start=U64,
                    height_end=U64,
                    offset_start=U64,
                    offset_end=U64,
                    divisibility=38,
                    spacers=2**27 - 1,
                ),
                ANN,
            )
            for symbol in symbols
        ]
        most = chain.tx([Spent(fresh_coin(90))], runestone(flags=3, cap=U128, amount=1), ANN)
        height = chain.mine(*txs, most)
        for place, (raw, symbol) in enumerate(zip(txs, symbols, strict=True), start=1):
            row = chain.rune(f"{height}:{place}")
            assert (row["symbol_code"], row["symbol"]) == (symbol, chr(symbol) if symbol else None)
            limits = [row[f"{kind}_{side}"] for kind in ("height", "offset") for side in ("start", "end")]
            assert [*limits, row["premine"], row["divisibility"]] == [U64] * 4 + [U128, 38]
            assert chain.held(raw) == {1: {f"{height}:{place}": U128}}
        assert chain.rune(f"{height}:{len(txs) + 1}")["mint_cap"] == U128


def hostile_scripts() -> dict[str, bytes]:
    """Return scripts of runestone outputs by what is odd about them."""
    dice = Random(5)
    scripts = {
        "nothing": b"\x6a\x5d",
        "an empty push": b"\x6a\x5d\x00",
        "a push of 4 GB": b"\x6a\x5d\x4e\xff\xff\xff\xff",
        "100 kB of zeros": b"\x6a\x5d" + b"".join(push(bytes(520)) for _ in range(200)),
        "100 kB of 0xff": b"\x6a\x5d" + b"".join(push(b"\xff" * 520) for _ in range(200)),
        "50,000 tags": script_of([9, 1] * 25_000),
        "25,000 edicts of no rune": script_of([0, *[1, 1, 0, 0] * 25_000]),
        "25,000 edicts of the longest id": script_of([0, U64, U32, U128, 0, *[0, 0, 0, 0] * 25_000]),
        "200 edicts of everything": script_of([2, 1, 6, U128, 0, *[0, 0, 1, 2] * 100, *[0, 0, 0, 1] * 100]),
        "an id of a mint that no block can have": runestone(mint=(U64, U32)),
        "the id 0:0": runestone(mint=(0, 0)),
        "a rune of the future": runestone(mint=(10**6, 0)),
        "integers of 128 bits": script_of([U128] * 40),
        "a tag of 128 bits": script_of([U128, U128]),
        "an integer that is too long": b"\x6a\x5d" + push(b"\x80" * 18 + b"\x04"),
        "the largest name": runestone(flags=1, rune=U128),
        "a cenotaph with the largest name": runestone(flags=1 | 2**127, rune=U128),
    }
    for number in range(60):
        scripts[f"random bytes {number}"] = b"\x6a\x5d" + dice.randbytes(dice.randrange(60))
        integers = [dice.choice((0, 1, 2, 4, 6, 20, 22, 100, U64, U128)) for _ in range(dice.randrange(12))]
        scripts[f"random integers {number}"] = b"\x6a\x5d" + push(b"".join(map(leb128, integers)))
    return scripts


def test_hostile_messages(database_url: str) -> None:
    """Each is an op, whose outputs and events account for every unit that it spends or makes."""
    with runes_chain(database_url) as chain:
        edicts = [(0, 0, 10, output) for output in range(1, 251)]
        purse = chain.tx([Spent(fresh_coin(90))], runestone(edicts, flags=1, premine=10**6), *[ANN] * 250)
        coins = chain.coins(purse, chain.mine(purse))[1:]
        txs = []
        for script, coin in zip(hostile_scripts().values(), coins, strict=False):
            txs.append(chain.tx([Spent(coin)], script, ANN, OP_RETURN))
        chain.mine(*txs)
        ops = chain.query("SELECT txid, fields FROM virtualchain.ops WHERE block_id = 101")
        assert [row["txid"] for row in ops] == list(map(txid_of, txs))
        assert {row["fields"]["kind"] for row in ops} == {"runestone", "cenotaph"}
        assert chain.query("SELECT * FROM virtualchain.rejections") == []
        chain.assert_balanced()


@pytest.mark.parametrize("amount", [0, 7])
def test_a_split_over_thousands_of_outputs(database_url: str, amount: int) -> None:
    """5,000 outputs get their shares, and are given up again by a rollback."""
    with runes_chain(database_url) as chain:
        edicts = [(0, 0, amount, 5001)] * 200
        raw = chain.tx([Spent(fresh_coin(90))], runestone(edicts, flags=1, premine=10**7 + 3), *[ANN] * 5000)
        chain.mine(raw)
        held = chain.held(raw)
        assert len(held) == 5000
        shares = [amounts["100:1"] for _, amounts in sorted(held.items())]
        assert sum(shares) == 10**7 + 3
        if amount:
            assert shares == [200 * 7 + 10**7 + 3 - 5000 * 200 * 7, *[200 * 7] * 4999]
        else:
            assert shares == [2001] * 3 + [2000] * 4997
        chain.assert_balanced()
        chain.mine()
        chain.undo(2)
        assert chain.query("SELECT * FROM runes.outputs") == chain.query("SELECT * FROM runes.runes") == []


def test_a_block_of_the_largest_message(database_url: str) -> None:
    """160,000 edicts of one message, each over 10,000 outputs, take seconds, not hours."""
    with runes_chain(database_url) as chain:
        script = script_of([2, 1, 6, U128, 0, *[0, 0, 1, 10_001] * 160_000])
        raw = chain.tx([Spent(fresh_coin(90))], script, *[b"\x51"] * 10_000)
        assert len(raw) < 1_000_000
        chain.mine(raw)
        held = chain.held(raw)
        assert held[2] == {"100:1": 160_000}
        assert sum(amounts["100:1"] for amounts in held.values()) == U128
        assert chain.fields(raw)["edicts"] == 160_000


def test_the_effect_of_an_op_is_the_digest_of_its_events(database_url: str) -> None:
    """Anyone can compute it from the table of events, as docs/protocol/runes.md says."""
    with runes_chain(database_url) as chain:
        raw = chain.tx([Spent(fresh_coin(90))], runestone(flags=1, premine=5), ANN)
        chain.mine(raw)
        events = chain.query("SELECT * FROM runes.rune_events ORDER BY event")
        columns = ("kind", "rune", "amount", "vin", "vout", "address", "flaw")
        lines = [" ".join("-" if row[name] is None else str(row[name]) for name in columns) for row in events]
        text = "".join(f"{line}\n" for line in lines)
        assert chain.fields(raw)["effect"] == hashlib.sha256(text.encode()).hexdigest()
        assert [row["kind"] for row in events] == ["etched", "transferred"]
