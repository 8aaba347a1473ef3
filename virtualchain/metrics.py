"""The metrics of a deployment: their names, their samples, and whether these say that it follows its chain.

The writer counts them (`engine/measures.py`). Whoever looks at the database has them from its last report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from virtualchain.model import Json

READY_LAG: Final = 2
"""How many stable blocks the tape may lack while the deployment is ready, by default."""
AWAY: Final = ("node", "database", "writer")
"""What keeps the writer from knowing how far it is, while it is waited for."""
SILENT_AFTER: Final = 60.0
"""Seconds without a report after which a writer does not count as running."""


class Metric(NamedTuple):
    """What is known of a metric: its kind, its labels, and a line for who looks at it."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final[Mapping[str, Metric]] = {
    "virtualchain_up": Metric("gauge", "Whether a writer runs (1) or not (0)."),
    "virtualchain_build_info": Metric(
        "gauge",
        "Always 1; the labels are versions: of virtualchain, of its schema, and of Python.",
        ("version", "revision", "python"),
    ),
    "virtualchain_started_timestamp_seconds": Metric("gauge", "When the writer was started, in Unix time."),
    "virtualchain_report_age_seconds": Metric(
        "gauge", "How old the writer's report is from which the other metrics are; of `serve` alone."
    ),
    "virtualchain_height": Metric("gauge", "Height of the last block of the tape."),
    "virtualchain_node_height": Metric("gauge", "Height of the node's last block, as far as it is known."),
    "virtualchain_node_in_use": Metric(
        "gauge", "Which of the nodes is asked: 1 for the one that was named first."
    ),
    "virtualchain_nodes_disagree": Metric(
        "gauge", "Whether another node is on another branch, or calls a block of this one invalid (1)."
    ),
    "virtualchain_lag_blocks": Metric("gauge", "Blocks from the tape's last one to the stable tip."),
    "virtualchain_lag_seconds": Metric("gauge", "For how long a stable block has been due; 0 if none is."),
    "virtualchain_last_block_timestamp_seconds": Metric(
        "gauge", "Time in the header of the last block of the tape, in Unix time."
    ),
    "virtualchain_blocks_total": Metric("counter", "Blocks that were taken onto the tape."),
    "virtualchain_inputs_total": Metric("counter", "Inputs in these blocks."),
    "virtualchain_ops_total": Metric("counter", "Inputs that an app accepted.", ("app",)),
    "virtualchain_refusals_total": Metric(
        "counter", "Inputs that an app rejected, by step.", ("app", "step")
    ),
    "virtualchain_stage_seconds_total": Metric(
        "counter", "Seconds spent in a stage of the work.", ("stage",)
    ),
    "virtualchain_reorganizations_total": Metric("counter", "Rollbacks at forks."),
    "virtualchain_reorganization_depth_blocks": Metric("histogram", "Blocks that a rollback undid."),
    "virtualchain_rollback_seconds_total": Metric("counter", "Seconds spent on rollbacks."),
    "virtualchain_app_height": Metric("gauge", "Height of the last block that an app has taken.", ("app",)),
    "virtualchain_app_halted": Metric("gauge", "Whether an app is halted (1).", ("app",)),
    "virtualchain_app_unexpected": Metric(
        "gauge", "Whether an app has other digests than expected (1).", ("app",)
    ),
    "virtualchain_node_errors_total": Metric("counter", "Failures of the node, by kind.", ("kind",)),
    "virtualchain_reconnects_total": Metric(
        "counter", "How often the node or the database answered again after it was away.", ("of",)
    ),
    "virtualchain_waiting_seconds_total": Metric("counter", "Seconds of waiting, by cause.", ("for",)),
    "virtualchain_waiting": Metric("gauge", "Whether a cause is waited for now (1).", ("for",)),
    "virtualchain_deep_fork_refused": Metric(
        "gauge", "Whether the writer ended because a fork needs an operator's decision (1)."
    ),
    "virtualchain_database_size_bytes": Metric("gauge", "Size of the database; absent while it is unknown."),
}
"""Every metric, by name; those of the process itself (process_*) are prometheus_client's."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> Json:
        """Return it as the database and `status --json` have it."""
        return {"name": self.name, "labels": dict(self.labels), "value": self.value}


def unready(samples: Sequence[Sample], most: int = READY_LAG) -> list[str]:
    """Return why the deployment lacks, or may lack, more than `most` stable blocks; empty: it does not.

    A halted app is no reason: the others follow, and each app's height is there to look at.
    """
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    if not values.get(("virtualchain_up",)):
        reasons = ["no writer runs"]
    elif (age := values.get(("virtualchain_report_age_seconds",), 0.0)) > SILENT_AFTER:
        reasons = [f"the writer reported last {age:.0f} seconds ago"]
    else:
        reasons = [f"the {away} is waited for" for away in AWAY if values.get(("virtualchain_waiting", away))]
    if values.get(("virtualchain_deep_fork_refused",)):
        reasons.append("a deep fork needs an operator's decision")
    lag = values.get(("virtualchain_lag_blocks",))
    if lag is None:
        reasons.append("the node has not answered yet, so it is not known how many blocks are missing")
    elif lag > most:
        reasons.append(f"{lag:.0f} stable blocks are missing, and {most} may be")
    return reasons


def awaits_decision(samples: Sequence[Sample]) -> bool:
    """Return whether the writer ended because a deep fork needs an operator's decision."""
    return any(sample.name == "virtualchain_deep_fork_refused" and sample.value for sample in samples)
