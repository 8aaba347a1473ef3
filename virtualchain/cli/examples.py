"""What the help of each command shows besides its text: examples, and the page to read next.

The examples are of an app `points`, in the folder of its project, whose virtualchain.toml names it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a command is used."""

    page: str
    """The page of the documentation to read next."""
    examples: tuple[str, ...]
    """Command lines, without the name of the program."""


_HASH: Final = "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5"
_DIGEST: Final = "17ac43c1d8549c3181b200f1bf97eb7d"

LESSONS: Final = {
    "init": Lesson("docs/tutorial.md", ("init points", "init deeds --from notary --magic dd")),
    "dev": Lesson("docs/dev.md", ("dev", "dev --node auto --fresh")),
    "demo": Lesson("docs/tutorial.md", ("demo", "demo --serve")),
    "sync": Lesson("docs/operating.md", ("sync", "sync --network regtest --confirmations 0")),
    "run": Lesson("docs/operating.md", ("run", "run --pending --serve --metrics 9100")),
    "status": Lesson("docs/operating.md", ("status", "status --check")),
    "doctor": Lesson("docs/doctor.md", ("doctor",)),
    "ops": Lesson("docs/sql.md", ("ops --newest-first --limit 10", "ops --rejected --block 900000")),
    "consensus": Lesson("docs/consistency.md", ("consensus", "consensus 900000 --json")),
    "sql": Lesson(
        "docs/sql.md",
        (
            'sql "SELECT * FROM accounts ORDER BY balance DESC LIMIT 10"',
            'sql --as-of 900000 --csv "SELECT owner, balance FROM accounts"',
        ),
    ),
    "watch": Lesson("docs/sql.md", ("watch", "watch --from 900000 --json")),
    "serve": Lesson("docs/explorer.md", ("serve", "serve --host 0.0.0.0 --port 80")),
    "webhooks": Lesson("docs/webhooks.md", ()),
    "webhooks list": Lesson("docs/webhooks.md", ("webhooks list",)),
    "webhooks replay": Lesson("docs/webhooks.md", ("webhooks replay points --from 900000",)),
    "webhooks run": Lesson("docs/webhooks.md", ("webhooks run",)),
    "preview": Lesson(
        "docs/writing.md", ("preview points claim", "preview points pay amount=30 --to bc1q...=1000sat")
    ),
    "send": Lesson(
        "docs/writing.md",
        ("send points claim --wait", "send points pay amount=30 --to bc1q...=1000sat --dry-run"),
    ),
    "prove": Lesson("docs/proofs.md", ("prove points 900000 0", "prove points 900000 --spv")),
    "state-root": Lesson("docs/proofs.md", ("state-root points --at 900000",)),
    "prove-row": Lesson("docs/proofs.md", ("prove-row points accounts bc1q...",)),
    "check-proof": Lesson("docs/proofs.md", (f"check-proof proof.json --trust {_DIGEST}",)),
    "export": Lesson("docs/export.md", ("export tape", "export ops --what points.accounts --format csv")),
    "scan": Lesson(
        "docs/scan.md",
        (
            "scan --blocks ~/.bitcoin --out tape",
            "scan --blocks ~/.bitcoin --out tape --magic 6964 --workers 8",
        ),
    ),
    "import": Lesson("docs/export.md", ("import tape",)),
    "advance": Lesson("docs/export.md", ("advance",)),
    "resume": Lesson("docs/apps.md", ("resume points",)),
    "rollback": Lesson("docs/operating.md", ("rollback 899990",)),
    "pin": Lesson("docs/operating.md", (f"pin 900000 {_HASH}",)),
    "unpin": Lesson("docs/operating.md", ("unpin 900000",)),
    "prune": Lesson("docs/operating.md", ("prune --keep 52560 --dry-run",)),
    "verify": Lesson("docs/audit.md", ("verify", "verify --sample 10", "verify --deep")),
    "compare-nodes": Lesson(
        "docs/audit.md", ("compare-nodes postgresql://reader@other/virtualchain points",)
    ),
    "upgrade": Lesson("docs/operating.md", ("upgrade points",)),
    "replay": Lesson("docs/operating.md", ("replay points", "replay points --into next")),
    "compare": Lesson("docs/operating.md", ("compare points next",)),
    "swap": Lesson("docs/operating.md", ("swap points next",)),
    "drop": Lesson("docs/operating.md", ("drop points 1",)),
    "remove": Lesson("docs/operating.md", ("remove points",)),
    "checkpoint": Lesson("docs/checkpoints.md", ()),
    "checkpoint create": Lesson("docs/checkpoints.md", ("checkpoint create points.vcp --sign key",)),
    "checkpoint publish": Lesson(
        "docs/checkpoints.md", ("checkpoint publish /var/www/checkpoints --app points --sign key",)
    ),
    "checkpoint show": Lesson("docs/checkpoints.md", ("checkpoint show points.vcp",)),
    "checkpoint apply": Lesson("docs/checkpoints.md", ("checkpoint apply points.vcp",)),
    "checkpoint keygen": Lesson("docs/checkpoints.md", ("checkpoint keygen key",)),
    "migrate": Lesson("docs/backup.md", ("migrate --dry-run", "migrate")),
    "db": Lesson("docs/database.md", ()),
    "db start": Lesson("docs/operating.md", ("db start",)),
    "db stop": Lesson("docs/operating.md", ("db stop",)),
    "db status": Lesson("docs/operating.md", ("db status",)),
    "db create": Lesson("docs/operating.md", ("db create signet",)),
    "db url": Lesson("docs/operating.md", ("db url", "db url signet")),
    "db upgrade": Lesson("docs/backup.md", ("db upgrade",)),
    "db drop-old": Lesson("docs/backup.md", ("db drop-old",)),
    "db standby": Lesson("docs/standby.md", ("db standby ../standby",)),
    "db promote": Lesson("docs/standby.md", ("db promote",)),
    "db grant-reader": Lesson("docs/sql.md", ("db grant-reader analyst --login",)),
    "db revoke-reader": Lesson("docs/sql.md", ("db revoke-reader analyst",)),
    "completion": Lesson("docs/operating.md", ("completion bash", "completion fish")),
}
"""By command, as it is called."""
