"""An app that uses every feature of projections, for tests that compare databases."""

from typing import Any

from tests.support.unguarded import run_step
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.testing import FakeNode

DDL = """
    CREATE DOMAIN amount AS numeric CHECK (VALUE >= 0);
    CREATE TYPE mood AS ENUM ('fine', 'so-so', 'bad');
    CREATE TABLE accounts (
        name text COLLATE "C", part int, total amount NOT NULL DEFAULT 0, mood mood DEFAULT 'fine',
        PRIMARY KEY (name, part)
    );
    CREATE TABLE entries (
        id bigint PRIMARY KEY DEFERRABLE, name text COLLATE "C", part int, at timestamptz, day date,
        span interval, raw bytea, list text[] COLLATE "C", doc jsonb, place int4range, bits bit(5),
        address inet, words tsvector, told text COLLATE "C", flag boolean, code char(4) COLLATE "C",
        FOREIGN KEY (name, part) REFERENCES accounts DEFERRABLE,
        UNIQUE (id, name) DEFERRABLE,
        EXCLUDE USING gist (place WITH &&)
    );
    CREATE TABLE marks (key bytea PRIMARY KEY);
"""

_ENTRY = """
    INSERT INTO entries VALUES (
        %(id)s, %(name)s, %(part)s, '1/2/2009 10:00 EST', '3/4/2010', '1 mon 2 days 03:04:05.6', '\\x00ff',
        '{NULL, "ä", z}', '{"b": [1.50, null], "a": "\\u00e4"}', int4range(%(id)s, %(id)s + 1), B'10101',
        '10.0.0.1/8', to_tsvector('The running apps'),
        concat_ws('|', to_char(1234567.891, 'FML9G999G999D99'),
            to_char(to_timestamp(%(time)s), 'TMMonth TMDay'), to_timestamp(%(time)s),
            interval '-1 day 2 hours', 'a\\tb', quote_ident('plain'), 0.1::float8 / 3,
            ARRAY[%(time)s, NULL], '\\xff'::bytea, upper('straße' COLLATE "C")),
        NULL = NULL, 'ab')
"""
"""Statements whose input or output would depend on session settings if the writer did not pin them."""
_STEPS: tuple[tuple[Any, ...], ...] = (
    (_ENTRY, "INSERT INTO accounts VALUES (%(name)s, %(part)s) ON CONFLICT DO NOTHING"),
    ("UPDATE accounts SET total = total + 1.50, mood = 'so-so' WHERE part < %(part)s",) * 2,
    ("DELETE FROM entries WHERE id %% 3 = 0", "UPDATE entries SET id = -id, flag = NOT coalesce(flag, true)"),
    (
        """UPDATE entries SET doc = doc || jsonb_build_object('n', %(id)s),
            list = list || (SELECT array_agg(name ORDER BY name) FROM accounts)""",
        "INSERT INTO marks VALUES (sha256(%(name)s::text::bytea)) ON CONFLICT DO NOTHING",
        "DELETE FROM marks WHERE get_byte(key, 0) < 128",
    ),
    ("INSERT INTO marks VALUES ('\\x01')", "SELECT 1 / (%(id)s - %(id)s)"),
    ("DELETE FROM marks", "INSERT INTO marks SELECT int4send(id::int) FROM entries"),
)


def app() -> App:
    """Make the app; each of its steps rejects some ops."""
    made = App("representative", magic=b"re", projections=DDL)

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        known = state.consensus_hash(state.block_id - 1)
        fresh = known is not None and state.is_fresh(known)
        return Rejected("a seven") if op["id"] % 7 == 0 else fresh

    def commit(op: dict[str, Any], state: State) -> bool | None:
        for statement in _STEPS[op["step"]]:
            run_step(state, statement, {**op, "time": state.block_time})
        return False if op["id"] % 5 == 0 else None

    made.add(b"o", parse=_parse, check=check, commit=commit, fields=["id", "step", "name"])
    return made


def feed(node: FakeNode) -> None:
    """Mine blocks of ops for the app, some of which it rejects."""
    number = 0
    for block in range(9):
        steps = [(block + place) % len(_STEPS) for place in range(block % 4 + 1)] + [0, 0]
        texts = []
        for step in steps:
            number += 1
            texts.append(b"reo%d %d %s" % (number, step, "äÄzZ_"[number % 5].encode()))
        node.mine([node.send(text) for text in texts])
    node.mine([node.send(b"reobroken \xff")], n=2)


def deploy(url: str) -> None:
    """Run the app over those blocks into a database."""
    with FakeNode() as node:
        feed(node)
        with StateEngine(app(), database=url, source=node.url, confirmations=0) as engine:
            engine.build()


def _parse(payload: bytes) -> dict[str, Any]:
    number, step, name = payload.decode().split(" ")
    return {"id": int(number), "step": int(step), "name": name, "part": int(number) % 3}
