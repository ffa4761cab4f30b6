"""Recording a policy: rows that line up with what the environment did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from seqrl.envs import Environments
from seqrl.errors import ConfigError, PluginError
from seqrl.evaluation.collect import FunctionActor, RandomActor, collect, collect_episodes, find_function
from seqrl.formats.flat import FlatEpisodes

ENV = "seqrl-test/Counting-v0"


class Counting(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes (seed-drawn number, step); ends after 3 + that number steps, the multiples of 3 by a limit."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-0.5, 0.5, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.number, self.time = int(self.np_random.integers(6)), 0
        return np.array([self.number, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        over = self.time == 3 + self.number
        limit = self.number % 3 == 0
        return np.array([self.number, self.time]), float(action[0]), over and not limit, over and limit, {}


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gymnasium.register(ENV, Counting, max_episode_steps=100)
    yield
    del gymnasium.registry[ENV]


def doubled(envs: Environments) -> FunctionActor:
    return FunctionActor(lambda observations: 2.0 * observations[:, 1:] - 1.0, "doubled")


def same(left: FlatEpisodes, right: FlatEpisodes) -> None:
    for name in ("observations", "actions", "rewards", "ends", "terminals", "timeouts", "final_observations"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def test_rows_are_what_happened() -> None:
    flat = collect(doubled, ENV, episodes=9, batch=4, seed=3)
    store = flat.store()
    assert store.num_episodes == 9
    numbers = store.observations[store.offsets[:-1], 0].astype(int)
    assert len(set(numbers)) > 2  # several starts
    np.testing.assert_array_equal(store.lengths, 3 + numbers)
    np.testing.assert_array_equal(store.terminated, numbers % 3 != 0)
    np.testing.assert_array_equal(store.truncated, numbers % 3 == 0)
    times = np.concatenate([np.arange(length) for length in store.lengths])
    np.testing.assert_array_equal(store.observations[:, 1], times)
    np.testing.assert_allclose(store.actions[:, 0], np.clip(2.0 * times - 1.0, -0.5, 0.5))  # as carried out
    np.testing.assert_array_equal(store.rewards, store.actions[:, 0])
    assert flat.final_observations is not None
    np.testing.assert_array_equal(flat.final_observations[:, 1], store.lengths)
    assert flat.attributes["env_id"] == ENV


@pytest.mark.parametrize("make", [doubled, lambda envs: RandomActor(envs, 5)], ids=["function", "random"])
def test_the_batch_changes_nothing(make: Any) -> None:
    same(collect(make, ENV, episodes=7, batch=1), collect(make, ENV, episodes=7, batch=3))


def test_seeds_change_starts_and_actions() -> None:
    one, two = (collect(lambda envs, s=seed: RandomActor(envs, s), ENV, episodes=5, seed=seed) for seed in (0, 1))
    assert one.observations.shape != two.observations.shape or not np.array_equal(one.observations, two.observations)
    assert not set(one.actions.ravel().tolist()) & set(two.actions.ravel().tolist())


def test_so_many_transitions_are_the_first_of_so_many_episodes() -> None:
    whole = collect(doubled, ENV, episodes=9, batch=3)
    offsets = whole.offsets
    for rows in (int(offsets[4]), int(offsets[4]) + 1, int(offsets[5]) - 1):
        part = collect(doubled, ENV, transitions=rows, batch=3)
        np.testing.assert_array_equal(part.observations, whole.observations[:rows])
        store = part.store()
        cut = rows != offsets[4]
        assert store.num_episodes == 4 + cut
        assert bool(store.terminated[-1] or store.truncated[-1]) is not cut
        assert part.final_observations is not None
        assert len(part.final_observations) == store.num_episodes
        following = whole.observations[rows] if cut else whole.final_observations[3]  # type: ignore[index]
        np.testing.assert_array_equal(part.final_observations[-1], following)


@pytest.mark.parametrize("amount", [{"episodes": 5}, {"transitions": 11}])
def test_progress_counts_the_rows_that_are_kept(amount: dict[str, int]) -> None:
    seen: list[int] = []
    flat = collect(doubled, ENV, batch=4, progress=seen.append, **amount)  # type: ignore[arg-type]
    assert sum(seen) == len(flat.ends)


def test_a_limit_of_steps_truncates() -> None:
    store = collect(doubled, ENV, episodes=5, max_steps=2).store()
    assert store.lengths.tolist() == [2] * 5
    assert store.truncated.all()


def test_states_of_mujoco_are_those_before_the_action() -> None:
    flat = collect(lambda envs: RandomActor(envs, 0), "Hopper-v4", episodes=2, max_steps=5)
    qpos, qvel = flat.extras["infos/qpos"], flat.extras["infos/qvel"]
    seen = np.concatenate([qpos[:, 1:], np.clip(qvel, -10, 10)], axis=1)  # how Hopper makes its observation
    np.testing.assert_allclose(flat.observations, seen, atol=1e-6)
    assert "infos/qpos" not in collect(doubled, ENV, episodes=1).extras


def test_what_cannot_be_collected_is_refused() -> None:
    with pytest.raises(ConfigError, match="episodes=0 is too few"):
        collect(doubled, ENV, episodes=0)
    with pytest.raises(ConfigError, match="seed=-1 is negative"):
        collect(doubled, ENV, episodes=1, seed=-1)
    with pytest.raises(ConfigError, match="max-steps=0 is too few"):
        collect(doubled, ENV, episodes=1, max_steps=0)
    with pytest.raises(ConfigError, match="either a number of episodes or of transitions"):
        collect(doubled, ENV)
    with pytest.raises(ConfigError, match=r"actions of shape \(1, 2\); \(1, 1\) is needed"):
        collect(lambda envs: FunctionActor(lambda o: o, "all"), ENV, episodes=1)
    with pytest.raises(ConfigError, match="gave NaN as an action"):
        collect(lambda envs: FunctionActor(lambda o: o[:, :1] * np.nan, "nan"), ENV, episodes=1)


@pytest.mark.usefixtures("clean_plugins")
def test_functions_are_found_in_files_and_modules(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def act(observations):\n    return observations + 1\n\nnumber = 3\n")
    assert find_function(f"{path}:act").act(np.zeros((1, 2)), None, None).tolist() == [[1.0, 1.0]]
    assert find_function("numpy:tanh").act(np.zeros((1, 2)), None, None).tolist() == [[0.0, 0.0]]
    for spec, error, words in (
        (f"{path}:other", ConfigError, "has no function 'other'"),
        (f"{path}:number", ConfigError, "has no function 'number'"),
        ("hopper", ConfigError, "policy 'hopper' is unknown"),
        ("no_such_module:act", PluginError, "no_such_module"),
        (f"{tmp_path}/gone.py:act", PluginError, "does not exist"),
    ):
        with pytest.raises(error, match=words):
            find_function(spec)


@pytest.mark.parametrize("seed", [0, 1, 2146])
def test_no_recorded_episode_begins_as_one_of_an_evaluation(seed: int) -> None:
    """Evaluations give their environments 1,000,000 times their seed and the episode."""
    given: list[int] = []

    class Noting(Counting):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
            if seed is not None:
                given.append(seed)
            return super().reset(seed=seed)

    gymnasium.register("tests/Noting-v0", Noting, max_episode_steps=100)
    try:
        collect(doubled, "tests/Noting-v0", episodes=30, batch=5, seed=seed)
    finally:
        del gymnasium.registry["tests/Noting-v0"]
    starts = given[-30:]
    assert len(set(starts)) == 30
    assert all(2**31 <= each < 2**32 for each in starts), "some environments take 32 bits"
    assert 1_000_000 * 2146 + 999_999 < 2**31


class Telling(Counting):
    """Tells the number of its step as `clock` at the start and with each step, twice that as the step's `cost`."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        observation, _ = super().reset(seed=seed)
        return observation, {"clock": 0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        *returned, _ = super().step(action)
        pair = [self.time] * (1 if self.time < 3 else 2)
        return *returned, {"clock": self.time, "cost": 2.0 * self.time, "pair": [1, self.time], "odd": pair, "no": "a"}  # type: ignore[return-value]


@pytest.fixture
def telling() -> Any:
    gymnasium.register("tests/Telling-v0", Telling, max_episode_steps=100)
    yield "tests/Telling-v0"
    del gymnasium.registry["tests/Telling-v0"]


def test_infos_are_kept_beside_the_steps_they_were_told_of(telling: str) -> None:
    moments: Any = {"clock": "before", "cost": "after", "pair": "after"}
    flat = collect(doubled, telling, episodes=5, batch=2, extras=moments)
    extras = flat.store().extras
    times = flat.observations[:, 1]
    np.testing.assert_array_equal(extras["clock"], times)
    np.testing.assert_array_equal(extras["cost"], 2.0 * (times + 1.0))
    np.testing.assert_array_equal(extras["pair"], np.stack([np.ones_like(times), times + 1.0], 1))
    part = collect(doubled, telling, transitions=7, batch=2, extras=moments)
    np.testing.assert_array_equal(part.store().extras["cost"], extras["cost"][:7])
    assert set(collect(doubled, telling, episodes=1).store().extras) == set()


@pytest.mark.parametrize(
    ("extras", "words"),
    [
        ({"price": "after"}, "tells no info 'price' of a step; the infos there: clock, cost, no, odd, pair"),
        ({"cost": "before"}, r"tells no info 'cost' before an action .*; the infos there: clock"),
        ({"no": "after"}, "tells 'no' as 'a'; an extra is finite numbers"),
        ({"odd": "after"}, "tells 'odd' as 1 numbers at times, and as 2 at others"),
    ],
)
def test_infos_that_cannot_be_kept_are_refused_by_name(telling: str, extras: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        collect(doubled, telling, episodes=2, extras=extras)


def test_a_source_gets_its_episodes_from_one_call(telling: str) -> None:
    """Of a function, and of an object that is told of new episodes, with its draws by episode."""
    extras: Any = {"cost": "after"}
    store = collect_episodes(telling, lambda o: 2.0 * o[:, 1:] - 1.0, episodes=6, seed=3, extras=extras)
    other = collect(doubled, telling, episodes=6, seed=3).store()
    np.testing.assert_array_equal(store.observations, other.observations)
    np.testing.assert_array_equal(store.actions, other.actions)
    assert store.attributes["name"] == store.attributes["env_id"] == telling
    assert "cost" in store.extras

    class Draws:
        def reset(self, num: int, *, environments: np.ndarray | None = None) -> None:
            assert environments is not None
            self.draws = [np.random.default_rng(int(key)) for key in environments]

        def act(self, observations: np.ndarray, rewards: Any, active: Any) -> np.ndarray:
            return np.array([[draw.uniform(-0.5, 0.5)] for draw in self.draws])

    named = {"name": "mine"}
    one, two = (collect_episodes(telling, Draws(), episodes=5, batch=b, attributes=named) for b in (1, 4))
    np.testing.assert_array_equal(one.actions, two.actions)
    assert one.attributes["name"] == "mine"
