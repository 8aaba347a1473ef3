"""Plots as SVG, made by the server: bars and lines on axes with round numbers, colored by classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

_WIDTH: Final = 640
_HEIGHT: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 626, 14, 186
"""The corners of the area that is plotted on."""
_TICKS: Final = 4
"""About how many numbers an axis has."""
_STEPS: Final = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Axis:
    """The range of an axis, its round numbers, and how they are written."""

    low: float
    high: float
    ticks: tuple[float, ...]
    write: Callable[[float], str]

    def place(self, value: float, start: float, end: float) -> float:
        """Return where a value is between two ends."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def round_axis(low: float, high: float, *, whole: bool = False, tight: bool = False) -> Axis:
    """Return an axis with round numbers; if `tight` it ends at the values and not at round numbers."""
    if high <= low:
        high = low + 1
    step = _round_step((high - low) / _TICKS, whole=whole)
    if not tight:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(
        place * step for place in range(first, first + 3 * _TICKS) if place * step <= high + step * 1e-9
    )
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(low, high, ticks, lambda value: f"{value:,.{digits}f}")


def _round_step(step: float, *, whole: bool) -> float:
    scale = 10.0 ** math.floor(math.log10(step))
    rounded = next(factor * scale for factor in _STEPS if factor * scale >= step * 0.999)
    return max(1.0, rounded) if whole else rounded


def time_axis(low: float, high: float) -> Axis:
    """Return an axis of times, in seconds since 1970, with round minutes or hours."""
    if high <= low:
        high = low + 1
    steps = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    step = next((step for step in steps if (high - low) / step <= _TICKS + 1), steps[-1])
    ticks = tuple(float(at) for at in range(math.ceil(low / step) * step, int(high) + 1, step)) or (low,)
    form = "%H:%M" if step >= 60 else "%H:%M:%S"
    return Axis(low, high, ticks, lambda at: datetime.fromtimestamp(at, tz=UTC).strftime(form))


def bars(
    name: str,
    spans: Sequence[tuple[int, int]],
    series: Sequence[Sequence[int]],
    whole: tuple[int, int] | None = None,
) -> Markup:
    """Plot counts for ranges of blocks, each a bar, with one series on top of the other.

    `whole` is the range that the axis shows, by default that of the bars.
    """
    totals = [sum(values) for values in zip(*series, strict=True)]
    low, high = whole or (spans[0][0], spans[-1][1])
    x = round_axis(min(low, spans[0][0]), max(high, spans[-1][1]) + 1, whole=True, tight=True)
    y = round_axis(0, max([*totals, 1]), whole=True)
    parts = [_frame(x, y)]
    base = [0] * len(spans)
    for kind, values in zip("ab", series, strict=False):
        for place, ((first, last), value) in enumerate(zip(spans, values, strict=True)):
            if value:
                left, right = (x.place(at, _LEFT, _RIGHT) for at in (first, last + 1))
                bottom = y.place(base[place], _BOTTOM, _TOP)
                top = y.place(base[place] + value, _BOTTOM, _TOP)
                gap = 1 if right - left > 3 else 0
                parts.append(
                    Markup(
                        '<rect class="bar-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
                    ).format(kind, left, top, max(right - left - gap, 0.6), max(bottom - top, 0.6))
                )
            base[place] += value
    return _svg(name, parts)


def lines(name: str, x: Axis, y: Axis, series: Sequence[Sequence[tuple[float, float | None]]]) -> Markup:
    """Plot lines; where a value is None, a line is interrupted."""
    parts = [_frame(x, y)]
    for kind, points in zip("ab", series, strict=False):
        pieces: list[list[str]] = [[]]
        for at, value in points:
            if value is None:
                pieces.append([])
                continue
            pieces[-1].append(f"{x.place(at, _LEFT, _RIGHT):.1f},{y.place(value, _BOTTOM, _TOP):.1f}")
        for piece in pieces:
            if len(piece) == 1:
                left, top = piece[0].split(",")
                parts.append(Markup('<circle class="dot" cx="{}" cy="{}" r="2"/>').format(left, top))
            elif piece:
                parts.append(Markup('<polyline class="line-{}" points="{}"/>').format(kind, " ".join(piece)))
    return _svg(name, parts)


def _frame(x: Axis, y: Axis) -> Markup:
    parts = []
    for tick in y.ticks:
        top = y.place(tick, _BOTTOM, _TOP)
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(_LEFT, _RIGHT, top, _LEFT - 8, top + 4, y.write(tick))
        )
    for tick in x.ticks:
        left = x.place(tick, _LEFT, _RIGHT)
        anchor = "end" if left > _RIGHT - 25 else "middle"
        parts.append(
            Markup(
                '<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text x="{0:.1f}" y="{3}" text-anchor="{4}">{5}</text>'
            ).format(left, _BOTTOM, _BOTTOM + 5, _BOTTOM + 22, anchor, x.write(tick))
        )
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _RIGHT, _BOTTOM, _BOTTOM)
    )
    return Markup("").join(parts)


def _svg(name: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, name, Markup("").join(parts)
    )


def clock(at: float) -> str:
    """Write a time, in seconds since 1970, with day and minute."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
