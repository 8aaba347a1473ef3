"""The rules of the network hold for the headers of a tape, too."""

from virtualchain.audit.tape import _check_rules
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import network
from virtualchain.model import Block
from virtualchain.testing.blocks import START_TIME, make_header

REGTEST = network("regtest")


def chain(*times: int) -> dict[int, Block]:
    """Build headers with these seconds after a start, above a parent at height 99, by height."""
    parent = read_header(
        99, bytes(68) + START_TIME.to_bytes(4, "little") + bytes.fromhex("ffff7f20") + bytes(4)
    )
    blocks = {}
    for at, time in enumerate(times, 100):
        header = make_header(parent, bytes(32), START_TIME + time, 0x207FFFFF)
        blocks[at] = parent = read_header(at, header)
    return blocks


def faults(blocks: dict[int, Block]) -> list[tuple[int | None, str]]:
    """Return the faults of a tape that has these blocks."""
    return [(fault.block_id, fault.message) for fault in _check_rules(blocks, {}, REGTEST)]


def test_a_header_that_is_not_later_than_the_median_is_a_fault() -> None:
    """Eleven headers before it count."""
    times = range(600, 12 * 600, 600)
    assert faults(chain(*times, 3601)) == []
    ((block_id, message),) = faults(chain(*times, 3600))
    assert (block_id, "must be later than" in message) == (111, True)


def test_a_header_without_work_is_a_fault() -> None:
    """Its target may be one that the network allows."""
    blocks = chain(600, 1200)
    head = blocks[101].header[:76]
    raws = (head + nonce.to_bytes(4, "little") for nonce in range(1000))
    bad = next(block for raw in raws if (block := read_header(101, raw)).hash >= "8")
    ((block_id, message),) = faults({**blocks, 101: bad})
    assert (block_id, "no proof of work" in message) == (101, True)
