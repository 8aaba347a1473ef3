"""`#` ANNOUNCE: the network's developers tell its nodes something; the state does not change."""

from virtualchain.examples.names.operation import Operation, place_of
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import needs
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json
from virtualchain.store.state import State


class Announce(Operation):
    """Body: hash of the message (20 bytes). It is not hashed."""

    opcode = b"#"
    fields = ()

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the hash."""
        needs(len(payload) == 20, f"its body has {len(payload)} bytes, and 20 are an announcement's")
        return {"op": "#", "message_hash": payload.hex(), **tx.sender()}

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from the owner of one of a few names."""
        named = [record for name in self.params.announcers if (record := registry.name(name))]
        heard = [record["sender"] for record in named if registry.is_live(record)]
        needs(op["sender"] in heard, "the sender may not announce")
        return {**op, **place_of(op), "block_id": registry.height}

    def keep(self, record: Json, registry: Registry) -> None:
        """Store it for readers."""
        registry.add_announcement(record)

    def commit(self, op: Json, state: State) -> list[Json]:
        """Store it; no operation stands for it among those that are hashed."""
        super().commit(op, state)
        return []
