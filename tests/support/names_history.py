"""Random histories of the name registry, dense in rare cases: few names, short lifetimes, full blocks.

Each history is a scenario in the format of the recorded ones, with the verdicts and hashes of `names_model`.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from tests.support.names_chain import (
    ALICE,
    BOB,
    CAROL,
    COMPANY,
    CREATOR,
    EVE,
    IMPORTER,
    NAMESPACE_FEE,
    KeyHolder,
    Person,
    Writer,
)
from tests.support.names_model import Model
from virtualchain.consensus.hashing import sha256d
from virtualchain.examples.names import regtest
from virtualchain.examples.names.conformance.scenario import read_canonical
from virtualchain.examples.names.name_import import make_keyring
from virtualchain.examples.names.reading import hash128, preorder_hash

PEOPLE = (ALICE, BOB, CAROL, COMPANY)
NAMESPACES = ("test", "other")
LABELS = ("one", "two", "b-1", "z")
Made = tuple[bytes, dict[str, Any]]
"""A raw transaction, and the same operation as the model takes it."""


class History(Writer):
    """Makes one history; the same seed makes the same history."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = Random(seed)
        self.settings: dict[str, Any] = {
            "epoch1_end": 256 + self.chance.choice((0, 15, 40, 1000)),
            "lifetime_multiplier": [1, self.chance.choice((1, 2))],
            "price_multiplier": [1.0, self.chance.choice((1.0, 0.1, 0.25))],
            "namespace_reveal_expire": self.chance.choice((4, 8, 144)),
        }
        self.params = regtest(
            epoch1_end=self.settings["epoch1_end"],
            lifetime_multiplier=tuple(self.settings["lifetime_multiplier"]),
            price_multiplier=tuple(self.settings["price_multiplier"]),
            namespace_reveal_expire=self.settings["namespace_reveal_expire"],
        )
        self.model = Model(self.params)
        self.preorders: list[tuple[str, Person, Person]] = []
        """The preorders made so far: text, sender, recipient."""

    @property
    def height(self) -> int:
        """The height of the last block."""
        return self.model.h

    def consensus_at(self, height: int) -> str:
        """Return the consensus hash of a block."""
        return self.model.consensus[height]

    def scenario(self, blocks: int) -> dict[str, Any]:
        """Make a scenario of `blocks` blocks."""
        made = [self.block(ops) for ops in self.beginning()]
        made += [self.block(self.ops()) for _ in range(blocks - len(made))]
        return {
            "log_set": "random",
            "scenario": f"{self.settings}",
            "first_block": self.params.first_block,
            "initial_snapshots": {str(k): v for k, v in self.params.initial_snapshots.items()},
            "params": self.settings,
            "parent_txs": {},
            "blocks": made,
        }

    def block(self, made: list[Made]) -> dict[str, Any]:
        """Place operations in a block, and record what the model makes of them."""
        txindexes = sorted(self.chance.sample(range(1, len(made) + 3), len(made)))
        for txindex, (raw, op) in zip(txindexes, made, strict=True):
            op |= {"txid": sha256d(raw)[::-1].hex(), "vtxindex": txindex}
        verdicts, texts, ops_hash, consensus_hash = self.model.block([op for _, op in made])
        ops = [read_canonical(text) for text in texts]
        return {
            "block_id": self.height,
            "txs": [
                {
                    "txindex": op["vtxindex"],
                    "txid": op["txid"],
                    "raw": raw.hex(),
                    "verdict": "ACCEPT" if accepted else "REJECT",
                }
                for (raw, op), accepted in zip(made, verdicts, strict=True)
            ],
            "ops": [{"opcode": op.opcode, "fields": [list(field) for field in op.fields]} for op in ops],
            "ops_hash": ops_hash,
            "consensus_hash": consensus_hash,
        }

    def ops(self) -> list[Made]:
        """Choose a block's operations, most of them likely to be accepted."""
        kinds = {
            self.some_preorder: 8,
            self.some_registration: 8,
            self.some_renewal: 5,
            self.some_update: 5,
            self.some_transfer: 5,
            self.some_revocation: 1,
            self.some_import: 3,
            self.some_namespace_preorder: 1,
            self.some_reveal: 2,
            self.some_ready: 1,
        }
        number = self.chance.choice((0, 1, 2, 4, 8, 12))
        return [make() for make in self.chance.choices(list(kinds), list(kinds.values()), k=number)]

    def beginning(self) -> Iterator[list[Made]]:
        """Create both namespaces, one of them ready, and names in them."""
        yield []
        yield [self._namespace_preorder(space, CREATOR, IMPORTER, NAMESPACE_FEE) for space in NAMESPACES]
        yield [self._reveal(space, CREATOR, IMPORTER, version=1) for space in NAMESPACES]
        yield [self.some_import() for _ in range(5)]
        yield [(self.ready("test", IMPORTER), {"op": "!", "namespace_id": "test", **sender_fields(IMPORTER)})]
        yield [self.some_preorder() for _ in range(6)]

    # One of each kind.

    def person(self) -> Person:
        """Choose a person."""
        return self.chance.choice(PEOPLE)

    def a_name(self) -> str:
        """Choose a name, often one that exists."""
        if self.model.names and self.chance.random() < 0.5:
            return self.chance.choice(sorted(self.model.names))
        return f"{self.chance.choice(LABELS)}.{self.chance.choice(NAMESPACES)}"

    def owner_of(self, name: str) -> Person:
        """Return a name's owner, usually; otherwise another person."""
        script = self.model.names.get(name, {}).get("sender")
        owners = [person for person in (*PEOPLE, EVE) if person.script.hex() == script]
        return owners[0] if owners and self.chance.random() < 0.9 else self.person()

    def seen(self) -> str:
        """Choose a consensus hash: usually the last, or one at the edge of the window."""
        back = self.chance.choice((0, 0, 0, 1, 3, 22, 23, 24))
        return self.consensus_at(max(self.height - back, min(self.model.consensus)))

    def fee(self) -> int | None:
        """Choose a fee, usually a sufficient one."""
        return self.chance.choice((10**6, 10**6, 10**6, 10**6, 1600, 0, None))

    def some_preorder(self) -> Made:
        """`?`."""
        name, sender, fee, seen = self.a_name(), self.person(), self.fee(), self.seen()
        to = sender if self.chance.random() < 0.7 else self.person()
        self.preorders.append((name, sender, to))
        op = {"op": "?", "preorder_hash": committed(name, sender, to), "consensus_hash": seen, "op_fee": fee}
        return self.preorder(name, sender, to, fee, seen), {**op, **sender_fields(sender)}

    def some_registration(self) -> Made:
        """`:` of a preordered name."""
        if not self.preorders:
            return self.some_preorder()
        name, sender, to = self.chance.choice(self.preorders[-12:])
        return self._colon(name, sender, to, None)

    def some_renewal(self) -> Made:
        """`:` by an owner."""
        name = self.a_name()
        owner = self.owner_of(name)
        return self._colon(name, owner, owner if self.chance.random() < 0.8 else self.person(), self.fee())

    def _colon(self, name: str, sender: Person, to: Person, fee: int | None) -> Made:
        op = {"op": ":", "name": name, "op_fee": fee, "preorder_hash": committed(name, sender, to)}
        return self.register(name, sender, to, fee), {**op, **sender_fields(sender), **recipient_fields(to)}

    def some_update(self) -> Made:
        """`+`."""
        name, seen, value = self.a_name(), self.seen(), f"{self.chance.randrange(256):02x}" * 20
        sender = self.owner_of(name)
        op = {"op": "+", "mark": hash128(name + seen), "value_hash": value}
        return self.update(name, sender, value, seen), {**op, **sender_fields(sender)}

    def some_transfer(self) -> Made:
        """`>`."""
        name, seen, keep, to = self.a_name(), self.seen(), self.chance.random() < 0.5, self.person()
        sender = self.owner_of(name)
        op = {"op": ">>" if keep else ">~", "mark": hash128(name), "consensus_hash": seen, "keep_data": keep}
        raw = self.transfer(name, sender, to, keep=keep, seen=seen)
        return raw, {**op, **sender_fields(sender), **recipient_fields(to)}

    def some_revocation(self) -> Made:
        """`~`."""
        name = self.a_name()
        sender = self.owner_of(name)
        return self.revoke(name, sender), {"op": "~", "name": name, **sender_fields(sender)}

    def some_import(self) -> Made:
        """`;` by the importer, or a child of its key."""
        children = make_keyring(IMPORTER.public_key.hex(), 5, self.params.bitcoin)
        sender = self.chance.choice((IMPORTER, IMPORTER, *CHILDREN))
        to, name = self.person(), self.a_name()
        value = f"{self.chance.randrange(256):02x}" * 20
        op = {"op": ";", "name": name, "value_hash": value, "children": children}
        op["preorder_hash"] = committed(name, sender, to)
        return self.import_name(name, sender, to, value), {
            **op,
            **sender_fields(sender),
            **recipient_fields(to),
        }

    def some_namespace_preorder(self) -> Made:
        """`*`."""
        fee = self.chance.choice((NAMESPACE_FEE, NAMESPACE_FEE, NAMESPACE_FEE // 10, None))
        return self._namespace_preorder(self.chance.choice(NAMESPACES), *self._creator(), fee)

    def _namespace_preorder(self, space: str, sender: Person, to: Person, fee: int | None) -> Made:
        seen = self.seen()
        op = {"op": "*", "preorder_hash": committed(space, sender, to), "consensus_hash": seen, "op_fee": fee}
        return self.preorder_namespace(space, sender, to, fee, seen), {**op, **sender_fields(sender)}

    def some_reveal(self) -> Made:
        """`&`."""
        version = self.chance.choice((1, 1, 1, 2))
        return self._reveal(self.chance.choice(NAMESPACES), *self._creator(), version)

    def _reveal(self, space: str, sender: Person, to: Person, version: int) -> Made:
        rules: dict[str, Any] = {
            "lifetime": self.chance.choice((0, 3, 9, 30)),
            "coeff": self.chance.choice((0, 1, 200)),
            "base": self.chance.choice((1, 2, 3)),
            "buckets": [self.chance.randrange(4) for _ in range(16)],
            "version": version,
        }
        discounts = (self.chance.randint(1, 15), self.chance.randint(1, 15))
        op = {"op": "&", "namespace_id": space, "preorder_hash": committed(space, sender, to), **rules}
        op |= {"nonalpha_discount": discounts[0], "no_vowel_discount": discounts[1]}
        raw = self.reveal(space, sender, to, discounts=discounts, **rules)
        return raw, {**op, **sender_fields(sender), **recipient_fields(to)}

    def some_ready(self) -> Made:
        """`!`."""
        space, sender = self.chance.choice(NAMESPACES), self.chance.choice((IMPORTER, IMPORTER, BOB))
        return self.ready(space, sender), {"op": "!", "namespace_id": space, **sender_fields(sender)}

    def _creator(self) -> tuple[Person, Person]:
        return self.chance.choice((CREATOR, CREATOR, EVE)), self.chance.choice((IMPORTER, IMPORTER, BOB))


def children_of_importer() -> tuple[Person, ...]:
    """Return the holders of the first and last child key in the importer's keyring, and of the next one."""
    from embit.bip32 import HDKey
    from embit.ec import PublicKey

    parent = PublicKey.parse(IMPORTER.public_key)
    return tuple(KeyHolder(HDKey(parent, bytes(32)).child(number).key.sec().hex()) for number in (0, 4, 5))


CHILDREN = children_of_importer()


def committed(text: str, sender: Person, to: Person) -> str:
    """Return a preorder hash."""
    return preorder_hash(text, sender.script.hex(), to.address)


def sender_fields(sender: Person) -> dict[str, Any]:
    """Return an operation's fields about its sender."""
    key = None if sender.is_script else sender.public_key.hex()
    return {"sender": sender.script.hex(), "address": sender.address, "sender_pubkey": key}


def recipient_fields(to: Person) -> dict[str, Any]:
    """Return an operation's fields about its recipient."""
    return {"recipient": to.script.hex(), "recipient_address": to.address}
