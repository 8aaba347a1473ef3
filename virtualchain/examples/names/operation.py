"""What all operations share: the steps from a transaction to the tables, and the hashed fields of a name.

Each operation is a class in its own file. Its `read` reads a transaction, and refuses one that does not have
the operation's form. Its `judge` lists the rules and returns the row that the operation would make. Its
`store` writes that row.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from virtualchain.app.builder import Rejected
from virtualchain.examples.names import collisions
from virtualchain.examples.names.params import Params
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import Refused, require
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
"""The hashed fields of a name's row, in order (docs/protocol/names.md)."""


class Operation(ABC):
    """One opcode: its form, its rules and its effect."""

    opcode: ClassVar[bytes]
    fields: ClassVar[tuple[str, ...]]
    """The hashed fields of an accepted operation, in order; a field may occur twice."""

    def __init__(self, params: Params) -> None:
        self.params = params

    @abstractmethod
    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the operation; raises Refused if the transaction does not have its form."""

    @abstractmethod
    def encode(self, *args: Any, **fields: Any) -> bytes:  # noqa: ANN401 - each operation has its own
        """Write the body that `read` reads, from fields by name; raises Refused if they have no such form."""

    @abstractmethod
    def judge(self, op: Json, registry: Registry) -> Json:
        """Return the row that the operation makes; raises Refused if a rule forbids it."""

    @abstractmethod
    def store(self, record: Json, registry: Registry) -> None:
        """Write the row."""

    def hashed_fields(self, record: Json, op: Json) -> Json:  # noqa: ARG002 - a transfer uses it
        """Return the hashed fields."""
        return {field: record[field] for field in self.fields}

    # The engine's callbacks.

    def parse(
        self, payload: bytes, senders: list[Json], inputs: list[Json], outputs: list[Json], block_id: int
    ) -> Json:
        """Read the operation. Refused is a ValueError, so the engine records a rejection."""
        has_positions = self.params.epoch(block_id).has_positions
        return self.read(payload, Transaction(senders, inputs, outputs, has_positions))

    def check(self, op: Json, state: State, checked: list[Json]) -> bool | Rejected:
        """Judge the operation; the last rule is that it collides with no other in its block."""
        try:
            op["record"] = self.judge(op, Registry(state, self.params, checked))
            require(not collisions.collides(op, checked), "it collides with another operation in this block")
        except Refused as refused:
            return Rejected(str(refused))
        return True

    def commit(self, op: Json, state: State) -> Any:  # noqa: ANN401 - a dict, or an empty list
        """Write the row that `check` made, and return the hashed fields."""
        self.store(op["record"], Registry(state, self.params))
        return self.hashed_fields(op["record"], op)


class NameOperation(Operation):
    """An operation on a name: its row is a row of `names`."""

    def store(self, record: Json, registry: Registry) -> None:
        """Write the name and its event."""
        registry.store_name(record)

    def hashed_fields(self, record: Json, op: Json) -> Json:  # noqa: ARG002 - a transfer uses it
        """Return the hashed fields; the fee of an imported name is always a double."""
        op_fee = record["op_fee"]
        fields = {field: record[field] for field in NAMEREC}
        return {**fields, "op_fee": float(op_fee) if record["imported"] else int(op_fee)}


def position_of(op: Json) -> Json:
    """Return an operation's txid and position, as rows name them: `vtxindex` is the engine's txindex."""
    return {"txid": op["virtualchain_txid"], "vtxindex": op["virtualchain_txindex"]}
