"""`/plots`: what apps did over the blocks, and how fast the writer is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from virtualchain.model import Json
from virtualchain.reading import journal
from virtualchain.web import svg
from virtualchain.web.pages.asking import integer
from virtualchain.web.rendering import page, render, site_of
from virtualchain.web.words import as_time


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot, the names of its colors, and the same numbers as a table."""

    title: str
    svg: Markup
    key: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@page
def show(request: Request) -> Response:
    """Show the plots, of all blocks or a range."""
    asked = request.query_params
    first, last, app = integer(asked, "from"), integer(asked, "to"), asked.get("app") or None
    with site_of(request).sessions.snapshot() as connection:
        glance = journal.deployment(connection)
        activity = [item.value for item in journal.activity(connection, app, first, last)]
        samples = [item.value for item in journal.progress(connection)]
    title = f"Ops and rejections{f' of {app}' if app else ''} by block"
    plots = [
        activity_plot(activity, title, range_of(glance, first, last)),
        *progress_plots(samples),
    ]
    return render(
        "plots.html",
        here="/plots",
        live=first is None and last is None,
        glance=glance,
        plots=[plot for plot in plots if plot is not None],
        has_samples=len(samples) > 1,
        first=first,
        last=last,
        app=app,
    )


def range_of(glance: Json, first: int | None = None, last: int | None = None) -> tuple[int, int] | None:
    """Return the blocks that are plotted: those that are asked for, or all of the tape."""
    if glance["last_block"] is None:
        return None
    return (
        glance["first_block"] if first is None else first,
        glance["last_block"]["block_id"] if last is None else last,
    )


def activity_plot(activity: Sequence[Json], title: str, whole: tuple[int, int] | None = None) -> Plot | None:
    """Plot how many ops and rejections each part of a range of blocks has; None if there are none."""
    by_span: dict[tuple[int, int], list[int]] = {}
    for part in activity:
        counts = by_span.setdefault((part["first_block_id"], part["last_block_id"]), [0, 0])
        counts[0] += int(part["ops"])
        counts[1] += int(part["rejections"])
    if not by_span:
        return None
    spans = sorted(by_span)
    series = [[by_span[span][kind] for span in spans] for kind in (0, 1)]
    rows = [
        (f"{first:,}" if first == last else f"{first:,} to {last:,}", *by_span[first, last])
        for first, last in spans
    ]
    key = (("is-a", "ops"), ("is-b", "rejections"))
    return Plot(title, svg.bars(title, spans, series, whole), key, ("Blocks", "Ops", "Rejections"), rows)


def progress_plots(samples: Sequence[Json]) -> list[Plot]:
    """Plot height, rate and lag over time; nothing if there are not two samples."""
    known = [
        (time.timestamp(), sample)
        for sample in samples
        if sample["block_id"] is not None and (time := as_time(sample["at"])) is not None
    ]
    if len(known) < 2:
        return []
    x = svg.time_axis(known[0][0], known[-1][0])
    heights = [(at, float(sample["block_id"])) for at, sample in known]
    node = [(at, None if (tip := sample["node_block_id"]) is None else float(tip)) for at, sample in known]
    lag = [
        (at, None if tip is None else max(0.0, tip - height))
        for (at, height), (_, tip) in zip(heights, node, strict=True)
    ]
    rates = [
        (at, max(0.0, height - before) / (at - then) if at > then else None)
        for (then, before), (at, height) in pairwise(heights)
    ]
    return [
        _lines("Height of the last block", x, [heights, node], ("this deployment", "the node"), whole=True),
        _lines("Blocks per second", x, [rates], (), floor=0.0),
        _lines("Blocks to the node's tip", x, [lag], (), floor=0.0, whole=True),
    ]


Points = list[tuple[float, float | None]]


def _lines(
    title: str,
    x: svg.Axis,
    series: Sequence[Sequence[tuple[float, float | None]]],
    names: tuple[str, ...],
    *,
    floor: float | None = None,
    whole: bool = False,
) -> Plot:
    values = [value for points in series for _, value in points if value is not None] or [0.0]
    y = svg.round_axis(min(values) if floor is None else floor, max(values), whole=whole)
    rows = []
    for at, value in series[0]:
        others = [dict(points).get(at) for points in series[1:]]
        rows.append(
            (svg.clock(at), *(None if v is None else f"{v:,.{0 if whole else 2}f}" for v in (value, *others)))
        )
    key = tuple(zip(("is-a", "is-c"), names, strict=False))
    return Plot(title, svg.lines(title, x, y, series), key, ("Time (UTC)", *(names or (title,))), rows)


ROUTES: Final = (("/plots", show),)
