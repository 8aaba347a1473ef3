"""From integers to fields and edicts: the message that a payload's integers are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from virtualchain.examples.runes.params import Tag
from virtualchain.examples.runes.rune_id import THIS_RUNE
from virtualchain.examples.runes.runestone import Edict, Flaw


@dataclass(slots=True)
class Message:
    """The values of each tag, in order; the edicts; and the flaw that ended the reading, if one did."""

    fields: dict[int, list[int]] = field(default_factory=dict)
    edicts: list[Edict] = field(default_factory=list)
    flaw: Flaw | None = None

    def take(self, tag: Tag, is_valid: Callable[[int], bool] = lambda _: True) -> int | None:
        """Remove and return a tag's first value; None if there is none, or one that is not valid."""
        values = self.take_many(tag, 1, lambda values: is_valid(values[0]))
        return None if values is None else values[0]

    def take_many(self, tag: Tag, count: int, are_valid: Callable[[list[int]], bool]) -> list[int] | None:
        """Remove and return a tag's first values, which must be valid together; else remove nothing."""
        values = self.fields.get(tag, [])
        taken = values[:count]
        if len(taken) < count or not are_valid(taken):
            return None
        del values[:count]
        if not values:
            del self.fields[tag]
        return taken

    def has_even_tag(self) -> bool:
        """Check whether a tag has values left that a reader must not ignore."""
        return any(tag % 2 == 0 for tag in self.fields)


def read_message(integers: Sequence[int], output_count: int) -> Message:
    """Read pairs of tag and value up to the body, whose integers are edicts."""
    message = Message()
    for at in range(0, len(integers), 2):
        tag = integers[at]
        if tag == Tag.BODY:
            message.flaw = _read_edicts(integers, at + 1, output_count, message.edicts)
            break
        if at + 1 == len(integers):
            message.flaw = Flaw.TRUNCATED_FIELD
            break
        message.fields.setdefault(tag, []).append(integers[at + 1])
    return message


def _read_edicts(integers: Sequence[int], start: int, output_count: int, edicts: list[Edict]) -> Flaw | None:
    """Read groups of four integers into `edicts`, up to the first flaw, which is returned."""
    rune_id = THIS_RUNE
    body = islice(integers, start, None)
    while group := tuple(islice(body, 4)):
        if len(group) < 4:
            return Flaw.TRAILING_INTEGERS
        block_delta, tx, amount, output = group
        rune_id = rune_id.after(block_delta, tx)
        if not rune_id.is_valid:
            return Flaw.EDICT_RUNE_ID
        if output > output_count:
            return Flaw.EDICT_OUTPUT
        edicts.append(Edict(rune_id, amount, output))
    return None
