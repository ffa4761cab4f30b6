"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqrl.files import write_file

_MOST_NAMES = 12  # curves that a legend still names


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of a training.

    Attributes:
        label: of the legend.
        steps, values: of equal length, steps in order.
        dashed: whether the line is dashed, as for what was seen while training.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class CurvePanel:
    """Axes with curves that share a scale: its title, the name of the quantity, and the curves."""

    title: str
    quantity: str
    curves: Sequence[Curve]


def draw_curves(path: Path, panels: Sequence[CurvePanel]) -> Path:
    """Draw panels beside each other, values over steps.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(panels), 4), dpi=110, layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        for curve in panel.curves:
            marker = "o" if len(curve.steps) == 1 else None  # one value alone is no line
            style = "--" if curve.dashed else "-"
            axes.plot(curve.steps, curve.values, style, marker=marker, markersize=3, linewidth=1.2, label=curve.label)
        axes.set_xlabel("step")
        axes.set_ylabel(panel.quantity)
        axes.set_title(panel.title, fontsize=10)
        axes.grid(alpha=0.25)
        if 0 < len(panel.curves) <= _MOST_NAMES:
            axes.legend(fontsize=7)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path
