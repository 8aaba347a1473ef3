"""Targets and proof of work: real headers pass on their networks, and each way to claim work is refused."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.headers import EASY, HARD, grow
from tests.support.shared_data import shared
from virtualchain.bitcoin.difficulty import check_targets, check_times, check_work, follows
from virtualchain.bitcoin.header import headers_from
from virtualchain.bitcoin.networks import Network, network, with_easy_work
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

MAIN, TEST = network("mainnet"), network("testnet3")
PERIOD = MAIN.period
FIRST = 0x1D00FFFF
"""The bits of the first mainnet blocks, and of an eased block on testnet3."""
USUAL = 0x1B04864C
REAL = [
    ("mainnet", "mainnet_576576_578692", 576576),
    ("signet", "signet_0_2015", 0),
    ("testnet3", "testnet3_0_10000", 0),
]


def real(file: str, first: int) -> list[Block]:
    """Read headers of the shared data; mainnet's and testnet3's cross an adjustment."""
    return headers_from(first, shared(f"headers/{file}.bin").read_bytes())


def check(headers: Sequence[Block], on: Network, known: Sequence[Block] = ()) -> None:
    """Check the targets of headers on top of those that are known."""
    check_targets(headers, on, {block.block_id: block for block in known}.get)


def with_bits(headers: Sequence[Block], at: int, bits: int) -> list[Block]:
    """Change the bits of one header."""
    return [replace(block, bits=bits) if block.block_id == at else block for block in headers]


def timed(first: int, times: Sequence[int], bits: Sequence[int]) -> list[Block]:
    """Make headers with these times and bits."""
    chain = grow(None, len(times), first=first)
    return [
        replace(block, time=time, bits=each) for block, time, each in zip(chain, times, bits, strict=True)
    ]


@pytest.mark.parametrize(("name", "file", "first"), REAL)
def test_real_headers_pass_from_whichever_one_on(name: str, file: str, first: int) -> None:
    """As little of the chain below them may be at hand as one likes."""
    headers, on = real(file, first), network(name)
    for header in headers:
        check_work(header, on)
    for cut in range(0, len(headers), 97):
        below, rest = headers[:cut], headers[cut:]
        check(rest, on, below)
        check(rest, on, below[-1:])
        check(rest, on)
        check_times(rest, on, {block.block_id: block for block in below}.get)


@pytest.mark.parametrize("bits", [EASY, 0x171DBD35, 0x172C4E10, FIRST])
def test_within_a_period_the_target_is_constant(bits: int) -> None:
    """Easier or harder, mainnet allows no other; the first known header is compared with its parent."""
    headers = real("mainnet_576576_578692", 576576)
    for at in (577_000, 578_591, 578_600):
        with pytest.raises(MalformedBlock, match=rf"block {at} states the target {bits:#010x}.*require"):
            check(with_bits(headers, at, bits), MAIN)
    with pytest.raises(MalformedBlock, match="block 577000"):
        check(with_bits(headers, 577_000, bits)[424:], MAIN, headers[423:424])
    check(with_bits(headers, 576_576, bits)[:1], MAIN)  # nothing is known of what is below


def test_at_the_end_of_a_period_the_target_is_what_its_times_require() -> None:
    """With the period's first header it must be exact; without it, a change by more than four is refused."""
    headers = real("mainnet_576576_578692", 576576)
    right = headers[2016].bits
    for bits in (right + 1, right - 1, headers[2015].bits):
        with pytest.raises(MalformedBlock, match=f"block 578592 .*require {right:#010x}"):
            check(with_bits(headers, 578_592, bits)[:2017], MAIN)
        check(with_bits(headers, 578_592, bits)[2016:2017], MAIN, headers[2015:2016])
    # Four times as easy or hard is possible, one step more is not.
    base = headers[2015].bits
    for bits in (times_four(base) + 1, quarter(base) - 1, FIRST, EASY):
        with pytest.raises(MalformedBlock, match="by at most a factor of 4"):
            check(with_bits(headers, 578_592, bits)[2016:2017], MAIN, headers[2015:2016])
        assert not follows(bits, base, 578_592, MAIN)
    for bits in (times_four(base), quarter(base), right):
        assert follows(bits, base, 578_592, MAIN)
        assert not follows(bits, base, 578_593, MAIN)


def times_four(bits: int) -> int:
    """Make a target four times as easy."""
    mantissa = (bits & 0xFFFFFF) * 4
    return bits & 0xFF000000 | mantissa if mantissa < 0x800000 else (bits >> 24) + 1 << 24 | mantissa >> 8


def quarter(bits: int) -> int:
    """Make a target four times as hard."""
    mantissa = (bits & 0xFFFFFF) << 6
    return (bits >> 24) - 1 << 24 | mantissa if mantissa < 0x800000 else bits & 0xFF000000 | mantissa >> 8


@pytest.mark.parametrize(
    ("seconds", "after"),
    [
        (0, 0x1B010000),
        (-5, 0x1B010000),
        (1_209_600, 0x1B040000),
        (2 * 1_209_600, 0x1B080000),
        (10**9, 0x1B100000),
    ],
)
def test_the_adjustment_is_limited(seconds: int, after: int) -> None:
    """A period that took no time, or years, changes the target by a factor of four."""
    times = [10**9, *[10**9 + 1] * (PERIOD - 2), 10**9 + seconds, 10**9]
    check(timed(PERIOD, times, [*[0x1B040000] * PERIOD, after]), MAIN)
    with pytest.raises(MalformedBlock, match="require"):
        check(timed(PERIOD, times, [*[0x1B040000] * PERIOD, after + 1]), MAIN)


def test_a_target_is_never_easier_than_the_network_s_largest() -> None:
    """Mainnet's first periods took longer than two weeks and kept their target."""
    times = [10**9, *[10**9] * (PERIOD - 2), 10**9 + 10**8, 10**9]
    check(timed(0, times, [FIRST] * (PERIOD + 1)), MAIN)


def test_a_test_network_eases_a_block_that_comes_late() -> None:
    """After twenty minutes the target must be the largest; then the usual one counts again."""
    times = [0, 600, 1801, 1900, 2000, 3201, 3300]
    headers = timed(PERIOD, times, [USUAL, USUAL, FIRST, USUAL, USUAL, FIRST, USUAL])
    check(headers, TEST)
    for cut in range(1, len(headers)):
        check(headers[cut:], TEST, headers[:cut])
        check(headers[cut:], TEST, headers[cut - 1 : cut])
    for at, wrong in ((2, USUAL), (3, FIRST), (4, FIRST), (5, USUAL), (6, FIRST), (6, USUAL + 1)):
        with pytest.raises(MalformedBlock, match=f"block {PERIOD + at} states"):
            check(with_bits(headers, PERIOD + at, wrong), TEST)
        with pytest.raises(MalformedBlock, match=f"block {PERIOD + at} states"):
            check(with_bits(headers, PERIOD + at, wrong)[at:], TEST, headers[:at])
        check(with_bits(headers, PERIOD + at, wrong), with_easy_work(TEST))


def test_testnet4_adjusts_the_first_target_of_a_period() -> None:
    """On testnet3, an eased last block makes the next period easy; BIP 94 prevents that."""
    times = [*range(0, 600 * (PERIOD - 1), 600), 600 * PERIOD + 1200, 600 * PERIOD + 1300]
    bits = [USUAL] * (PERIOD - 1) + [FIRST]
    usual = 0x1B048772
    for name, right, wrong in (("testnet3", FIRST, usual), ("testnet4", usual, FIRST)):
        check(timed(PERIOD, times, [*bits, right]), network(name))
        with pytest.raises(MalformedBlock, match=f"block {2 * PERIOD} .*{right:#010x}"):
            check(timed(PERIOD, times, [*bits, wrong]), network(name))


def test_regtest_allows_every_target_that_is_worked_for() -> None:
    """Its difficulty is never adjusted, and tests mine heavier branches by a harder target."""
    check(with_bits(grow(None, 20), 7, HARD), network("regtest"))
    assert follows(HARD, EASY, 7, network("regtest"))


def test_work_is_met_or_refused() -> None:
    """A hash above its target, and a target above the network's, have no work."""
    [block] = real("mainnet_576576_578692", 576576)[:1]
    check_work(replace(block, hash=f"{int(block.hash, 16) >> 8:064x}"), MAIN)
    with pytest.raises(MalformedBlock, match="no proof of work"):
        check_work(replace(block, hash=f"{int(block.hash, 16) << 12:064x}"), MAIN)
    with pytest.raises(MalformedBlock, match="easier than mainnet allows"):
        check_work(replace(block, bits=0x1D010000), MAIN)
    with pytest.raises(MalformedBlock, match="not a valid target"):
        check_work(replace(block, bits=0x1D80FFFF), MAIN)


def test_a_custom_signet_may_have_another_spacing() -> None:
    """Nothing states it, so targets need only be ones that a signet allows at all."""
    headers = with_bits(real("signet_0_2015", 0), 1000, 0x1D00FFFF)
    check(headers, network("signet-8de45da0"))
    with pytest.raises(MalformedBlock):
        check(headers, network("signet"))


def check_timed(times: Sequence[int], first: int = 100, on: Network = MAIN, known: int = 0) -> None:
    """Check the times of headers from height `first` on, of which `known` are at hand as earlier ones."""
    headers = timed(first, times, [FIRST] * len(times))
    check_times(headers[known:], on, {block.block_id: block for block in headers[:known]}.get)


ELEVEN = [20, 11, 19, 12, 18, 13, 17, 14, 16, 10, 99]
"""Times whose median is 16."""


@pytest.mark.parametrize("known", [0, 1, 5, 11])
def test_a_header_is_later_than_the_median_of_the_eleven_before_it(known: int) -> None:
    """The same second is too early; which of the twelve are to be checked makes no difference."""
    check_timed([*ELEVEN, 17], known=known)
    for time in (16, 15, 0):
        with pytest.raises(MalformedBlock, match=f"block 111 .*the time {time}, but must be later than 16"):
            check_timed([*ELEVEN, time], known=known)


def test_the_median_moves_along() -> None:
    """Each header is compared with the eleven right before it, not with older ones."""
    check_timed([1000, *ELEVEN, 17])
    check_timed([*ELEVEN, 17, 18])
    with pytest.raises(MalformedBlock, match="block 112"):
        check_timed([1000, *ELEVEN, 16])
    check_timed([*ELEVEN, 30, 17])
    with pytest.raises(MalformedBlock, match=r"block 113 .*later than 17"):
        check_timed([*ELEVEN, 30, 30, 17])


def test_a_median_needs_all_eleven_unless_the_chain_has_fewer() -> None:
    """With ten known headers nothing is concluded; from the genesis block on, all that there are count."""
    check_timed([*ELEVEN[1:], 0])
    check_timed([5], first=0)
    check_timed([5, 6, 7, 7], first=0)
    check_timed([5, 6, 7, 7], first=0, known=2)
    for times in ([5, 5], [5, 6, 6], [5, 6, 7, 6]):
        for known in range(len(times)):
            with pytest.raises(MalformedBlock, match=f"block {len(times) - 1} "):
                check_timed(times, first=0, known=known)
    gap = timed(0, [5, 6, 7], [FIRST] * 3)
    check_times([replace(gap[2], time=0)], MAIN, {0: gap[0]}.get)


def test_a_period_of_testnet4_begins_at_most_ten_minutes_before_the_last_one_ended() -> None:
    """BIP 94 ends the time warp there; other networks do not have that rule."""
    times = [*ELEVEN[:10], 1000]
    for on, is_refused in (("testnet4", True), ("testnet3", False), ("mainnet", False)):
        check_timed([*times, 400], first=2 * PERIOD - 11, on=network(on))
        check_timed([*times, 399], first=2 * PERIOD - 10, on=network(on))
        if not is_refused:
            check_timed([*times, 399], first=2 * PERIOD - 11, on=network(on))
            continue
        for known in (0, 10):
            with pytest.raises(MalformedBlock, match=f"block {2 * PERIOD} .*600 seconds before its parent"):
                check_timed([*times, 399], first=2 * PERIOD - 11, on=network(on), known=known)
        with pytest.raises(MalformedBlock, match="600 seconds"):
            check_timed([1000, 399], first=2 * PERIOD - 1, on=network(on))
