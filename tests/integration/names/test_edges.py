"""The name registry at the edges that no recording covers (`names.md` §10)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.names_chain import (
    ALICE,
    BOB,
    CAROL,
    EVE,
    IMPORTER,
    NamesChain,
    Person,
    names_chain,
)
from virtualchain.examples.names import regtest
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.testing import op_return

STALE = "the consensus hash is none of the last 24 blocks'"
NO_PREORDER = "the sender did not preorder it for this recipient"
NO_MATCH = "it fits no name of the sender's with any of the last 24 hashes"
COLLIDES = "it collides with another one in this block"


@pytest.fixture
def chain(database_url: str) -> Iterator[NamesChain]:
    """Give a registry without anything in it."""
    with names_chain(database_url) as opened:
        yield opened


def test_a_consensus_hash_is_fresh_for_24_blocks(chain: NamesChain) -> None:
    """In block h the hash of h-24 counts and that of h-25 does not, for ?, > and +."""
    chain.open_namespace()
    chain.own("one.test", "two.test")
    chain.mine(n=30)
    last, old = (chain.consensus_at(chain.height + 1 - back) for back in (24, 25))
    assert chain.mine(
        chain.preorder("new.test", seen=old),
        chain.update("one.test", seen=old),
        chain.transfer("two.test", seen=old),
    ) == [STALE, NO_MATCH, STALE]
    last = chain.consensus_at(chain.height + 1 - 24)
    chain.do(
        chain.preorder("new.test", seen=last),
        chain.update("one.test", seen=last),
        chain.transfer("two.test", seen=last),
    )


def test_an_initial_snapshot_is_fresh_until_its_24th_block(chain: NamesChain) -> None:
    """The snapshot of F-1 counts in F+23 and no more in F+24."""
    first, snapshot = chain.params.first_block, chain.params.initial_snapshots[chain.params.first_block - 1]
    chain.mine_to(first + 22)
    chain.do(chain.preorder_namespace("early", seen=snapshot))
    assert chain.mine(chain.preorder_namespace("late", seen=snapshot)) == [STALE]


def test_a_name_lives_through_its_last_block(chain: NamesChain) -> None:
    """Renewed at r it is its owner's while the block before is at most r + lifetime; then anyone's."""
    chain.open_namespace(lifetime=10)
    chain.own("name.test")
    end = chain.height + 10
    assert chain.name("name.test")["expires_at"] == end + 1
    chain.mine_to(end - 1)
    chain.do(chain.preorder("name.test", BOB))
    chain.do(chain.update("name.test"))  # in block end + 1 it is asked for end
    assert chain.mine(chain.update("name.test"), chain.register("name.test", BOB)) == [NO_MATCH, None]
    assert chain.name("name.test")["owner"] == BOB.address


def test_a_revocation_also_needs_the_name_alive_in_its_own_block(chain: NamesChain) -> None:
    """In the block behind its last, an update is still taken and a revocation is not."""
    chain.open_namespace(lifetime=10)
    chain.own("one.test", "two.test")
    chain.mine_to(chain.height + 10)
    assert chain.mine(chain.revoke("one.test"), chain.update("two.test")) == ["the name has expired", None]


def test_a_rival_registers_no_earlier_than_behind_the_last_block(chain: NamesChain) -> None:
    """While the name lives, a registration is judged as a renewal, which needs the owner."""
    chain.open_namespace(lifetime=10)
    chain.own("name.test")
    end = chain.height + 10
    chain.mine_to(end - 2)
    chain.do(chain.preorder("name.test", BOB))
    chain.mine_to(end)
    assert chain.mine(chain.register("name.test", BOB, fee=10**6)) == ["the sender does not own the name"]
    chain.do(chain.register("name.test", BOB))


def test_imports_live_from_the_ready_block_on(chain: NamesChain) -> None:
    """An imported name's term begins when its namespace is ready: it ends a block sooner than a renewal's."""
    chain.open_namespace("test", chain.import_name("name.test"), lifetime=10)
    end = chain.height + 10
    assert chain.name("name.test")["expires_at"] == end
    chain.mine_to(end - 1)
    chain.do(chain.update("name.test"))
    assert chain.mine(chain.update("name.test")) == [NO_MATCH]


def test_fees_are_judged_by_the_registration(chain: NamesChain) -> None:
    """A preorder takes any fee but none at all; the registration wants the price to the satoshi."""
    chain.open_namespace(coeff=4, base=2)  # 4 letters: 4 * 2 ** 3 * 100
    assert chain.mine(chain.preorder("none.test", fee=None)) == ["it pays no fee"]
    chain.do(
        chain.preorder("good.test", fee=3200),
        chain.preorder("less.test", fee=3199),
        chain.preorder("zero.test", fee=0),
    )
    assert chain.mine(*(chain.register(f"{label}.test") for label in ("good", "less", "zero"))) == [
        None,
        "3199 satoshi were paid of 3200",
        "0 satoshi were paid of 3200",
    ]
    assert chain.mine(chain.register("good.test", fee=3199)) == ["3199 satoshi were paid of 3200"]
    assert chain.mine(chain.register("good.test")) == ["it pays no fee"]
    chain.do(chain.register("good.test", fee=3200))


def test_a_namespace_costs_by_its_length(chain: NamesChain) -> None:
    """1, 2 to 3, 4 to 7, and more characters: each at its price, and a satoshi less is refused."""
    prices = {"a": 41 * 10**8, "ab": 40 * 10**8, "abc": 40 * 10**8, "abcd": 4 * 10**8, "a" * 7: 4 * 10**8}
    prices["a" * 8] = 4 * 10**7
    for namespace_id, price in prices.items():
        chain.do(chain.preorder_namespace(namespace_id, fee=price - 1))
        (reason,) = chain.mine(chain.reveal(namespace_id))
        assert reason == f"the preorder paid {price - 1} of {price} satoshi"
        chain.do(chain.preorder_namespace(namespace_id, to=EVE, fee=price))
        chain.do(chain.reveal(namespace_id, to=EVE))


def test_a_preorder_never_grows_too_old(chain: NamesChain) -> None:
    """Long behind the 144 blocks that clients were told, it still registers the name."""
    chain.open_namespace()
    chain.do(chain.preorder("name.test"))
    chain.mine(n=200)
    chain.do(chain.register("name.test"))


def test_a_preorder_must_not_be_older_than_the_ready_namespace(chain: NamesChain) -> None:
    """Preordered before, it registers nothing; preordered in the ready block, it does."""
    chain.do(chain.preorder_namespace())
    chain.do(chain.reveal(), chain.preorder("early.test"))
    chain.do(chain.ready(), chain.preorder("ready.test"), chain.register("ready.test"))
    assert chain.mine(chain.register("early.test")) == ["it was preordered before its namespace was ready"]


def test_a_hash_is_preordered_once(chain: NamesChain) -> None:
    """A second preorder is refused, in the same block or later, until the first was used; then it waits."""
    chain.open_namespace(lifetime=20)
    taken = "the hash is preordered already"
    assert chain.mine(chain.preorder("name.test"), chain.preorder("name.test")) == [None, taken]
    assert chain.mine(chain.preorder("name.test")) == [taken]
    assert chain.mine(
        chain.register("name.test"), chain.preorder("name.test"), chain.preorder("other.test")
    ) == [None, None, None]
    chain.do(chain.preorder("name.test"))  # while the name lives, what is preordered already is not looked at
    assert len(chain.query("SELECT * FROM names.preorders")) == 3
    chain.mine_to(chain.name("name.test")["expires_at"] + 1)
    chain.do(chain.register("name.test"))
    assert [row["op"] for row in chain.query("SELECT * FROM names.preorders")] == ["?"]


def test_one_block_takes_a_hash_once_even_where_it_was_used_in_between(chain: NamesChain) -> None:
    """Preorder, registration and the same preorder again in one block: the third collides."""
    chain.open_namespace()
    assert chain.mine(
        chain.preorder("name.test"), chain.register("name.test"), chain.preorder("name.test")
    ) == [None, None, COLLIDES]


def hoard(chain: NamesChain, owner: Person, number: int) -> list[str]:
    """Give somebody names in a fresh namespace, by imports, which have no quota."""
    names = [f"name{place}.test" for place in range(number)]
    chain.open_namespace("test", *(chain.import_name(name, to=owner) for name in names))
    return names


def test_whoever_has_25_names_preorders_no_more(chain: NamesChain) -> None:
    """24 are fine for another preorder, 25 are not; a revoked one does not count."""
    names = hoard(chain, ALICE, MAX_NAMES)
    assert chain.mine(chain.preorder("new.test")) == ["the sender has 25 names"]
    chain.do(chain.revoke(names[0]))
    chain.do(chain.preorder("new.test"))


def test_whoever_has_25_names_updates_and_with_26_no_more(chain: NamesChain) -> None:
    """An update is taken up to and with 25 names."""
    names = hoard(chain, ALICE, MAX_NAMES + 1)
    assert chain.mine(chain.update(names[0])) == ["the sender has more than 25 names"]
    chain.do(chain.transfer(names[1]))
    chain.do(chain.update(names[0]))


def test_a_transfer_needs_room_at_the_recipient(chain: NamesChain) -> None:
    """The recipient may have 24 names and not 25; within a block the first transfer counts for the next."""
    names = hoard(chain, BOB, MAX_NAMES - 1)
    chain.own("one.test", "two.test")
    assert chain.mine(chain.transfer("one.test"), chain.transfer("two.test")) == [
        None,
        "the recipient has 25 names",
    ]
    chain.do(chain.transfer(names[0], BOB, CAROL))
    chain.do(chain.transfer("two.test"))


def test_registrations_of_one_block_count_together(chain: NamesChain) -> None:
    """With 24 names, one more registration is taken in a block, though neither is visible yet."""
    hoard(chain, ALICE, MAX_NAMES - 1)
    chain.do(chain.preorder("one.test"), chain.preorder("two.test"))
    assert chain.mine(chain.register("one.test"), chain.register("two.test")) == [
        None,
        "the recipient has 25 names",
    ]


def test_a_full_owner_renews_nothing(chain: NamesChain) -> None:
    """The quota is asked of renewals, too."""
    names = hoard(chain, ALICE, MAX_NAMES)
    assert chain.mine(chain.register(names[0], fee=10**6)) == ["the recipient has 25 names"]


def test_an_import_s_price_is_hashed_with_12_digits(chain: NamesChain) -> None:
    """As a double, in the shortest form of 12 digits; the table holds the double itself."""
    rules: dict[str, dict[str, Any]] = {
        "5:3e+12": {"coeff": 3, "base": 10, "buckets": (10, *[1] * 15)},
        "5:1e+12": {"coeff": 1, "base": 10, "buckets": (10, *[1] * 15)},
        "14:100000000000.0": {"coeff": 1, "base": 10, "buckets": (9, *[1] * 15)},
        "17:3.07572455842e+18": {"coeff": 123, "base": 251, "buckets": (6, *[1] * 15)},
        "13:333.333333333": {"coeff": 10, "base": 1, "buckets": [1] * 16, "discounts": (1, 3)},
        "5:100.0": {"coeff": 0, "base": 0, "buckets": [0] * 16, "discounts": (1, 3)},
    }
    spaces = [f"space{place}" for place in range(len(rules))]
    chain.do(*(chain.preorder_namespace(space) for space in spaces))
    chain.do(*(chain.reveal(space, **rule) for space, rule in zip(spaces, rules.values(), strict=True)))
    chain.do(*(chain.import_name(f"z.{space}") for space in spaces))
    for place, (space, text) in enumerate(zip(spaces, rules, strict=True)):
        assert f",{text},50:" in chain.hashed(place - len(rules))
        price = float(chain.name(f"z.{space}")["op_fee"])
        assert f"{price:.12g}".removesuffix(".0") == text.partition(":")[2].removesuffix(".0")


def test_fees_of_an_imported_name_are_doubles_until_it_is_registered_anew(chain: NamesChain) -> None:
    """Renewed, updated and transferred, the fee is written as a double; re-registered, as a whole number."""
    chain.open_namespace("test", chain.import_name("name.test"), lifetime=10)
    chain.do(chain.register("name.test", fee=4000))
    assert ",6:4000.0," in chain.hashed()
    chain.do(chain.transfer("name.test"))
    assert ",6:4000.0," in chain.hashed()
    chain.mine_to(chain.name("name.test")["expires_at"] - 1)
    chain.do(chain.preorder("name.test", CAROL, fee=5000))
    chain.do(chain.register("name.test", CAROL))
    assert ",4:5000," in chain.hashed()
    row = chain.name("name.test")
    assert (row["imported"], row["importer"], row["value_hash"]) == (False, None, None)
    assert row["block_number"] < row["preorder_block_number"] < row["first_registered"]
    chain.do(chain.update("name.test", CAROL))
    assert ",4:5000," in chain.hashed()


def test_of_several_payloads_the_last_counts(chain: NamesChain) -> None:
    """Two outputs carry operations: only the later one is read, whichever stands first."""
    chain.open_namespace()
    chain.own("one.test", "two.test")
    one, two = (op_return(b"id~" + name) for name in (b"one.test", b"two.test"))
    chain.do(chain.raw([ALICE.spend()], [(0, one), (1, ALICE.script), (0, two)]))
    assert [chain.name(name)["revoked"] for name in ("one.test", "two.test")] == [False, True]
    broken = b"\x6a" + op_return(b"id~one.test")[1:] * 2
    before = len(chain.query("SELECT * FROM virtualchain.inputs"))
    chain.mine_unread(
        chain.raw([ALICE.spend()], [(0, one), (0, broken)])
    )  # a broken last one makes it no input
    assert len(chain.query("SELECT * FROM virtualchain.inputs")) == before


def test_an_announcement_is_taken_and_not_hashed(chain: NamesChain) -> None:
    """Of the owner of judecn.id alone, and the block's digests are those of an empty one."""
    chain.do(chain.preorder_namespace("id", fee=40 * 10**8))
    chain.do(chain.reveal("id"))
    chain.do(chain.ready("id"))
    chain.own("judecn.id")
    assert chain.mine(chain.announce(BOB)) == ["the sender may not announce"]
    chain.do(chain.announce(ALICE))
    (digests,) = chain.query("SELECT * FROM virtualchain.snapshots WHERE block_id = %s", chain.height)
    assert digests["ops_hash"] == "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"
    assert [row["message_hash"] for row in chain.query("SELECT * FROM names.announcements")] == ["11" * 20]
    chain.do(chain.revoke("judecn.id"))
    chain.do(chain.announce(ALICE))  # live is what is asked for


def test_the_rules_of_the_second_epoch_begin_behind_the_first_one(database_url: str) -> None:
    """Names may belong to scripts from the block behind E1 on, and live twice as long."""
    with names_chain(database_url, regtest(epoch1_end=264)) as chain:
        chain.open_namespace(lifetime=10)
        chain.own("name.test")
        company = Person("company", is_script=True)
        chain.do(chain.preorder("firm.test", to=company))
        chain.mine_to(263)
        assert chain.mine(chain.register("firm.test", to=company)) == ["scripts own no names in this epoch"]
        chain.do(chain.register("firm.test", to=company))
        assert chain.name("firm.test")["expires_at"] == 265 + 20 + 1
        assert chain.name("name.test")["expires_at"] == chain.name("name.test")["last_renewed"] + 20 + 1
        chain.do(chain.transfer("firm.test", company, BOB))


def test_names_of_a_revealed_namespace_can_only_be_imported(chain: NamesChain) -> None:
    """Before it is ready, an imported name is not updated, transferred, revoked or renewed."""
    chain.do(chain.preorder_namespace())
    chain.do(chain.reveal())
    chain.do(chain.import_name("name.test"))
    assert chain.mine(
        chain.update("name.test"),
        chain.transfer("name.test"),
        chain.revoke("name.test"),
        chain.register("name.test", fee=10**6),
        chain.import_name("name.test", EVE),
    ) == [
        *["the namespace is not ready"] * 3,
        "the namespace is not ready for registrations",
        "the sender's key may not import into the namespace",
    ]
    chain.do(chain.ready())
    assert chain.mine(chain.import_name("more.test", IMPORTER)) == ["the namespace takes no imports"]
