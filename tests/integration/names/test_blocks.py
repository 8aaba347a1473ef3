"""The name registry within one block: collisions, what takes effect at once, and imports."""

import hashlib
import hmac

from coincurve import PublicKey

from tests.support.names_chain import (
    ALICE,
    BOB,
    CAROL,
    CLUB,
    COLLIDES,
    COMPANY,
    CREATOR,
    EVE,
    IMPORTER,
    NO_IMPORTS,
    NO_MATCH,
    NO_PREORDER,
    KeyHolder,
    NamesChain,
    Person,
)
from tests.support.tables import tables
from virtualchain.examples.names.name_import import make_keyring
from virtualchain.examples.names.params import BURN_SCRIPT
from virtualchain.examples.names.reading import preorder_hash
from virtualchain.testing import op_return

FEE = 10**6


def test_of_two_registrations_of_a_name_in_a_block_both_are_refused(chain: NamesChain) -> None:
    """Both are valid, so both are refused; another name in the block is accepted, and this one stays free."""
    chain.foresees = True
    chain.open_namespace()
    chain.mine_accepted(
        chain.preorder("name.test", ALICE), chain.preorder("name.test", BOB), chain.preorder("b.test", BOB)
    )
    assert chain.mine(
        chain.register("name.test", ALICE), chain.register("b.test", BOB), chain.register("name.test", BOB)
    ) == [COLLIDES, None, COLLIDES]
    chain.mine_accepted(chain.register("name.test", BOB))


def test_an_invalid_registration_does_not_collide(chain: NamesChain) -> None:
    """A registration without a preorder does not prevent a valid one."""
    chain.open_namespace()
    chain.mine_accepted(chain.preorder("name.test", ALICE))
    assert chain.mine(chain.register("name.test", EVE), chain.register("name.test", ALICE)) == [
        NO_PREORDER,
        None,
    ]


def test_registrations_preordered_in_the_same_block_do_not_collide_in_the_scan(chain: NamesChain) -> None:
    """They are not valid yet when the block is scanned, so the first one wins."""
    chain.open_namespace()
    assert chain.mine(
        chain.preorder("name.test", ALICE),
        chain.preorder("name.test", BOB),
        chain.register("name.test", BOB),
        chain.register("name.test", ALICE),
    ) == [None, None, None, COLLIDES]


def test_of_two_renewals_in_a_block_the_first_wins(chain: NamesChain) -> None:
    """The scan marks no renewal that it accepts; one that it refuses stays a registration, as it was read.

    So a third renewal marks the second, and then all three are refused.
    """
    chain.foresees = True
    chain.open_namespace()
    chain.own("name.test")
    renewals = [chain.register("name.test", fee=FEE) for _ in range(2)]
    assert chain.mine(*renewals) == [None, COLLIDES]
    renewals = [chain.register("name.test", fee=FEE) for _ in range(3)]
    assert chain.mine(*renewals) == [COLLIDES, COLLIDES, COLLIDES]


def test_an_import_is_marked_as_a_registration_is(chain: NamesChain) -> None:
    """Even a refused import is in the scan's list, so two renewals after it collide and both are refused."""
    chain.open_namespace()
    chain.own("name.test")
    renewals = [chain.register("name.test", fee=FEE) for _ in range(2)]
    assert chain.mine(chain.import_name("name.test"), *renewals) == [
        NO_IMPORTS,
        COLLIDES,
        COLLIDES,
    ]


def test_of_two_reveals_of_a_namespace_in_a_block_both_are_refused(chain: NamesChain) -> None:
    """Both are refused, although each was preordered; a later one on its own is accepted."""
    chain.mine_accepted(chain.preorder_namespace(to=IMPORTER), chain.preorder_namespace(sender=EVE, to=EVE))
    assert chain.mine(chain.reveal(to=IMPORTER), chain.reveal(sender=EVE, to=EVE)) == [COLLIDES, COLLIDES]
    chain.mine_accepted(chain.reveal(to=IMPORTER))
    assert chain.mine(chain.reveal(sender=EVE, to=EVE)) == ["the namespace is already revealed"]


def test_a_reveal_is_not_visible_within_its_block(chain: NamesChain) -> None:
    """An import or a ready after it in the same block is too early."""
    chain.mine_accepted(chain.preorder_namespace())
    assert chain.mine(chain.reveal(), chain.import_name("name.test"), chain.ready()) == [
        None,
        NO_IMPORTS,
        NO_IMPORTS,
    ]


def test_a_registered_name_is_not_visible_within_its_block(chain: NamesChain) -> None:
    """Its owner can neither update nor transfer it before the next block."""
    chain.open_namespace()
    chain.mine_accepted(chain.preorder("name.test"))
    assert chain.mine(
        chain.register("name.test"), chain.update("name.test"), chain.transfer("name.test")
    ) == [
        None,
        NO_MATCH,
        "there is no such name",
    ]


def test_a_transfer_takes_effect_at_once(chain: NamesChain) -> None:
    """After it in the same block, the new owner can update the name and the old one cannot."""
    chain.open_namespace()
    chain.own("name.test")
    assert chain.mine(
        chain.transfer("name.test", ALICE, BOB),
        chain.update("name.test", ALICE),
        chain.update("name.test", BOB),
        chain.transfer("name.test", BOB, CAROL, keep=False),
    ) == [
        None,
        NO_MATCH,
        None,
        None,
    ]
    row = chain.name("name.test")
    assert (row["owner"], row["value_hash"], row["sender_pubkey"]) == (CAROL.address, None, None)
    assert chain.fields()["consensus_hash"] == chain.consensus_at(chain.height - 1)


def test_a_transfer_hashes_the_last_update_s_consensus_hash(chain: NamesChain) -> None:
    """If there was an update since the registration, its consensus hash replaces the transfer's own."""
    chain.open_namespace()
    chain.own("name.test")
    seen = chain.consensus_at(chain.height - 3)
    chain.mine_accepted(chain.transfer("name.test", seen=seen))
    assert chain.fields()["consensus_hash"] == seen
    chain.mine_accepted(chain.update("name.test", BOB, seen=seen))
    chain.mine_accepted(chain.transfer("name.test", BOB, ALICE))
    assert chain.fields()["consensus_hash"] == seen


def test_a_renewal_needs_the_owner_on_both_sides(chain: NamesChain) -> None:
    """Another sender or another recipient is refused; a renewal keeps the recorded key."""
    chain.open_namespace()
    chain.own("name.test")
    chain.mine_accepted(chain.transfer("name.test", ALICE, BOB))
    assert chain.mine(
        chain.register("name.test", ALICE, BOB, fee=FEE), chain.register("name.test", BOB, ALICE, fee=FEE)
    ) == ["the sender does not own the name", "the recipient does not own the name"]
    chain.mine_accepted(chain.register("name.test", BOB, fee=FEE))
    assert chain.name("name.test")["sender_pubkey"] is None
    assert chain.hashed().startswith("::9:name.test,")
    assert ",2:::," in chain.hashed()


def test_a_revoked_name_is_unusable_until_it_expires(chain: NamesChain) -> None:
    """Every operation is refused, including a second revocation; after its expiry anyone can register it."""
    chain.open_namespace(lifetime=10)
    chain.own("name.test")
    chain.mine_accepted(chain.update("name.test"))
    chain.mine_accepted(chain.revoke("name.test"))
    assert chain.name("name.test")["value_hash"] is None
    assert chain.mine(
        chain.update("name.test"),
        chain.transfer("name.test"),
        chain.revoke("name.test"),
        chain.register("name.test", fee=FEE),
        chain.preorder("name.test", BOB),
        chain.register("name.test", BOB),
    ) == [
        NO_MATCH,
        "the name is revoked",
        "the name is already revoked",
        "the name is revoked",
        None,
        "the name is revoked",
    ]
    chain.mine_to(chain.name("name.test")["expires_at"])
    chain.mine_accepted(chain.register("name.test", BOB))
    assert not chain.name("name.test")["revoked"]


def test_what_scripts_can_do_in_the_first_epoch(chain: NamesChain) -> None:
    """A script can preorder names, but cannot preorder a namespace, or register or transfer names."""
    chain.open_namespace()
    chain.own("name.test", "more.test")
    assert chain.mine(
        chain.preorder_namespace("other", COMPANY),
        chain.preorder("firm.test", COMPANY, ALICE),
        chain.preorder("club.test", ALICE, CLUB),
    ) == ["a script cannot preorder a namespace", None, None]
    assert chain.mine(
        chain.register("firm.test", COMPANY, ALICE), chain.register("club.test", ALICE, CLUB)
    ) == [None, "a script cannot own names in this epoch"]
    assert chain.name("firm.test")["sender_pubkey"] is None
    # A transfer checks only its sender, so a script can receive a name, but not pass it on.
    chain.mine_accepted(chain.transfer("name.test", ALICE, CLUB))
    assert chain.mine(chain.transfer("name.test", CLUB, ALICE), chain.update("name.test", CLUB)) == [
        "a script cannot transfer names in this epoch",
        None,
    ]


def test_keys_derived_from_the_importer_s_import_as_well(chain: NamesChain) -> None:
    """They do once the importer's own key was seen, be it in the scan of the same block, and not before."""
    child = child_of(IMPORTER, 4)
    stranger = child_of(IMPORTER, 5)
    chain.mine_accepted(chain.preorder_namespace())
    chain.mine_accepted(chain.reveal())
    assert chain.mine(chain.import_name("early.test", child)) == [
        "the first import must come from the namespace's importer"
    ]
    assert chain.query("SELECT * FROM names.keyring") == []
    assert chain.mine(
        chain.import_name("one.test", child),
        chain.import_name("two.test", IMPORTER),
        chain.import_name("three.test", stranger),
    ) == [None, None, "the sender's key may not import into the namespace"]
    keyring = {row["address"] for row in chain.query("SELECT address FROM names.keyring")}
    assert keyring == set(make_keyring(IMPORTER.public_key.hex(), 5, chain.params.bitcoin))
    assert chain.name("one.test")["importer_address"] == child.address


def child_of(parent: Person, number: int) -> KeyHolder:
    """Derive a child key by BIP 32, with another library than the registry does."""
    tweak = hmac.new(bytes(32), parent.public_key + number.to_bytes(4, "big"), hashlib.sha512).digest()[:32]
    return KeyHolder(PublicKey(parent.public_key).add(tweak).format().hex())


def test_an_import_of_a_known_name_inherits_its_heights(chain: NamesChain) -> None:
    """Within a block and later, a repeated import keeps the heights and the preorder hash of the first."""
    chain.mine_accepted(chain.preorder_namespace())
    chain.mine_accepted(chain.reveal())
    chain.mine_accepted(chain.import_name("name.test", to=ALICE), chain.import_name("name.test", to=BOB))
    first = chain.height
    row = chain.name("name.test")
    committed = preorder_hash("name.test", IMPORTER.script.hex(), ALICE.address)
    assert (row["owner"], row["block_number"], row["preorder_hash"]) == (BOB.address, first, committed)
    chain.mine(n=3)
    chain.mine_accepted(chain.import_name("name.test", to=CAROL, value="22" * 20))
    row = chain.name("name.test")
    heights = {
        row[name] for name in ("block_number", "preorder_block_number", "first_registered", "last_renewed")
    }
    assert (row["owner"], row["value_hash"], heights) == (CAROL.address, "22" * 20, {first})
    assert row["preorder_hash"] == committed
    assert [event["owner"] for event in chain.query("SELECT owner FROM names.name_events ORDER BY block_id")][
        -1
    ] == CAROL.address


def test_a_reveal_that_was_not_made_ready_lapses(chain: NamesChain) -> None:
    """After 144 blocks it accepts no imports; a new preorder can reveal it again; its first block stays."""
    chain.mine_accepted(chain.preorder_namespace())
    chain.mine_accepted(chain.reveal())
    revealed = chain.height
    chain.mine_accepted(chain.import_name("name.test"))
    chain.mine_to(revealed + 143)
    assert chain.mine(chain.ready(sender=EVE), chain.import_name("last.test")) == [
        "the sender is not the namespace's importer",
        None,
    ]
    assert chain.mine(chain.import_name("late.test"), chain.ready()) == [NO_IMPORTS] * 2
    chain.mine_accepted(
        chain.preorder_namespace()
    )  # accepted, but useless: the namespace already used this hash
    assert chain.mine(chain.reveal()) == [NO_PREORDER]
    chain.mine_accepted(chain.preorder_namespace(to=EVE))
    chain.mine_accepted(chain.reveal(to=EVE, lifetime=5))
    (row,) = chain.query("SELECT * FROM names.namespaces")
    assert (row["block_number"], row["reveal_block"]) == (revealed - 1, chain.height)
    # The keyring was created for the first importer, and stays.
    assert chain.mine(chain.import_name("new.test", EVE), chain.import_name("new.test", IMPORTER)) == [
        "the sender's key may not import into the namespace",
        None,
    ]
    chain.mine_accepted(chain.ready(sender=EVE))


def test_malformed_operations_change_nothing(chain: NamesChain) -> None:
    """Each is refused at parse, although its sender would be entitled to the operation."""
    chain.open_namespace()
    chain.own("name.test")
    owner = (1, ALICE.script)
    burn = (FEE, bytes.fromhex(BURN_SCRIPT))
    wrong = [
        chain.tx(b"~name.Test", ALICE, [owner]),
        chain.tx(b"~name.test.test", ALICE, [owner]),
        chain.tx(b"~.test", ALICE, [owner]),
        chain.tx(b"~name.", ALICE, [owner]),
        chain.tx(b"~name.test\n", ALICE, [owner]),
        chain.tx(b"~" + b"n" * 34 + b".abc", ALICE, [owner]),
        chain.tx(b"~n." + b"n" * 20, ALICE, [owner]),
        chain.tx(b"?" + bytes(35), ALICE, [owner, burn]),
        chain.tx(b"?" + bytes(37), ALICE, [owner, burn]),
        chain.tx(b">=" + bytes(32), ALICE, [owner]),
        chain.tx(b"#" + bytes(19), ALICE, [owner]),
        chain.tx(b"!test", ALICE, [owner]),
        chain.tx(b":name.test", ALICE, []),
        chain.tx(b":name.test", ALICE, [(1, b"\x00\x14" + bytes(20)), owner]),
        chain.tx(b";name.test", ALICE, [owner, owner]),
        chain.reveal("Test2"),
        chain.reveal("test2", discounts=(0, 1)),
        chain.reveal("test2", discounts=(1, 0)),
        chain.tx(b"&" + bytes(14) + b"\x11\x00\x01test", CREATOR, [owner, owner, owner, owner]),
        chain.tx(b"&" + bytes(14) + b"\x11\x00\x01", CREATOR, [owner, owner]),
    ]
    before = chain.query("SELECT * FROM names.names")
    assert None not in chain.mine(*wrong)
    steps = {
        row["step"]
        for row in chain.query("SELECT step FROM virtualchain.rejections WHERE block_id = %s", chain.height)
    }
    assert steps == {"parse"}
    assert chain.query("SELECT * FROM names.names") == before


def test_a_burned_fee_on_a_free_operation_changes_nothing(chain: NamesChain) -> None:
    """A revocation may burn something, but the name's fee stays."""
    chain.open_namespace()
    chain.own("name.test")
    burn = (77, bytes.fromhex(BURN_SCRIPT))
    chain.mine_accepted(chain.raw([ALICE.spend()], [(0, op_return(b"id~name.test")), burn]))
    assert chain.name("name.test")["op_fee"] == FEE


def test_a_block_whose_operations_are_all_refused_leaves_the_tables_alone(
    chain: NamesChain, database_url: str
) -> None:
    """The scan of a block judges every registration, but writes nothing lasting."""
    chain.open_namespace()
    chain.mine_accepted(chain.preorder("name.test", ALICE), chain.preorder("name.test", BOB))
    before = {name: rows for name, rows in tables(database_url).items() if name.startswith("names__")}
    assert chain.mine(chain.register("name.test", ALICE), chain.register("name.test", BOB)) == [COLLIDES] * 2
    after = {name: rows for name, rows in tables(database_url).items() if name.startswith("names__")}
    assert after == before
