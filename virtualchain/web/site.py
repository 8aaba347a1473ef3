"""What all handlers share: how to read, which apps' pages are known, and the settings that pages mention."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtualchain.web.sessions import Sessions
from virtualchain.web.version import Versions


@dataclass(frozen=True, slots=True)
class Site:
    """One deployment, as this server shows it; `request.app.state.site`."""

    sessions: Sessions
    versions: Versions
    contracts: Mapping[str, object] = field(default_factory=dict)
    """The contracts of the apps whose code is at hand, by name: they may have pages of their own."""
