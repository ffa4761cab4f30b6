"""The controller that landmarks are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.testing import samples
from seqrl.worlds.controller import WaypointController
from seqrl.worlds.maze import MAZES
from seqrl.worlds.point_mass import PointMaze

PD = {"name": "controller", "position_gain": 10.0, "velocity_gain": 1.0, "velocity": [2, 3]}


def layout(**changes: Any) -> Layout:
    fields = {"observation": {}, "action": {}}
    return Layout.from_config({"fields": fields, "goal": {"dims": [0, 1], "dropout": 0.5}, **changes}, 4, 2)


def token_model() -> TokenModel:
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 8}
    made = TokenModel(layout(), {"name": "uniform", "num_bins": 11}, backbone, context=2)
    made.tokenizer.fit(torch.tensor([[0.0, 0.0, -5.0, -5.0, -1.0, -1.0], [9.0, 9.0, 5.0, 5.0, 1.0, 1.0]]))
    return made


def test_it_acts_as_the_recorded_controller_on_its_last_stretch() -> None:
    """Near its goal D4RL's controller drives straight at it; both go the same way, clipped to what was recorded."""
    maze, goal = MAZES["umaze"], np.array([3.0, 1.3])
    simulation, theirs = PointMaze(maze), WaypointController(maze)
    policy = Policy(token_model(), planner=PD, condition={"name": "goal"})
    policy.reset(1, goals=goal[None])
    low, high = policy.model.tokenizer.action_range(policy.model.layout)
    simulation.set_state(np.array([3.0, 2.2, 0.0, 0.3]))
    theirs.start(simulation.state[:2], goal)
    for _ in range(40):
        state = simulation.state
        action = policy.act(state[None].astype(np.float32))[0]
        wanted = theirs.act(state).clip(low.numpy(), high.numpy())
        np.testing.assert_allclose(action, wanted, atol=1e-4)
        simulation.step(action)


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_it_drives_at_the_landmark_that_is_told(kind: str) -> None:
    model: Any = token_model()
    if kind == "vectors":
        plain = layout(vectors=[["goal", "observation"], ["action"]])
        backbone = {"name": "mlp", "num_layers": 1, "dim": 8}
        model = VectorModel(plain, {"name": "continuous"}, backbone, context=1, longest_episode=100)
        model.tokenizer.fit(torch.randn(50, 6).clamp(-1, 1))
    places = np.array([[0, 0], [0, 2], [2, 2]], np.float32)
    steps = np.array([15.0, 15.0], np.float32)
    model.landmarks = LandmarkGraph(places, np.array([0, 1]), np.array([1, 2]), steps)
    planner = {"name": "controller", "position_gain": 0.2}
    led = Policy(model, planner=planner, condition={"name": "landmarks", "guidance": 1.0})
    straight = Policy(model, planner=planner, condition={"name": "goal"})
    for policy in (led, straight):
        policy.reset(1, goals=places[[2]])
    here = np.zeros((1, 4), np.float32)
    np.testing.assert_allclose(led.act(here), [[0.0, 0.4]], atol=1e-6)
    np.testing.assert_allclose(straight.act(here), [[0.4, 0.4]], atol=1e-6)


@pytest.mark.parametrize(
    ("planner", "message"),
    [
        ({"name": "controller", "velocity_gain": 1.0}, r"add planner\.velocity=\[2,3\]"),
        ({"name": "controller", "velocity": [3, 4]}, "each below 4"),
        ({"name": "controller", "velocity": [2]}, "must be 2 dimensions"),
        ({"name": "controller", "position_gain": -1.0}, "position_gain"),
    ],
)
def test_settings_that_fit_no_observation_are_refused(planner: dict[str, Any], message: str) -> None:
    model = token_model()
    with pytest.raises(ConfigError, match=message):
        Strategy.build(model.layout, planner=planner, condition={"name": "goal"}).check(model)


def test_models_without_goals_or_with_other_actions_are_refused() -> None:
    one = Layout.from_config({"fields": {"observation": {}, "action": {}}, "goal": {"dims": [0], "dropout": 0.5}}, 4, 2)
    parts = {"name": "uniform", "num_bins": 11}, {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 8}
    for model, message in (
        (samples.model(samples.layout(goal=False)), "has none"),
        (TokenModel(one, *parts, context=2), "the 1 dimensions of the goal, and actions have 2"),
    ):
        strategy = Strategy.build(model.layout, planner={"name": "controller"}, condition={"name": "none"})
        with pytest.raises(ConfigError, match=message):
            strategy.check(model)
    policy = Policy(token_model(), planner={"name": "controller"}, condition={"name": "none"})
    policy.reset(1)
    with pytest.raises(ConfigError, match="goal"):
        policy.act(np.zeros((1, 4), np.float32))
