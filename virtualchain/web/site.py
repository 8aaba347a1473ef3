"""What all handlers share: how to read, which apps' code is at hand, and the pages that those apps bring."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtualchain.app.contract import Contract
from virtualchain.reading.catalog import Projection
from virtualchain.web.own_pages import OwnPages
from virtualchain.web.sessions import Sessions
from virtualchain.web.version import Versions


@dataclass(frozen=True, slots=True)
class Site:
    """One deployment, as this server shows it; `request.app.state.site`."""

    sessions: Sessions
    versions: Versions
    contracts: Mapping[str, Contract] = field(default_factory=dict)
    """The contracts of the apps whose code is at hand, by name."""
    own_pages: OwnPages = field(default_factory=lambda: OwnPages({}))
    """The pages that they bring."""
    tables: dict[tuple[str, ...], tuple[float, Projection]] = field(default_factory=dict)
    """Projections that were described a moment ago, by app, schema, build, fingerprint and name; and when."""
