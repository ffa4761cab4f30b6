"""Numbers as places in pictures, which the page's template draws: learning curves and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seqrl.runs.metrics import Metric

WIDTH, HEIGHT = 440, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 34, 12, 34  # right: half of the last tick's text, up to 1,000,000
_MOST_POINTS = 400  # of a line
_STEEP = 30.0  # largest over smallest, from which on an axis is logarithmic


@dataclass(frozen=True)
class Line:
    """One line: its name, (x, y) in pixels as SVG has them, and a number that decides its colour."""

    name: str
    points: str
    color: int
    dashed: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture with axes; ticks are (pixel, text)."""

    title: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Series:
    """Numbers over steps."""

    name: str
    steps: list[int]
    values: list[float]
    dashed: bool = False


def select_series(logged: Sequence[Metric], metric: str, name: str, *, dashed: bool = False) -> Series | None:
    """The finite numbers of a metric; None where there is none."""
    own = [each for each in logged if each.name == metric and math.isfinite(each.value)]
    return Series(name, [each.step for each in own], [each.value for each in own], dashed) if own else None


def draw_series(title: str, series: Sequence[Series]) -> Figure | None:
    """Lines over steps, on a logarithmic axis where numbers are positive and of many sizes; None of nothing."""
    values = [value for each in series for value in each.values]
    if not values:
        return None
    low, high = min(values), max(values)
    steep = low > 0 and high / low > _STEEP
    first, last = (end(step for each in series for step in each.steps) for end in (min, max))
    to_x = _scale(first, last, _LEFT, WIDTH - _RIGHT)
    bounds = (math.log10(low), math.log10(high)) if steep else (low, high)
    to_y = _scale(*bounds, HEIGHT - _BOTTOM, _TOP)
    lines = []
    for number, each in enumerate(series):
        places = [(to_x(step), to_y(math.log10(value) if steep else value)) for step, value in _thinned(each)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(Line(each.name, points, number % 8, each.dashed))
    levels = (
        [(math.log10(tick), tick) for tick in _log_ticks(low, high)] if steep else [(t, t) for t in _ticks(low, high)]
    )
    return Figure(
        title,
        lines,
        [(to_x(tick), f"{tick:,.6g}") for tick in _ticks(first, last)],
        [(to_y(place), f"{tick:.4g}") for place, tick in levels],
    )


@dataclass(frozen=True)
class Bar:
    """A mean and its interval, in percent of a width; no interval where there is none."""

    name: str
    text: str
    place: float
    start: float | None
    length: float


def draw_intervals(rows: Sequence[tuple[str, str, float, Sequence[float] | None]]) -> list[Bar]:
    """Bars of (name, text, mean, interval) on one scale."""
    known = [x for _, _, mean, interval in rows for x in (mean, *(interval or ())) if math.isfinite(x)]
    if not known:
        return []
    scale = _scale(min(known), max(known), 2, 98)
    bars = []
    for name, text, mean, interval in rows:
        if not math.isfinite(mean):
            continue
        start, end = (scale(bound) for bound in interval) if interval else (None, None)
        length = 0.0 if start is None or end is None else end - start
        bars.append(Bar(name, text, scale(mean), start, length))
    return bars


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The straight way from a range of numbers to a range of places."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _thinned(series: Series) -> Iterator[tuple[int, float]]:
    """At most so many points, the last one among them."""
    every = max(1, math.ceil(len(series.steps) / _MOST_POINTS))
    last = len(series.steps) - 1
    for place, pair in enumerate(zip(series.steps, series.values, strict=True)):
        if place % every == 0 or place == last:
            yield pair


def _ticks(low: float, high: float) -> list[float]:
    """Up to five round numbers within a range."""
    if not high > low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    return [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in ((1, 3) if high / low < 1e4 else (1,))
        if low <= factor * 10.0**power <= high
    ] or [low, high]
