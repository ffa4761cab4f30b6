"""A picture of how good plans were."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.evaluation.plan_results import Agreement, PlanQuality, StepErrors
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.wording import shorten_data_name
from seqrl.files import write_file

_LOGS = {"evaluation": ("tab:blue", "o", "as evaluated"), "open_loop": ("tab:orange", "s", "plans carried out")}
_REFERENCES = {"persistence": ("--", "that nothing changes"), "floor": (":", "round trip of the tokenizer")}


def draw_plan_quality(path: Path, row: ResultsRow, quality: PlanQuality) -> Path:
    """Draw promised against earned returns, and the model's errors by the number of steps ahead.

    Args:
        row: of the evaluation whose plans they were.

    Returns:
        The file that was written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    (horizon, end), (observation, reward) = figure.subplots(2, 2)
    promised = f"discounted rewards of the plan's {quality.horizon} transitions"
    _scatter(horizon, quality.calibration.horizon, promised)
    _scatter(end, quality.calibration.end, "discounted return to the end")
    unit = f"standard deviations of the {'data' if quality.unit == 'data' else 'episodes'}"
    _curves(observation, quality.model, ("observation_rmse", "persistence", "floor"), f"observations, RMSE in {unit}")
    _curves(reward, quality.model, ("reward_rmse",), f"rewards, RMSE in {unit}")
    title = (
        f"{row.strategy} on {shorten_data_name(row.dataset)}, {row.env_id}: plans of {quality.horizon} steps, "
        f"new ones after {row.plan_every}, {row.num_episodes} episodes"
    )
    figure.suptitle(textwrap.fill(title, 120), fontsize=10)
    with write_file(path) as file:
        figure.savefig(file, format="png")
    return path


def _scatter(axes: Any, found: Agreement | None, what: str) -> None:
    axes.set_title(what, fontsize=9)
    if found is None:
        _nothing(axes, "not known: nothing predicts it,\nor no episode was seen far enough")
        return
    predicted, realised = zip(*found.points, strict=True)
    low, high = min(*predicted, *realised), max(*predicted, *realised)
    axes.plot([low, high], [low, high], color="0.35", linewidth=1, zorder=1, label="promised = earned")
    axes.plot(realised, predicted, ".", color="tab:blue", markersize=4, alpha=0.5, zorder=2, label="a plan")
    bias = f"bias {found.bias:+.3g}"
    if found.bias_ci95 is not None:
        bias += " [{:+.3g}, {:+.3g}]".format(*found.bias_ci95)
    correlation = "" if found.correlation is None else f", correlation {found.correlation:.2f}"
    axes.text(0.02, 0.98, f"{bias}{correlation}, {found.plans} plans", transform=axes.transAxes, va="top", fontsize=8)
    axes.set_xlabel("earned")
    axes.set_ylabel("promised")
    axes.margins(y=0.12)
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.25)


def _curves(axes: Any, model: Mapping[str, Sequence[StepErrors]], names: Sequence[str], what: str) -> None:
    """The errors of every log, and what else is named, for comparison, of the one that looks furthest ahead."""
    axes.set_title(what, fontsize=9)
    for log, entries in model.items():
        color, marker, label = _LOGS[log]
        _curve(axes, entries, names[0], "-", color=color, marker=marker, label=label)
    furthest = max(model.values(), key=len, default=[])
    for name in names[1:]:
        style, label = _REFERENCES[name]
        _curve(axes, furthest, name, style, color="0.35", marker=".", label=label)
    if not axes.lines:
        _nothing(axes, "nothing to compare")
        return
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("steps ahead, all of them carried out")
    axes.set_ylabel("error")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)


def _curve(axes: Any, entries: Sequence[StepErrors], name: str, style: str, **options: Any) -> None:
    errors = [(entry.steps, getattr(entry, name)) for entry in entries]
    known = [(steps, error) for steps, error in errors if error is not None]
    if known:
        axes.plot(*zip(*known, strict=True), style, markersize=4, linewidth=1.2, **options)


def _nothing(axes: Any, why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
