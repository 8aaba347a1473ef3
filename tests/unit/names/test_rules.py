"""The registry's arithmetic: how long names live, and what they cost."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.examples.names import MAINNET, regtest, rules
from virtualchain.examples.names.params import BITCOIN, Epoch
from virtualchain.examples.names.rules import fee_receiver, name_price, namespace_price

BUCKETS = [6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
NAMESPACE: dict[str, Any] = {
    "namespace_id": "id",
    "coeff": 250,
    "base": 4,
    "buckets": BUCKETS,
    "nonalpha_discount": 10,
    "no_vowel_discount": 3,
    "version": 1,
    "reveal_block": 500_000,
    "address": "the creator",
}


def record(**changes: Any) -> dict[str, Any]:
    """Return the record of a name in a ready namespace."""
    return {
        "namespace_id": "test",
        "namespace_op": "!",
        "first_registered": 300,
        "last_renewed": 300,
        "reveal_block": 280,
        "ready_block": 290,
        "lifetime": 10,
        **changes,
    }


@given(
    st.fixed_dictionaries(
        {
            "namespace_op": st.sampled_from("!&"),
            "namespace_id": st.sampled_from(["test", "other"]),
            "first_registered": st.integers(0, 40),
            "last_renewed": st.integers(0, 40),
            "reveal_block": st.integers(0, 40),
            "ready_block": st.integers(0, 40),
            "lifetime": st.integers(0, 40),
        }
    ),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_expiry_is_the_first_block_in_which_a_name_is_not_live(
    changes: dict[str, Any], epoch1_end: int, height: int
) -> None:
    """It is so at any height, over an epoch that doubles lifetimes and one that adds a grace period."""
    later = tuple(MAINNET.epochs[1:3])
    ends = (epoch1_end + 20, None)
    params = regtest(
        epoch1_end=epoch1_end,
        namespace_reveal_expire=15,
        later=tuple(epoch_until(epoch, end, grace=5) for epoch, end in zip(later, ends, strict=True)),
    )
    name = record(**changes)
    start = max(height, name["first_registered"])
    end = rules.expires_at(name, start, params)
    assert end >= start
    if name["namespace_op"] == "!" or name["reveal_block"] <= start:
        assert all(rules.is_live(name, block_id, params) for block_id in range(start, end))
        assert not rules.is_live(name, end, params)


def epoch_until(epoch: Epoch, last_block: int | None, grace: int) -> Epoch:
    """Return an epoch with another end, and with a short grace period if it has one."""
    return replace(epoch, last_block=last_block, grace=grace if epoch.grace else 0)


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("a.id", 250 * 4**6 * 100.0),
        ("abcdef.id", 250 * 4 * 100.0),
        ("abcdefg.id", 25_000.0),
        ("b.id", 250 * 4**6 / 3 * 100),
        ("b1.id", 250 * 4**5 / 10 * 100),
        ("a1.id", 250 * 4**5 / 10 * 100),
        ("a-.id", 250 * 4**5 / 10 * 100),
        ("y.id", 250 * 4**6 * 100.0),
        ("abcdefghijklmno.id", 25_000.0),
        ("abcdefghijklmnop.id", 250 * 4**7 * 100.0),
        ("abcdefghijklmnopqrst.id", 250 * 4**7 * 100.0),
    ],
)
def test_prices_of_names(name: str, price: float) -> None:
    """They depend on the length, up to 16 characters; the larger discount applies, and y is a vowel."""
    assert name_price(name, NAMESPACE, 400_000, MAINNET) == price


def test_prices_are_doubles_in_the_network_s_order_and_at_least_100_satoshis() -> None:
    """The quotient is rounded before it is multiplied; the minimum applies before an epoch's multiplier."""
    cheap = {**NAMESPACE, "coeff": 7, "base": 1}
    assert name_price("b.id", cheap, 400_000, MAINNET) == (7.0 / 3.0) * 100
    free = {**NAMESPACE, "coeff": 0, "base": 0, "namespace_id": "test"}
    assert name_price("b.test", free, 300, regtest()) == 100.0
    assert name_price("b.test", free, 300, regtest(price_multiplier=(0.25, 1.0))) == 25.0
    assert (
        name_price("b.other", {**free, "namespace_id": "other"}, 300, regtest(price_multiplier=(0.25, 1.0)))
        == 100.0
    )


def test_later_epochs_are_cheaper() -> None:
    """Prices are a tenth from the third epoch on, and integers from the fourth on."""
    cheap = {**NAMESPACE, "coeff": 7, "base": 1, "namespace_id": "other"}
    heights = (547_921 - 1, 547_921 + 1)
    assert [name_price("b.other", cheap, height, MAINNET) for height in heights] == [(7 / 3) * 100 * 0.1, 23]
    assert [namespace_price("abcd", height, MAINNET) for height in (488_500, 488_501)] == [
        4.0 * BITCOIN,
        0.4 * BITCOIN,
    ]
    assert namespace_price("a", 400_000, MAINNET) == 400 * BITCOIN


def test_fees_of_a_namespace_of_version_2_are_its_creator_s_for_a_year() -> None:
    """Later they are burned, as fees in version 1 always are."""
    burn_address = "1111111111111111111114oLvT2"
    second = {**NAMESPACE, "version": 2}
    assert fee_receiver(NAMESPACE, 500_000, MAINNET) == burn_address
    assert fee_receiver(second, 552_594, MAINNET) == "the creator"
    assert fee_receiver(second, 552_595, MAINNET) == burn_address


def test_an_expired_name_has_a_grace_period_in_the_third_epoch() -> None:
    """It stays live for 5,000 more blocks, in which it can only be renewed."""
    name = record(namespace_id="id", last_renewed=488_600, ready_block=373_700, lifetime=100)
    end = 488_600 + 200
    heights = (end - 1, end, end + 4_999, end + 5_000, end + 5_001)
    assert [rules.is_in_grace(name, height, MAINNET) for height in heights] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert [rules.is_live(name, height, MAINNET) for height in heights] == [True, True, True, True, False]
    assert not rules.is_in_grace(name, 400_000, MAINNET)


def test_the_parameters_are_part_of_the_app_s_version() -> None:
    """Other parameters mean other rules, so they yield another version."""
    fingerprints = {params.fingerprint() for params in (MAINNET, regtest(), regtest(epoch1_end=250))}
    assert len(fingerprints) == 3
    assert regtest().fingerprint() == regtest().fingerprint()
