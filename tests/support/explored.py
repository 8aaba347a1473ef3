"""A deployment with all that an explorer must show: a fork, hostile text everywhere, odd columns, a halt."""

import hashlib
from decimal import Decimal
from typing import Any, Final

from virtualchain import App, Jsonb, Rejected, StateEngine
from virtualchain.examples import notary
from virtualchain.testing import FakeNode
from virtualchain.testing.hostile import hostile_bodies

HTML: Final = (
    b"<script>alert(1)</script>",
    b'"><img src=x onerror=alert(1)>',
    b"</textarea></title></pre></svg><svg onload=alert(1)>",
    b"<a href='javascript:alert(1)'>click</a>",
    b"{{ 7 * 7 }}{% raw %}",
    b"&lt;b&gt; &amp;amp; &#x3c;",
    "\u2066<b>\u202egnp.exe\u200b\u00ad\u3164\ufeff\U000e0041".encode(),
    b"line\r\nSet-Cookie: a=b\r\n\r\n<b>",
    b"https://evil.example/<x>",
)
"""Text that a page must not take for markup, links or commands."""
LONGEST: Final = 3_000
"""Bytes of a hostile payload that is sent here: the fake node takes more, but the pages only cut it."""
CONTRACT: Final = hashlib.sha256(b"contract").hexdigest()
"""A document: alice claims it in block 102 and gives it to carol in block 105; on the branch that wins, she
gives it to bob in block 108."""

wall = App(
    "wall/b",
    magic=b"wl",
    projections="""
        CREATE TABLE notes (
            "order" integer NOT NULL,
            "<i>text</i>" text NOT NULL,
            body bytea,
            "as_of" numeric(12, 2),
            tags jsonb,
            at timestamptz,
            PRIMARY KEY ("order", "<i>text</i>")
        );
        COMMENT ON TABLE notes IS 'Whatever <em>strangers</em> write.';
        COMMENT ON COLUMN notes."<i>text</i>" IS 'A "text" with <b>quotes</b>.';
        CREATE TABLE empty (id integer PRIMARY KEY);
    """,
)


@wall.opcode(b"n")
class Note:
    """A note, which is rejected with its own words if it is not short text."""

    def parse(self, payload: bytes) -> dict[str, Any] | Rejected:
        """Accept text without NUL."""
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            return Rejected(f"not text: {payload[:300]!r}")
        if "\0" in text or not text:
            return Rejected(f"a NUL, or nothing: {text[:300]}")
        return {"text": text}

    def check(self, op: dict[str, Any], state: Any) -> bool | Rejected:
        """Reject what is long."""
        del state
        return len(op["text"]) < 400 or Rejected(f"too long: {op['text'][:400]}")

    def commit(self, op: dict[str, Any], state: Any, block_id: int) -> None:
        """Keep it."""
        state.execute(
            'INSERT INTO notes ("order", "<i>text</i>", body, "as_of", tags) VALUES (%s, %s, %s, %s, %s) '
            "ON CONFLICT DO NOTHING",
            [block_id, op["text"], op["text"].encode(), Decimal("1.50"), Jsonb({"text": op["text"]})],
        )


stumbling = App(
    "stumb<ling",
    magic=b"sb",
    projections="CREATE TABLE things (id text PRIMARY KEY)",
)


@stumbling.opcode(b"x")
class Fail:
    """An op that halts its app, with hostile words."""

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Accept any text."""
        return {"text": payload.decode()}

    def commit(self, op: dict[str, Any], state: Any) -> None:
        """Fail."""
        del state
        raise RuntimeError(f"cannot keep {op['text']}")


late = App(
    "la&te", magic=b"la", first_block_id=10_000, projections="CREATE TABLE soon (id integer PRIMARY KEY)"
)
"""An app whose first block is far away."""
late.add(b"x", parse=lambda payload: {"text": payload.decode()})


def bodies() -> list[bytes]:
    """Return hostile payloads, without the longest."""
    return [*HTML, *(body for _, body in hostile_bodies() if len(body) <= LONGEST)]


def mine(node: FakeNode, database: str) -> None:
    """Mine the story, and run the apps over it."""
    claim, give = b"ntc" + bytes.fromhex(CONTRACT), b"ntt" + bytes.fromhex(CONTRACT)
    options: Any = {"database": database, "source": node.url, "confirmations": 0}
    with StateEngine(notary.app, wall, stumbling, late, **options) as engine:
        node.mine([node.send(claim, "alice"), node.send(claim, "bob")])
        node.mine([node.send(b"wln" + body) for body in bodies()])
        node.mine([node.send(b"sbx" + HTML[1], "carol")])
        node.mine([node.send(give, "alice", to=[("carol", 10_000)])])
        node.mine()
        engine.build()
        node.reorg(2, txs=[])
        node.mine([node.send(give, "alice", to=[("bob", 10_000)])])
        node.mine(n=3)
        engine.build()
