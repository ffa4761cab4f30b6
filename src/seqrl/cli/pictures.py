"""Pictures of finished evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqrl.analysis.maze import PathPanel, draw_paths
from seqrl.console import say
from seqrl.evaluation.evaluate import Evaluation
from seqrl.evaluation.goals import maze_of


def draw(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Draw the paths of the evaluations that were run toward goals, strategies below each other."""
    with_goals = [e for e in evaluations if "paths" in e.results and e.row["planner"]["name"] != "zero"]
    if not with_goals:
        return
    panels = [
        PathPanel(
            e.row["strategy"],
            e.results["paths"],
            e.results["success"],
            e.results["counted"],
            [(plan.observations[..., :2], plan.environments) for plan in e.plans if plan.observations.shape[1] > 1],
        )
        for e in with_goals
    ]
    first = with_goals[0]
    say(f"picture: {draw_paths(folder / 'paths.png', maze_of(first.row['env_id']), first.results['goals'], panels)}")
