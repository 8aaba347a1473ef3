"""Edge cases of the name registry that no recorded run covers."""

from typing import Any

from tests.support.names_chain import (
    ALICE,
    BOB,
    CAROL,
    COLLIDES,
    EVE,
    IMPORTER,
    NO_IMPORTS,
    NO_MATCH,
    NamesChain,
    Person,
    names_chain,
    underpaid,
)
from virtualchain.examples.names import regtest
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.testing import op_return

STALE = "the consensus hash is not from the last 24 blocks"


def test_a_consensus_hash_is_fresh_for_24_blocks(chain: NamesChain) -> None:
    """In block h the hash of h-24 is accepted and that of h-25 is not, for ?, > and +."""
    chain.open_namespace()
    chain.own("one.test", "two.test")
    chain.mine(n=30)
    old = chain.consensus_at(chain.height + 1 - 25)
    assert chain.mine(
        chain.preorder("new.test", seen=old),
        chain.update("one.test", seen=old),
        chain.transfer("two.test", seen=old),
    ) == [STALE, NO_MATCH, STALE]
    last = chain.consensus_at(chain.height + 1 - 24)
    chain.mine_accepted(
        chain.preorder("new.test", seen=last),
        chain.update("one.test", seen=last),
        chain.transfer("two.test", seen=last),
    )


def test_an_initial_snapshot_is_fresh_until_its_24th_block(chain: NamesChain) -> None:
    """The snapshot of F-1 is accepted in F+23 and no longer in F+24, F being the first block."""
    first, snapshot = chain.params.first_block, chain.params.initial_snapshots[chain.params.first_block - 1]
    chain.mine_to(first + 22)
    chain.mine_accepted(chain.preorder_namespace("early", seen=snapshot))
    assert chain.mine(chain.preorder_namespace("late", seen=snapshot)) == [STALE]


def test_a_name_lives_through_its_last_block(chain: NamesChain) -> None:
    """A name renewed at r is its owner's while the previous block is at most r + lifetime; then anyone's."""
    chain.open_namespace(lifetime=10)
    chain.own("name.test")
    end = chain.height + 10
    assert chain.name("name.test")["expires_at"] == end + 1
    chain.mine_to(end - 1)
    chain.mine_accepted(chain.preorder("name.test", BOB))
    chain.mine_accepted(chain.update("name.test"))  # in block end + 1, liveness is judged as of end
    assert chain.mine(chain.update("name.test"), chain.register("name.test", BOB)) == [NO_MATCH, None]
    assert chain.name("name.test")["owner"] == BOB.address


def test_a_revocation_also_requires_the_name_to_be_live_in_its_own_block(chain: NamesChain) -> None:
    """In the block after the name's last, an update is still accepted and a revocation is not."""
    chain.open_namespace(lifetime=10)
    chain.own("one.test", "two.test")
    chain.mine_to(chain.height + 10)
    assert chain.mine(chain.revoke("one.test"), chain.update("two.test")) == ["the name has expired", None]


def test_a_rival_cannot_register_before_the_name_expired(chain: NamesChain) -> None:
    """While the name lives, a registration is judged as a renewal, which requires the owner."""
    chain.open_namespace(lifetime=10)
    chain.own("name.test")
    end = chain.height + 10
    chain.mine_to(end - 2)
    chain.mine_accepted(chain.preorder("name.test", BOB))
    chain.mine_to(end)
    assert chain.mine(chain.register("name.test", BOB, fee=10**6)) == ["the sender does not own the name"]
    chain.mine_accepted(chain.register("name.test", BOB))


def test_the_term_of_an_import_begins_in_the_ready_block(chain: NamesChain) -> None:
    """It begins when the namespace becomes ready, and ends a block sooner than after a renewal."""
    chain.open_namespace("test", chain.import_name("name.test"), lifetime=10)
    end = chain.height + 10
    assert chain.name("name.test")["expires_at"] == end
    chain.mine_to(end - 1)
    chain.mine_accepted(chain.update("name.test"))
    assert chain.mine(chain.update("name.test")) == [NO_MATCH]


def test_the_registration_checks_the_amount_of_the_fee(chain: NamesChain) -> None:
    """A preorder may pay any fee, but must pay one; the registration requires the price to the satoshi."""
    chain.open_namespace(coeff=4, base=2)  # 4 letters: 4 * 2 ** 3 * 100
    assert chain.mine(chain.preorder("none.test", fee=None)) == ["no fee was paid"]
    chain.mine_accepted(
        chain.preorder("good.test", fee=3200),
        chain.preorder("less.test", fee=3199),
        chain.preorder("zero.test", fee=0),
    )
    assert chain.mine(*(chain.register(f"{label}.test") for label in ("good", "less", "zero"))) == [
        None,
        underpaid(3199, 3200),
        underpaid(0, 3200),
    ]
    assert chain.mine(chain.register("good.test", fee=3199)) == [underpaid(3199, 3200)]
    assert chain.mine(chain.register("good.test")) == ["no fee was paid"]
    chain.mine_accepted(chain.register("good.test", fee=3200))


def test_a_namespace_costs_by_its_length(chain: NamesChain) -> None:
    """1, 2 to 3, 4 to 7, and more characters: each has its price, and a satoshi less is refused."""
    prices = {"a": 41 * 10**8, "ab": 40 * 10**8, "abc": 40 * 10**8, "abcd": 4 * 10**8, "a" * 7: 4 * 10**8}
    prices["a" * 8] = 4 * 10**7
    for namespace_id, price in prices.items():
        chain.mine_accepted(chain.preorder_namespace(namespace_id, fee=price - 1))
        (reason,) = chain.mine(chain.reveal(namespace_id))
        assert reason == f"the preorder paid {price - 1} satoshis, less than the price of {price}"
        chain.mine_accepted(chain.preorder_namespace(namespace_id, to=EVE, fee=price))
        chain.mine_accepted(chain.reveal(namespace_id, to=EVE))


def test_a_preorder_never_ages(chain: NamesChain) -> None:
    """Long after the 144 blocks that clients assumed, it still registers the name."""
    chain.open_namespace()
    chain.mine_accepted(chain.preorder("name.test"))
    chain.mine(n=200)
    chain.mine_accepted(chain.register("name.test"))


def test_a_preorder_must_not_be_older_than_the_ready_namespace(chain: NamesChain) -> None:
    """A preorder before the ready block registers nothing; one in the ready block does."""
    chain.mine_accepted(chain.preorder_namespace())
    chain.mine_accepted(chain.reveal(), chain.preorder("early.test"))
    chain.mine_accepted(chain.ready(), chain.preorder("ready.test"), chain.register("ready.test"))
    assert chain.mine(chain.register("early.test")) == [
        "the name was preordered before its namespace was ready"
    ]


def test_a_hash_is_preordered_once(chain: NamesChain) -> None:
    """A second preorder is refused, in the same block or later, until the first is used."""
    chain.open_namespace(lifetime=20)
    taken = "the hash is already preordered"
    assert chain.mine(chain.preorder("name.test"), chain.preorder("name.test")) == [None, taken]
    assert chain.mine(chain.preorder("name.test")) == [taken]
    assert chain.mine(
        chain.register("name.test"), chain.preorder("name.test"), chain.preorder("other.test")
    ) == [None, None, None]
    chain.mine_accepted(
        chain.preorder("name.test")
    )  # while the name lives, no earlier preorder of its hash counts
    assert len(chain.query("SELECT * FROM names.preorders")) == 3
    chain.mine_to(chain.name("name.test")["expires_at"] + 1)
    chain.mine_accepted(chain.register("name.test"))
    assert [row["op"] for row in chain.query("SELECT * FROM names.preorders")] == ["?"]


def test_a_hash_is_preordered_once_per_block_even_if_it_was_used_in_between(chain: NamesChain) -> None:
    """Preorder, registration and the same preorder again in one block: the third collides."""
    chain.open_namespace()
    assert chain.mine(
        chain.preorder("name.test"), chain.register("name.test"), chain.preorder("name.test")
    ) == [None, None, COLLIDES]


def hoard(chain: NamesChain, owner: Person, number: int) -> list[str]:
    """Import names for an owner into a new namespace; imports have no quota."""
    names = [f"name{index}.test" for index in range(number)]
    chain.open_namespace("test", *(chain.import_name(name, to=owner) for name in names))
    return names


def test_an_owner_of_25_names_cannot_preorder(chain: NamesChain) -> None:
    """With 24 names another preorder is accepted, with 25 it is not; revoked names do not count."""
    names = hoard(chain, ALICE, MAX_NAMES)
    assert chain.mine(chain.preorder("new.test")) == ["the sender already owns 25 names"]
    chain.mine_accepted(chain.revoke(names[0]))
    chain.mine_accepted(chain.preorder("new.test"))


def test_an_owner_of_more_than_25_names_cannot_update(chain: NamesChain) -> None:
    """An update is accepted with up to 25 names."""
    names = hoard(chain, ALICE, MAX_NAMES + 1)
    assert chain.mine(chain.update(names[0])) == ["the sender owns more than 25 names"]
    chain.mine_accepted(chain.transfer(names[1]))
    chain.mine_accepted(chain.update(names[0]))


def test_a_transfer_requires_a_recipient_with_fewer_than_25_names(chain: NamesChain) -> None:
    """With 24 names it is accepted, with 25 it is not; within a block each transfer counts for the next."""
    names = hoard(chain, BOB, MAX_NAMES - 1)
    chain.own("one.test", "two.test")
    assert chain.mine(chain.transfer("one.test"), chain.transfer("two.test")) == [
        None,
        "the recipient already owns 25 names",
    ]
    chain.mine_accepted(chain.transfer(names[0], BOB, CAROL))
    chain.mine_accepted(chain.transfer("two.test"))


def test_registrations_of_one_block_count_together(chain: NamesChain) -> None:
    """With 24 names, a block accepts only one more registration, though it is not visible yet."""
    hoard(chain, ALICE, MAX_NAMES - 1)
    chain.mine_accepted(chain.preorder("one.test"), chain.preorder("two.test"))
    assert chain.mine(chain.register("one.test"), chain.register("two.test")) == [
        None,
        "the recipient already owns 25 names",
    ]


def test_an_owner_of_25_names_cannot_renew(chain: NamesChain) -> None:
    """The quota applies to renewals, too."""
    names = hoard(chain, ALICE, MAX_NAMES)
    assert chain.mine(chain.register(names[0], fee=10**6)) == ["the recipient already owns 25 names"]


def test_an_import_s_price_is_hashed_with_12_digits(chain: NamesChain) -> None:
    """The hash takes the double in its shortest form of 12 digits; the table holds the double itself."""
    terms: dict[str, dict[str, Any]] = {
        "5:3e+12": {"coeff": 3, "base": 10, "buckets": (10, *[1] * 15)},
        "5:1e+12": {"coeff": 1, "base": 10, "buckets": (10, *[1] * 15)},
        "14:100000000000.0": {"coeff": 1, "base": 10, "buckets": (9, *[1] * 15)},
        "17:3.07572455842e+18": {"coeff": 123, "base": 251, "buckets": (6, *[1] * 15)},
        "13:333.333333333": {"coeff": 10, "base": 1, "buckets": [1] * 16, "discounts": (1, 3)},
        "5:100.0": {"coeff": 0, "base": 0, "buckets": [0] * 16, "discounts": (1, 3)},
    }
    spaces = [f"space{index}" for index in range(len(terms))]
    chain.mine_accepted(*(chain.preorder_namespace(space) for space in spaces))
    chain.mine_accepted(
        *(chain.reveal(space, **term) for space, term in zip(spaces, terms.values(), strict=True))
    )
    chain.mine_accepted(*(chain.import_name(f"z.{space}") for space in spaces))
    for index, (space, text) in enumerate(zip(spaces, terms, strict=True)):
        assert f",{text},50:" in chain.hashed(index - len(terms))
        price = float(chain.name(f"z.{space}")["op_fee"])
        assert f"{price:.12g}".removesuffix(".0") == text.partition(":")[2].removesuffix(".0")


def test_fees_of_an_imported_name_are_doubles_until_it_is_registered_again(chain: NamesChain) -> None:
    """After a renewal or transfer the fee is hashed as a double, after a re-registration as an integer."""
    chain.open_namespace("test", chain.import_name("name.test"), lifetime=10)
    chain.mine_accepted(chain.register("name.test", fee=4000))
    assert ",6:4000.0," in chain.hashed()
    chain.mine_accepted(chain.transfer("name.test"))
    assert ",6:4000.0," in chain.hashed()
    chain.mine_to(chain.name("name.test")["expires_at"] - 1)
    chain.mine_accepted(chain.preorder("name.test", CAROL, fee=5000))
    chain.mine_accepted(chain.register("name.test", CAROL))
    assert ",4:5000," in chain.hashed()
    row = chain.name("name.test")
    assert (row["imported"], row["importer"], row["value_hash"]) == (False, None, None)
    assert row["block_number"] < row["preorder_block_number"] < row["first_registered"]
    chain.mine_accepted(chain.update("name.test", CAROL))
    assert ",4:5000," in chain.hashed()


def test_of_several_payloads_the_last_counts(chain: NamesChain) -> None:
    """If two outputs carry operations, only the later one is read."""
    chain.open_namespace()
    chain.own("one.test", "two.test")
    one, two = (op_return(b"id~" + name) for name in (b"one.test", b"two.test"))
    chain.mine_accepted(chain.raw([ALICE.spend()], [(0, one), (1, ALICE.script), (0, two)]))
    assert [chain.name(name)["revoked"] for name in ("one.test", "two.test")] == [False, True]
    broken = b"\x6a" + op_return(b"id~one.test")[1:] * 2
    before = len(chain.query("SELECT * FROM virtualchain.inputs"))
    # If the last one is malformed, the transaction is not an input.
    chain.mine_unread(chain.raw([ALICE.spend()], [(0, one), (0, broken)]))
    assert len(chain.query("SELECT * FROM virtualchain.inputs")) == before


def test_an_announcement_is_accepted_and_not_hashed(chain: NamesChain) -> None:
    """Only the owner of judecn.id may announce, and the block's ops hash is that of an empty block."""
    chain.mine_accepted(chain.preorder_namespace("id", fee=40 * 10**8))
    chain.mine_accepted(chain.reveal("id"))
    chain.mine_accepted(chain.ready("id"))
    chain.own("judecn.id")
    assert chain.mine(chain.announce(BOB)) == ["the sender may not announce"]
    chain.mine_accepted(chain.announce(ALICE))
    (digests,) = chain.query("SELECT * FROM virtualchain.snapshots WHERE block_id = %s", chain.height)
    assert digests["ops_hash"] == "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"
    assert [row["message_hash"] for row in chain.query("SELECT * FROM names.announcements")] == ["11" * 20]
    chain.mine_accepted(chain.revoke("judecn.id"))
    chain.mine_accepted(chain.announce(ALICE))  # the name need only be live


def test_the_rules_of_the_second_epoch_apply_after_the_first_one(database_url: str) -> None:
    """From the block after epoch 1 on, scripts may own names, and names live twice as long."""
    with names_chain(database_url, regtest(epoch1_end=264)) as chain:
        chain.open_namespace(lifetime=10)
        chain.own("name.test")
        company = Person("company", is_script=True)
        chain.mine_accepted(chain.preorder("firm.test", to=company))
        chain.mine_to(263)
        assert chain.mine(chain.register("firm.test", to=company)) == [
            "a script cannot own names in this epoch"
        ]
        chain.mine_accepted(chain.register("firm.test", to=company))
        assert chain.name("firm.test")["expires_at"] == 265 + 20 + 1
        assert chain.name("name.test")["expires_at"] == chain.name("name.test")["last_renewed"] + 20 + 1
        chain.mine_accepted(chain.transfer("firm.test", company, BOB))


def test_names_of_a_revealed_namespace_can_only_be_imported(chain: NamesChain) -> None:
    """Before it is ready, an imported name cannot be updated, transferred, revoked or renewed."""
    chain.mine_accepted(chain.preorder_namespace())
    chain.mine_accepted(chain.reveal())
    chain.mine_accepted(chain.import_name("name.test"))
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
    chain.mine_accepted(chain.ready())
    assert chain.mine(chain.import_name("more.test", IMPORTER)) == [NO_IMPORTS]
