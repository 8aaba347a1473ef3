"""Two small plots as SVG: bars of values relative to their goals, and stacked bars of shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH, _LEFT, _BAR, _GAP = 860, 300, 16, 8
_PLOT: Final = _WIDTH - _LEFT - 90
_MOST: Final = 2.0
"""Bars of more than this times the goal are cut off."""
_COLORS: Final = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1"),
    *("#9c755f", "#ff9da7", "#bab0ac", "#86bcb6", "#d37295", "#a0cbe8", "#8cd17d", "#b6992d"),
)
_STYLE: Final = "text { font: 12px sans-serif; fill: #222 } .title { font-weight: bold }"


@dataclass(frozen=True)
class Bar:
    """A value and its goal; `is_cost` if less is better."""

    name: str
    value: float
    goal: float
    unit: str
    is_cost: bool = False

    @property
    def share(self) -> float:
        """How much of the goal is reached; 1 or more is all of it."""
        if self.is_cost:
            return self.goal / self.value if self.value else _MOST
        return self.value / self.goal


def svg(bars: Sequence[Bar], stacks: Mapping[str, Mapping[str, float]]) -> str:
    """Draw the bars, with a line at the goal, and below them a stack of shares for each key of `stacks`."""
    parts, top = _draw_bars(bars, 20)
    more, bottom = _draw_stacks(stacks, top + 40)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom}">'
    back = f'<rect width="{_WIDTH}" height="{bottom}" fill="#fff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", back, *parts, *more, "</svg>\n"])


def _draw_bars(bars: Sequence[Bar], top: int) -> tuple[list[str], int]:
    parts = [_text(10, top, "Share of the goal (line: all of it)", title=True)]
    start = top + 12
    for place, bar in enumerate(bars):
        y = start + place * (_BAR + _GAP)
        width = _PLOT * min(bar.share, _MOST) / _MOST
        color = "#59a14f" if bar.share >= 1 else "#f28e2b"
        parts += [
            _text(10, y + 12, bar.name),
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>',
            _text(_LEFT + width + 6, y + 12, f"{number(bar.value)} {bar.unit}".strip()),
        ]
    bottom = start + len(bars) * (_BAR + _GAP)
    at = _LEFT + _PLOT / _MOST
    parts.append(f'<line x1="{at}" y1="{start - 4}" x2="{at}" y2="{bottom}" stroke="#222"/>')
    return parts, bottom


def _draw_stacks(stacks: Mapping[str, Mapping[str, float]], top: int) -> tuple[list[str], int]:
    parts = [_text(10, top, "Where the time goes", title=True)]
    names = list(dict.fromkeys(name for stack in stacks.values() for name in stack))
    colors = {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(names)}
    y = top + 12
    for title, stack in stacks.items():
        parts.append(_text(10, y + 12, title))
        total, x = sum(stack.values()) or 1.0, float(_LEFT)
        for name, value in stack.items():
            width = _PLOT * value / total
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colors[name]}"/>'
            )
            x += width
        y += _BAR + _GAP
    for place, name in enumerate(names):
        x, line = _LEFT + place % 2 * _PLOT / 2, y + 12 + place // 2 * 18
        parts += [
            f'<rect x="{x}" y="{line - 10}" width="11" height="11" fill="{colors[name]}"/>',
            _text(x + 16, line, name),
        ]
    return parts, y + 12 + (len(names) + 1) // 2 * 18


def number(value: float) -> str:
    """Write a number with three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, *, title: bool = False) -> str:
    kind = ' class="title"' if title else ""
    return f'<text x="{x:.1f}" y="{y}"{kind}>{escape(text)}</text>'
