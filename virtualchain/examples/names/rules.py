"""Rules that several operations share: how a rule refuses, how long names live, what they cost.

In the functions on lifetimes, `record` is a row of `names` joined with `namespace_op`, `reveal_block`,
`ready_block` and `lifetime` of its namespace. `height` is the block that the question is about, usually the
one before the block being processed.
"""

from typing import Final, TypeVar

from virtualchain.bitcoin.script import classify
from virtualchain.examples.names.params import BITCOIN, BURN_SCRIPT, Params
from virtualchain.model import Json

T = TypeVar("T")

REVEALED: Final = "&"
READY: Final = "!"

_VOWELS: Final = frozenset("aeiouy")
_NON_LETTERS: Final = frozenset("0123456789-_")
_MIN_PRICE: Final = 100
_PAYS_CREATOR: Final = 2
"""The namespace version in which fees go to the creator at first."""


# How a rule is written.


class Refused(ValueError):
    """An operation that a rule refuses; the message says why."""


def require(condition: bool, message: str) -> None:
    """Refuse the operation with `message` unless `condition` holds."""
    if not condition:
        raise Refused(message)


def require_some(value: T | None, message: str) -> T:
    """Return `value`; refuse the operation with `message` if it is None."""
    if value is None:
        raise Refused(message)
    return value


# How long namespaces and names live.


def is_revealed(namespace: Json, height: int, params: Params) -> bool:
    """Check whether names may be imported: the namespace is revealed, not yet ready, and has not lapsed."""
    revealed: int = namespace["reveal_block"]
    return namespace["op"] == REVEALED and revealed <= height < revealed + params.reveal_expire


def is_live(record: Json, height: int, params: Params) -> bool:
    """Check whether a name is registered as of `height`."""
    if record["first_registered"] > height:
        return False
    if record["namespace_op"] == READY:
        return height < _end(record, height, params) + params.epoch(height).grace
    revealed: int = record["reveal_block"]
    return revealed <= height < revealed + params.reveal_expire


def is_in_grace(record: Json, height: int, params: Params) -> bool:
    """Check whether a live name has expired and can only be renewed (from epoch 3 on)."""
    grace = params.epoch(height).grace
    end: int = max(record["ready_block"], record["last_renewed"]) + _lifetime(record, height, params)
    return end <= height < end + grace


def expires_at(record: Json, height: int, params: Params) -> int:
    """Compute the first block from `height` on in which a name is not live, if nothing happens to it.

    A later epoch may lengthen a lifetime that would end within it, so each epoch is tried in turn.
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
    raise AssertionError("the last epoch has no end")


def _end(record: Json, height: int, params: Params) -> int:
    """Compute the first height after the term of a name in a ready namespace, by the epoch of `height`."""
    lifetime = _lifetime(record, height, params)
    end: int = max(record["ready_block"] + lifetime, record["last_renewed"] + lifetime + 1)
    return end


def _lifetime(record: Json, height: int, params: Params) -> int:
    lifetime: int = record["lifetime"]
    return lifetime * params.lifetime_multiplier(record["namespace_id"], height)


# What namespaces and names cost.


def name_price(name: str, namespace: Json, height: int, params: Params) -> float | int:
    """Compute what a name costs at a height, in satoshis.

    The price is a double. The order of the operations is part of the protocol: any other order may differ in
    the last digit. Fees, which are integers, are compared with it exactly.
    """
    label = name.partition(".")[0]
    exponent = namespace["buckets"][min(len(label), 16) - 1]
    discount = 1
    if not _VOWELS & set(label):
        discount = max(discount, namespace["no_vowel_discount"])
    if _NON_LETTERS & set(label):
        discount = max(discount, namespace["nonalpha_discount"])
    base_price: int = namespace["coeff"] * namespace["base"] ** exponent
    if params.epoch(height).has_whole_prices:
        return max(base_price * 100 // discount, _MIN_PRICE) // 10
    price = (float(base_price) / float(discount)) * 100
    if price < _MIN_PRICE:
        price = float(_MIN_PRICE)
    return price * params.price_multiplier(namespace["namespace_id"], height)


def namespace_price(namespace_id: str, height: int, params: Params) -> float:
    """Compute what a namespace costs at a height, in satoshis."""
    length = len(namespace_id)
    if length == 1:
        price = float(params.one_letter_price)
    elif length <= 3:
        price = 40.0 * BITCOIN
    elif length <= 7:
        price = 4.0 * BITCOIN
    else:
        price = 0.4 * BITCOIN
    return price * params.price_multiplier(namespace_id, height)


def fee_receiver(namespace: Json, height: int, params: Params) -> str:
    """Return the address that a name's fee must be paid to: the burn address, or at first the creator's."""
    if (
        namespace["version"] == _PAYS_CREATOR
        and height < namespace["reveal_block"] + params.creator_fees_period
    ):
        creator: str = namespace["address"]
        return creator
    return classify(bytes.fromhex(BURN_SCRIPT), params.bitcoin)[1][0]
