"""Episodes toward goals that are judged by regions, end at their goals, or run past the environment's time limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.config import EvaluationConfig
from seqrl.errors import ConfigError
from seqrl.evaluation.goals import judge
from seqrl.evaluation.protocol import run_episodes
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.worlds.four_rooms import ENV_ID, FOUR_ROOMS

REGION = np.array([[2.0, 2.0, 3.0, 3.0]])
GOAL = np.array([[9.0, 9.0]])


def model() -> TokenModel:
    """Random weights: it walks about."""
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}}
    layout = Layout.from_config({"fields": fields, "goal": {"dims": [0, 1], "dropout": 0.5}}, 2, 2)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 8}
    made = TokenModel(layout, {"name": "uniform", "num_bins": 5}, backbone, context=2)
    made.tokenizer.fit(torch.tensor([[0.0, 0.0, -0.25, -0.25], [12.0, 12.0, 0.25, 0.25]]))
    return made


@pytest.mark.parametrize("episodes", [{"goals": None}, {"goals": None, "tasks": [[[1, 1], [11, 11]]]}])
def test_starts_without_goals_are_refused(episodes: dict[str, Any]) -> None:
    asked = config(condition={"name": "none"}, **episodes)
    with pytest.raises(ConfigError, match=r"start_cells are of episodes toward goals=\[\[x,y\]\], and none is given"):
        run_episodes(asked, Policy(model(), planner={"name": "sample"}), ENV_ID)


def config(**settings: Any) -> EvaluationConfig:
    parts = {"planner": {"name": "sample"}, "condition": {"name": "goal"}, "score": {"name": "likelihood"}}
    base = {"goals": [[1.0, 1.65], [10.0, 10.0]], "start_cells": [[1, 1]], "num_episodes": 8, "min_cells": 0}
    return EvaluationConfig.from_dict({**parts, **base, "progress_bar": False, **settings})


def run(settings: EvaluationConfig) -> dict[str, np.ndarray]:
    policy = Policy(model(), planner=settings.planner, condition=settings.condition, score=settings.score)
    return run_episodes(settings, policy, ENV_ID).results


@pytest.mark.parametrize(
    ("way", "entered"),
    [
        ([[0.0, 0.0], [2.5, 2.5], [9.0, 9.0]], True),
        ([[0.0, 0.0], [9.0, 9.0], [2.5, 2.5]], False),  # after the arrival nobody minds
        ([[2.5, 2.5], [0.0, 0.0], [9.0, 9.0]], True),
        ([[0.0, 0.0], [2.0, 2.5], [9.0, 9.0]], False),  # on its edge is outside
        ([[0.0, 0.0], [2.5, 2.5], [0.0, 0.0]], True),  # never arrived
        ([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], False),
    ],
)
def test_who_was_inside_a_region_before_the_arrival(way: list[list[float]], entered: bool) -> None:
    found = judge(np.array([[way]]), GOAL, REGION)
    assert found.entered.tolist() == [[entered]]
    assert judge(np.array([[way]]), GOAL).entered.tolist() == [[False]]


def test_clear_success_is_success_without_having_been_inside() -> None:
    start = FOUR_ROOMS.free_cells()[0]
    around = [[start[0] - 0.4, start[1] - 0.4, start[0] + 0.4, start[1] + 0.4]]
    inside, elsewhere = (run(config(max_steps=12, regions=regions)) for regions in (around, [[8.0, 8.0, 9.0, 9.0]]))
    assert elsewhere["success"].any()
    assert not elsewhere["entered"].any()
    np.testing.assert_array_equal(elsewhere["clear"], elsewhere["success"])
    assert inside["entered"].all()
    assert not inside["clear"].any()


def test_episodes_may_end_at_their_goals() -> None:
    whole, ended = run(config(max_steps=12)), run(config(max_steps=12, end_at_goal=True))
    assert (whole["lengths"] == 12).all()
    assert 0 < whole["success"].sum() < whole["success"].size
    np.testing.assert_array_equal(ended["lengths"], np.where(whole["success"], whole["steps"], 12))
    np.testing.assert_array_equal(ended["success"], whole["success"])


def test_more_steps_than_the_environment_allows_are_made() -> None:
    limit = FOUR_ROOMS.max_episode_steps
    longer = run(config(max_steps=limit + 5, num_episodes=1))
    assert (longer["lengths"] == limit + 5).all()
    assert (run(config(num_episodes=1))["lengths"] == limit).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regions": [[1.0, 1.0, 0.0, 2.0]]}, "lower corner is not below"),
        ({"regions": [[1.0, 1.0, 1.0, 2.0]]}, "lower corner is not below"),
        ({"regions": []}, "regions"),
        ({"regions": [[0.0, 0.0, 1.0]]}, "regions"),
        ({"regions": [[0.0, 0.0, 1.0, float("nan")]]}, "regions"),
        ({"regions": [[0.0, 0.0, 1.0, 1.0]], "goals": None, "condition": {"name": "none"}}, "add goals"),
    ],
)
def test_regions_that_judge_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(config(**settings))
