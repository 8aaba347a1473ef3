"""Points that anybody can issue and pass on, written in SQL: the rules are the `.sql` files beside this one.

An input is an OP_RETURN output with the payload ``pt``, one opcode, and

    i   issue     the name (its length in a byte, then 1 to 20 bytes of UTF-8), and how many (4 bytes)
    t   transfer  the same

Numbers are big-endian. The sender is the address that the transaction's first input spends from; its
signatures must cover the whole transaction. Whoever is the first to issue points of a name has all of them. A
transfer passes points on to the address of the first output that only an owner can spend.
"""

from virtualchain import App

app = App("points", magic=b"pt", projections="points.sql")


@app.opcode(b"i")
class Issue:
    """The sender issues points of a new name."""

    layout = "issuer sender, name text(..20), amount u32"
    check = "issue_check.sql"
    commit = "issue.sql"


@app.opcode(b"t")
class Transfer:
    """The sender passes points on."""

    layout = "sender sender, recipient recipient, name text(..20), amount u32"
    check = "transfer_check.sql"
    commit = "transfer.sql"
