"""Wrappers behind an environment's id: in their order, by registered names alone, with data and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from seqrl.envs import make_environments
from seqrl.envs.named import split_settings
from seqrl.errors import ConfigError
from seqrl.evaluation.collect import RandomActor, collect
from seqrl.registry import WRAPPER
from seqrl.wrappers.time_left import TimeLeft


class Doubled(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return 2.0 * float(reward)


class Raised(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return float(reward) + 1.0


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with WRAPPER.set_aside():
        WRAPPER.register("doubled")(Doubled)
        WRAPPER.register("raised")(Raised)
        yield


def earned(env_id: str) -> float:
    envs = make_environments(env_id, 1)
    envs.reset([0])
    return float(envs.step(np.zeros((1, 1)))[1][0])


def test_the_first_stands_inside_the_next() -> None:
    bare = earned("Pendulum-v1")
    assert earned("Pendulum-v1?wrapper=doubled&wrapper=raised") == pytest.approx(2 * bare + 1)
    assert earned("Pendulum-v1?wrapper=raised&wrapper=doubled") == pytest.approx(2 * (bare + 1))


def test_settings_stand_beside_wrappers() -> None:
    assert split_settings("A-v0?g=5.0&wrapper=doubled&b=true") == ("A-v0", {"g": 5.0, "b": True}, ("doubled",))
    heavy = make_environments("Pendulum-v1?g=5.0&wrapper=time_left", 1)
    assert heavy.envs[0].unwrapped.g == 5.0
    assert heavy.observation_size == 4


def test_time_left_counts_down_and_keeps_the_limit() -> None:
    envs = make_environments("Pendulum-v1?wrapper=time_left", 2)
    assert envs.max_episode_steps == 200
    seen, _ = envs.reset([0, 1])
    assert seen[:, -1].tolist() == [1.0, 1.0]
    for step in range(1, 201):
        seen, _, _, truncated, _ = envs.step(np.zeros((2, 1)))
        assert seen[0, -1] == pytest.approx(1 - step / 200, abs=1e-6)
    assert truncated.all()
    assert envs.reset([0, 1])[0][:, -1].tolist() == [1.0, 1.0]


class Bytes(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Whole numbers, as the memory of a game console."""

    def __init__(self, env: gymnasium.Env[Any, Any], kind: Any) -> None:
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(0, 200, (3,), kind)

    def observation(self, observation: Any) -> np.ndarray:
        return np.array([1, 2, 200]).astype(self.observation_space.dtype)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float16])
def test_time_left_is_a_share_beside_whole_numbers_too(kind: Any) -> None:
    env = TimeLeft(Bytes(gymnasium.make("Pendulum-v1"), kind))
    seen = [env.reset(seed=0)[0], *(env.step(np.zeros(1))[0] for _ in range(3))]
    assert all(env.observation_space.contains(each) for each in seen)
    assert [each[-1] for each in seen] == pytest.approx([1, 0.995, 0.99, 0.985], abs=1e-3)
    assert seen[-1][:3].tolist() == [1, 2, 200]


def test_a_recording_says_what_stood_around_its_environment() -> None:
    name = "Pendulum-v1?wrapper=time_left"
    store = collect(lambda envs: RandomActor(envs, 0), name, episodes=2, max_steps=20).store()
    assert store.attributes["env_id"] == name
    assert store.sizes["observation_size"] == 4
    assert np.asarray(store.observations)[:3, -1].tolist() == pytest.approx([1.0, 0.995, 0.99])


@pytest.mark.parametrize(
    "name", ["os.system", "os:system", "seqrl.wrappers.time_left", "", "time-left", "../x", "Doubled"]
)
def test_only_registered_names_are_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no wrapper named|names a module to import"):
        make_environments(f"Pendulum-v1?wrapper={name}", 1)


def test_a_misspelt_name_has_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'time_left'"):
        make_environments("Pendulum-v1?wrapper=timeleft", 1)


@pytest.mark.parametrize(
    ("env_id", "words"),
    [("CliffWalking-v1", "is for vectors of numbers"), ("seqrl/Still-v0", "needs a time limit")],
)
def test_what_a_wrapper_cannot_serve_is_told(env_id: str, words: str) -> None:
    gymnasium.register("seqrl/Still-v0", "gymnasium.envs.classic_control:PendulumEnv")
    try:
        with pytest.raises(ConfigError, match=words):
            make_environments(f"{env_id}?wrapper=time_left", 1)
    finally:
        del gymnasium.registry["seqrl/Still-v0"]
