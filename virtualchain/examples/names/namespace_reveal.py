"""`&` NAMESPACE_REVEAL: disclose the preordered namespace, and how long its names live and what they cost."""

from collections.abc import Sequence

from virtualchain.examples.names.operation import Operation, position_of
from virtualchain.examples.names.reading import (
    Transaction,
    preorder_hash,
    read_namespace_id,
    write_namespace_id,
    write_nibbles,
    write_number,
)
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import REVEALED, namespace_price, require, require_some
from virtualchain.model import Json

_BUCKETS = 16
REVEAL_FIELDS = (
    "namespace_id",
    "preorder_hash",
    "version",
    "sender",
    "sender_pubkey",
    "address",
    "recipient",
    "recipient_address",
    "block_number",
    "reveal_block",
    "op",
    "txid",
    "vtxindex",
    "lifetime",
    "coeff",
    "base",
    "buckets",
    "nonalpha_discount",
    "no_vowel_discount",
)


class NamespaceReveal(Operation):
    """Body: the terms of its names (15 bytes), version (2), namespace id (the rest).

    The terms are lifetime (4 bytes), coefficient (1), base (1), 16 exponents and 2 discounts (a nibble each).
    There are exactly three outputs; the second pays whoever may import names.
    """

    opcode = b"&"
    fields = REVEAL_FIELDS

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the namespace's terms, id and recipient."""
        require(len(payload) > 17, "the body is too short for a reveal")
        nibbles = [int(digit, 16) for digit in payload[6:15].hex()]
        *buckets, nonalpha_discount, no_vowel_discount = nibbles
        require(0 not in (nonalpha_discount, no_vowel_discount), "a discount is 0")
        namespace_id = read_namespace_id(payload[17:])
        op = {**tx.sender(), **tx.second_recipient()}
        return {
            **op,
            "op": REVEALED,
            "namespace_id": namespace_id,
            "preorder_hash": preorder_hash(namespace_id, op["sender"], op["recipient_address"]),
            "lifetime": int.from_bytes(payload[:4], "big"),
            "coeff": payload[4],
            "base": payload[5],
            "buckets": buckets,
            "nonalpha_discount": nonalpha_discount,
            "no_vowel_discount": no_vowel_discount,
            "version": int.from_bytes(payload[15:17], "big"),
        }

    def encode(
        self,
        namespace_id: str,
        lifetime: int,
        coeff: int,
        base: int,
        buckets: Sequence[int],
        nonalpha_discount: int,
        no_vowel_discount: int,
        version: int = 1,
    ) -> bytes:
        """Write the namespace's terms and id."""
        require(len(buckets) == _BUCKETS, f"a namespace has {_BUCKETS} buckets")
        numbers = write_number(lifetime, 4) + write_number(coeff, 1) + write_number(base, 1)
        nibbles = write_nibbles((*buckets, nonalpha_discount, no_vowel_discount))
        return numbers + nibbles + write_number(version, 2) + write_namespace_id(namespace_id)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require a preorder by this sender for this recipient that paid the namespace's price."""
        namespace_id = op["namespace_id"]
        require(registry.revealed_namespace(namespace_id) is None, "the namespace is already revealed")
        require(registry.ready_namespace(namespace_id) is None, "the namespace is already ready")
        preorder = require_some(
            registry.find_preorder(op["preorder_hash"], "*"), "no preorder by this sender for this recipient"
        )
        require(
            op["version"] in registry.epoch.versions, f"version {op['version']} is not valid in this epoch"
        )
        price = namespace_price(namespace_id, registry.height, self.params)
        paid = preorder["op_fee"]
        require(paid >= price, f"the preorder paid {paid} satoshis, less than the price of {price:.0f}")
        earlier = registry.namespace(namespace_id)
        return {
            **op,
            **position_of(op),
            "block_number": (earlier or preorder)["block_number"],
            "reveal_block": registry.height,
            "ready_block": 0,
        }

    def store(self, record: Json, registry: Registry) -> None:
        """Store the namespace, and remove the preorder that it used."""
        registry.drop_preorders(record["preorder_hash"])
        registry.store_namespace(record)
