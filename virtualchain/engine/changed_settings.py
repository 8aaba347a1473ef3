"""What a writer is asked to do otherwise than the last one: a setting that changed by mistake shows at once.

Nothing is derived from what is recorded for this.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import psycopg
from psycopg.types.json import Jsonb

from virtualchain.app.contract import Contract
from virtualchain.engine.options import Options
from virtualchain.model import Json, Verification
from virtualchain.notices import Notice
from virtualchain.store.sql import queries

_Q = queries("report")
_NONE: Final = "none"
_POLICY: Final = "on_deep_fork of "


def settings_of(options: Options, verify: Verification | None, contracts: Sequence[Contract]) -> Json:
    """Return the settings that decide what a writer takes and does, by name.

    `verify` is what was asked for; None leaves it to the source.
    """
    return {
        "confirmations": options.confirmations,
        "history": "all" if options.history is None else options.history,
        "verify": verify or "default",
        "senders": options.senders,
        "deepest_rollback": _NONE if options.deepest_rollback is None else options.deepest_rollback,
        "on_unexpected": options.on_unexpected,
        **{f"{_POLICY}{app}": policy for app, policy in sorted(options.on_deep_fork.items())},
        **{f"version of {contract.name}": contract.version for contract in contracts},
    }


def note_settings(connection: psycopg.Connection, settings: Json, report: Callable[[str], object]) -> None:
    """Record the settings of this writer, and report which of them the last one had otherwise.

    The policy of an app that the settings do not name stays as it is.
    """
    row = connection.execute(_Q["settings"]).fetchone()
    before: Mapping[str, object] = (row and row[0]) or settings
    connection.execute(_Q["keep_settings"], {"settings": Jsonb(settings)})
    changes = {
        name: [before.get(name, _NONE), settings.get(name, _NONE)]
        for name in dict.fromkeys([*settings, *before])
        if before.get(name) != settings.get(name) and (name in settings or not name.startswith(_POLICY))
    }
    if changes:
        shown = ", ".join(f"{name} {old} → {new}" for name, (old, new) in changes.items())
        message = f"settings changed since the last writer: {shown}"
        report(Notice(message, "settings_changed", changes=changes))
