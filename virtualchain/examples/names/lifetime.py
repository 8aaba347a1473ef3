"""How long names and namespaces live: the rules that look at heights (`names.md` §2, §11).

`record` is a row of `names` with `namespace_op`, `reveal_block`, `ready_block` and `lifetime` of its
namespace; `height` is the block that the question is about, most often the one before the block at hand.
"""

from virtualchain.examples.names.params import Params
from virtualchain.model import Json

REVEALED = "&"
READY = "!"


def is_revealed(namespace: Json, height: int, params: Params) -> bool:
    """Whether names may be imported into a namespace: it is revealed, not yet ready, and in time."""
    revealed: int = namespace["reveal_block"]
    return namespace["op"] == REVEALED and revealed <= height < revealed + params.reveal_expire


def is_live(record: Json, height: int, params: Params) -> bool:
    """Whether a name is registered at a height: in its own block it is not yet."""
    if record["first_registered"] > height:
        return False
    if record["namespace_op"] == READY:
        return height < _end(record, height, params) + params.epoch(height).grace
    revealed: int = record["reveal_block"]
    return revealed <= height < revealed + params.reveal_expire


def is_in_grace(record: Json, height: int, params: Params) -> bool:
    """Whether a live name has expired and only its renewal is waited for (from epoch 3 on)."""
    grace = params.epoch(height).grace
    end: int = max(record["ready_block"], record["last_renewed"]) + _lifetime(record, height, params)
    return end <= height < end + grace


def expires_at(record: Json, height: int, params: Params) -> int:
    """Give the first block from `height` on in which a name is not live, if nothing happens to it.

    An epoch may lengthen what would have ended before it, so they are gone through one by one.
    """
    if record["namespace_op"] != READY:
        end: int = record["reveal_block"] + params.reveal_expire
        return max(height, end)
    first = height
    for epoch in params.epochs:
        last = epoch.last_block
        if last is not None and last < first:
            continue
        end = _end(record, first, params) + epoch.grace
        if last is None or end <= last:
            return max(first, end)
        first = last + 1
    raise AssertionError("the last epoch goes on")


def _end(record: Json, height: int, params: Params) -> int:
    """Give the first height at which a name of a ready namespace is over, by the epoch of `height`."""
    lifetime = _lifetime(record, height, params)
    end: int = max(record["ready_block"] + lifetime, record["last_renewed"] + lifetime + 1)
    return end


def _lifetime(record: Json, height: int, params: Params) -> int:
    lifetime: int = record["lifetime"]
    return lifetime * params.lifetime_multiplier(record["namespace_id"], height)
