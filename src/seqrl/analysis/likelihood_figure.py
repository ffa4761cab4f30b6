"""A picture of how likely models hold what came, by the number of steps ahead."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seqrl.files import write_file

_STYLES = {"ceiling of the bins": ("black", ":"), "ensemble": ("tab:orange", "-")}
_COLORS = ("tab:blue", "tab:green", "tab:purple", "tab:red")

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(H,) means and the (H,) ends of their intervals."""


def draw_likelihoods(path: Path, panels: Sequence[tuple[str, Mapping[str, Curve]]], *, title: str) -> Path:
    """Draw log-likelihoods against the number of steps ahead, one panel beside the other.

    The axis ends a little below the lowest curve of the models of bins: what lies further down is cut, and said.

    Args:
        panels: title and curves by label, each.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(panels), 4.6), dpi=110, layout="constrained")
    columns = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, curves) in zip(columns, panels, strict=True):
        colors = iter(_COLORS)
        for label, (mean, low, high) in curves.items():
            color, style = next((each for key, each in _STYLES.items() if label == key), ("", "-"))
            if not color:
                color, style = next(colors), "--" if label.startswith("ensemble") else "-"
            steps = np.arange(1, len(mean) + 1)
            axes.plot(steps, mean, style, color=color, linewidth=1.5, label=label)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("steps ahead")
        axes.grid(alpha=0.25)
    # What the ensemble's density loses without a floor would hide all else.
    shown = [mean for _, curves in panels for label, (mean, _, _) in curves.items() if label != "ensemble"]
    low, high = min(mean.min() for mean in shown), max(mean.max() for mean in shown)
    columns[0].set_ylim(low - 0.6 * (high - low), high + 0.1 * (high - low))
    columns[0].set_ylabel("log-likelihood, nats per dimension")
    columns[-1].legend(fontsize=8, loc="lower left")
    figure.suptitle(textwrap.fill(title, 62 * len(panels)), fontsize=9)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path
