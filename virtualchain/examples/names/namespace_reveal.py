"""`&` NAMESPACE_REVEAL: tell which namespace was preordered, and how long and how dear its names are."""

from virtualchain.examples.names.encoding import preorder_hash, read_namespace_id
from virtualchain.examples.names.lifetime import REVEALED
from virtualchain.examples.names.operation import Operation, place_of
from virtualchain.examples.names.prices import namespace_price
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json

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
    """Body: how names live and what they cost, version (2 bytes), namespace's id (the rest).

    In front: lifetime (4 bytes), coefficient (1), base (1), 16 exponents and 2 discounts (a nibble each). The
    second of exactly three outputs pays who may import names.
    """

    opcode = b"&"
    fields = REVEAL_FIELDS

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read how names will be priced, and whose the namespace will be."""
        needs(len(payload) > 17, "its body is shorter than a reveal's")
        nibbles = [int(digit, 16) for digit in payload[6:15].hex()]
        *buckets, nonalpha_discount, no_vowel_discount = nibbles
        needs(0 not in (nonalpha_discount, no_vowel_discount), "a discount is 0")
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

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from the one who preordered it for this very recipient, and paid its price."""
        namespace_id = op["namespace_id"]
        needs(registry.revealed(namespace_id) is None, "the namespace is revealed already")
        needs(registry.ready(namespace_id) is None, "the namespace is there already")
        preorder = needs_some(
            registry.find_preorder(op["preorder_hash"], "*"),
            "the sender did not preorder it for this recipient",
        )
        needs(op["version"] in registry.epoch.versions, f"there is no version {op['version']}")
        price = namespace_price(namespace_id, registry.height, self.params)
        needs(preorder["op_fee"] >= price, f"the preorder paid {preorder['op_fee']} of {price:.0f} satoshi")
        before = registry.namespace(namespace_id)
        return {
            **op,
            **place_of(op),
            "block_number": (before or preorder)["block_number"],
            "reveal_block": registry.height,
            "ready_block": 0,
        }

    def keep(self, record: Json, registry: Registry) -> None:
        """Store the namespace; the preorder is used up."""
        registry.drop_preorders(record["preorder_hash"])
        registry.keep_namespace(record)
