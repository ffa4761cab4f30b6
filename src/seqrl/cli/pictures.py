"""Pictures of finished evaluations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqrl.analysis.curves import Curve, CurvePanel, draw_curves
from seqrl.analysis.maze import PathPanel, draw_paths
from seqrl.analysis.plan_figure import draw_plan_quality
from seqrl.analysis.tradeoff import Point, draw_tradeoff
from seqrl.console import say
from seqrl.errors import ConfigError, did_you_mean
from seqrl.evaluation.archive import PLAN_QUALITY, Evaluation, read_plan_quality
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.tables import circumstances
from seqrl.evaluation.wording import abbreviate, shorten_data_name
from seqrl.runs.metrics import read_metrics
from seqrl.runs.stages import KINDS

if TYPE_CHECKING:  # with torch, which the parent of a sweep can do without
    from seqrl.evaluation.jobs import Job

CURVES = "curves.png"  # of a run
# Name of the axis, and what gives a row's mean and interval; best first.
_GAINS: dict[str, Callable[[ResultsRow], tuple[float | None, list[float] | None]]] = {
    "normalised score": lambda row: (row.score_mean, row.score_ci95),
    "success rate in %": lambda row: (row.goals.success_rate, row.goals.success_ci95) if row.goals else (None, None),
    "return": lambda row: (row.return_mean, row.return_ci95),
}
_DECODING = re.compile(r"(.*\.)?(planner|condition|score|plan_every)(\..*)?|strategy")


def draw(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Draw the paths of the evaluations that were run toward goals, a picture for each maze."""
    from seqrl.worlds.environments import maze_of

    mazes: dict[str, list[PathPanel]] = {}
    for e in evaluations:
        if not len(e.results.get("goals", ())) or e.row.planner.name == "zero":
            continue
        panel = PathPanel(
            e.row.strategy,
            e.results["goals"],
            e.results["paths"],
            e.results.get("clear", e.results["success"]),
            e.results["steps"],
            e.results["counted"],
            [(plan.observations[..., :2], plan.environments) for plan in e.plans if plan.observations.shape[1] > 1],
            None if e.row.goals is None or e.row.goals.regions is None else np.array(e.row.goals.regions),
        )
        mazes.setdefault(e.row.env_id, []).append(panel)
    for number, (env_id, panels) in enumerate(mazes.items(), 1):
        name = "paths.png" if number == 1 else f"paths-{number}.png"
        say(f"picture: {draw_paths(folder / name, maze_of(env_id), panels)}")


def draw_plans(evaluations: Sequence[Evaluation]) -> None:
    """Draw how good the plans of the evaluations were that asked for it."""
    for evaluation in evaluations:
        quality = read_plan_quality(evaluation.folder)
        if quality is not None:
            picture = (evaluation.folder / PLAN_QUALITY).with_suffix(".png")
            say(f"picture: {draw_plan_quality(picture, evaluation.row, quality)}")


def draw_run_curves(path: Path, runs: Sequence[Path], metric: str) -> Path:
    """Draw one metric of several runs over their steps.

    Raises:
        ConfigError: no run logged it.
    """
    curves, names = [], set()
    for run in runs:
        logged = read_metrics(run / "metrics.csv")
        names |= {each.name for each in logged}
        own = [each for each in logged if each.name == metric and math.isfinite(each.value)]
        if own:
            curves.append(Curve(run.name, [each.step for each in own], [each.value for each in own]))
    if not curves:
        raise ConfigError(f"no run logged {metric!r}.{did_you_mean(metric, names)} Logged: {', '.join(sorted(names))}")
    return draw_curves(path, [CurvePanel("learning curves", metric, curves)])


def draw_training(run: Path) -> Path | None:
    """Draw the losses of a run, a panel for each stage, as `curves.png`; None where it logged none."""
    logged = [each for each in read_metrics(run / "metrics.csv") if math.isfinite(each.value)]
    panels = []
    for kind in KINDS:
        curves = []
        for name, dashed in (("train/loss", True), ("val/loss", False)):
            own = [each for each in logged if each.name == f"{kind.prefix}{name}"]
            if own:
                curves.append(Curve(name, [each.step for each in own], [each.value for each in own], dashed))
        if curves:
            panels.append(CurvePanel(kind.name, "loss", curves))
    return draw_curves(run / CURVES, panels) if panels else None


def draw_sweep(path: Path, jobs: Sequence[Job], settings: Sequence[Mapping[str, str]]) -> Path | None:
    """Draw what the decoding settings of a sweep cost and earn, one point a finished job.

    Args:
        settings: of each job, the overrides that vary between the jobs.

    Returns:
        The file, or None where there is nothing to compare: fewer than two points, jobs with several results rows, or
        decoding settings that do not vary.
    """
    done = [(job.rows[0], own) for job, own in zip(jobs, settings, strict=True) if job.state == "done" and job.rows]
    varying = list(dict.fromkeys(key for own in settings for key in own))
    if len(done) < 2 or any(len(job.rows) > 1 for job in jobs) or not any(map(_DECODING.fullmatch, varying)):
        return None
    series = None if len(varying) < 2 else "planner.cache" if "planner.cache" in varying else varying[0]
    rows = [row for row, _ in done]
    axis, gain = next((axis, of) for axis, of in _GAINS.items() if all(_is_number(of(row)[0]) for row in rows))
    points = []
    for row, own in done:
        label = " ".join(_short(key, value) for key, value in own.items() if key != series)
        mean, interval = gain(row)
        assert mean is not None
        points.append(Point(label, _short(series, own[series]) if series else "", row.ms_per_action, mean, interval))
    data = ", ".join(dict.fromkeys(shorten_data_name(row.dataset) for row in rows))
    episodes = ", ".join(dict.fromkeys(str(row.num_episodes) for row in rows))
    return draw_tradeoff(path, points, gain=axis, title=f"{data}, {circumstances(rows)}; {episodes} episodes")


def _short(key: str, value: str) -> str:
    return abbreviate(key.rpartition(".")[2], value.rpartition("/")[2])


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
