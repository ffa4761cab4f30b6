"""A picture of what decoding settings cost and what they earn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqrl.files import write_file

_MARKERS = "osD^vP*"
_PLACES = [(6, 5), (-6, 5), (6, -5), (-6, -5), (0, 9), (0, -9), (14, 14), (-14, 14), (14, -14), (-14, -14)]  # in points


@dataclass(frozen=True)
class Point:
    """One setting of the decoding.

    Attributes:
        label: the settings in which it differs from the others.
        series: points of one series share a color; empty where there is one series only.
        cost: milliseconds per action, above 0.
        gain: mean score, success rate or return.
        interval: 95 % interval of the gain, or None.
    """

    label: str
    series: str
    cost: float
    gain: float
    interval: Sequence[float] | None


def non_dominated(points: Sequence[Point]) -> list[Point]:
    """The points than which no other is at once as cheap and as good, and better in one of the two; cheapest first.

    They go by the means: points whose intervals overlap may change places with other episodes.
    """
    kept = [
        point
        for point in points
        if not any(
            other.cost <= point.cost
            and other.gain >= point.gain
            and (other.cost < point.cost or other.gain > point.gain)
            for other in points
        )
    ]
    return sorted(kept, key=lambda point: (point.cost, point.gain))


def draw_tradeoff(path: Path, points: Sequence[Point], *, gain: str, title: str) -> Path:
    """Draw gain over cost, one marker a setting, and a line along the non-dominated ones.

    Args:
        gain: name of the quantity, for its axis.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(9, 6), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    for number, series in enumerate(dict.fromkeys(point.series for point in points)):
        _scatter(axes, [p for p in points if p.series == series], f"C{number % 10}", _MARKERS[number % len(_MARKERS)])
    best = non_dominated(points)
    axes.step(
        [point.cost for point in best],
        [point.gain for point in best],
        where="post",
        color="0.35",
        linewidth=1,
        zorder=1,
        label="best mean at this cost or less",
    )
    axes.margins(0.1)
    axes.set_xlabel("ms per action (log scale)")
    axes.set_ylabel(f"{gain}, 95 % intervals over starts" if any(p.interval for p in points) else gain)
    axes.set_title(textwrap.fill(title, 120), fontsize=9)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    axes.grid(alpha=0.25)
    figure.draw_without_rendering()  # places the axes, which labels are measured in
    _label(axes, points)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path


def _scatter(axes: Any, points: Sequence[Point], color: str, marker: str) -> None:
    costs, gains = [p.cost for p in points], [p.gain for p in points]
    axes.plot(costs, gains, marker, color=color, markersize=6, zorder=3, label=points[0].series or None)
    for point in points:
        if point.interval is not None:
            axes.vlines(point.cost, *point.interval, color=color, linewidth=1, alpha=0.4, zorder=2)


def _label(axes: Any, points: Sequence[Point]) -> None:
    """Write every label beside its marker, inside the axes, where it covers fewest markers and earlier labels."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    centres = axes.transData.transform([(point.cost, point.gain) for point in points])
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in centres]
    halo = [withStroke(linewidth=2, foreground="white")]
    for point in points:
        at = (point.cost, point.gain)
        text = axes.annotate(point.label, at, (0, 0), textcoords="offset points", fontsize=7, va="center")
        text.set(zorder=4, path_effects=halo)

        def cover(place: tuple[int, int], text: Any = text) -> int:
            text.xyann = place
            text.set_horizontalalignment("left" if place[0] > 0 else "right" if place[0] < 0 else "center")
            box = text.get_window_extent()
            outside = box.x0 < axes.bbox.x0 or box.x1 > axes.bbox.x1
            return outside * len(taken) + sum(box.overlaps(other) for other in taken)

        cover(min(_PLACES, key=cover))
        taken.append(text.get_window_extent())
