"""What a check finds: a verdict, what was observed, and what to do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from virtualchain.operating.doctor.patient import Patient

Verdict = Literal["ok", "warning", "problem", "skipped"]
VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "warning", "problem", "skipped")
_BY_WEIGHT: Final[tuple[Verdict, ...]] = ("problem", "warning", "ok", "skipped")
PAGE: Final = "docs/doctor.md"
"""Describes every check, under a heading that is its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    verdict: Verdict
    observed: str
    """What is the case, on one line; of a skipped check, why it was skipped."""
    advice: str | None = None
    """What to do; None if there is nothing to do."""


Check = Callable[[Patient], Finding]
Checks = Mapping[str, Check]
"""Checks by their names, in the order in which they run."""


def ok(observed: str) -> Finding:
    """Return that nothing is to be done."""
    return Finding("ok", observed)


def warning(observed: str, advice: str) -> Finding:
    """Return that something will or may hurt, although all works now."""
    return Finding("warning", observed, advice)


def problem(observed: str, advice: str) -> Finding:
    """Return that something does not work, or that data is in danger."""
    return Finding("problem", observed, advice)


def skipped(observed: str, advice: str | None = None) -> Finding:
    """Return that the check could not be made, and why."""
    return Finding("skipped", observed, advice)


def worst(findings: Sequence[Finding]) -> Verdict:
    """Return the worst verdict among some findings; `ok` if there are none."""
    return min((each.verdict for each in findings), key=_BY_WEIGHT.index, default="ok")


def combined(findings: Sequence[Finding], otherwise: str) -> Finding:
    """Make one finding of several that are not in order; without any, `otherwise` is what was observed."""
    if not findings:
        return ok(otherwise)
    return Finding(
        worst(findings),
        "; ".join(each.observed for each in findings),
        "; ".join(dict.fromkeys(each.advice for each in findings if each.advice)) or None,
    )
