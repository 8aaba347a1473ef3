"""Edicts: how a transaction's runes are given to its outputs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from virtualchain.examples.runes.rune_id import THIS_RUNE, RuneId
from virtualchain.examples.runes.runestone import Edict

Balance = Mapping[RuneId, int]
"""Amounts by rune."""


class Allocation:
    """What a transaction's outputs receive; `burning` says of each output whether it is an OP_RETURN."""

    def __init__(self, available: Balance, burning: Sequence[bool]) -> None:
        self._left = {rune_id: amount for rune_id, amount in available.items() if amount}
        self._output_count = len(burning)
        self._destinations = [output for output, burns in enumerate(burning) if not burns]
        self._received: defaultdict[RuneId, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._received_by_all: defaultdict[RuneId, int] = defaultdict(int)
        """What each destination receives: an amount, however many edicts and destinations there are."""

    def apply(self, edicts: Iterable[Edict], etched: RuneId | None) -> None:
        """Apply edicts in order; `etched` is the rune of this transaction, which they may call 0:0."""
        for edict in edicts:
            rune_id = etched if edict.id == THIS_RUNE else edict.id
            if rune_id is not None and rune_id in self._left:
                if edict.output < self._output_count:
                    self.give(rune_id, edict.amount or self._left[rune_id], edict.output)
                elif self._destinations:
                    self._split(rune_id, edict.amount)

    def give(self, rune_id: RuneId, amount: int, output: int) -> None:
        """Let an output have an amount of a rune, or what is left of it."""
        amount = min(amount, self._left.get(rune_id, 0))
        if amount:
            self._received[rune_id][output] += amount
            self._take(rune_id, amount)

    def give_rest(self, pointer: int | None) -> None:
        """Let an output have all that is left; without a pointer, the first that is not an OP_RETURN."""
        output = next(iter(self._destinations), None) if pointer is None else pointer
        if output is not None:
            for rune_id, amount in tuple(self._left.items()):
                self.give(rune_id, amount, output)

    def _split(self, rune_id: RuneId, amount: int) -> None:
        """Let each destination have the amount while there is enough, or for 0 an equal share."""
        count, left = len(self._destinations), self._left[rune_id]
        if amount == 0:
            amount, remainder = divmod(left, count)
            one_more = self._destinations[:remainder]
        elif amount * count <= left:
            one_more = []
        else:
            full, rest = divmod(left, amount)
            for output in self._destinations[:full]:
                self.give(rune_id, amount, output)
            if rest:
                self.give(rune_id, rest, self._destinations[full])
            return
        if amount:
            self._received_by_all[rune_id] += amount
            self._take(rune_id, amount * count)
        for output in one_more:
            self.give(rune_id, 1, output)

    def _take(self, rune_id: RuneId, amount: int) -> None:
        self._left[rune_id] -= amount
        if not self._left[rune_id]:
            del self._left[rune_id]

    @property
    def left(self) -> Balance:
        """What no output has received."""
        return self._left

    def received(self) -> Iterator[tuple[int, RuneId, int]]:
        """Yield outputs with the runes and amounts that they receive, in order of outputs and ids."""
        totals: defaultdict[int, defaultdict[RuneId, int]] = defaultdict(lambda: defaultdict(int))
        for rune_id, amounts in self._received.items():
            for output, amount in amounts.items():
                totals[output][rune_id] += amount
        for rune_id, amount in self._received_by_all.items():
            for output in self._destinations:
                totals[output][rune_id] += amount
        for output in sorted(totals):
            for rune_id in sorted(totals[output]):
                yield output, rune_id, totals[output][rune_id]
