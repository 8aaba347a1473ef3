"""A subclass of the engine that is its own app, as in the published documentation.

Its ops are questions about consensus hashes, put to the engine's methods in each callback. What they answer
enters the ops, the rows and the verdicts.
"""

from typing import Any

from virtualchain import Rejected, State, StateEngine

WINDOW = 5
MAGIC = b"qu"


class Questions(StateEngine):
    """Asks for consensus hashes at `block_id + offset`, for an op whose payload is the offset and a hash."""

    def __init__(self, fee: int = 7, **options: Any) -> None:
        self.fee = fee
        super().__init__(**options)

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "questions"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 102

    def get_initial_snapshots(self) -> dict[int, str]:
        """Return the hash that the chain starts from."""
        return {101: "00112233445566778899aabbccddeeff"}

    def get_magic_bytes(self) -> bytes:
        """Return the magic."""
        return MAGIC

    def get_opcodes(self) -> str:
        """Return the opcode."""
        return "?"

    def get_valid_transaction_window(self) -> int:
        """Return S."""
        return WINDOW

    def get_projections(self) -> str:
        """Return a table of answers."""
        return "CREATE TABLE answers (txid text PRIMARY KEY, hash text, fresh text[] NOT NULL, last integer)"

    def db_parse(self, *arguments: Any) -> dict[str, Any]:
        """Parse the offset and the hash."""
        block_id, payload = arguments[0], arguments[2]
        offset, _, asked = payload.decode().partition(" ")
        return {
            "at": block_id + int(offset),
            "asked": asked,
            "parsed": self.get_consensus_at(block_id + int(offset)),
            "fee": self.fee,
        }

    def db_check(self, *arguments: Any) -> bool | Rejected:
        """Reject a hash that is not fresh, if there is one."""
        block_id, op, state = arguments[0], arguments[2], arguments[6]
        assert self.get_consensus_at(block_id) is None
        assert self.get_current_block() == block_id - 1
        is_valid = self.is_consensus_hash_valid(block_id, op["asked"])
        assert is_valid == state.is_fresh(op["asked"])
        return not op["asked"] or is_valid or Rejected("stale")

    def db_commit(
        self, block_id: int, opcode: bytes, op: dict[str, Any], txid: str, vtxindex: int, db_state: State
    ) -> None:
        """Keep the answers."""
        answer = self.get_consensus_at(op["at"])
        assert answer == op["parsed"] == db_state.consensus_hash(op["at"])
        db_state.execute(
            "INSERT INTO answers VALUES (%s, %s, %s, %s)",
            [txid, answer, self.get_valid_consensus_hashes(op["at"]), self.get_current_block("questions")],
        )

    def db_final(self, block_id: int, ops: list[dict[str, Any]], db_state: State) -> None:
        """Check that the block in progress cannot be seen."""
        fresh = self.get_valid_consensus_hashes(block_id)
        assert fresh == [self.get_consensus_at(at) for at in range(max(101, block_id - WINDOW), block_id)]

    def db_continue(self, block_id: int, consensus_hash: str) -> bool:
        """Check that the block can be seen once it is done."""
        assert self.get_current_block() == block_id
        assert self.get_consensus_at(block_id) == consensus_hash
        return True
