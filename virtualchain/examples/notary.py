"""A notary on Bitcoin: it records who first claimed a document, and who owns it now.

An input is an OP_RETURN output with the payload ``nt``, one opcode, and the 32 bytes of a document's
SHA-256:

    c   claim     the sender becomes the owner; the first claim wins, within a block the earlier transaction
    t   transfer  the owner gives it to the address of the transaction's first output that has one
    r   revoke    the owner withdraws the claim for good

An owner is the address that the transaction's first input spends from. Its signatures must cover the whole
transaction: others can add outputs, with a payload of theirs, to one that is signed only in part. A recipient
is an address that a key or a script owns; an anchor, for one, is spent by anybody.
"""

from typing import Any

from virtualchain import App, Page, Rejected, State

COMPLETE = {"ALL", "DEFAULT"}
"""The hash types of signatures that cover the whole transaction."""
OWNED = {"pubkeyhash", "scripthash", "witness_v0_keyhash", "witness_v0_scripthash", "witness_v1_taproot"}
"""The types of output that only an owner can spend: p2pkh, p2sh, p2wpkh, p2wsh and p2tr."""

app = App(
    "notary",
    version="2",
    magic=b"nt",
    projections="""
        CREATE TABLE documents (
            sha256 text PRIMARY KEY,
            owner text NOT NULL,
            claimed_at integer NOT NULL,
            txid text NOT NULL,
            revoked boolean NOT NULL DEFAULT false
        );
        COMMENT ON TABLE documents IS 'Every document that was ever claimed, and its owner.';
        COMMENT ON COLUMN documents.sha256 IS 'SHA-256 of the document, hex.';
        COMMENT ON COLUMN documents.owner IS 'The owner''s address.';
        COMMENT ON COLUMN documents.claimed_at IS 'The block that holds the claim.';
        COMMENT ON COLUMN documents.txid IS 'The transaction that made the claim.';
        COMMENT ON COLUMN documents.revoked IS 'Whether the owner withdrew the claim.';
        CREATE INDEX documents_owner ON documents (owner);
    """,
    pages=[
        Page(
            "document",
            title="Documents",
            template="pages/document.html",
            table="documents",
            menu=True,
            queries={
                "documents": """
                    SELECT * FROM documents WHERE %(key)s::text IS NULL
                    ORDER BY claimed_at DESC, sha256 LIMIT 50
                """,
                "document": "SELECT * FROM documents WHERE sha256 = %(key)s",
                "history": """
                    SELECT h.from_block, o.opcode, o.vtxindex, o.txid,
                        h.row ->> 'owner' AS owner, (h.row ->> 'revoked')::boolean AS revoked
                    FROM row_history(%(app)s, 'documents', jsonb_build_object('sha256', %(key)s::text)) AS h
                    LEFT JOIN ops AS o ON o.app = %(app)s AND o.block_id = h.from_block
                        AND o.fields ->> 'sha256' = %(key)s::text
                    ORDER BY h.from_block DESC, o.vtxindex DESC
                """,
            },
        )
    ],
)


def document(payload: bytes, senders: list[dict[str, Any]]) -> dict[str, str] | Rejected | None:
    """Read what all three opcodes share: a SHA-256, and the address of a sender who signed everything."""
    sender = senders[0]
    if len(payload) != 32 or not sender["addresses"]:
        return None
    if not sender["sighash"] or not COMPLETE.issuperset(sender["sighash"]):
        return Rejected("the sender did not sign the whole transaction")
    return {"sha256": payload.hex(), "sender": sender["addresses"][0]}


def write_sha256(sha256: str) -> bytes:
    """Write what all three opcodes have as payload."""
    if len(sha256) != 64:
        raise ValueError(f"a SHA-256 has 64 hex digits, not {len(sha256)}")
    return bytes.fromhex(sha256)


def owned_by_sender(op: dict[str, Any], state: State) -> bool | Rejected:
    """Check that the document is claimed, not revoked, and owned by the sender."""
    claim = state.one("SELECT owner, revoked FROM documents WHERE sha256 = %s", [op["sha256"]])
    if claim is None:
        return Rejected("nobody claimed this document")
    if claim["revoked"]:
        return Rejected("the claim was revoked")
    return claim["owner"] == op["sender"] or Rejected(f"the document belongs to {claim['owner']}")


@app.opcode(b"c", fields=["sha256", "sender"])
class Claim:
    """The sender claims a document that nobody has claimed before."""

    def parse(self, payload: bytes, senders: list[dict[str, Any]]) -> dict[str, str] | Rejected | None:
        """Read a SHA-256, and nothing more."""
        return document(payload, senders)

    def encode(self, sha256: str) -> bytes:
        """Write a SHA-256."""
        return write_sha256(sha256)

    def check(self, op: dict[str, Any], state: State) -> bool | Rejected:
        """Reject all but the first claim, even if that was revoked."""
        taken = state.one("SELECT claimed_at FROM documents WHERE sha256 = %s", [op["sha256"]])
        return taken is None or Rejected(f"claimed in block {taken['claimed_at']}")

    def commit(self, op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
        """Record the claim."""
        state.execute(
            "INSERT INTO documents (sha256, owner, claimed_at, txid) VALUES (%s, %s, %s, %s)",
            [op["sha256"], op["sender"], block_id, txid],
        )


@app.opcode(b"t", fields=["sha256", "sender", "recipient"])
class Transfer:
    """The owner gives a document to another address."""

    def parse(
        self, payload: bytes, senders: list[dict[str, Any]], outputs: list[dict[str, Any]]
    ) -> dict[str, str] | Rejected | None:
        """Find the recipient: the address of the first output that has one."""
        op = document(payload, senders)
        recipient = next((output for output in outputs if output["addresses"]), None)
        if not isinstance(op, dict) or recipient is None:
            return op if isinstance(op, Rejected) else None
        if recipient["type"] not in OWNED:
            return Rejected(f"an output of type {recipient['type']} has no owner")
        return {**op, "recipient": recipient["addresses"][0]}

    def encode(self, sha256: str) -> bytes:
        """Write a SHA-256."""
        return write_sha256(sha256)

    def check(self, op: dict[str, Any], state: State) -> bool | Rejected:
        """Accept a transfer only from the owner."""
        return owned_by_sender(op, state)

    def commit(self, op: dict[str, Any], state: State) -> None:
        """Record the new owner."""
        state.execute("UPDATE documents SET owner = %s WHERE sha256 = %s", [op["recipient"], op["sha256"]])


@app.opcode(b"r", fields=["sha256", "sender"])
class Revoke:
    """The owner withdraws a claim."""

    def parse(self, payload: bytes, senders: list[dict[str, Any]]) -> dict[str, str] | Rejected | None:
        """Read a SHA-256, and nothing more."""
        return document(payload, senders)

    def encode(self, sha256: str) -> bytes:
        """Write a SHA-256."""
        return write_sha256(sha256)

    def check(self, op: dict[str, Any], state: State) -> bool | Rejected:
        """Accept a revocation only from the owner."""
        return owned_by_sender(op, state)

    def commit(self, op: dict[str, Any], state: State) -> None:
        """Mark the claim as revoked."""
        state.execute("UPDATE documents SET revoked = %s WHERE sha256 = %s", [True, op["sha256"]])
