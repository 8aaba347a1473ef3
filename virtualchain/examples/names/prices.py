"""What names and namespaces cost (`names.md` §7 and §11)."""

from typing import Final

from virtualchain.bitcoin.script import classify
from virtualchain.examples.names.params import BITCOIN, Params
from virtualchain.examples.names.reading import BURN_SCRIPT
from virtualchain.model import Json

_VOWELS: Final = frozenset("aeiouy")
_NOT_LETTERS: Final = frozenset("0123456789-_")
_LEAST: Final = 100
_PAYS_CREATOR: Final = 2
"""The version of namespaces whose fees are their creator's at first."""


def name_price(name: str, namespace: Json, height: int, params: Params) -> float | int:
    """Give what a name costs at a height, in satoshi.

    A double, computed in this very order: others would differ in the last digit. Whole numbers are
    compared with it exactly.
    """
    label = name.partition(".")[0]
    exponent = namespace["buckets"][min(len(label), 16) - 1]
    discount = 1
    if not _VOWELS & set(label):
        discount = max(discount, namespace["no_vowel_discount"])
    if _NOT_LETTERS & set(label):
        discount = max(discount, namespace["nonalpha_discount"])
    whole: int = namespace["coeff"] * namespace["base"] ** exponent
    if params.epoch(height).has_whole_prices:
        return max(whole * 100 // discount, _LEAST) // 10
    price = (float(whole) / float(discount)) * 100
    if price < _LEAST:
        price = float(_LEAST)
    return price * params.price_multiplier(namespace["namespace_id"], height)


def namespace_price(namespace_id: str, height: int, params: Params) -> float:
    """Give what a namespace costs at a height, in satoshi."""
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
    """Give the address that a name's fee must be paid to: nobody's, or for a while the creator's."""
    if (
        namespace["version"] == _PAYS_CREATOR
        and height < namespace["reveal_block"] + params.creator_fees_period
    ):
        creator: str = namespace["address"]
        return creator
    return classify(bytes.fromhex(BURN_SCRIPT), params.bitcoin)[1][0]
