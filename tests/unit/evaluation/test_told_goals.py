"""Goals and success that environments tell: who is told which goal, what counts, and who is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.config import EvaluationConfig
from seqrl.errors import ConfigError
from seqrl.evaluation.protocol import check_protocol, run_episodes
from seqrl.evaluation.told_goals import judge_told, read_goals, read_success, shuffle_goals
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.testing import samples

LAYOUT = Layout.from_config({"fields": {"observation": {}, "action": {}}, "goal": {"dims": [2, 0]}}, 3, 1)
TOLD: list[dict[str, Any]] = []


class Reach(gymnasium.Env[np.ndarray, np.ndarray]):
    """Succeeds in its third step where its number is even; the goal is an observation, (number, 10, -number)."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, kind: str = "observation") -> None:
        self.kind = kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.number, self.time = (seed or 0) % 4, 0
        goal = [self.number, 10.0, -self.number]
        goals = {"observation": goal, "dims": [goal[2], goal[0]], "odd": goal[:1], "text": "north", "same": [1, 2, 3]}
        return np.zeros(3, np.float32), {"goal": goals[self.kind]} if self.kind in goals else {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        success = self.time == 3 and self.number % 2 == 0
        return np.zeros(3, np.float32), 0.0, self.time == 5, False, {} if self.kind == "quiet" else {"success": success}


@pytest.fixture(autouse=True)
def environments() -> Iterator[None]:
    kinds = ("observation", "dims", "odd", "text", "same", "none", "quiet")
    for kind in kinds:
        gymnasium.register(f"reach/{kind}-v0", Reach, max_episode_steps=9, kwargs={"kind": kind})
    yield
    for kind in kinds:
        del gymnasium.registry[f"reach/{kind}-v0"]


def policy(condition: str = "goal") -> Policy:
    made = TokenModel(
        LAYOUT,
        {"name": "uniform", "num_bins": 8},
        {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16},
        context=2,
    )
    made.tokenizer.fit(torch.randn(50, LAYOUT.size, generator=torch.Generator().manual_seed(0)))
    samples.scramble(made)
    return Policy(made.eval(), planner={"name": "sample"}, condition={"name": condition})


def config(**options: Any) -> EvaluationConfig:
    parts = {"planner": {"name": "sample"}, "condition": {"name": "goal"}, "score": {"name": "likelihood"}}
    return EvaluationConfig.from_dict({"checkpoint": "none", **parts, "num_episodes": 4, **options})


@pytest.mark.parametrize("kind", ["observation", "dims"])
def test_a_policy_is_told_the_goal_of_its_own_episode(kind: str) -> None:
    acting = policy()
    run_episodes(config(), acting, f"reach/{kind}-v0")
    assert acting.goals is not None
    numbers = np.arange(4.0)
    np.testing.assert_array_equal(acting.goals.numpy(), np.stack([-numbers, numbers], 1))


def test_success_is_what_the_environment_told() -> None:
    for condition in ("goal", "none"):
        results = run_episodes(config(), policy(condition), "reach/observation-v0").results
        assert results["success"][:, 0].tolist() == [True, False, True, False]
        assert results["steps"][[0, 2], 0].tolist() == [3.0, 3.0]
        assert np.isnan(results["steps"][[1, 3]]).all()
        np.testing.assert_allclose(results["time_at_goal"][[0, 2], 0], 1 / 3)
        assert results["counted"].all()
    assert "success" not in run_episodes(config(), policy("none"), "reach/quiet-v0").results


@pytest.mark.parametrize("condition", ["goal", "none"])
def test_episodes_may_end_with_told_success(condition: str) -> None:
    results = run_episodes(config(end_at_goal=True), policy(condition), "reach/observation-v0").results
    assert results["lengths"][:, 0].tolist() == [3, 5, 3, 5]
    assert results["success"][:, 0].tolist() == [True, False, True, False]
    np.testing.assert_allclose(results["time_at_goal"][[0, 2], 0], 1.0)


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("seqrl/Maze2d-Umaze-v1", r"none is given; add goals=\[\[x,y\]\]"),
        ("seqrl/FourRooms-v0", r"none is given; add goals=\[\[x,y\]\]"),
    ],
)
def test_episodes_cannot_end_with_what_nobody_tells(env_id: str, words: str) -> None:
    asked = config(condition={"name": "none"}, end_at_goal=True)
    with pytest.raises(ConfigError, match=words):
        check_protocol(asked, policy("none").strategy, LAYOUT, env_id)


@pytest.mark.parametrize("env_id", ["reach/quiet-v0", "Pendulum-v1"])
def test_success_that_the_first_step_does_not_tell_is_spoken_of(
    env_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(condition={"name": "none"}, end_at_goal=True)
    check_protocol(asked, policy("none").strategy, LAYOUT, env_id)
    assert f"{env_id} tells none in info['success'] of its first step" in " ".join(capsys.readouterr().out.split())


def test_the_control_is_told_another_goal() -> None:
    acting = policy()
    results = run_episodes(config(shuffle_goals=True), acting, "reach/observation-v0").results
    assert acting.goals is not None
    assert (acting.goals[:, 1].numpy() != np.arange(4.0)).all()
    assert results["success"][:, 0].tolist() == [True, False, True, False], "judged by its own"
    with pytest.raises(ConfigError, match="all goals are the same"):
        run_episodes(config(shuffle_goals=True), policy(), "reach/same-v0")
    goals = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    np.testing.assert_array_equal(shuffle_goals(goals, 0), [[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "none",
            r"none is given; add goals=\[\[x,y\]\] in a maze of seqrl's, or let reach/none-v0 tell its own in info",
        ),
        ("odd", r"tells the goal \[0\]; 3 finite numbers of an observation are needed, or the 2 of the layout's goal"),
        ("text", r"tells the goal 'north'; 3 finite numbers"),
    ],
)
def test_who_tells_no_goal_is_refused_before_anything_runs(kind: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_protocol(config(), policy().strategy, LAYOUT, f"reach/{kind}-v0")
    check_protocol(config(condition={"name": "none"}), policy("none").strategy, LAYOUT, f"reach/{kind}-v0")


def test_a_goal_of_a_maze_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"none is given; add goals=\[\[x,y\]\]$"):
        check_protocol(config(), policy().strategy, LAYOUT, "seqrl/Maze2d-Umaze-v1")


def test_what_was_told_after_the_end_does_not_count() -> None:
    success = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, np.nan]])
    found = judge_told(success, np.array([2, 2]), "reach/observation-v0")
    assert found["success"][:, 0].tolist() == [False, True]
    assert judge_told(success, np.array([2, 3]), "reach/observation-v0") == {}, "not all of it was told"
    assert judge_told(success, np.array([2, 2]), "Hopper-v4") == {}, "judged by its score"
    assert judge_told(success, np.array([2, 2]), "seqrl/Maze2d-Umaze-v1") == {}, "judged by goals that are given"


def test_success_has_the_names_of_the_field() -> None:
    infos = [{"success": True}, {"is_success": np.float32(0.0)}, {}, {"success": "yes"}, {"success": np.array([1.0])}]
    np.testing.assert_array_equal(read_success(infos), [1.0, 0.0, np.nan, np.nan, 1.0])


@pytest.mark.parametrize("told", [float("nan"), np.float32("nan"), np.array([np.nan]), np.array(np.nan), None])
@pytest.mark.parametrize("name", ["success", "is_success"])
def test_what_is_no_number_tells_no_success(name: str, told: Any) -> None:
    assert np.isnan(read_success([{name: told}])).all()
    np.testing.assert_array_equal(read_success([{name: np.inf}, {name: -1.0}]), [1.0, 0.0])
    with pytest.raises(ConfigError, match="finite"):
        read_goals([{"goal": [np.nan, 1.0, 2.0]}], LAYOUT, "some")
