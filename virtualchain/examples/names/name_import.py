"""`;` NAME_IMPORT: the creator of a namespace brings in names before it is ready."""

from typing import Final

from embit.base import EmbitError
from embit.bip32 import HDKey
from embit.ec import PublicKey

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify
from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names.operation import NAMEREC, NameOperation, position_of
from virtualchain.examples.names.reading import (
    Transaction,
    hash128,
    namespace_of,
    preorder_hash,
    read_name,
    write_name,
)
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import Refused, name_price, require, require_some
from virtualchain.model import Json

_INHERITED: Final = (
    "block_number",
    "preorder_block_number",
    "first_registered",
    "last_renewed",
    "preorder_hash",
)
"""What a name keeps if it is imported again."""


class NameImport(NameOperation):
    """Body: the full name.

    The script of the first payable output becomes the owner. The next payable output with another script
    carries the value hash where its script has the hash of a key or script.
    """

    opcode = b";"
    fields = (*NAMEREC, "sender", "address")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name, its owner to be, and its value."""
        name = read_name(payload)
        op = {**tx.sender(), **tx.recipient()}
        return {
            **op,
            "op": ";",
            "name": name,
            "value_hash": tx.import_value(op["recipient"]),
            "preorder_hash": preorder_hash(name, op["sender"], op["recipient_address"]),
        }

    def encode(self, name: str) -> bytes:
        """Write the name; outputs hold the owner to be, and the value."""
        return write_name(name)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require a key of the namespace's keyring, while the namespace accepts imports."""
        key = require_some(op["sender_pubkey"], "no input shows the sender's public key")
        namespace_id = namespace_of(op["name"])
        namespace = require_some(
            registry.revealed_namespace(namespace_id), "the namespace does not accept imports"
        )
        importer = address_of(key, self.params.bitcoin)
        keyring = registry.keyring(namespace_id) or self._create_keyring(key, importer, namespace, registry)
        require(importer in keyring, "the sender's key may not import into the namespace")
        record = {
            **position_of(op),
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
        earlier = registry.name(op["name"])
        if earlier and (registry.is_live(earlier) or _was_imported_in_block(op["name"], registry)):
            record |= {field: earlier[field] for field in _INHERITED}
        return record

    def _create_keyring(self, key: str, importer: str, namespace: Json, registry: Registry) -> frozenset[str]:
        """Create a namespace's keyring when its importer's first import is judged, in the scan of a block.

        The keyring is stored immediately and for good. So when the block's operations are then accepted, an
        import that precedes the importer's own already sees it, and may be signed by a child key.
        """
        require(
            importer == namespace["recipient_address"],
            "the first import must come from the namespace's importer",
        )
        addresses = make_keyring(key, self.params.import_children, self.params.bitcoin)
        registry.add_to_keyring(namespace["namespace_id"], addresses)
        return frozenset(addresses)


def _was_imported_in_block(name: str, registry: Registry) -> bool:
    """Check whether a name was imported earlier in this block; its row is then that import's."""
    return any(op["op"] == ";" and op["name"] == name for op in registry.accepted)


def address_of(public_key: str, network: Network) -> str:
    """Return the address of a public key (hex) as it was pushed, compressed or not."""
    script = b"\x76\xa9\x14" + hash160(bytes.fromhex(public_key)) + b"\x88\xac"
    return classify(script, network)[1][0]


def make_keyring(public_key: str, children: int, network: Network) -> list[str]:
    """Return the addresses of a key (hex) and of its first `children` child keys.

    Children are derived by BIP 32, with a chain code of zeros. Raises Refused if the key is invalid.
    """
    try:
        point = PublicKey.parse(bytes.fromhex(public_key))
    except EmbitError as error:
        raise Refused(f"the sender's public key is invalid: {error}") from error
    point.compressed = True
    parent = HDKey(point, bytes(32))
    keys = [parent.child(number).key.sec().hex() for number in range(children)]
    return [address_of(key, network) for key in (public_key, *keys)]
