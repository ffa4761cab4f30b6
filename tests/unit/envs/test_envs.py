"""Stepping environments together: every step counted, every end seen once."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Sequence, Text, Tuple

from seqrl.envs import Environments, check_spaces, make_environments, register_environments
from seqrl.errors import ConfigError


class Counter(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes how often it was stepped and reset; ends after `length` steps, or is cut where that is negative."""

    def __init__(self, length: int = 3, space: gymnasium.Space[Any] | None = None) -> None:
        self.observation_space = space or Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-0.5, 2.0, (1,), np.float32)
        self.length, self.steps, self.resets, self.actions = length, 0, 0, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.length = (options or {}).get("length", self.length)
        self.steps, self.resets, self.actions = 0, self.resets + 1, []
        return np.array([0.0, self.resets]), {"draw": self.np_random.random(), "options": options}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        self.actions.append(float(action[0]))
        over = self.steps >= abs(self.length)
        return np.array([self.steps, self.resets]), 1.0, over and self.length > 0, over and self.length < 0, {}


class Rewarding(Counter):
    """Earns what it was made with."""

    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict]:
        observation, _, *ends = super().step(action)
        return observation, self.reward, *ends


def test_ends_are_flagged_once_and_nothing_resets_by_itself() -> None:
    envs = Environments("Counter", [Counter(2), Counter(-4), Counter(5)])
    assert envs.active.tolist() == [False] * 3
    observations, _ = envs.reset([0, 1, 2])
    assert observations.tolist() == [[0, 1]] * 3
    seen, rewards, ended, cut = [], np.zeros(3), np.zeros(3, int), np.zeros(3, int)
    for _ in range(7):  # two steps more than the longest episode
        observations, reward, terminated, truncated, _ = envs.step(np.zeros((3, 1)))
        seen.append(observations[:, 0].tolist())
        rewards, ended, cut = rewards + reward, ended + terminated, cut + truncated
    assert seen == [
        [1, 1, 1],
        [2, 2, 2],
        [2, 3, 3],
        [2, 4, 4],
        *[[2, 4, 5]] * 3,
    ]  # an ended one keeps its last observation
    assert [env.steps for env in envs.envs] == [2, 4, 5]
    assert [env.resets for env in envs.envs] == [1, 1, 1]
    assert rewards.tolist() == [2, 4, 5]
    assert not envs.active.any()
    assert (ended.tolist(), cut.tolist()) == ([1, 0, 1], [0, 1, 0])
    envs.reset()
    assert envs.active.all()


def test_seeds_and_options_belong_to_one_environment_each() -> None:
    envs = Environments("Counter", [Counter(), Counter()])
    _, one = envs.reset([7, 8], options=[{"length": 1}, None])
    assert [env.length for env in envs.envs] == [1, 3]
    assert [info["options"] for info in one] == [{"length": 1}, None]
    _, two = envs.reset([8, 7])
    assert [one[0]["draw"], one[1]["draw"]] == [two[1]["draw"], two[0]["draw"]]
    assert one[0]["draw"] != one[1]["draw"]
    with pytest.raises(ConfigError, match="1 seeds were given for 2 environments"):
        envs.reset([0])
    with pytest.raises(ConfigError, match="3 options were given for 2 environments"):
        envs.reset([0, 1], options=[None] * 3)


def test_actions_are_clipped_to_the_action_space() -> None:
    envs = Environments("Counter", [Counter(9)])
    envs.reset([0])
    for action in (-3.0, 0.25, 3.0, np.inf):
        envs.step(np.array([[action]]))
    assert envs.envs[0].actions == [-0.5, 0.25, 2.0, 2.0]
    with pytest.raises(ConfigError, match="NaN"):
        envs.step(np.array([[np.nan]]))
    with pytest.raises(ConfigError, match=r"actions have shape \(1,\); \(1, 1\) is needed"):
        envs.step(np.zeros(1))


@pytest.mark.parametrize("reward", [np.array([-0.25]), np.float32(-0.25), np.array([[-0.25]])])
def test_a_reward_may_be_an_array_of_one_number(reward: Any) -> None:
    """As where it is computed from an action of shape (1,)."""
    envs = Environments("Counter", [Rewarding(reward)])
    envs.reset([0])
    assert envs.step(np.zeros((1, 1)))[1].tolist() == [-0.25]


def test_a_reward_that_is_no_number_is_refused() -> None:
    envs = Environments("Counter", [Rewarding(np.zeros(2))])
    envs.reset([0])
    with pytest.raises(ConfigError, match=r"Counter gives the reward array\(\[0\., 0\.\]\); a reward is one number"):
        envs.step(np.zeros((1, 1)))


def test_sizes_must_fit_the_data() -> None:
    envs = Environments("Counter-v0", [Counter()])
    check_spaces(envs, 2, 1)
    with pytest.raises(ConfigError, match="data has 11 observation dimensions and Counter-v0 has 2"):
        check_spaces(envs, 11, 1)
    with pytest.raises(ConfigError, match="data has 3 action dimensions and Counter-v0 has 1"):
        check_spaces(envs, 2, 3)


def test_spaces_of_other_kinds_are_refused() -> None:
    for space in (Text(3), Tuple([Discrete(2), Discrete(3)]), Sequence(Discrete(2))):
        with pytest.raises(ConfigError, match=rf"Counter has a {type(space).__name__} observation space.*MultiBinary"):
            Environments("Counter", [Counter(space=space)])


def test_images_are_refused_with_what_to_do() -> None:
    bytes_of = [(shape, np.uint8) for shape in ((64, 64, 3), (84, 84), (32, 40, 4), (4, 84, 84), (2, 64, 64, 3))]
    for shape, kind in [*bytes_of, ((3, 64, 64), np.float32), ((96, 96, 1), np.float32)]:
        with pytest.raises(ConfigError, match=r"Counter has images of shape .*shows vectors, the simulator's state"):
            Environments("Counter", [Counter(space=Box(0, 255, shape, kind))])
    Environments("Counter", [Counter(space=Box(0, 1, (40, 40), np.float32))])  # a matrix of numbers
    Environments("Counter", [Counter(space=Box(0, 255, (7, 7, 3), np.uint8))])  # a small grid is no image


def test_settings_of_an_environment_stand_in_its_name() -> None:
    envs = make_environments("CartPole-v1?sutton_barto_reward=true&max_episode_steps=7", 1)
    assert envs.max_episode_steps == 7
    envs.reset([0])
    assert envs.step(np.zeros((1, 1)))[1].tolist() == [0.0], "as Sutton and Barto have it: -1 at the end alone"
    plain = make_environments("CartPole-v1", 1)
    plain.reset([0])
    assert plain.step(np.zeros((1, 1)))[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPole-v1?sutton_barto_reward=yes", "has the setting 'sutton_barto_reward=yes'; give names with numbers"),
        ('CartPole-v1?xml_file="/etc/passwd"', "has the setting 'xml_file="),
        ("CartPole-v1?a=NaN", "has the setting 'a=NaN'"),
        ("CartPole-v1?", "has the setting ''"),
        ("CartPole-v1?os.system=1", "has the setting 'os.system=1'"),
        ("CartPole-v1?gravity=3", "cannot be made"),
        ("CartPol-v1?gravity=3", "Did you mean 'CartPole-v1'"),
        ("minari:a/b-v0?x=1", "settings that were recorded"),
        ("os:CartPole-v1?x=1", "names a module to import"),
    ],
)
def test_settings_that_are_no_numbers_are_refused(env_id: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_environments(env_id, 1)


def test_unknown_environments_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'Hoper-v4'\. Did you mean 'Hopper-v4'"):
        make_environments("Hoper-v4", 1)
    with pytest.raises(ConfigError, match="Did you mean 'seqrl/Maze2d-Umaze-v1'"):
        make_environments("seqrl/Maze2d-UMaze-v1", 1)
    with pytest.raises(ConfigError, match="Did you mean 'd4rl/antmaze-umaze-v2'"):
        make_environments("d4rl/antmaze-umze-v2", 1)
    with pytest.raises(ConfigError, match="ask for at least 1"):
        make_environments("Hopper-v4", 0)


def test_a_mujoco_environment_is_made_without_warnings() -> None:
    envs = make_environments("Hopper-v4", 2)
    assert (len(envs), envs.observation_size, envs.action_size, envs.max_episode_steps) == (2, 11, 3, 1000)
    observations, _ = envs.reset([5, 5])
    assert observations.dtype == np.float32
    np.testing.assert_array_equal(observations[0], observations[1])
    envs.close()


def test_d4rl_s_ant_feels_no_forces() -> None:
    ours, gymnasium_s = make_environments("seqrl/D4rlAnt-v2", 1), make_environments("Ant-v4", 1)
    assert (ours.observation_size, ours.action_size, ours.max_episode_steps) == (111, 8, 1000)
    observations, _ = ours.reset([3])
    expected, _ = gymnasium_s.reset([3])
    for _ in range(5):
        np.testing.assert_array_equal(observations[:, :27], expected)
        assert not observations[:, 27:].any()
        observations, rewards, _, _, _ = ours.step(np.full((1, 8), 0.5))
        expected, expected_rewards, _, _, _ = gymnasium_s.step(np.full((1, 8), 0.5))
        np.testing.assert_array_equal(rewards, expected_rewards)


def test_registering_again_changes_nothing() -> None:
    register_environments()
    specs = {key: spec for key, spec in gymnasium.registry.items() if key.startswith("seqrl/")}
    register_environments()
    assert {key: gymnasium.registry[key] for key in specs} == specs
    mazes = ["seqrl/Maze2d-Large-v1", "seqrl/Maze2d-Medium-v1", "seqrl/Maze2d-Umaze-v1"]
    mazes += ["seqrl/PointMaze-Giant-v0", "seqrl/PointMaze-Large-v0", "seqrl/PointMaze-Medium-v0"]
    assert sorted(specs) == ["seqrl/D4rlAnt-v2", "seqrl/FourRooms-v0", *mazes]


class Careless(Counter):
    """Draws its starts from generators that belong to everybody."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.array([np.random.random(), random.random()]), {}  # noqa: NPY002


def test_starts_follow_their_seeds_whatever_generator_draws_them() -> None:
    envs = Environments("careless", [Careless(), Careless()])
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    expected = np.random.RandomState(5).random(3), random.Random(5).random()
    first, _ = envs.reset([3, 4_000_000_000_000])
    drawn = np.random.random(), random.random()  # noqa: NPY002
    assert drawn == (expected[0][0], expected[1]), "what others draw goes on as before"
    second, _ = envs.reset([3, 4_000_000_000_000])
    np.testing.assert_array_equal(first, second)
    assert len(set(first.ravel().tolist())) == 4
    other, _ = envs.reset([4, 5])
    assert not set(other.ravel().tolist()) & set(first.ravel().tolist())
    unseeded, _ = envs.reset()
    assert unseeded[0, 0] == np.float32(expected[0][1])


class Seen(gymnasium.Env[Any, Any]):
    observation_space = Dict({"state": Box(-1, 1, (2,)), "view": Box(0, 255, (64, 64, 3), np.uint8)})
    action_space = Box(-1, 1, (1,))


def test_a_part_that_is_an_image_is_refused_by_its_name() -> None:
    gymnasium.register("seen/Seen-v0", Seen)
    try:
        assert make_environments("seen/Seen-v0@state", 1).observation_size == 2
        with pytest.raises(ConfigError, match=r"the part 'view' .* is an image of shape \(64, 64, 3\).*choose others"):
            make_environments("seen/Seen-v0@state+view", 1)
    finally:
        del gymnasium.registry["seen/Seen-v0"]
