"""What the scan looks for, and which blocks of the tape were searched for it.

An app can be advanced along the tape only where its magic was looked for, by its payload rule.
"""

from collections.abc import Iterator, Sequence

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.payload import watch
from virtualchain.model import Watch
from virtualchain.store.tape import Covered, Tape


def watches_of(contracts: Sequence[Contract]) -> list[Watch]:
    """Give what the scan looks for on behalf of some apps, each search once."""
    found: dict[tuple[bytes, str], Watch] = {}
    for contract in contracts:
        for item in _watches(contract):
            found.setdefault((item.magic, item.rule), item)
    return list(found.values())


def rule_of(contract: Contract) -> str:
    """Give the name of the payload rule that finds an app's payloads."""
    return _watches(contract)[0].rule


def cover(tape: Tape, contracts: Sequence[Contract]) -> None:
    """Open the apps' searches from the next block on, and close those that no app asks for any more."""
    tip = tape.tip()
    if tip is None:  # what is open on it may begin in front of the first block to come
        tape.forget_searches()
    wanted = {(item.magic, item.rule) for item in watches_of(contracts)}
    opened = {(row.magic, row.rule) for row in tape.coverage() if row.until_block is None}
    following = min(item.start for item in contracts) if tip is None else tip.block_id + 1
    for magic, rule in sorted(opened - wanted):
        tape.close_coverage(magic, rule, following - 1)
    for magic, rule in sorted(wanted - opened):
        tape.open_coverage(magic, rule, following)


def gaps(tape: Tape, contract: Contract) -> list[tuple[int, int]]:
    """Give the stretches of blocks from an app's first to the tape's last that were not searched for it.

    Both ends are included; they are in order. An app is advanced only where there is none.
    """
    tip = tape.tip()
    if tip is None or contract.start > tip.block_id:
        return []
    covered = tape.coverage()
    found = [
        gap
        for item in _watches(contract)
        for gap in _between(
            [row for row in covered if (row.magic, row.rule) == (item.magic, item.rule)],
            contract.start,
            tip.block_id,
        )
    ]
    return _joined(found)


def _watches(contract: Contract) -> list[Watch]:
    return [watch(magic, contract.find_payload, contract.name) for magic in contract.magics]


def _between(rows: Sequence[Covered], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Give what searched stretches leave out of a stretch."""
    for row in sorted(rows, key=lambda row: row.from_block):
        if row.from_block > first:
            yield first, min(row.from_block - 1, last)
        first = max(first, last + 1 if row.until_block is None else row.until_block + 1)
        if first > last:
            return
    yield first, last


def _joined(stretches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join stretches that overlap or touch."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(stretches):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined
