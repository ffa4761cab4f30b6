"""Goals: how they reach a model, which strategies have one, how paths are judged and drawn, where episodes start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.analysis.maze import PathPanel, draw_paths
from seqrl.config import EvaluationConfig, WindowConfig
from seqrl.data.batches import TokenWindows
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.evaluation.goals import judge
from seqrl.evaluation.protocol import check_protocol
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.paths import config_dir
from seqrl.registry import CONDITION
from seqrl.types import Conditioning, Plan
from seqrl.worlds.four_rooms import FOUR_ROOMS
from seqrl.worlds.maze import MAZES, SUCCESS_RADIUS, draw_starts, find_far_pairs

UMAZE = MAZES["umaze"]  # a U: (1,1) (1,2) (1,3) (2,3) (3,3) (3,2) (3,1)
GOAL = np.array([[3.0, 1.0]])


def path(*distances: float) -> np.ndarray:
    """(1, 1, T + 1, 2) positions at these distances from the goal."""
    return np.array([[[[3.0, 1.0 + d] for d in distances]]])


@pytest.mark.parametrize(
    ("distances", "success", "steps", "share"),
    [
        ((2.0, 1.0, 0.2, 0.1), True, 2, 1.0),
        ((2.0, 0.4, 1.0, 2.0), True, 1, 1 / 3),  # passing by is success; it shows in the time at the goal
        ((0.1, 2.0, 2.0, 0.1), True, 0, 0.5),
        ((2.0, 1.0, 0.51, 0.51), False, None, None),
        ((2.0, 1.0, 0.9, -SUCCESS_RADIUS), True, 3, 1.0),  # the radius itself still counts, as in D4RL
    ],
)
def test_paths_are_judged_by_their_distance_to_the_goal(
    distances: tuple[float, ...], success: bool, steps: int | None, share: float | None
) -> None:
    found = judge(path(*distances), GOAL)
    assert bool(found.success[0, 0]) is success
    if steps is None:
        assert np.isnan(found.steps[0, 0])
        assert np.isnan(found.time_at_goal[0, 0])
    else:
        assert found.steps[0, 0] == steps
        assert found.time_at_goal[0, 0] == pytest.approx(share)


def test_every_start_is_judged_against_its_own_goal() -> None:
    goals = np.array([[1.0, 1.0], [3.0, 1.0]])
    here, there = [[1.0, 1.0]] * 3, [[3.0, 1.0]] * 3
    found = judge(np.array([[here, here], [here, there]]), goals)
    assert found.success.tolist() == [[True, False], [True, True]]


def test_distance_is_euclidean() -> None:
    near, far = [[3.3, 1.3]], [[3.4, 1.4]]  # 0.42 and 0.57 away
    found = judge(np.array([[near], [far]]), GOAL)
    assert found.success.tolist() == [[True], [False]]


@pytest.mark.parametrize("name", ["maze2d_umaze", "maze2d_medium", "maze2d_large", "four_rooms"])
def test_built_in_evaluations_seek_every_goal_from_fifty_far_starts(name: str) -> None:
    evaluation = yaml.safe_load((config_dir() / "evaluation" / f"{name}.yaml").read_text())
    settings = evaluation["settings"]
    maze = FOUR_ROOMS if name == "four_rooms" else MAZES[name.removeprefix("maze2d_")]
    _, cells = draw_starts(maze, settings.get("start_cells"), settings["num_episodes"], 0)
    assert find_far_pairs(maze, cells, np.array(settings["goals"], float), 2).sum(0).min() >= 50
    rows = evaluation["rows"].values()
    assert any(row.get("shuffle_goals") for row in rows)
    assert any(row["strategy"] == "imitation" for row in rows)  # the same model under the null goal


@pytest.mark.parametrize("strategy", ["imitation", "reward", "critic", "goal"])
def test_only_the_goal_strategy_has_a_goal(strategy: str) -> None:
    config = yaml.safe_load((config_dir() / "strategy" / f"{strategy}.yaml").read_text())
    assert {"/condition": "goal" if strategy == "goal" else "none"} in config["defaults"]


def goal_model(dims: list[int]) -> TokenModel:
    """Three observation dimensions, one of action, reward and value; random weights that make the goal matter."""
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
    layout = Layout.from_config({"fields": fields, "goal": {"dims": dims, "dropout": 0.0, "draw": "last"}}, 3, 1)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 8}
    model = TokenModel(layout, {"name": "uniform", "num_bins": 9}, backbone, context=3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def walk(count: int = 30) -> EpisodeStore:
    """One episode with two behaviour segments."""
    rng = np.random.default_rng(0)
    ends, turns = np.zeros(count, bool), np.zeros(count, bool)
    ends[-1] = turns[count // 2] = True
    observations, actions = rng.normal(size=(count, 3)), rng.normal(size=(count, 1))
    return EpisodeStore.from_arrays(
        observations, actions, rng.normal(size=count), ends, ends & False, segment_ends=turns | ends
    )


def test_training_and_decoding_write_the_same_goal_of_chosen_dimensions() -> None:
    """A hindsight goal and a goal of the user's have the same tokens, whichever dimensions they name."""
    store, model = walk(), goal_model([2, 0])
    values = torch.from_numpy(transitions(store, model.layout))
    model.tokenizer.fit(values)
    tokens = model.tokenizer.encode(values).numpy()
    settings, columns = WindowConfig(3), model.goal_columns
    windows = TokenWindows(store, tokens, model.layout, settings, termination_token=9, goal_columns=columns)
    prefix = windows.batch(np.arange(len(windows)), np.random.default_rng(0)).goal
    assert prefix is not None
    rows = [16 if start <= 15 else 29 for start in range(29)]  # the state after the segment's end, or the last one
    wanted = torch.from_numpy(store.observations[rows][:, [2, 0]])
    assert prefix.equal(model.encode_goals(wanted, len(rows)))


def goal_actions(guidance: float, *, condition: str = "goal", temperature: float = 1.0) -> np.ndarray:
    """(B, A) of a policy that is told goals, with guidance, or not."""
    model = goal_model([2, 0])
    model.tokenizer.fit(torch.randn(200, 6, generator=torch.Generator().manual_seed(1)))
    assert model.layout.goal is not None
    model.layout = replace(model.layout, goal=replace(model.layout.goal, dropout=0.5))
    options = {"guidance": guidance} if condition == "goal" else {}
    policy = Policy(
        model, planner={"name": "sample", "temperature": temperature}, condition={"name": condition, **options}
    )
    policy.reset(64, goals=np.linspace(-1, 1, 128).reshape(64, 2).astype(np.float32))
    return policy.act(np.zeros((64, 3), np.float32))


def test_a_policy_is_guided_as_its_condition_says() -> None:
    """Without any it acts as if it had no goal; the more, the more often it takes what the goal speaks for most."""
    plain, null = goal_actions(1.0), goal_actions(1.0, condition="none")
    assert not np.array_equal(plain, null)
    np.testing.assert_array_equal(goal_actions(0.0), null)
    assert not np.array_equal(goal_actions(3.0), plain)
    np.testing.assert_array_equal(goal_actions(1e5), goal_actions(1e5, temperature=0.0))


@pytest.mark.parametrize("guidance", [-0.5, 1e39, float("nan"), float("inf")])
def test_guidance_is_a_number_of_0_or_more(guidance: float) -> None:
    with pytest.raises(ConfigError, match=r"condition\.guidance=.*; give (a number|one) from 0 to 1000000"):
        CONDITION.build({"name": "goal", "guidance": guidance})


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("draw", ["uniform", "geometric", "last"])
def test_goals_come_after_all_steps_that_a_strided_window_spans(stride: int, draw: str) -> None:
    store = walk(60)
    goal = {"dims": [0], "dropout": 0.0, "draw": draw}
    layout = Layout.from_config(
        {"fields": {"observation": {}, "action": {}}, "goal": goal, "discount": 0.9, "stride": stride}, 3, 1
    )
    rows = np.arange(60)[:, None].repeat(4, axis=1)
    windows = TokenWindows(store, rows, layout, WindowConfig(4), termination_token=1000, goal_columns=[0])
    batch = windows.batch(np.arange(59).repeat(20), np.random.default_rng(0))
    assert batch.goal is not None
    starts = np.arange(59).repeat(20).tolist()
    for start, seen, drawn in zip(starts, batch.tokens[:, :, 0].tolist(), batch.goal, strict=True):
        stop = 31 if start <= 30 else 60  # of the segment
        inside = [row for row in range(start, start + 4 * stride, stride) if row < stop]
        assert seen == inside + [1000] * (4 - len(inside))
        latest, row = min(stop, 59), int(drawn[0])
        assert row <= latest
        assert row >= start + 4 * stride or row == latest


def test_the_search_for_reward_runs_under_the_null_goal() -> None:
    model = goal_model([0, 1])
    model.tokenizer.fit(torch.from_numpy(transitions(walk(), model.layout)))
    planner = {"name": "beam", "beam_width": 4, "n_expand": 2, "horizon": 3, "context": 3}
    observations = np.random.default_rng(1).normal(size=(3, 3))

    def plan(goals: np.ndarray | None, condition: str) -> Plan:
        policy = Policy(model, planner=planner, condition={"name": condition}, score={"name": "reward"})
        policy.reset(3, goals=goals)
        policy.act(observations)
        assert policy.plan is not None
        return policy.plan

    null = plan(None, "none")
    given = plan(np.ones((3, 2)), "none")  # not looked at
    assert null.value.equal(given.value)
    # By hand: the same search with the null token, V, for both dimensions of the goal.
    observed = Policy(model, planner=planner, score={"name": "reward"})
    current = torch.zeros(3, model.layout.size)
    current[:, :3] = torch.from_numpy(observations)
    history = model.history(torch.zeros(3, 0, model.layout.size), current, Conditioning(torch.full((3, 2), 9)))
    by_hand = observed.strategy.planner.plan(model, history, observed.strategy.score, Noise.of(0, torch.arange(3), 0))
    assert null.value.equal(by_hand.value)
    assert null.actions.equal(by_hand.actions)
    assert not torch.isclose(null.value, plan(np.ones((3, 2)), "goal").value).any()


def test_pictures_show_who_arrived_and_stop_at_the_arrival(tmp_path: Path) -> None:
    goals = np.array([[1.0, 1.0], [3.0, 1.0]])
    there, back = np.linspace([1.0, 3.0], [1.0, 1.2], 40), np.linspace([1.3, 1.2], [1.3, 3.0], 40)
    way = np.concatenate([there, back])[None, None]  # one start, drawn for both goals
    found = judge(np.broadcast_to(way, (1, 2, 80, 2)), goals)
    assert found.success.tolist() == [[True, False]]
    panel = PathPanel("mine", goals, way, found.success, found.steps, np.ones((1, 2), bool), [])
    picture = imread(draw_paths(tmp_path / "paths.png", UMAZE, [panel]))[..., :3]
    left, right = picture[:, : picture.shape[1] // 2], picture[:, picture.shape[1] // 2 :]

    def pixels(part: np.ndarray, color: str) -> int:
        return int((np.abs(part - to_rgb(color)).max(-1) < 0.05).sum())

    assert pixels(left, "tab:blue") > pixels(left, "tab:orange") == 0
    assert pixels(right, "tab:orange") > pixels(right, "tab:blue") == 0
    assert pixels(left, "0.8") > pixels(right, "0.8") + 50  # what follows the arrival


def test_pictures_of_single_goals_stand_side_by_side_each_with_its_own_star(tmp_path: Path) -> None:
    way = np.linspace([1.0, 3.0], [1.0, 1.2], 40)[None, None]
    panels = []
    for label, goal in (("left", [1.0, 1.0]), ("middle", [3.0, 3.0]), ("right", [3.0, 1.0]), ("below", [1.0, 1.0])):
        found = judge(way[None, 0], np.array([goal]))
        panels.append(PathPanel(label, np.array([goal]), way, found.success, found.steps, np.ones((1, 1), bool), []))
    picture = imread(draw_paths(tmp_path / "paths.png", UMAZE, panels))[..., :3]
    red = np.abs(picture - to_rgb("tab:red")).max(-1) < 0.05
    thirds = np.array_split(red[: red.shape[0] // 2], 3, axis=1)
    assert [bool(third.any()) for third in thirds] == [True, True, True]
    assert np.argwhere(thirds[1]).mean(0)[0] > np.argwhere(thirds[0]).mean(0)[0] + 20  # x runs downwards
    below = np.array_split(red[red.shape[0] // 2 :], 3, axis=1)
    assert [bool(third.any()) for third in below] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goals": [["a", "b"]]}, "goals"),
        ({"goals": [1, 1]}, "goals"),
        ({"goals": [[1, float("nan")]]}, "goals"),
        ({"goals": []}, "goals"),
        ({"start_cells": [1, 1]}, "start_cells"),
        ({"start_cells": [[3]]}, "start_cells"),
        ({"start_cells": [[1.7, 1]]}, "start_cells"),
        ({"start_cells": [[0, 0]]}, r"start cell \[0, 0\] is no free cell"),
        ({"start_cells": []}, "start_cells"),
        ({"shuffle_goals": True, "goals": [[3, 1], [3, 1]]}, "needs two goals or more, all different"),
    ],
)
def test_goals_and_starts_that_are_no_places_are_refused(
    changes: dict[str, Any], message: str, plain_layout_config: Callable[..., dict[str, Any]]
) -> None:
    layout = Layout.from_config(plain_layout_config(goal={"dims": [0, 1]}), 4, 2)
    strategy = {"planner": {"name": "sample"}, "condition": {"name": "goal"}, "score": {"name": "likelihood"}}
    config = {**strategy, "num_episodes": 2, "goals": [[3, 1]], "start_cells": [[1, 1]]}
    parts = Strategy.build(layout, **strategy)
    check_protocol(EvaluationConfig.from_dict(config), parts, layout, "seqrl/Maze2d-UMaze-v1")
    with pytest.raises(ConfigError, match=message):
        check_protocol(EvaluationConfig.from_dict({**config, **changes}), parts, layout, "seqrl/Maze2d-UMaze-v1")
