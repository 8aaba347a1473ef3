"""What the scan looks for, and which blocks of the tape were searched for it.

An app can be advanced along the tape only where its magic was looked for, by its payload rule.
"""

from collections.abc import Sequence

from virtualchain.bitcoin.payload import watch
from virtualchain.contract import Contract
from virtualchain.errors import UsageError
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
    """Open the apps' searches from the next block on, and close those that no app asks for any more.

    Raises UsageError where an app starts in a part of the tape that was not searched for its magic.
    """
    tip = tape.tip()
    for contract in contracts:
        require_searched(tape, contract)
    wanted = {(item.magic, item.rule) for item in watches_of(contracts)}
    opened = {(row.magic, row.rule) for row in tape.coverage() if row.until_block is None}
    following = min(item.start for item in contracts) if tip is None else tip.block_id + 1
    for magic, rule in sorted(opened - wanted):
        tape.close_coverage(magic, rule, following - 1)
    for magic, rule in sorted(wanted - opened):
        tape.open_coverage(magic, rule, following)


def require_searched(tape: Tape, contract: Contract, last: int | None = None) -> None:
    """Raise UsageError where an app starts in a part of the tape that was not searched for its magic.

    The tape counts up to the block `last`, where one is given.
    """
    tip, bottom = tape.tip(), tape.bottom()
    if tip is None or bottom is None:
        return
    end = tip.block_id if last is None else min(last, tip.block_id)
    if contract.start > end:
        return
    covered = tape.coverage()
    for item in _watches(contract):
        stretches = [row for row in covered if (row.magic, row.rule) == (item.magic, item.rule)]
        _require(contract, stretches, end, bottom.block_id)


def _watches(contract: Contract) -> list[Watch]:
    return [watch(magic, contract.find_payload, contract.name) for magic in contract.magics]


def _require(contract: Contract, stretches: Sequence[Covered], tip: int, bottom: int) -> None:
    """Raise where some block from the app's first to the tape's last was not searched."""
    reached = contract.start if contract.start >= bottom else None
    for row in sorted(stretches, key=lambda row: row.from_block):
        if reached is not None and row.from_block <= reached:
            reached = max(reached, tip + 1 if row.until_block is None else row.until_block + 1)
    if reached is None or reached <= tip:
        raise UsageError(
            f"app {contract.name} starts at block {contract.start}, and this database (blocks {bottom} to "
            f"{tip}) was not searched for its magic there: run it on a database of its own"
        )
