"""A transaction and the headers on top of its block: what real chains have passes, and no lie does."""

import json
import struct
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin import spv as room
from virtualchain.bitcoin.header import HEADER_SIZE, headers_from, read_header, sha256d
from virtualchain.bitcoin.inclusion import inclusions
from virtualchain.bitcoin.layout import txids, walk
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.spv import InChain, check_spv, make_spv
from virtualchain.errors import InvalidProof, MalformedBlock
from virtualchain.model import Block
from virtualchain.testing.blocks import genesis_block
from virtualchain.testing.chain import ChainBuilder

REGTEST, MAIN = network("regtest"), network("mainnet")
EASIEST = 0x207FFFFF


def _chain() -> tuple[list[bytes], int]:
    """Build a chain with a block of ten transactions and fourteen more on top; return it and the height."""
    chain = ChainBuilder()
    txs = [chain.send(b"id%d" % number) for number in range(10)]
    height = len(chain.raw_blocks())
    chain.mine(txs, 15)
    return chain.raw_blocks(), height


RAW, HEIGHT = _chain()
HEADERS = [read_header(n, raw[:HEADER_SIZE]) for n, raw in enumerate(RAW)]
IDS = txids(RAW[HEIGHT])


def good(txindex: int = 5, last: int | None = None) -> Any:
    """Make what shows a transaction of the block, as it is read from a file."""
    [inclusion] = inclusions(walk(RAW[HEIGHT]), [txindex])
    headers = HEADERS[HEIGHT:] if last is None else HEADERS[HEIGHT : last + 1]
    return json.loads(json.dumps(make_spv(inclusion, headers, REGTEST)))


def refuse(spv: object, match: str | None = None, **known: Any) -> None:
    """Check that what is shown is refused."""
    with pytest.raises(InvalidProof, match=match):
        check_spv(spv, HEIGHT, **known)


def test_every_transaction_of_a_block_is_shown_with_the_work_on_top() -> None:
    """The result says where it is, how many blocks follow, and what work they took."""
    for txindex, txid in enumerate(IDS):
        shown = check_spv(good(txindex), HEIGHT, network="regtest", last_hash=HEADERS[-1].hash)
        expected = InChain("regtest", txindex, txid, HEADERS[HEIGHT], HEADERS[-1], 14 * 2)
        assert (shown, shown.blocks_on_top) == (expected, 14)
    alone = check_spv(good(last=HEIGHT), HEIGHT)
    assert (alone.blocks_on_top, alone.work, alone.last) == (0, 0, HEADERS[HEIGHT])


def test_any_changed_digit_is_refused() -> None:
    """Transactions, branches and headers: each byte of each counts; the last header only needs work."""
    made = good()
    for key in ("transaction", "coinbase"):
        for at in range(0, len(made[key]), 2):
            digits = made[key]
            refuse({**made, key: digits[:at] + f"{int(digits[at : at + 2], 16) ^ 1:02x}" + digits[at + 2 :]})
    for key in ("branch", "coinbase_branch", "headers"):
        for place, digits in enumerate(made[key]):
            if digits is made["headers"][-1]:
                continue
            for at in range(0, len(digits), 8):
                changed = digits[:at] + f"{int(digits[at], 16) ^ 1:x}" + digits[at + 1 :]
                refuse({**made, key: [*made[key][:place], changed, *made[key][place + 1 :]]})


@pytest.mark.parametrize("key", ["branch", "coinbase_branch", "headers"])
def test_lists_are_complete_and_in_order(key: str) -> None:
    """No item may be missing, twice, or at another place."""
    made = good()
    size = len(made[key])
    for place in range(size):
        without = [*made[key][:place], *made[key][place + 1 :]]
        if key != "headers" or place < size - 1:
            refuse({**made, key: without})
        refuse({**made, key: [*made[key][: place + 1], *made[key][place:]]})
    refuse({**made, key: made[key][::-1]})
    refuse({**made, key: []})


def test_another_place_is_refused() -> None:
    """Neither a neighbor's place nor one beyond the tree passes."""
    for other in {*range(40), 2**31 - 1} - {5}:
        refuse({**good(), "txindex": other})


@pytest.mark.parametrize("key", sorted(good()))
@pytest.mark.parametrize(
    "value", [None, 0, -1, True, 1.5, "", "zz", "AB" * 80, [], {}, [None], [7], ["ab"], [[]]]
)
def test_a_part_of_the_wrong_kind_is_refused(key: str, value: object) -> None:
    """Every part has one type; one that is missing or too much is refused as well."""
    refuse({**good(), key: value})
    refuse({name: part for name, part in good().items() if name != key}, "exactly these keys")
    refuse({**good(), key + "s": value}, "exactly these keys")


@pytest.mark.parametrize("shown", [None, [], "spv", 3, {}])
def test_what_is_not_an_object_with_these_parts_is_refused(shown: object) -> None:
    """It may be anything that JSON can represent."""
    refuse(shown, "exactly these keys")


def test_a_lie_about_the_height_is_refused() -> None:
    """The coinbase states it, in all blocks but the first ones of a network."""
    for height in (HEIGHT - 1, HEIGHT + 1, HEIGHT + 256, 1):
        with pytest.raises(InvalidProof, match=f"block {height}: the coinbase does not state the height"):
            check_spv(good(), height)


def test_what_the_checker_knows_must_agree() -> None:
    """The network, and the block that the headers lead to."""
    refuse(good(), "the headers are of regtest, not of mainnet", network="mainnet")
    refuse(good(), "not to the trusted one", last_hash=HEADERS[-2].hash)
    refuse(good(), "64 lower-case hex digits", last_hash=HEADERS[-1].hash.upper())
    check_spv(good(last=HEIGHT + 3), HEIGHT, last_hash=HEADERS[HEIGHT + 3].hash)


@pytest.mark.parametrize(
    "name", ["main", "regtest ", "Regtest", "bitcoin", "signet-0a03cf40", "signet-xx", "\x1b[31m"]
)
def test_a_network_has_one_name(name: str) -> None:
    """That of bitcoind, or of a signet's message start that has a name of its own, is not taken."""
    refuse({**good(), "network": name}, "network")


@pytest.mark.parametrize("name", ["mainnet", "testnet3", "testnet4", "signet", "signet-8de45da0"])
def test_easy_headers_are_only_regtest_s(name: str) -> None:
    """Every other network has a limit that they are above."""
    refuse({**good(), "network": name}, f"easier than {name} allows")


def mined(first: int, times: list[int], bits: list[int]) -> list[Block]:
    """Mine headers with these times and bits, the first of them on top of nothing."""
    headers: list[Block] = []
    parent = bytes(32)
    for place, (time, target) in enumerate(zip(times, bits, strict=True)):
        for nonce in count():
            raw = struct.pack("<i32s32sIII", 4, parent, bytes(32), time, target, nonce)
            block = read_header(first + place, raw)
            if int(block.hash, 16) <= room_target(target):
                break
        parent = sha256d(raw)
        headers.append(block)
    return headers


def room_target(bits: int) -> int:
    """Expand bits whose exponent is above 3."""
    return (bits & 0x7FFFFF) << 8 * ((bits >> 24) - 3)


EASY_MAIN = replace(MAIN, largest_target=room_target(EASIEST))
EASY_TEST4 = replace(network("testnet4"), largest_target=room_target(EASIEST))


def test_targets_are_those_that_the_rules_require() -> None:
    """Inside a period the target is constant; at its end it changes by at most a factor of four."""
    times = [600 * place for place in range(8)]
    easy = [EASIEST] * 8
    for bits in (easy, [*easy[:4], *[0x201FFFFF] * 4]):  # 2016 is the fifth
        room._check_headers(mined(2012, times, bits), EASY_MAIN)
    for bits in (
        [*easy[:2], 0x207FFFFE, *easy[3:]],
        [*easy[:6], 0x203FFFFF, *easy[7:]],
        [*easy[:4], *[0x201FFFFE] * 4],
        [*easy[:4], 0x203FFFFF, *easy[5:]],
    ):
        with pytest.raises(MalformedBlock, match="but the chain's rules require"):
            room._check_headers(mined(2012, times, bits), EASY_MAIN)


def test_a_whole_period_of_headers_fixes_the_next_target_exactly() -> None:
    """With the header 2,016 blocks below, nothing is left to choose."""
    bits = [0x203FFFFF] * 2016
    times = [600 * place for place in range(2016)]
    shown = mined(2016, times, bits)
    seconds = times[-1]
    right = (room_target(0x203FFFFF) * seconds // 1_209_600) >> 232
    tip = shown[-1]
    for mantissa, is_right in ((right, True), (right - 1, False), (right + 1, False)):
        [last] = mined(4032, [10**7], [0x20000000 | mantissa])
        linked = replace(last, prev_hash=tip.hash)
        if is_right:
            room._check_headers([*shown, linked], EASY_MAIN)
        else:
            with pytest.raises(MalformedBlock, match="block 4032 states the target"):
                room._check_headers([*shown, linked], EASY_MAIN)


def test_times_are_later_than_the_median() -> None:
    """Of headers whose eleven predecessors are shown; and testnet4 has no time warp."""
    times = [1000 + place for place in range(12)]
    room._check_headers(mined(100, [*times, 1007], [EASIEST] * 13), REGTEST)
    with pytest.raises(MalformedBlock, match="must be later than 1006"):
        room._check_headers(mined(100, [*times, 1006], [EASIEST] * 13), REGTEST)
    room._check_headers(mined(2015, [1000, 400], [EASIEST] * 2), EASY_TEST4)
    with pytest.raises(MalformedBlock, match="600 seconds before its parent"):
        room._check_headers(mined(2015, [1000, 399], [EASIEST] * 2), EASY_TEST4)


def real_blocks() -> list[bytes]:
    """Read the first 600 blocks of mainnet, each of which has eight bytes in front of it."""
    file, blocks, at = shared("mainnet/blocks-0-599.dat").read_bytes(), [], 0
    while at < len(file):
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        blocks.append(file[at + 8 : at + 8 + size])
        at += 8 + size
    return blocks


@pytest.mark.parametrize("height", [0, 1, 170, 400, 599])
def test_transactions_of_the_first_real_blocks_are_shown(height: int) -> None:
    """Mainnet's chain passes from any block on, with the branches of its own transactions."""
    raw = real_blocks()
    headers = [read_header(n, block[:HEADER_SIZE]) for n, block in enumerate(raw)]
    for inclusion in inclusions(walk(raw[height]), range(len(txids(raw[height])))):
        spv = json.loads(json.dumps(make_spv(inclusion, headers[height:], MAIN)))
        shown = check_spv(spv, height, network="mainnet", last_hash=headers[-1].hash)
        assert (shown.txid, shown.blocks_on_top) == (txids(raw[height])[inclusion.txindex], 599 - height)
        assert shown.work == (599 - height) * 0x100010001
        if height:
            with pytest.raises(InvalidProof):
                check_spv({**spv, "txindex": inclusion.txindex + 1}, height)


@pytest.mark.parametrize(("name", "file"), [("signet", "signet_0_2015"), ("testnet3", "testnet3_0_10000")])
def test_the_coinbase_of_a_genesis_block_is_shown_with_all_headers_above_it(name: str, file: str) -> None:
    """Retargets and blocks of least difficulty are among the headers."""
    headers = headers_from(0, shared(f"headers/{file}.bin").read_bytes())
    [inclusion] = inclusions(walk(genesis_block(network(name))), [0])
    spv = make_spv(inclusion, headers, network(name))
    assert check_spv(spv, 0).blocks_on_top == len(headers) - 1
    with pytest.raises(InvalidProof):
        check_spv({**spv, "network": "mainnet"}, 0)


def test_real_headers_pass_over_a_retarget_from_whichever_one_on() -> None:
    """Those of mainnet; so do the recorded branches of a reorganization right after another retarget."""
    headers = headers_from(576576, shared("headers/mainnet_576576_578692.bin").read_bytes())
    for cut in (0, 1, 1000, 2010, 2016, 2017, 2116):
        room._check_headers(headers[cut:], MAIN)
    cases: dict[str, Any] = json.loads(shared("headers/headersReorgAndRetarget.json").read_text())
    chain = [
        read_header(case["height"], bytes.fromhex(case["hex"][2:]))
        for case in (cases["genesis"], *cases["preRetargetChain"], *cases["postRetargetChain"])
    ]
    orphan = read_header(437478, bytes.fromhex(cases["orphan_437478"]["hex"][2:]))
    fork = next(place for place, header in enumerate(chain) if header.hash == orphan.prev_hash)
    room._check_headers(chain, MAIN)
    room._check_headers([*chain[: fork + 1], orphan], MAIN)
    with pytest.raises(MalformedBlock, match="not a child of the one before it"):
        room._check_headers([*chain[: fork + 1], orphan, *chain[fork + 2 :]], MAIN)
    with pytest.raises(MalformedBlock, match="states the target"):
        room._check_headers([replace(header, block_id=header.block_id + 3) for header in chain], MAIN)
