"""What the scan searches for, and which blocks of the tape have been searched for it.

An app can be advanced only along blocks that were searched for its magic, by its payload rule.
"""

from collections.abc import Iterator, Sequence

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.payload import watch
from virtualchain.errors import UsageError
from virtualchain.model import PayloadRule, Watch
from virtualchain.store.tape import Covered, Tape, tracking_rule


def watches_of(contracts: Sequence[Contract]) -> list[Watch]:
    """Return what the scan searches for on behalf of some apps, each search once."""
    watches: dict[tuple[bytes, str, int], Watch] = {}
    for contract in contracts:
        for item in _watches(contract):
            # Of one name there may be two functions: a digest of code does not show all.
            function = 0 if isinstance(item.find_payload, PayloadRule) else id(item.find_payload)
            watches.setdefault((item.magic, item.rule, function), item)
    return list(watches.values())


def tracking_of(contracts: Sequence[Contract]) -> dict[str, str]:
    """Return the apps that track outputs, each with the rule of the coverage of what it sees."""
    return {
        contract.name: tracking_rule(contract.name, contract.tracking)
        for contract in contracts
        if contract.tracking is not None
    }


def cover(tape: Tape, contracts: Sequence[Contract]) -> None:
    """Start the apps' searches with the next block, and end those that no app needs any more."""
    tip = tape.tip()
    if tip is None:  # an open search may begin before the first block to come
        tape.forget_searches()
    needed = {(item.magic, item.rule) for item in watches_of(contracts)}
    open_now = {(row.magic, row.rule) for row in tape.coverage() if row.until_block is None}
    following = min(item.start for item in contracts) if tip is None else tip.block_id + 1
    for magic, rule in sorted(open_now - needed):
        tape.close_coverage(magic, rule, following - 1)
    for magic, rule in sorted(needed - open_now):
        tape.open_coverage(magic, rule, following)


def gaps(tape: Tape, contract: Contract, after: int = -1) -> list[tuple[int, int]]:
    """Return the stretches of blocks, from an app's first to the tape's last, not yet searched for it.

    Both ends are included; they are in order. An app that has taken block `after` needs only those above it:
    what it has taken may have been pruned. An app is advanced along the tape only if there is none. What
    an app that tracks outputs sees depends on its state, so blocks count as searched for it only if a build
    by the same rules and code has taken them.
    """
    tip, start = tape.tip(), max(contract.start, after + 1)
    if tip is None or start > tip.block_id:
        return []
    searches = [(item.magic, item.rule) for item in _watches(contract)]
    if contract.tracking is not None:
        searches = [(b"", tracking_rule(contract.name, contract.tracking))]
    covered = tape.coverage()
    unsearched = [
        gap
        for search in searches
        for gap in uncovered([row for row in covered if (row.magic, row.rule) == search], start, tip.block_id)
    ]
    return _joined(unsearched)


def require_searched(tape: Tape, contract: Contract, last: int) -> None:
    """Check that the tape has all that an app needs up to a block; raises UsageError."""
    unsearched = gaps(tape, contract)
    if unsearched and unsearched[0][0] <= last:
        raise UsageError(
            f"app {contract.name} cannot be derived from the tape: from block {unsearched[0][0]} on it was "
            f"not searched for what this code needs{pruned_note(tape)}: `virtualchain upgrade "
            f"{contract.name}` does so"
        )


def pruned_note(tape: Tape) -> str:
    """Return what a message about blocks that were not searched adds if inputs were pruned."""
    until = tape.pruned_until()
    return "" if until is None else f" (inputs of blocks below {until + 1} were pruned)"


def _watches(contract: Contract) -> list[Watch]:
    return [
        watch(
            magic,
            contract.find_payload,
            contract.rule,
            has_opcode=contract.has_opcodes,
            needs_heights=bool(contract.needs),
        )
        for magic in contract.magics
    ]


def uncovered(rows: Sequence[Covered], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of blocks `first` to `last` that searched stretches leave out."""
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
