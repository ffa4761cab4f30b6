"""A picture of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.files import write_file
from seqrl.formats.inspection import Inspection


def draw_inspection(path: Path, report: Inspection) -> Path:
    """Draw returns, lengths, the range of every dimension, and how surprising steps and boundaries are.

    Ranges are drawn in a shared unit: each dimension's own span from its 1st to its 99th percentile lies between 0
    and 1, so that bars far beyond tell of outliers.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (returns, lengths), (ranges, surprise) = figure.subplots(2, 2)
    _bars(returns, report.return_histogram, "undiscounted return", "episodes")
    _bars(lengths, report.length_histogram, "length in steps", "episodes")
    _ranges(ranges, report)
    _surprise(surprise, report)
    figure.suptitle(
        f"{report.source}: {report.transitions} transitions, {report.episodes} episodes "
        f"({report.terminated} terminated, {report.truncated} truncated, {report.cut} cut)",
        fontsize=11,
    )
    with write_file(path) as file:
        figure.savefig(file, dpi=110, format="png")
    return path


def _bars(axes: Any, histogram: tuple[Sequence[float], Sequence[int]], label: str, unit: str) -> None:
    edges, counts = histogram
    if counts:
        axes.stairs(counts, edges, fill=True, color="tab:blue", alpha=0.8)
    else:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
    axes.set_xlabel(label)
    axes.set_ylabel(unit)


def _ranges(axes: Any, report: Inspection) -> None:
    colors = {"observation": "tab:blue", "action": "tab:green", "reward": "tab:orange"}
    for place, column in enumerate((*report.columns, *report.extras)):
        color = "tab:purple" if place >= len(report.columns) else colors[column.name.split()[0]]
        if column.nan or column.infinite:
            axes.plot(place, 0.5, "x", color="tab:red", markersize=9, zorder=4)
        if column.percentiles is None or column.minimum is None or column.maximum is None or column.mean is None:
            continue
        low, _, high = column.percentiles
        span = (high - low) or (column.maximum - column.minimum)
        if span == 0:  # constant
            axes.plot(place, 0.5, "_", color=color)
            continue
        unit = [(value - low) / span for value in (column.minimum, column.mean, column.maximum)]
        axes.vlines(place, unit[0], unit[2], color=color, linewidth=1)
        axes.vlines(place, 0.0, (high - low) / span, color=color, linewidth=4, alpha=0.6)
        axes.plot(place, unit[1], ".", color="black", markersize=4, zorder=3)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("blue: observation, green: action, orange: reward, purple: extras; red cross: NaN or infinity")
    axes.set_ylabel("range, 1 % to 99 % = 0 to 1")
    axes.set_title("thick: 1 % to 99 %, thin: all, dot: mean", fontsize=9)


def _surprise(axes: Any, report: Inspection) -> None:
    found = report.boundaries
    if found is None or found.usual_surprise is None:
        axes.text(0.5, 0.5, "too few steps", transform=axes.transAxes, ha="center")
        return
    for counts, color, label in (
        (found.surprise_inside, "tab:blue", "steps inside episodes"),
        (found.surprise_across, "tab:orange", "from one episode to the next"),
    ):
        total = sum(counts)
        if total:
            axes.stairs(np.asarray(counts) / total, found.edges, fill=True, color=color, alpha=0.6, label=label)
    axes.axvline(found.usual_surprise[1], color="black", linewidth=0.8, linestyle="--", label="99 % inside")
    axes.set_xscale("log")
    axes.set_xlabel("surprise (standard deviations off a linear prediction)")
    axes.set_ylabel("share")
    title = f"{len(found.jumps)} jumps and {len(found.restarts)} restarts inside episodes"
    axes.set_title(f"{title}, {found.continuous} of {found.boundaries} boundaries continuous", fontsize=9)
    axes.legend(fontsize=8)
