"""What environments return and are given: numbers of the right kind, or a sentence with environment, step and value."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st

from seqrl.envs import Environments, check_returns
from seqrl.errors import ConfigError
from seqrl.evaluation.collect import FunctionActor, RandomActor, collect


class Task(gymnasium.Env[Any, Any]):
    """Returns what `step` and `reset` are made of, from step `since` on; remembers its actions."""

    def __init__(self, since: int = 1, start: Any = None, space: Any = None, **returned: Any) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = space or Box(-1, 1, (1,), np.float32)
        self.since, self.start, self.returned = since, start, returned
        self.actions: list[Any] = []
        self.time = 0

    def reset(self, **given: Any) -> Any:
        self.time = 0
        return (np.zeros(2), {}) if self.start is None else self.start

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        self.time += 1
        usual = {"observation": np.zeros(2), "reward": 1.0, "terminated": False, "truncated": False, "info": {}}
        changed = {**usual, **(self.returned if self.time >= self.since else {})}
        return changed["all"] if "all" in changed else tuple(changed.values())


def running(*tasks: Task) -> Environments:
    envs = Environments("Task-v0", list(tasks))
    envs.reset([0] * len(tasks))
    return envs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32("nan"), np.array([np.inf]), 1e39, -4e38])
@pytest.mark.parametrize("since", [1, 3])
def test_rewards_that_are_not_finite_are_told_with_environment_step_and_value(value: Any, since: int) -> None:
    envs = running(Task(since=since, reward=value))
    for _ in range(since - 1):
        envs.step(np.zeros((1, 1)))
    number = float(np.asarray(value).reshape(()))
    with pytest.raises(ConfigError, match=re.escape(f"Task-v0 gives the reward {number} in step {since};")) as caught:
        envs.step(np.zeros((1, 1)))
    assert "checkpoint" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_observations_that_are_not_finite_are_told_with_environment_step_and_value(value: float) -> None:
    envs = running(Task(), Task(since=2, observation=np.array([0.0, value])))
    envs.step(np.zeros((2, 1)))
    with pytest.raises(ConfigError, match=r"Task-v0 gives .* in dimension 1 of the observation in step 2, copy 1 of 2"):
        envs.step(np.zeros((2, 1)))
    with pytest.raises(ConfigError, match=r"Task-v0 gives .* in dimension 0 of the observation at its start"):
        running(Task(start=(np.array([value, 0]), {})))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"reward": None}, "gives the reward None"),
        ({"reward": "1"}, "gives the reward '1'"),
        ({"reward": [1.0, 2.0]}, r"gives the reward \[1.0, 2.0\]"),
        ({"reward": 1j}, "gives the reward 1j"),
        ({"observation": np.zeros(3)}, "its space has 2 numbers"),
        ({"observation": np.zeros(1)}, "its space has 2 numbers"),
        ({"observation": [[1], [1, 2]]}, "its space has 2 numbers"),
        ({"observation": None}, "gives the observation None"),
        ({"observation": {"a": 1}}, "gives the observation {'a': 1}"),
        ({"terminated": None}, "gives terminated=None"),
        ({"truncated": np.zeros(2, bool)}, "gives truncated=array"),
        ({"terminated": "no"}, "gives terminated='no'"),
        ({"all": (np.zeros(2), 1.0, False, {})}, "returns 4 things in step 1; Gymnasium's step returns observation"),
        ({"all": None}, "returns a NoneType"),
    ],
)
def test_what_is_no_step_is_told(returned: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_returns(Environments("Task-v0", [Task(**returned)]))
    assert str(caught.value).startswith("Task-v0 ")
    assert "in step 1" in str(caught.value)


@pytest.mark.parametrize("start", [np.zeros(2), (np.zeros(2),), (np.zeros(2), 0.0), (np.zeros(2), 1.0, False, {})])
def test_what_is_no_start_is_told(start: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"Task-v0 returns .* of reset; Gymnasium's returns an observation and a dict"
    ):
        running(Task(start=start))


@pytest.mark.parametrize("flag", [True, np.bool_(True), np.array([True]), 1, np.array(True)])
def test_both_flags_in_one_step_are_one_end(flag: Any) -> None:
    envs = running(Task(terminated=flag, truncated=flag))
    _, _, terminated, truncated, _ = envs.step(np.zeros((1, 1)))
    assert (terminated.tolist(), truncated.tolist(), envs.active.tolist()) == ([True], [True], [False])


def box(low: float, high: float, dtype: Any, shape: tuple[int, ...] = (1,)) -> Box:
    return Box(np.full(shape, low, dtype), np.full(shape, high, dtype), shape, dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_whole_actions_are_rounded_and_clipped(dtype: Any) -> None:
    envs = running(task := Task(space=box(2, 9, dtype)))
    given = [6.87, 6.2, 2.4, 1.0, -5.0, 8.6, 300.0, np.inf, -np.inf, 1e300]
    for action in given:
        envs.step(np.array([[action]]))
    assert [int(action[0]) for action in task.actions] == [7, 6, 2, 2, 2, 9, 9, 9, 2, 9]
    assert {action.dtype for action in task.actions} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint64, np.int32])
@pytest.mark.parametrize("sign", [1, -1])
def test_actions_beyond_a_whole_type_stay_within_it(dtype: Any, sign: int) -> None:
    info = np.iinfo(dtype)
    envs = running(task := Task(space=box(info.min, info.max, dtype)))
    envs.step(np.array([[sign * 1e30]]))
    bound = info.max if sign > 0 else info.min
    assert abs(int(task.actions[0][0]) - int(bound)) <= abs(int(bound)) * 1e-15
    assert task.action_space.contains(task.actions[0])


def test_booleans_and_negative_whole_numbers_are_rounded() -> None:
    envs = running(task := Task(space=box(-9, 9, np.int16, (2, 2))))
    envs.step(np.array([[-1.6, -0.4, 1.4, 8.9]]))
    assert task.actions[0].tolist() == [[-2, 0], [1, 9]]
    envs = running(task := Task(space=Box(0, 1, (3,), np.bool_)))
    envs.step(np.array([[0.9, 0.2, 7.0]]))
    assert task.actions[0].tolist() == [True, False, True]
    envs = running(task := Task(space=Discrete(4, start=2)))
    envs.step(np.array([[1.7]]))
    assert task.actions == [4]


@given(st.floats(-20, 20), st.integers(-8, 0), st.integers(1, 8))
def test_a_whole_action_is_the_nearest_that_is_allowed(action: float, low: int, high: int) -> None:
    envs = running(task := Task(space=box(low, high, np.int32)))
    envs.step(np.array([[action]]))
    distances = {choice: abs(choice - action) for choice in range(low, high + 1)}
    assert distances[int(task.actions[0][0])] == min(distances.values())


def test_real_actions_are_not_rounded() -> None:
    envs = running(task := Task(space=box(-1, 9, np.float64)))
    envs.step(np.array([[6.87]]))
    assert task.actions[0].tolist() == [6.87]


@pytest.mark.parametrize("space", [box(2, 5, np.int64), box(2, 5, np.uint8, (2,)), Box(0, 1, (1,), np.bool_)])
def test_the_random_policy_draws_all_whole_numbers_alike(space: Box) -> None:
    envs = running(*[Task(space=space)] * 400)
    actor = RandomActor(envs, seed=0)
    actor.reset(400)
    values, counts = np.unique(actor.act(np.zeros((400, 2)), None, None), return_counts=True)
    assert values.tolist() == list(range(int(space.low.flat[0]), int(space.high.flat[0]) + 1))
    assert counts.min() > 0.8 * counts.mean()


@pytest.fixture
def whole() -> Any:
    gymnasium.register("Whole-v0", lambda: Task(space=box(0, 9, np.int32)), max_episode_steps=4)
    yield "Whole-v0"
    del gymnasium.registry["Whole-v0"]


def test_collected_whole_actions_are_those_that_were_carried_out(whole: str) -> None:
    wants = FunctionActor(lambda seen: np.full((len(seen), 1), 6.87), "wants")
    assert collect(lambda envs: wants, whole, episodes=1).actions.tolist() == [[7.0]] * 4


def test_a_missing_time_limit_is_told() -> None:
    envs = Environments("Task-v0", [Task()])
    with pytest.raises(ConfigError, match="Task-v0 has no time limit; give"):
        envs.limit_steps(None)
    assert envs.limit_steps(5) == 5
