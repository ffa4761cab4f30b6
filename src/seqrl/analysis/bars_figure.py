"""A picture of scores side by side, published ones and measured ones."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqrl.files import write_file


@dataclass(frozen=True)
class Bar:
    """One score.

    Attributes:
        interval: its ends, or None.
        published: whether somebody else measured it, on other data perhaps.
    """

    label: str
    value: float
    interval: tuple[float, float] | None
    published: bool


def draw_bars(path: Path, panels: Sequence[tuple[str, Sequence[Bar]]], *, title: str, axis: str) -> Path:
    """Draw bars in panels, published ones grey and hatched.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    longest = max(len(bars) for _, bars in panels)
    figure = Figure(figsize=(max(6.0, (0.55 * longest + 1.2) * len(panels)), 4.6), dpi=110, layout="constrained")
    columns = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, bars) in zip(columns, panels, strict=True):
        for place, bar in enumerate(bars):
            color, hatch = ("0.75", "//") if bar.published else ("tab:blue", None)
            axes.bar(place, bar.value, 0.75, color=color, hatch=hatch, edgecolor="0.35", linewidth=0.6)
            if bar.interval is not None:
                axes.vlines(place, *bar.interval, color="black", linewidth=1.2)
            top = max(bar.value, 0.0, bar.interval[1] if bar.interval is not None else 0.0)
            axes.text(place, top, f"{bar.value:.0f}", ha="center", va="bottom", fontsize=7)
        axes.set_xticks(range(len(bars)), [bar.label for bar in bars], rotation=60, ha="right", fontsize=8)
        axes.set_title(name, fontsize=10)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    columns[0].set_ylabel(axis)
    figure.suptitle(textwrap.fill(title, 100), fontsize=9)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path
