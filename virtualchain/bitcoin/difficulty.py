"""The difficulty: which targets a network allows its headers to state, and the work that meets them.

The rules are those of Bitcoin Core's `pow.cpp`, and for times, of which targets are computed, those of its
`ContextualCheckBlockHeader`. A chain that breaks them costs less work than it claims, so its work must not
decide anything.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

from virtualchain.bitcoin.auxpow import check_version, has_auxpow, parent_of
from virtualchain.bitcoin.header import sha256d, target
from virtualchain.bitcoin.networks import Network
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

_MOST_CHANGE: Final = 4
"""The difficulty changes by at most this factor at once."""
_EASES_AFTER: Final = 2
"""After so many spacings without a block, test networks allow the largest target."""
_MEDIAN_SPAN: Final = 11
"""A header's time is compared with the median of those of so many before it (BIP 113)."""
_MOST_WARP: Final = 10 * 60
"""Seconds that a period may begin before the last one ended, on a network that follows BIP 94."""

Earlier = Callable[[int], Block | None]
"""Returns the header at a height below those that are checked; None if it is not at hand."""


def check_work(block: Block, network: Network, *, is_stored: bool = False) -> None:
    """Check a header's proof of work; raises MalformedBlock.

    Its target must be one that the network allows at all, and its hash at most the target. On a chain that is
    mined together with others, the hash may be that of a parent, which `Block.auxpow` must lead to. The tape
    does not keep that: of a header from there, which `is_stored`, only what it says of its chain is checked.
    """
    limit = target(block.bits)
    if limit > network.largest_target:
        raise MalformedBlock(
            f"{_name(block)} states the target {block.bits:#010x}, which is easier than {network.name} allows"
        )
    number = _proving_number(block, network, is_stored=is_stored)
    if number is not None and number > limit:
        raise MalformedBlock(f"{_name(block)} has no proof of work: its hash is above the target it states")


def _proving_number(block: Block, network: Network, *, is_stored: bool) -> int | None:
    """Return the number that must not be above the target; None if that is lost with a parent."""
    if network.proof_of_work is sha256d and network.auxpow_chain_id is None:
        return int(block.hash, 16)
    header = block.header
    if network.auxpow_chain_id is not None:
        try:
            check_version(int.from_bytes(header[:4], "little", signed=True), block.block_id, network)
            if has_auxpow(header):
                if is_stored:
                    return None
                header = parent_of(block.hash, block.auxpow, network)
        except MalformedBlock as error:
            raise MalformedBlock(f"{_name(block)} has no proof of work: {error}") from error
    return 0 if network.proof_of_work is None else int.from_bytes(network.proof_of_work(header), "little")


def check_targets(headers: Iterable[Block], network: Network, earlier: Earlier) -> None:
    """Check that each of these headers, which form a chain, states the target that the rules require.

    `earlier` returns headers below the first one. As far as it has them, the target must be exactly right.
    Without the first header of a period, the adjustment at its end is checked only for its largest change,
    and without the parent, nothing is. Raises MalformedBlock.
    """
    if not network.retargets:
        return
    remaining = iter(headers)
    first = next(remaining, None)
    if first is None:
        return
    seen: dict[int, Block] = {}

    def at(block_id: int) -> Block | None:
        return seen[block_id] if block_id in seen else earlier(block_id)

    parent = at(first.block_id - 1)
    usual = _usual_bits(parent, network, at) if parent is not None else None
    for block in chain([first], remaining):
        if parent is not None:
            _check_target(block, parent, usual, network, at)
        is_eased = network.eases and block.bits == _compact(network.largest_target)
        if block.block_id % network.period == 0 or not is_eased:
            usual = block.bits
        seen[block.block_id] = parent = block


def check_times(headers: Iterable[Block], network: Network, earlier: Earlier) -> None:
    """Check that each of these headers, which form a chain, is later than the median of those before it.

    Eleven count, or at the bottom of the chain all that there are; a header is not checked if `earlier` does
    not return them. With BIP 94, the first header of a period must also not be far before its parent. Times
    are not compared with a clock. Raises MalformedBlock.
    """
    remaining = iter(headers)
    first = next(remaining, None)
    if first is None:
        return
    times: deque[int] = deque(maxlen=_MEDIAN_SPAN)
    for block_id in range(first.block_id - 1, max(first.block_id - _MEDIAN_SPAN, 0) - 1, -1):
        block = earlier(block_id)
        if block is None:
            break
        times.appendleft(block.time)
    for block in chain([first], remaining):
        if times and len(times) == min(block.block_id, _MEDIAN_SPAN):
            median = sorted(times)[len(times) // 2]
            if block.time <= median:
                raise MalformedBlock(
                    f"{_name(block)} states the time {block.time}, but must be later than {median}, "
                    f"the median of the {len(times)} headers before it"
                )
        starts_period = network.adjusts_first_target and block.block_id % network.period == 0
        if starts_period and times and block.time < times[-1] - _MOST_WARP:
            raise MalformedBlock(
                f"{_name(block)} states the time {block.time}: the first header of a period may be at most "
                f"{_MOST_WARP} seconds before its parent, whose time is {times[-1]}"
            )
        times.append(block.time)


def follows(bits: int, parent_bits: int, block_id: int, network: Network) -> bool:
    """Check whether a block at height `block_id` may state these bits after such a parent.

    This is what two headers alone show: networks that ease allow every target.
    """
    if network.eases or not network.retargets:
        return True
    if block_id % network.period:
        return bits == parent_bits
    return _is_possible_adjustment(bits, parent_bits, network)


def _check_target(block: Block, parent: Block, usual: int | None, network: Network, at: Earlier) -> None:
    if block.block_id % network.period:
        if network.eases and block.time > parent.time + _EASES_AFTER * network.spacing:
            usual = _compact(network.largest_target)
        if usual is not None and block.bits != usual:
            raise _wrong(block, f"{usual:#010x}")
        return
    first = at(_first_measured(block.block_id, network))
    if first is not None:
        base = first.bits if network.adjusts_first_target else parent.bits
        required = _adjusted(base, parent.time - first.time, network)
        if block.bits != required:
            raise _wrong(block, f"{required:#010x}")
    elif not network.adjusts_first_target and not _is_possible_adjustment(block.bits, parent.bits, network):
        raise _wrong(block, f"a change of {parent.bits:#010x} by at most a factor of {_MOST_CHANGE}")


def _usual_bits(parent: Block, network: Network, at: Earlier) -> int | None:
    """Find the target of the period, which a block without ease must state; None if it is not at hand.

    It is the target of the last block that did not have the largest one, or of the period's first block.
    """
    usual: Block | None = parent
    while usual is not None and network.eases and usual.block_id % network.period:
        if usual.bits != _compact(network.largest_target):
            break
        usual = at(usual.block_id - 1)
    return None if usual is None else usual.bits


def _is_possible_adjustment(bits: int, parent_bits: int, network: Network) -> bool:
    easiest = _adjusted(parent_bits, network.period_seconds * _MOST_CHANGE, network)
    hardest = _adjusted(parent_bits, network.period_seconds // _MOST_CHANGE, network)
    return target(hardest) <= target(bits) <= target(easiest)


def _adjusted(bits: int, seconds: int, network: Network) -> int:
    """Compute the bits of a period after one that took so many seconds."""
    period = network.period_seconds
    seconds = min(max(seconds, period // _MOST_CHANGE), period * _MOST_CHANGE)
    before, shift = target(bits), 0
    if network.whole_period_block_id is not None:
        # Litecoin Core halves a target near the limit before it multiplies, so that 256 bits hold it.
        shift = int(before.bit_length() > network.largest_target.bit_length() - 1)
    adjusted = ((before >> shift) * seconds // period) << shift
    return _compact(min(adjusted, network.largest_target))


def _first_measured(block_id: int, network: Network) -> int:
    """Return the height from which the period before an adjustment is measured.

    Bitcoin leaves out the time to the period's first block, others do not.
    """
    whole = network.whole_period_block_id
    return block_id - network.period - (whole is not None and block_id >= whole)


def _compact(number: int) -> int:
    """Write a target in compact form, as Bitcoin Core's `GetCompact` does: its first three bytes count."""
    size = (number.bit_length() + 7) // 8
    mantissa = number << 8 * (3 - size) if size <= 3 else number >> 8 * (size - 3)
    if mantissa & 0x800000:  # this bit is the sign
        mantissa, size = mantissa >> 8, size + 1
    return size << 24 | mantissa


def _wrong(block: Block, required: str) -> MalformedBlock:
    return MalformedBlock(
        f"{_name(block)} states the target {block.bits:#010x}, but the chain's rules require {required}"
    )


def _name(block: Block) -> str:
    return f"header {block.hash}" + (f" of block {block.block_id}" if block.block_id >= 0 else "")
