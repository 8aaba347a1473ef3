"""The two apps of the dumps in `tests/data/schemas`, and a program that runs them.

The code of every revision of the schema has run this file, so it uses nothing but what `virtualchain` has
exported since the first one. The apps must not change: their digests are recorded beside the dumps.

    python tests/support/dumped_apps.py DATABASE NODE
"""

import sys
from typing import Any

from virtualchain import App, Rejected, State, StateEngine

titles = App(
    "titles",
    magic=b"tt",
    projections="""
        CREATE TABLE owners (name text PRIMARY KEY, since integer NOT NULL, share numeric(8, 3));
        CREATE TABLE titles (
            place integer PRIMARY KEY, owner text NOT NULL REFERENCES owners DEFERRABLE,
            sender text, raw bytea
        );
        CREATE INDEX titles_owner ON titles (owner);
    """,
)
words = App(
    "words", magic=b"wd", projections="CREATE TABLE counts (word text PRIMARY KEY, n bigint NOT NULL);"
)


def _read_title(payload: bytes, senders: list[dict[str, Any]]) -> dict[str, Any] | None:
    name, _, place = payload.decode().partition(" ")
    if not place.isdigit():
        return None
    return {"name": name, "place": int(place), "sender": senders[0]["addresses"][0]}


def _is_free(op: dict[str, Any], state: State) -> bool | Rejected:
    taken = state.one("SELECT owner FROM titles WHERE place = %s", [op["place"]])
    return taken is None or Rejected(f"taken by {taken['owner']}")


def _claim(op: dict[str, Any], state: State, block_id: int) -> None:
    state.execute(
        "INSERT INTO owners VALUES (%s, %s, 0.5) "
        "ON CONFLICT (name) DO UPDATE SET share = owners.share + 0.125",
        [op["name"], block_id],
    )
    values = [op["place"], op["name"], op["sender"], b"\x00\xff"]
    state.execute("INSERT INTO titles VALUES (%s, %s, %s, %s)", values)


def _leave(op: dict[str, Any], state: State) -> None:
    state.execute("DELETE FROM titles WHERE owner = %s AND place >= %s", [op["name"], op["place"]])


def _count(op: dict[str, Any], state: State) -> None:
    state.execute(
        "INSERT INTO counts VALUES (%s, 1) ON CONFLICT (word) DO UPDATE SET n = counts.n + 1", [op["word"]]
    )


titles.add(b"c", parse=_read_title, check=_is_free, commit=_claim)
titles.add(b"l", parse=_read_title, check=lambda op, state: True, commit=_leave)
words.add(
    b"w",
    parse=lambda payload: {"word": payload.decode()},
    check=lambda op, state: op["word"].isalpha() or Rejected("no word"),
    commit=_count,
)


if __name__ == "__main__":
    with StateEngine(titles, words, database=sys.argv[1], source=sys.argv[2], confirmations=0) as engine:
        engine.build()
