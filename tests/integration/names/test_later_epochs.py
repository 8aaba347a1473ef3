"""The rules of later epochs, which are known from the network's source only: no recorded run covers them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.support.names_chain import (
    ALICE,
    BOB,
    CREATOR,
    IMPORTER,
    NO_PREORDER,
    VALUE,
    NamesChain,
    Person,
    names_chain,
    underpaid,
)
from virtualchain.examples.names import MAINNET, regtest
from virtualchain.examples.names.params import BURN_SCRIPT
from virtualchain.examples.names.reading import preorder_hash

BURN = bytes.fromhex(BURN_SCRIPT)
PRICE = 320
"""The price of four letters: a tenth of 4 * 2 ** 3 * 100."""


@contextmanager
def later_chain(url: str, epoch3_end: int | None = None, grace: int = 5) -> Iterator[NamesChain]:
    """Open a chain that starts in the third epoch and, with `epoch3_end`, reaches the fourth."""
    third, fourth = MAINNET.epochs[2:4]
    epochs = [replace(third, last_block=epoch3_end, grace=grace, lifetime_multiplier=1)]
    if epoch3_end is not None:
        epochs.append(replace(fourth, last_block=None, grace=grace, lifetime_multiplier=1))
    params = replace(regtest(epoch1_end=0, later=tuple(epochs)), creator_fees_period=12)
    with names_chain(url, params) as chain:
        yield chain


def register_with_value(chain: NamesChain, name: str, value: str) -> bytes:
    """Register a name with a value."""
    body = name.encode().ljust(37, b"\0") + bytes.fromhex(value)
    return chain.tx(b":" + body, ALICE, [(1, ALICE.script)])


def renew(chain: NamesChain, name: str, to: Person, fee: int, value: str | None = None) -> bytes:
    """Renew a name; the fourth output pays the fee."""
    body = name.encode() if value is None else name.encode().ljust(37, b"\0") + bytes.fromhex(value)
    return chain.tx(b":" + body, ALICE, [(1, to.script), (1, ALICE.script), (fee, BURN)])


def test_a_registration_may_carry_a_value(database_url: str) -> None:
    """The name is padded with NUL to 37 bytes; with any other length it is invalid."""
    with later_chain(database_url) as chain:
        chain.open_namespace()
        chain.mine_accepted(chain.preorder("name.test", fee=PRICE))
        padded = chain.tx(b":name.test\0", ALICE, [(1, ALICE.script)])
        assert chain.mine(padded, register_with_value(chain, "name.test", VALUE)) == [
            "not a valid name",
            None,
        ]
        assert chain.name("name.test")["value_hash"] == VALUE


def test_a_preorder_has_three_outputs_and_pays_the_last(database_url: str) -> None:
    """With four outputs it is refused; the price is a tenth of the earlier one."""
    with later_chain(database_url) as chain:
        chain.open_namespace()
        committed = bytes.fromhex(preorder_hash("name.test", ALICE.script.hex(), ALICE.address))
        body = b"?" + committed + bytes.fromhex(chain.consensus_at(chain.height))
        four = chain.tx(body, ALICE, [(1, ALICE.script), (PRICE, BURN), (1, ALICE.script)])
        assert chain.mine(four) == ["the transaction has 4 outputs instead of 3"]
        chain.mine_accepted(chain.preorder("name.test", fee=PRICE - 1))
        assert chain.mine(chain.register("name.test")) == [underpaid(319, 320)]


def test_a_renewal_may_change_owner_and_value(database_url: str) -> None:
    """What a renewal does not name stays as it is."""
    with later_chain(database_url) as chain:
        chain.open_namespace()
        chain.own("name.test")
        key = chain.name("name.test")["sender_pubkey"]
        assert chain.mine(renew(chain, "name.test", ALICE, PRICE - 1)) == [underpaid(319, 320)]
        chain.mine_accepted(renew(chain, "name.test", ALICE, PRICE, VALUE))
        row = chain.name("name.test")
        assert (row["owner"], row["value_hash"], row["sender_pubkey"]) == (ALICE.address, VALUE, key)
        chain.mine_accepted(renew(chain, "name.test", BOB, PRICE))
        row = chain.name("name.test")
        assert (row["owner"], row["value_hash"], row["sender_pubkey"]) == (BOB.address, VALUE, None)


def test_an_expired_name_can_be_renewed_for_a_while(database_url: str) -> None:
    """In its grace period only its owner can act, and only by a renewal; afterwards it is anyone's."""
    with later_chain(database_url, grace=5) as chain:
        chain.open_namespace(lifetime=10)
        chain.own("one.test", "two.test")
        end = chain.height + 10
        assert chain.name("one.test")["expires_at"] == end + 6
        chain.mine_to(end - 1)
        in_grace = "the name has expired and can only be renewed"
        assert chain.mine(
            chain.update("one.test"),
            chain.transfer("one.test"),
            chain.revoke("one.test"),
            renew(chain, "one.test", ALICE, 10**6),
            chain.preorder("two.test", BOB),
        ) == [in_grace, in_grace, in_grace, None, None]
        chain.mine_to(end + 5)
        assert chain.mine(chain.register("two.test", BOB)) == ["the sender does not own the name"]
        chain.mine_accepted(chain.register("two.test", BOB))


def test_a_namespace_of_version_2_earns_its_fees_at_first(database_url: str) -> None:
    """They go to the address that revealed it; after that period they are burned again."""
    with later_chain(database_url) as chain:
        chain.open_namespace(version=2)
        revealed = chain.query("SELECT reveal_block FROM names.namespaces")[0]["reveal_block"]

        def preorder(name: str, payee: bytes) -> bytes:
            committed = bytes.fromhex(preorder_hash(name, ALICE.script.hex(), ALICE.address))
            body = b"?" + committed + bytes.fromhex(chain.consensus_at(chain.height))
            return chain.tx(body, ALICE, [(1, ALICE.script), (10**6, payee)])

        burn_address = "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8"
        chain.mine_accepted(
            preorder("one.test", BURN),
            preorder("two.test", CREATOR.script),
            preorder("bad.test", IMPORTER.script),
        )
        assert chain.mine(*(chain.register(name) for name in ("one.test", "two.test", "bad.test"))) == [
            f"the fee was not paid to {CREATOR.address}",
            None,
            f"the fee was not paid to {CREATOR.address}",
        ]
        chain.mine_to(revealed + 11)
        chain.mine_accepted(preorder("more.test", BURN), preorder("last.test", CREATOR.script))
        assert chain.mine(chain.register("more.test"), chain.register("last.test")) == [
            None,
            f"the fee was not paid to {burn_address}",
        ]


def test_in_the_fourth_epoch_preorders_age_and_prices_are_integers(database_url: str) -> None:
    """A preorder can be used for 144 blocks."""
    with later_chain(database_url, epoch3_end=270) as chain:
        chain.open_namespace(coeff=7, base=1, discounts=(1, 3))
        chain.mine_to(271)
        chain.mine_accepted(
            chain.preorder("a.test", fee=70), chain.preorder("b.test", fee=23), chain.preorder("c.test")
        )
        preordered = chain.height
        assert chain.mine(chain.register("a.test"), chain.register("b.test")) == [None, None]
        chain.mine_to(preordered + 144)
        assert chain.mine(chain.register("c.test")) == [NO_PREORDER]
        chain.mine_accepted(chain.preorder("c.test"))
        chain.mine_to(chain.height + 143)
        chain.mine_accepted(chain.register("c.test"))
