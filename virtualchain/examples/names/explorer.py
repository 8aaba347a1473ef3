"""The registry's pages in the explorer: a name with its history, and a namespace with its names."""

from typing import Final

from virtualchain.app.pages import Page
from virtualchain.store.sql import queries

_Q = queries("names_pages")

PAGES: Final = (
    Page(
        "name",
        title="Names",
        template="pages/name.html",
        queries={name: _Q[name] for name in ("name", "history", "latest")},
        table="names",
        search=_Q["find"],
        menu=True,
    ),
    Page(
        "namespace",
        title="Namespaces",
        template="pages/namespace.html",
        queries={name: _Q[name] for name in ("namespace", "names", "namespaces")},
        table="namespaces",
        menu=True,
    ),
)
