"""A picture of a search: how it went, and what the searched settings did to the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from seqrl.files import write_file

_SLICES = 4  # settings that are drawn one by one, most important first
_STATES = {"done": ("o", "C0"), "pruned": ("x", "0.55")}


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Attributes:
        number: its place in the search.
        value: of the objective; of a pruned trial, the last one it reported.
        state: `done` or `pruned`.
        settings: what was searched, by key.
    """

    number: int
    value: float
    state: str
    settings: Mapping[str, Any]


def draw_search(
    path: Path,
    trials: Sequence[Trial],
    *,
    objective: str,
    minimize: bool,
    importances: Mapping[str, float],
    logarithmic: Sequence[str] = (),
) -> Path:
    """Draw the objective over the trials, the importance of each setting, and the objective over the chief settings.

    Args:
        trials: at least one of them done.
        importances: of the settings, in any unit; empty where too few trials tell.
        logarithmic: settings that were searched on a log scale.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    chief = sorted(settings, key=lambda key: -importances.get(key, 0.0))[:_SLICES]
    figure = Figure(figsize=(9, 6), dpi=130, layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    history, bars = above.subplots(1, 2, width_ratios=[2, 1])
    _draw_history(history, trials, objective, minimize)
    _draw_importances(bars, {key: importances[key] for key in settings if key in importances})
    slices = below.subplots(1, len(chief), sharey=True, squeeze=False)[0]
    for axes, key in zip(slices, chief, strict=True):
        _draw_slice(axes, [trial for trial in trials if key in trial.settings], key, key in logarithmic)
    slices[0].set_ylabel(objective)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path


def _draw_history(axes: Any, trials: Sequence[Trial], objective: str, minimize: bool) -> None:
    for state, (marker, color) in _STATES.items():
        chosen = [trial for trial in trials if trial.state == state]
        if chosen:
            label = f"{state} ({len(chosen)})"
            axes.plot([t.number for t in chosen], [t.value for t in chosen], marker, color=color, label=label)
    done = sorted((trial for trial in trials if trial.state == "done"), key=lambda trial: trial.number)
    best = list(accumulate((trial.value for trial in done), min if minimize else max))
    axes.step([trial.number for trial in done], best, where="post", color="C3", linewidth=1, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(objective)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)


def _draw_importances(axes: Any, importances: Mapping[str, float]) -> None:
    if not importances:
        axes.text(0.5, 0.5, "too few trials\nto tell importances", ha="center", va="center", fontsize=8)
        axes.set_axis_off()
        return
    total = sum(importances.values()) or 1.0
    names = sorted(importances, key=lambda key: importances[key])
    axes.barh(names, [importances[name] / total for name in names], color="C0")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("share of importance")


def _draw_slice(axes: Any, trials: Sequence[Trial], key: str, logarithmic: bool) -> None:
    for state, (marker, color) in _STATES.items():
        chosen = [trial for trial in trials if trial.state == state]
        values = [trial.settings[key] for trial in chosen]
        axes.plot(values, [trial.value for trial in chosen], marker, color=color, markersize=4)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(key, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
