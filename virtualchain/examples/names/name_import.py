"""`;` NAME_IMPORT: the creator of a namespace brings names along before it is ready."""

from typing import Final

from embit.base import EmbitError
from embit.bip32 import HDKey
from embit.ec import PublicKey

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify
from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names.encoding import hash128, namespace_of, preorder_hash, read_name
from virtualchain.examples.names.operation import NAMEREC, NameOperation, place_of
from virtualchain.examples.names.prices import name_price
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import Refused, needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json

_INHERITED: Final = (
    "block_number",
    "preorder_block_number",
    "first_registered",
    "last_renewed",
    "preorder_hash",
)
"""What a name that is imported once more keeps."""


class NameImport(NameOperation):
    """Body: the whole name.

    The first payable output's script will own it; the next one that pays somebody else holds, in place of a
    hash of its own, the value hash.
    """

    opcode = b";"
    fields = (*NAMEREC, "sender", "address")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name, whose it will be, and its value."""
        name = read_name(payload)
        op = {**tx.sender(), **tx.recipient()}
        return {
            **op,
            "op": ";",
            "name": name,
            "value_hash": tx.import_value(op["recipient"]),
            "preorder_hash": preorder_hash(name, op["sender"], op["recipient_address"]),
        }

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from a key of the namespace's keyring, while the namespace takes imports."""
        key = needs_some(op["sender_pubkey"], "the sender shows no public key")
        namespace_id = namespace_of(op["name"])
        namespace = needs_some(registry.revealed(namespace_id), "the namespace takes no imports")
        importer = address_of(key, self.params.bitcoin)
        keyring = registry.keyring(namespace_id) or self._first_keyring(key, importer, namespace, registry)
        needs(importer in keyring, "the sender's key may not import into the namespace")
        record = {
            **place_of(op),
            "name": op["name"],
            "namespace_id": namespace_id,
            "name_hash128": hash128(op["name"]),
            "value_hash": op["value_hash"],
            "sender": op["recipient"],
            "sender_pubkey": key,
            "address": op["recipient_address"],
            "block_number": registry.height,
            "preorder_block_number": registry.height,
            "first_registered": registry.height,
            "last_renewed": registry.height,
            "revoked": False,
            "imported": True,
            "op": ";",
            "op_fee": float(name_price(op["name"], namespace, registry.height, self.params)),
            "importer": op["sender"],
            "importer_address": importer,
            "preorder_hash": op["preorder_hash"],
            "consensus_hash": None,
        }
        before = registry.name(op["name"])
        if before and (registry.is_live(before) or _is_imported(op["name"], registry)):
            record |= {field: before[field] for field in _INHERITED}
        return record

    def _first_keyring(self, key: str, importer: str, namespace: Json, registry: Registry) -> frozenset[str]:
        """Make the keyring of a namespace when its importer is met first, which is in the scan of a block.

        It is kept at once and for good: an import that stands before the importer's own in that block finds
        it, when the block's operations are accepted, and may be by a child of the importer's key.
        """
        needs(importer == namespace["recipient_address"], "the first import is the namespace's importer's")
        addresses = make_keyring(key, self.params.import_children, self.params.bitcoin)
        registry.add_to_keyring(namespace["namespace_id"], addresses)
        return frozenset(addresses)


def _is_imported(name: str, registry: Registry) -> bool:
    """Whether a name was imported earlier in this block: its row is that import then."""
    return any(op["op"] == ";" and op["name"] == name for op in registry.accepted)


def address_of(public_key: str, network: Network) -> str:
    """Give the address of a public key, compressed or not, as it was pushed (hex)."""
    script = b"\x76\xa9\x14" + hash160(bytes.fromhex(public_key)) + b"\x88\xac"
    return classify(script, network)[1][0]


def make_keyring(public_key: str, children: int, network: Network) -> list[str]:
    """Give the addresses of a key (hex) and of its children 0, 1, … (BIP 32, with a chain code of zeros).

    Raises Refused where the bytes are no key.
    """
    try:
        point = PublicKey.parse(bytes.fromhex(public_key))
    except EmbitError as error:
        raise Refused(f"the sender's public key is none: {error}") from error
    point.compressed = True
    parent = HDKey(point, bytes(32))
    keys = [parent.child(number).key.sec().hex() for number in range(children)]
    return [address_of(key, network) for key in (public_key, *keys)]
