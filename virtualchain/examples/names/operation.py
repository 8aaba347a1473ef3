"""What all operations share: the steps from a transaction to the tables, and the record of a name.

An operation is one class in a file of its own. Its `read` reads a transaction (and refuses what is none
of its own), its `judge` lists the rules and gives the row as the operation would make it, and its `keep`
writes that row.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from virtualchain.app.builder import Rejected
from virtualchain.examples.names import collisions
from virtualchain.examples.names.params import Params
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import Refused, needs
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json
from virtualchain.store.state import State

NAMEREC: Final = (
    "name",
    "value_hash",
    "sender",
    "sender_pubkey",
    "address",
    "block_number",
    "preorder_block_number",
    "first_registered",
    "last_renewed",
    "revoked",
    "op",
    "txid",
    "vtxindex",
    "op_fee",
    "importer",
    "importer_address",
)
"""The fields of a name's row that are hashed, in order (`names.md` §9)."""


class Operation(ABC):
    """One opcode: how it is read, what it needs, what it does."""

    opcode: ClassVar[bytes]
    fields: ClassVar[tuple[str, ...]]
    """What of an accepted operation is hashed, in order; a field may stand there twice."""

    def __init__(self, params: Params) -> None:
        self.params = params

    @abstractmethod
    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the operation; raises Refused where the transaction is none."""

    @abstractmethod
    def judge(self, op: Json, registry: Registry) -> Json:
        """Give the row that the operation makes; raises Refused where a rule forbids it."""

    @abstractmethod
    def keep(self, record: Json, registry: Registry) -> None:
        """Write the row."""

    def hashed(self, record: Json, op: Json) -> Json:  # noqa: ARG002 - a transfer asks for it
        """Give the hashed fields."""
        return {field: record[field] for field in self.fields}

    # The engine's callbacks.

    def parse(
        self, payload: bytes, senders: list[Json], inputs: list[Json], outputs: list[Json], block_id: int
    ) -> Json:
        """Read the operation; Refused is a ValueError, which refuses it."""
        has_positions = self.params.epoch(block_id).has_positions
        return self.read(payload, Transaction(senders, inputs, outputs, has_positions))

    def check(self, op: Json, state: State, checked: list[Json]) -> bool | Rejected:
        """Judge the operation; that nothing in its block collides with it is the last rule of all."""
        try:
            op["record"] = self.judge(op, Registry(state, self.params, checked))
            needs(not collisions.collides(op, checked), "it collides with another one in this block")
        except Refused as refused:
            return Rejected(str(refused))
        return True

    def commit(self, op: Json, state: State) -> Any:  # noqa: ANN401 - a dict, or a list of none
        """Write what the check came to, and give what is hashed."""
        self.keep(op["record"], Registry(state, self.params))
        return self.hashed(op["record"], op)


class NameOperation(Operation):
    """An operation on a name: its row is a row of `names`."""

    def keep(self, record: Json, registry: Registry) -> None:
        """Write the name and its event."""
        registry.keep_name(record)

    def hashed(self, record: Json, op: Json) -> Json:  # noqa: ARG002 - a transfer asks for it
        """Give the hashed fields: the fee of an imported name is a double, whatever the operation."""
        op_fee = record["op_fee"]
        whole = {field: record[field] for field in NAMEREC}
        return {**whole, "op_fee": float(op_fee) if record["imported"] else int(op_fee)}


def place_of(op: Json) -> Json:
    """Give where an operation stands, as rows have it: `vtxindex` is what the engine calls txindex."""
    return {"txid": op["virtualchain_txid"], "vtxindex": op["virtualchain_txindex"]}
