"""Tasks, near goals and landmarks of the map: where episodes begin, where they are to go, and who counts as arrived."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import yaml

from seqrl.acting.policy import Policy
from seqrl.config import EvaluationConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import ConfigError
from seqrl.evaluation.courses import find_courses
from seqrl.evaluation.map_landmarks import graph_of_map
from seqrl.evaluation.protocol import check_protocol, run_episodes
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.paths import config_dir
from seqrl.worlds.environments import maze_of
from seqrl.worlds.maze import MAZES
from seqrl.worlds.ogbench import POINTMAZES

GIANT, UMAZE, ROOMS = "seqrl/PointMaze-Giant-v0", "seqrl/Maze2d-Umaze-v1", "seqrl/FourRooms-v0"
TASKS = [[[1, 1], [3, 1]], [[3, 1], [1, 1]], [[1, 3], [1, 1]]]  # in the umaze and in the giant maze
STRAIGHT = {"name": "controller", "position_gain": 5.0}


def config(**settings: Any) -> EvaluationConfig:
    parts = {"planner": STRAIGHT, "condition": {"name": "goal"}, "score": {"name": "likelihood"}}
    return EvaluationConfig.from_dict({**parts, "num_episodes": 4, "progress_bar": False, **settings})


def model(sizes: tuple[int, int] = (2, 2)) -> TokenModel:
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}}
    layout = Layout.from_config({"fields": fields, "goal": {"dims": [0, 1], "dropout": 0.5}}, *sizes)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 8}
    made = TokenModel(layout, {"name": "uniform", "num_bins": 11}, backbone, context=2)
    low, high = [0.0] * sizes[0] + [-1.0] * 2, [56.0] * sizes[0] + [1.0] * 2
    made.tokenizer.fit(torch.tensor([low, high]))
    return made


def run(settings: EvaluationConfig, env_id: str = GIANT, store: EpisodeStore | None = None) -> dict[str, np.ndarray]:
    parts = {name: getattr(settings, name) for name in ("planner", "condition", "score")}
    return run_episodes(settings, Policy(model(), **parts), env_id, store=store).results


def line_store(count: int = 3, steps: int = 40, speed: float = 0.3) -> EpisodeStore:
    """Episodes that go down a corridor of the giant maze, each from a little further on."""
    episodes = []
    for number in range(count):
        y = 0.5 * number + speed * np.arange(steps)
        rows = np.stack([np.zeros(steps), y], 1).astype(np.float32)
        episodes.append(
            {"observations": rows, "actions": np.zeros((steps, 2)), "rewards": np.zeros(steps), "terminated": False}
        )
    return EpisodeStore.from_episodes(episodes, attributes={"name": "line"})


@pytest.mark.parametrize("env_id", [GIANT, UMAZE])
def test_every_task_has_episodes_of_its_own(env_id: str) -> None:
    maze = maze_of(env_id)
    found = find_courses(config(tasks=TASKS, num_episodes=30), env_id)
    assert found.states.shape == (30, 3, maze.state_size)
    assert found.goals.shape == (30, 3, 2)
    assert found.counted.all()
    for number, (start, goal) in enumerate(TASKS):
        for places, cell in ((found.states[:, number, :2], start), (found.goals[:, number], goal)):
            offsets = places - maze.place_of((cell[0], cell[1]))
            assert 0.7 * maze.noise < np.abs(offsets).max() <= maze.noise
            assert len(np.unique(offsets[:, 0])) == 30
    assert found.names is not None
    assert found.names.tolist() == [maze.place_of((goal[0], goal[1])).tolist() for _, goal in TASKS]
    again, other = (find_courses(config(tasks=TASKS, num_episodes=30, seed=seed), env_id) for seed in (0, 1))
    np.testing.assert_array_equal(again.states, found.states)
    assert (other.goals != found.goals).all()


def test_the_tasks_of_the_giant_maze_are_those_of_the_experiment() -> None:
    content = yaml.safe_load((config_dir() / "evaluation" / "pointmaze_giant_stitch_landmarks.yaml").read_text())
    assert [tuple(map(tuple, task)) for task in content["settings"]["tasks"]] == list(POINTMAZES["giant"].tasks)


def test_who_arrives_is_judged_by_the_radius_of_the_maze_and_by_the_own_goal() -> None:
    """A controller that drives straight reaches goals down a corridor, and stops at walls."""
    clear, blocked = [[1, 1], [1, 3]], [[1, 1], [3, 1]]  # the giant maze: along y nothing, along x a wall
    found = run(config(tasks=[clear, blocked], max_steps=60))
    assert found["success"].tolist() == [[True, False]] * 4
    assert found["paths"].shape == (4, 2, 61, 2)
    assert found["aims"].shape == (4, 2, 2)
    near = np.linalg.norm(found["paths"] - found["aims"][:, :, None], axis=-1) <= 1.0
    np.testing.assert_array_equal(near.any(-1), found["success"])
    np.testing.assert_array_equal(found["steps"][:, 0], near[:, 0].argmax(-1))
    ended = run(config(tasks=[clear, blocked], max_steps=60, end_at_goal=True))
    np.testing.assert_array_equal(ended["success"], found["success"])
    np.testing.assert_array_equal(ended["lengths"][:, 0], found["steps"][:, 0])


def test_a_policy_that_is_told_nothing_drives_every_task_from_its_own_start() -> None:
    found = run(config(tasks=TASKS, max_steps=5, planner={"name": "zero"}, condition={"name": "none"}))
    assert found["returns"].shape == (4, 3)
    starts = find_courses(config(tasks=TASKS), GIANT).states
    np.testing.assert_allclose(found["paths"][:, :, 0], starts, atol=1e-5)


def test_shuffled_tasks_are_told_another_ones_goal() -> None:
    settings = config(tasks=[[[1, 1], [1, 3]], [[1, 3], [1, 1]]], max_steps=60)
    shuffled = run(config(tasks=settings.to_dict()["tasks"], max_steps=60, shuffle_goals=True))
    assert run(settings)["success"].all()
    assert not shuffled["success"].any()


def test_near_goals_are_states_that_the_own_episode_came_to() -> None:
    store, settings = line_store(), config(near=[5, 9], num_episodes=60)
    found = find_courses(settings, GIANT, store)
    assert found.states.shape == (60, 1, 2)
    assert found.names is None
    steps = (found.goals[:, 0, 1] - found.states[:, 0, 1]) / 0.3
    assert set(np.rint(steps).astype(int)) == {5, 6, 7, 8, 9}
    assert (found.goals[:, 0, 1] <= 0.3 * 39 + 1.0 + 1e-5).all()  # no pair across two episodes
    reached = run(config(near=[5, 9], max_steps=30, num_episodes=6), store=store)
    assert reached["success"].all()
    assert reached["goals"].shape == (0, 2)
    assert reached["aims"].shape == (6, 1, 2)
    slow = run(config(near=[5, 9], max_steps=3, num_episodes=6), store=store)
    assert not slow["success"].all()


def test_near_goals_that_are_reached_from_the_start_are_left_out() -> None:
    found = find_courses(config(near=[1, 9], num_episodes=40), GIANT, line_store())
    assert (np.linalg.norm(found.goals[:, 0] - found.states[:, 0], axis=-1) > 1.0).all()
    with pytest.raises(ConfigError, match="the data hold hardly any two states"):
        find_courses(config(near=[1, 3], num_episodes=4), GIANT, line_store())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": [[[1, 1], [0, 0]]]}, r"start cell \[0, 0\] is no free cell"),
        ({"tasks": [[[1, 1], [3, 1]]], "goals": [[1, 1]]}, "goals and tasks are given"),
        ({"tasks": [[[1, 1], [3, 1]]], "near": [1, 2]}, "tasks and near are given"),
        ({"near": [1, 2], "shuffle_goals": True}, "shuffle_goals=true needs two goals or more"),
        ({"tasks": [[[1, 1], [3, 1]]], "map_landmarks": True}, "map_landmarks=true is a control of strategy=landmarks"),
        ({}, "none is given"),
    ],
)
def test_what_cannot_be_run_is_refused_before(settings: dict[str, Any], message: str) -> None:
    made = config(**settings)
    policy = Policy(model(), planner=made.planner, condition=made.condition, score=made.score)
    with pytest.raises(ConfigError, match=message):
        check_protocol(made, policy.strategy, policy.model.layout, UMAZE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near": [9, 5]}, "the first number of steps is above the second"),
        ({"near": [0, 5]}, "near"),
        ({"near": [5]}, "near"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [[[1, 1]]]}, "tasks"),
        ({"tasks": [[1, 1]]}, "tasks"),
    ],
)
def test_settings_of_another_form_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_tasks_and_near_goals_need_a_maze() -> None:
    for settings in ({"tasks": TASKS}, {"near": [1, 2]}):
        made = config(**settings)
        policy = Policy(model(), planner=made.planner, condition=made.condition, score=made.score)
        with pytest.raises(ConfigError, match=r"goals are given for Hopper-v5; they can be judged in .*PointMaze"):
            check_protocol(made, policy.strategy, policy.model.layout, "Hopper-v5")


def fitted(pace: float) -> LandmarkGraph:
    """Two places in a corridor, 8 apart."""
    steps = np.array([8 * pace], np.float32)
    return LandmarkGraph(np.array([[0, 0], [0, 8]], np.float32), np.array([0]), np.array([1]), steps, {"horizon": 30})


@pytest.mark.parametrize("name", ["medium", "giant"])
def test_the_maps_landmarks_know_the_true_ways(name: str) -> None:
    maze, pace = POINTMAZES[name], 3.0
    graph = graph_of_map(maze, fitted(pace))
    assert graph.steps.max() <= 30
    (goal,) = graph.find_nearest(maze.centre_of(maze.tasks[0][1])[None])
    left = graph.count_steps_to(int(goal))
    for cell, cells in maze.distances(maze.tasks[0][1]).items():
        (node,) = graph.find_nearest(maze.centre_of(cell)[None])
        np.testing.assert_allclose(graph.nodes[node], maze.centre_of(cell))
        assert left[node] == pytest.approx(cells * maze.unit * pace)
    for place in graph.nodes:
        assert maze.is_free(maze.cell_of(place + 1e-3))


def test_the_maps_landmarks_of_a_maze_whose_cells_are_not_centred_at_its_places() -> None:
    maze = MAZES["umaze"]
    places, steps = np.array([[1, 1], [1, 2]], np.float32), np.array([20.0], np.float32)
    graph = graph_of_map(maze, LandmarkGraph(places, np.array([0]), np.array([1]), steps, {"horizon": 25}))
    assert len(graph.nodes) == 7 + 6
    with pytest.raises(ConfigError, match="no edge takes 12 steps"):
        graph_of_map(maze, LandmarkGraph(graph.nodes, graph.sources, graph.targets, np.full_like(graph.steps, 5.0)))


NEAR = [maze_of(GIANT).place_of((1, 2)).tolist(), maze_of(GIANT).place_of((1, 3)).tolist()]


@pytest.mark.parametrize(
    "asked", [{"tasks": TASKS}, {"goals": NEAR, "start_cells": [[1, 1]]}, {"tasks": TASKS, "seed": 3}]
)
def test_returns_are_of_the_goal_that_was_asked_for(asked: dict[str, Any]) -> None:
    """The environment draws its target by the seed; a reward is earned by every step that ends near the goal told."""
    settings = config(**asked, num_episodes=2, max_steps=60, min_cells=0)
    results = run(settings)
    aims = results["aims"] if "aims" in results else np.broadcast_to(results["goals"], (2, len(asked["goals"]), 2))
    near = np.linalg.norm(results["paths"][:, :, 1:] - aims[:, :, None], axis=-1) <= maze_of(GIANT).radius
    assert results["returns"].sum() > 0
    np.testing.assert_array_equal(results["returns"], near.sum(-1))
