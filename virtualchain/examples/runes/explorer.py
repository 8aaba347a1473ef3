"""The protocol's pages in the explorer: a rune with its holders, and an output with its balances."""

from typing import Final

from virtualchain.app.pages import Page
from virtualchain.store.sql import queries

_Q = queries("runes_pages")

PAGES: Final = (
    Page(
        "rune",
        title="Runes",
        template="pages/rune.html",
        queries={name: _Q[name] for name in ("rune", "holders", "events", "by_number", "by_name")},
        table="runes",
        search=_Q["find"],
        menu=True,
    ),
    Page(
        "output",
        title="Outputs",
        template="pages/output.html",
        queries={name: _Q[name] for name in ("balances", "received")},
        table="outputs",
        search=_Q["find_output"],
        menu=True,
    ),
)
