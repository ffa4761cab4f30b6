"""Discrete actions and observations: from recording over tokens to acting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from seqrl.acting.policy import Policy
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.envs import Environments, check_spaces, make_environments
from seqrl.errors import ConfigError, DataError
from seqrl.evaluation.collect import RandomActor, collect
from seqrl.formats import writers
from seqrl.formats.hdf5_writing import write_hdf5
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import TOKENIZER
from seqrl.sources import find_source
from seqrl.sources.arrays import ArraysSource
from seqrl.tokenizers import Tokenizer
from seqrl.training.module import SequenceModule

BINNED = ("uniform", "quantile")
FIELDS = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
ENDS = np.arange(30) % 10 == 9


def store(observations: Any = None, actions: Any = None, **attributes: Any) -> EpisodeStore:
    """Three episodes of ten steps: two real numbers seen, one of three actions done, unless told otherwise."""
    return EpisodeStore.from_arrays(
        np.random.default_rng(0).normal(size=(30, 2)) if observations is None else np.asarray(observations),
        np.arange(30) % 3 if actions is None else np.asarray(actions),
        np.ones(30),
        ENDS,
        ENDS,
        attributes=attributes,
    )


class TestData:
    @pytest.mark.parametrize("shape", [(30,), (30, 1)])
    @pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
    def test_declared_choices_become_a_column(self, shape: tuple[int, ...], dtype: Any) -> None:
        found = store(actions=(np.arange(30) % 3).reshape(shape).astype(dtype), num_actions=4)
        assert (found.actions.shape, found.actions.dtype) == ((30, 1), np.float32)
        assert found.actions[:4, 0].tolist() == [0, 1, 2, 0]
        assert found.sizes == {"observation_size": 2, "action_size": 1, "categories": {"action": 4}}

    def test_observations_are_declared_like_actions(self) -> None:
        found = store(observations=np.arange(30) % 7, num_observations=7, num_actions=3)
        assert found.sizes == {"observation_size": 1, "action_size": 1, "categories": {"observation": 7, "action": 3}}

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({}, r"discrete actions \(one int64 per step\).*data\.num_actions=N.*3 or more here"),
            ({"observations": np.arange(30)}, r"discrete observations .*data\.num_observations=N.*30 or more here"),
            ({"num_actions": 2}, r"actions holds 2 at row 2; with num_actions=2 the values are 0 to 1"),
            ({"actions": np.full(30, -1), "num_actions": 2}, "actions holds -1 at row 0"),
            ({"actions": np.full(30, 0.5), "num_actions": 2}, r"actions holds 0\.5 at row 0"),
            ({"actions": np.zeros((30, 2)), "num_actions": 2}, r"shape \(30, 2\); of 2 discrete values one stands"),
            ({"num_actions": 0}, "num_actions is 0; give the number of values"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(DataError, match=words):
            store(**changes)

    def test_episodes_one_by_one(self) -> None:
        episode = {"observations": np.zeros((4, 2)), "actions": [0, 1, 1, 0], "rewards": np.ones(4), "terminated": True}
        found = EpisodeStore.from_episodes([episode, episode], attributes={"num_actions": 2})
        assert found.actions[:, 0].tolist() == [0, 1, 1, 0] * 2

    def test_a_saved_store_and_a_mix_remember(self, tmp_path: Path) -> None:
        store(num_actions=3).save(tmp_path / "saved")
        assert EpisodeStore.open(tmp_path / "saved").sizes["categories"] == {"action": 3}
        assert EpisodeStore.mix([store(num_actions=3)] * 2).sizes["categories"] == {"action": 3}
        with pytest.raises(DataError, match=r"actions with different numbers of discrete values.*3 in.*4 in"):
            EpisodeStore.mix([store(num_actions=3), store(num_actions=4)])
        with pytest.raises(DataError, match=r"3 in.*no in"):
            EpisodeStore.mix([store(num_actions=3), store(actions=np.ones((30, 1)))])

    @pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
    def test_files_say_it_themselves_or_are_told(self, tmp_path: Path, suffix: str) -> None:
        path, plain = tmp_path / f"a{suffix}", {"terminals": ENDS, "timeouts": ~ENDS & ENDS, "rewards": np.ones(30)}
        arrays = {"observations": np.arange(30) % 7, "actions": np.arange(30) % 3, **plain}
        if suffix == ".npz":
            np.savez(path, **arrays)
        else:
            write_hdf5(path, arrays, {})
        told = ArraysSource(str(path), num_actions=3, num_observations=7)
        categories = {"observation": 7, "action": 3}
        assert told.load().sizes["categories"] == categories
        with pytest.raises(DataError, match="discrete observations"):
            ArraysSource(str(path)).load()
        copy = tmp_path / f"copy{suffix}"
        writers.write_episodes(told.read(), str(copy))
        for found in (ArraysSource(str(copy)).load(), find_source(str(copy)).read().store()):
            assert found.sizes["categories"] == categories
            np.testing.assert_array_equal(found.actions, told.load().actions)


class TestTokens:
    @staticmethod
    def fitted(name: str, num_bins: int = 8, **sizes: int) -> tuple[Tokenizer, Layout]:
        layout = Layout.from_config({"fields": FIELDS}, 2, 1, categories=sizes or {"action": 3})
        tokenizer = TOKENIZER.build({"name": name, "num_bins": num_bins}, size=layout.size, layout=layout)
        tokenizer.fit(torch.from_numpy(transitions(store(num_actions=3), layout)))
        return tokenizer, layout

    @pytest.mark.parametrize("name", BINNED)
    def test_a_choice_is_its_own_bin(self, name: str) -> None:
        tokenizer, layout = self.fitted(name)
        values = torch.zeros(3, layout.size)
        values[:, 2] = torch.arange(3)
        tokens = tokenizer.encode(values)
        assert tokens[:, 2].tolist() == [0, 1, 2]
        assert tokenizer.decode(tokens)[:, 2].tolist() == [0, 1, 2]
        assert tokenizer.bin_centres(2).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]  # bins that no choice has mean the last

    @pytest.mark.parametrize("name", BINNED)
    def test_as_many_bins_as_choices_suffice_and_fewer_are_refused(self, name: str) -> None:
        tokenizer, layout = self.fitted(name, num_bins=3)
        assert tokenizer.bin_centres(2).tolist() == [0, 1, 2]
        assert tokenizer.decode(torch.full((layout.size,), 3))[2] == 2  # the termination token
        with pytest.raises(ConfigError, match=r"num_bins=2 is too small for the 3 values of the discrete action; give"):
            self.fitted(name, num_bins=2)

    @pytest.mark.parametrize("name", BINNED)
    def test_choices_that_the_data_lack_have_bins_too(self, name: str) -> None:
        assert self.fitted(name, action=6)[0].bin_centres(2).tolist() == [0, 1, 2, 3, 4, 5, 5, 5]

    @pytest.mark.parametrize("name", BINNED)
    def test_other_scalars_are_binned_as_ever(self, name: str) -> None:
        tokenizer, layout = self.fitted(name)
        plain = TOKENIZER.build({"name": name, "num_bins": 8}, size=layout.size)
        values = torch.from_numpy(transitions(store(num_actions=3), layout))
        plain.fit(values)
        assert tokenizer.encode(values)[:, [0, 1, 3, 4]].equal(plain.encode(values)[:, [0, 1, 3, 4]])


class Shifted(gymnasium.Env[np.int64, np.int64]):
    """Actions are called 5 to 7, observations -2 to 1; what was done is kept."""

    def __init__(self) -> None:
        self.action_space, self.observation_space = Discrete(3, start=5), Discrete(4, start=-2)
        self.done: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict]:
        super().reset(seed=seed)
        self.done = []
        return np.int64(-2), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict]:
        self.done.append(action)
        assert self.action_space.contains(action)
        return np.int64(len(self.done) - 2), 0.0, False, False, {}


class TestEnvironments:
    def test_values_are_counted_from_zero(self) -> None:
        envs = Environments("Shifted", [Shifted(), Shifted()])
        assert (envs.observation_size, envs.action_size) == (1, 1)
        assert envs.categories == {"observation": 4, "action": 3}
        observations, _ = envs.reset([0, 1])
        assert observations.tolist() == [[0], [0]]
        seen = [envs.step(np.array([[a], [2 - a]]))[0].tolist() for a in (0.0, 1.4, 2.0, 9.0)]
        assert seen == [[[1], [1]], [[2], [2]], [[3], [3]], [[4], [4]]]
        assert envs.envs[0].done == [5, 6, 7, 7]
        assert envs.envs[1].done == [7, 6, 5, 5]

    def test_the_data_must_have_the_same_choices(self) -> None:
        envs = make_environments("CartPole-v1", 1)
        check_spaces(envs, 4, 1, {"action": 2})
        with pytest.raises(ConfigError, match="data has 3 discrete actions and CartPole-v1 has 2 discrete actions"):
            check_spaces(envs, 4, 1, {"action": 3})
        with pytest.raises(ConfigError, match=r"actions of real numbers and .* 2 discrete.*data\.num_actions=2"):
            check_spaces(envs, 4, 1)
        lander = Environments("Boxes", [_boxes()])
        with pytest.raises(ConfigError, match="2 discrete actions and Boxes has actions of real numbers; set env_id"):
            check_spaces(lander, 4, 1, {"action": 2})


def _boxes() -> Any:
    env = Shifted()
    env.action_space, env.observation_space = Box(-1, 1, (1,)), Box(-1, 1, (4,))
    return env


@pytest.fixture(scope="module", params=["CartPole-v1", "FrozenLake-v1"])
def recorded(request: pytest.FixtureRequest) -> tuple[str, EpisodeStore]:
    """Random episodes of an environment with two actions, and of one with four actions and 16 observations."""
    flat = collect(lambda envs: RandomActor(envs, 0), request.param, episodes=12, max_steps=20)
    return request.param, flat.store()


def test_collecting_declares_what_is_discrete(recorded: tuple[str, EpisodeStore]) -> None:
    env_id, found = recorded
    expected = {"CartPole-v1": {"action": 2}, "FrozenLake-v1": {"observation": 16, "action": 4}}[env_id]
    assert found.sizes["categories"] == expected
    assert sorted(np.unique(found.actions)) == list(range(expected["action"]))


@pytest.mark.parametrize("name", BINNED)
def test_two_actions_of_every_planner(recorded: tuple[str, EpisodeStore], name: str) -> None:
    env_id, found = recorded
    layout = Layout.from_config({"fields": FIELDS}, **found.sizes)
    torch.manual_seed(0)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 8}
    model = TokenModel(layout, {"name": name, "num_bins": 20}, backbone, context=5)
    model.tokenizer.fit(torch.from_numpy(transitions(found, layout)))
    beam = {"name": "beam", "beam_width": 2, "horizon": 2, "context": 3, "cdf_act": None}
    for planner in ({"name": "sample"}, beam, {"name": "random"}, {"name": "zero"}):
        envs = make_environments(env_id, 40)
        policy = Policy(model, planner=planner, score={"name": "reward"} if planner is beam else None)
        observations, _ = envs.reset(range(40))
        policy.reset(40)
        taken, rewards = [], None
        for _ in range(2):
            actions = policy.act(observations, rewards, envs.active)
            taken += actions[:, 0].tolist()
            observations, rewards, *_ = envs.step(actions)
        choices = set(range(layout.categories["action"]))
        assert set(taken) <= choices, planner
        if planner["name"] == "random":
            assert set(taken) == choices
        if planner["name"] == "zero":
            assert set(taken) == {0.0}


def test_discrete_choices_of_vector_models_can_be_right() -> None:
    options: dict[str, Any] = {"tokenizer": "continuous", "backbone": {"dim": 8, "num_heads": 1}, "window": 2}
    for choices, expected in ({"num_actions": 3}, {"action_accuracy"}), ({}, set()):
        found = store(actions=None if choices else np.zeros((30, 1)) + 0.5, **choices)
        module = SequenceModule.for_store(found, layout="dt", objective="regression", **options)
        assert {name for name in module.val_metrics.names if "accuracy" in name} == expected


@pytest.mark.slow
def test_from_integer_arrays_to_a_results_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`seqrl train data=arrays` on what a user has: integers, whose numbers of values are given on the command line."""
    from seqrl.cli import train

    monkeypatch.chdir(tmp_path)
    flat = collect(lambda envs: RandomActor(envs, 0), "FrozenLake-v1", episodes=30)
    np.savez(
        "lake.npz",
        observations=flat.observations[:, 0].astype(np.int64),
        actions=flat.actions[:, 0].astype(np.int64),
        rewards=flat.rewards,
        terminals=flat.terminals,
        timeouts=flat.timeouts,
    )
    words = ["data=arrays", "data.path=lake.npz", "data.env_id=FrozenLake-v1", "debug=fast"]
    fast = ["training.progress_bar=false", "training.loggers=[csv]"]
    assert train.run([*words, *fast]) == 2  # nobody said that these are choices
    assert train.run([*words, *fast, "data.num_actions=4", "data.num_observations=16", "tokenizer.num_bins=16"]) == 0
    assert list(tmp_path.glob("runs/*/results.md"))
    assert train.run([*words, *fast, "data.num_actions=4", "data.num_observations=16", "method=dt", "runs_dir=dt"]) == 0
    said = capsys.readouterr().out
    assert "nats per token (weighted); token accuracy: action" in said
    assert "condition.target=3600 is far above the data, whose best episode earned" in said
