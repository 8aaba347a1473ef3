"""An app whose inputs change rows in every way: by statements, row by row, and both in one call.

An input is a seed. What its check and commit do follows from it, and not from heights, so it does the same in
a block of its own as among others.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random
from typing import Any

from virtualchain import App, Rejected, State

MAGIC = b"zo"

TABLES = """
    CREATE TYPE mood AS ENUM ('fine', 'so-so', 'it''s bad');
    CREATE DOMAIN rank AS numeric(6,1) CHECK (VALUE > 0);
    CREATE TABLE accounts (
        name text PRIMARY KEY, balance numeric(12,2) NOT NULL DEFAULT 0, raw bytea, free numeric,
        flag boolean, CHECK (1 / (balance - 3) < 1000)
    );
    CREATE TABLE seen (raw bytea PRIMARY KEY);
    CREATE TABLE pairs (note varchar(9), a text, b integer, PRIMARY KEY (b, a));
    CREATE TABLE amounts (key numeric PRIMARY KEY, note text);
    CREATE TABLE spans (key interval PRIMARY KEY, note text);
    CREATE TABLE kinds (
        id integer PRIMARY KEY, tags text[], about jsonb, verbatim json, mood mood, rank rank,
        moment timestamptz, "100% of 'it'" numeric, until text
    );
    CREATE TABLE "r" ("r" integer, "b" text NOT NULL, "row" integer, "old" text, PRIMARY KEY ("b", "r"));
    CREATE TABLE "Odd ""table"" 's %s" ("select" text PRIMARY KEY, "a""b" integer, "{key}" text);
    CREATE TABLE seats (name text PRIMARY KEY, seat integer UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
    CREATE TABLE lines (owner text REFERENCES accounts DEFERRABLE, n integer, PRIMARY KEY (n, owner));
    CREATE TABLE tally (step text PRIMARY KEY, times bigint NOT NULL);
"""

_NAMES = ("a", "b", "é", "\U0001f600", "it's", '"', "\\", "")
_NUMBERS = ("0", "1", "1.0", "1.00", "-2.50", "123456789012345678901234567890.10", "0.00")
_SPANS = ("1 mon", "30 days", "720:00:00", "0", "1 year -1 day")
_ODD = '"Odd ""table"" \'s %%s"'

_STATEMENTS: tuple[tuple[str, Callable[[Random], Sequence[Any]]], ...] = (
    (
        """INSERT INTO accounts (name, balance) VALUES (%s, %s)
        ON CONFLICT (name) DO UPDATE SET balance = EXCLUDED.balance""",
        lambda dice: [dice.choice(_NAMES), dice.randrange(4)],
    ),
    (
        "UPDATE accounts SET raw = %s, flag = NOT flag WHERE name = %s",
        lambda dice: [dice.choice([None, b"", b"\0\xff"]), dice.choice(_NAMES)],
    ),
    (
        "DELETE FROM accounts WHERE name = %s AND NOT EXISTS (SELECT FROM lines WHERE owner = name)",
        lambda dice: [dice.choice(_NAMES)],
    ),
    (
        "INSERT INTO seen VALUES (%s) ON CONFLICT DO NOTHING",
        lambda dice: [bytes([dice.randrange(4)])],
    ),
    ("DELETE FROM seen WHERE raw > %s", lambda dice: [bytes([dice.randrange(4)])]),
    (
        "INSERT INTO amounts VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET note = EXCLUDED.note",
        lambda dice: [Decimal(dice.choice(_NUMBERS)), dice.choice([None, "x", "y"])],
    ),
    (
        "UPDATE amounts SET key = %s WHERE key = %s",
        lambda dice: [Decimal(dice.choice(("1", "1.0", "1.00"))), Decimal(dice.choice(("1", "1.0")))],
    ),
    ("DELETE FROM amounts WHERE key = %s", lambda dice: [Decimal(dice.choice(_NUMBERS))]),
    (
        "INSERT INTO pairs VALUES (%s, %s, %s) ON CONFLICT (b, a) DO UPDATE SET note = EXCLUDED.note",
        lambda dice: [dice.choice([None, "n", "m"]), dice.choice(_NAMES), dice.randrange(2)],
    ),
    (
        """UPDATE pairs SET b = %s, a = %s WHERE b = %s AND a = %s
        AND NOT EXISTS (SELECT FROM pairs WHERE b = %s AND a = %s)""",
        lambda dice: [*(new := [dice.randrange(3), dice.choice(_NAMES)]), 1, dice.choice(_NAMES), *new],
    ),
    ("UPDATE pairs SET note = note", lambda _: []),
    (
        """INSERT INTO kinds VALUES (%s, ARRAY[%s, NULL], '{"n": 1.0}')
        ON CONFLICT (id) DO UPDATE SET about = '{"n": 1.00}', tags = NULL""",
        lambda dice: [dice.randrange(4), dice.choice(_NAMES)],
    ),
    (
        "UPDATE kinds SET mood = 'it''s bad', \"100%% of 'it'\" = %s WHERE id = %s",
        lambda dice: [Decimal(dice.choice(_NUMBERS)), dice.randrange(4)],
    ),
    ("UPDATE kinds SET tags = tags || until WHERE id = %s", lambda dice: [dice.randrange(4)]),
    ("UPDATE kinds SET mood = 'fine', tags = NULL WHERE id = %s", lambda dice: [dice.randrange(4)]),
    ("UPDATE kinds SET verbatim = '{\"a\":1}' WHERE id = %s", lambda dice: [dice.randrange(4)]),
    ("UPDATE kinds SET verbatim = '{\"a\": 1}' WHERE id = %s", lambda dice: [dice.randrange(4)]),
    ("UPDATE kinds SET moment = '2020-01-01 00:00:00.5+02' WHERE id = %s", lambda dice: [dice.randrange(4)]),
    ("UPDATE kinds SET rank = %s WHERE id = %s", lambda dice: [1 + dice.randrange(3), dice.randrange(4)]),
    (
        "UPDATE kinds SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM kinds WHERE id = %s)",
        lambda dice: [new := dice.randrange(6), dice.randrange(4), new],
    ),
    ("DELETE FROM kinds WHERE id < %s", lambda dice: [dice.randrange(4)]),
    (
        'INSERT INTO "r" VALUES (%s, %s, 1, NULL) ON CONFLICT ("b", "r") DO UPDATE SET "row" = "r"."row" + 1',
        lambda dice: [dice.randrange(3), dice.choice(_NAMES)],
    ),
    (
        """UPDATE "r" SET "r" = %s, "old" = "b" WHERE "b" = %s AND "r" = %s
        AND NOT EXISTS (SELECT FROM "r" AS x WHERE x."b" = %s AND x."r" = %s)""",
        lambda dice: [new := dice.randrange(5), name := dice.choice(_NAMES), dice.randrange(3), name, new],
    ),
    ('DELETE FROM "r" WHERE "r" = %s', lambda dice: [dice.randrange(-3, 3)]),
    (
        f"""INSERT INTO {_ODD} VALUES (%s, %s, NULL)
        ON CONFLICT ("select") DO UPDATE SET "a""b" = EXCLUDED."a""b" """,
        lambda dice: [dice.choice(_NAMES), dice.randrange(3)],
    ),
    (f'DELETE FROM {_ODD} WHERE "a""b" = %s', lambda dice: [dice.randrange(3)]),
    (
        "INSERT INTO seats SELECT %s, coalesce(max(seat), 0) + 1 FROM seats ON CONFLICT (name) DO NOTHING",
        lambda dice: [dice.choice(_NAMES)],
    ),
    ("UPDATE seats SET seat = (SELECT max(seat) + 1 FROM seats) - seat", lambda _: []),
    (
        "INSERT INTO lines SELECT name, %s FROM accounts WHERE name = %s ON CONFLICT DO NOTHING",
        lambda dice: [dice.randrange(3), dice.choice(_NAMES)],
    ),
    ("DELETE FROM lines WHERE n = %s", lambda dice: [dice.randrange(3)]),
    # a row that comes and goes in one call
    ("INSERT INTO tally VALUES ('brief', 1)", lambda _: []),
    ("DELETE FROM tally WHERE step = 'brief'", lambda _: []),
)


def _by_statements(state: State, dice: Random) -> None:
    place = dice.randrange(len(_STATEMENTS))
    if "'brief'" in _STATEMENTS[place][0]:
        place = len(_STATEMENTS) - 2
    statement, parameters = _STATEMENTS[place]
    state.execute(statement, list(parameters(dice)))
    if place == len(_STATEMENTS) - 2:
        state.execute(_STATEMENTS[-1][0])


def _row_by_row(state: State, dice: Random) -> None:  # noqa: C901 - many small cases
    name = dice.choice(_NAMES)
    match dice.randrange(9):
        case 0:
            state.table("accounts").put({"name": name, "balance": Decimal(dice.choice(("0", "1.0", "2.5")))})
        case 1:
            state.table("accounts").add(name, balance=dice.choice([1, -1, Decimal("0.5")]))
        case 2:
            row = state.table("accounts").get(name)
            if row is not None:
                free = dice.choice([None, *map(Decimal, _NUMBERS)])
                raw = dice.choice([None, b"", b"\0\xff"])
                state.table("accounts").put({**row, "free": free, "raw": raw})
        case 3:
            if not state.query("SELECT 1 FROM lines WHERE owner = %s", [name]):
                state.table("accounts").delete(name)
        case 4:
            state.table("seen").put({"raw": bytes([dice.randrange(4)])})
        case 5:
            state.table("seen").delete(bytes([dice.randrange(4)]))
        case 6:
            row = {"a": name, "b": dice.randrange(2), "note": dice.choice([None, "n", "m"])}
            state.table("pairs").put(row)
        case 7:
            for row in state.table("pairs").find(dice.randrange(2)):
                state.table("pairs").delete((row["b"], row["a"]))
        case 8:
            state.table("seen").put({"raw": b"brief"})
            state.table("seen").delete(b"brief")


_KINDS: tuple[tuple[Callable[[State, Random], None], ...], ...] = (
    (_by_statements,),
    (_row_by_row,),
    (_by_statements, _row_by_row),
)


def act(state: State, dice: Random) -> None:
    """Change some rows, in one of the two ways or both."""
    ways = dice.choice(_KINDS)
    for _ in range(dice.randrange(5)):
        dice.choice(ways)(state, dice)


def zoo(name: str = "zoo", *, hooks: bool = False, **options: Any) -> App:
    """Make the app. With `hooks`, it does something once a block as well."""
    # In hooks, no input can be rejected for a balance of 3.
    tables = TABLES.replace("balance - 3", "balance + 1000") if hooks else TABLES
    app = App(name, **{"magic": MAGIC, "projections": tables, **options})

    class Seed:
        def parse(self, payload: bytes) -> dict[str, Any]:
            return {"seed": int(payload)}

        def check(self, op: dict[str, Any], state: State) -> bool:
            dice = Random(-op["seed"])
            if dice.random() < 0.5:
                act(state, dice)
            return dice.random() < 0.9

        def commit(self, op: dict[str, Any], state: State) -> Any:
            dice = Random(op["seed"])
            act(state, dice)
            outcome = dice.random()
            if outcome < 0.1:
                return Rejected("not today")
            if outcome < 0.2:
                return False
            return [op, {**op, "seed": 0}] if outcome < 0.3 else None

    app.opcode(None if options.get("opcodes", ()) is None else b"s")(Seed)
    if hooks:

        @app.scan
        def scan(ops: list[dict[str, Any]], state: State) -> None:
            act(state, Random(f"scan {[op['seed'] for op in ops]}"))

        @app.final
        def final(ops: list[dict[str, Any]], state: State) -> None:
            act(state, Random(f"final {[op['seed'] for op in ops]}"))

    return app
