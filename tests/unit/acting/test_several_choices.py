"""Actions and observations of several choices (MultiDiscrete, MultiBinary): from recording over training to acting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiBinary, MultiDiscrete
from torch.nn import functional as F

from seqrl.acting.policy import Policy
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.data.summary import DataSizes
from seqrl.envs import Environments, check_spaces
from seqrl.errors import ConfigError, DataError
from seqrl.evaluation.collect import RandomActor, collect
from seqrl.formats import writers
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.objectives.regression import RegressionObjective
from seqrl.registry import TOKENIZER
from seqrl.sources import find_source, load_episodes
from seqrl.types import VectorBatch

FIELDS = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
GPT: dict[str, Any] = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16, "embedding_dropout": 0.0}


class Switches(gymnasium.Env[Any, Any]):
    """Three lamps are on or off; whoever says how many of the first two are, and whether the third is, earns 1 each.

    Args:
        grid: whether lamps stand in a grid and have names 4 and 5, and answers are counted from 1 and from -1.
    """

    def __init__(self, grid: bool = False) -> None:
        self.grid = grid
        self.observation_space = MultiDiscrete([[2], [2], [2]], start=[[4], [4], [4]]) if grid else MultiBinary(3)
        self.action_space = MultiDiscrete([3, 2], start=[1, -1] if grid else None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._lamps(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        first, second = (action - self.action_space.start).tolist()
        reward = float(first == self.lamps[0] + self.lamps[1]) + float(second == self.lamps[2])
        return self._lamps(), reward, False, False, {}

    def _lamps(self) -> Any:
        self.lamps = self.np_random.integers(2, size=3)
        return self.lamps.reshape(3, 1) + 4 if self.grid else self.lamps.astype(np.int8)


for _name, _grid in (("lamps/Switches-v0", False), ("lamps/Grid-v0", True)):
    if _name not in gymnasium.registry:
        gymnasium.register(_name, Switches, max_episode_steps=10, kwargs={"grid": _grid})


@pytest.fixture(scope="module", params=["lamps/Switches-v0", "lamps/Grid-v0"])
def recorded(request: pytest.FixtureRequest) -> tuple[str, EpisodeStore]:
    """Random episodes."""
    return request.param, collect(lambda envs: RandomActor(envs, 0), request.param, episodes=60).store()


def test_a_recording_counts_each_choice_from_zero(recorded: tuple[str, EpisodeStore]) -> None:
    _, found = recorded
    assert found.sizes == {
        "observation_size": 3,
        "action_size": 2,
        "categories": {"observation": (2, 2, 2), "action": (3, 2)},
    }
    assert [sorted(np.unique(column)) for column in np.asarray(found.actions).T] == [[0, 1, 2], [0, 1]]
    lamps, said = np.asarray(found.observations), np.asarray(found.actions)
    earned = (said[:, 0] == lamps[:, 0] + lamps[:, 1]).astype(float) + (said[:, 1] == lamps[:, 2])
    np.testing.assert_array_equal(found.rewards, earned)


def test_actions_reach_the_environment_as_it_calls_them() -> None:
    grid = Switches(grid=True)
    envs = Environments("lamps", [grid])
    envs.reset([0])
    for action in ([0.0, 0.0], [2.0, 1.0], [1.4, 0.6], [9.0, -3.0]):  # beyond: the nearest
        envs.step(np.array([action]))
    assert envs.action_low.tolist() == [0, 0]
    assert envs.action_high.tolist() == [2, 1]
    assert envs.carried_out(np.array([[9.0, -3.0]])).tolist() == [[2, 0]]


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_files_keep_the_counts(recorded: tuple[str, EpisodeStore], suffix: str, tmp_path: Path) -> None:
    _, found = recorded
    flat = find_source_of(found, tmp_path / "store")
    copy = tmp_path / f"copy{suffix}"
    writers.write_episodes(flat, str(copy))
    again = find_source(str(copy)).read().store()
    assert again.sizes == found.sizes
    np.testing.assert_array_equal(again.actions, found.actions)


def find_source_of(store: EpisodeStore, folder: Path) -> Any:
    store.save(folder)
    return find_source(str(folder)).read()


def test_minari_keeps_the_counts(
    recorded: tuple[str, EpisodeStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    _, found = recorded
    writers.write_episodes(find_source_of(found, tmp_path / "store"), "minari:lamps/few-v0")
    again = load_episodes({"name": "minari", "id": "lamps/few-v0", "download": False})
    assert again.sizes["categories"] == found.sizes["categories"]
    np.testing.assert_array_equal(again.observations, found.observations)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([3], r"actions has shape \(20, 2\); of 3 discrete values one stands in a row"),
        ([3, 2, 2], r"actions has shape \(20, 2\); of \(3, 2, 2\) values one each stand in a row"),
        ([2, 2], r"actions holds 2 at row 2, column 0; with 2 of them the values are 0 to 1"),
        ([3, 1], r"actions holds 1 at row 1, column 1; with 1 of them the values are 0 to 0"),
        ([3, 0], r"num_actions is \[3, 0\]; give the number of values, 1 or more, or a list"),
        ([], r"num_actions is \[\]; give the number of values"),
        ([3.5, 2], "give the number of values"),
        ("3", "give the number of values"),
    ],
)
def test_what_does_not_fit_the_counts_is_refused(given: Any, words: str) -> None:
    actions = np.stack([np.arange(20) % 3, np.arange(20) % 2], 1)
    episode = {"observations": np.zeros((20, 1)), "actions": actions, "rewards": np.ones(20), "terminated": True}
    with pytest.raises(DataError, match=words):
        EpisodeStore.from_episodes([episode], attributes={"num_actions": given})


@pytest.mark.parametrize("given", [3, np.int64(3), np.array(3), [3], np.array([3])])
def test_a_count_may_be_a_number_of_numpy(given: Any) -> None:
    episode = {
        "observations": np.zeros((2, 1)),
        "actions": np.array([0, 2]),
        "rewards": np.zeros(2),
        "terminated": True,
    }
    store = EpisodeStore.from_episodes([episode], attributes={"num_actions": given})
    assert store.sizes["categories"] == {"action": 3}


def test_counts_of_another_width_are_refused_by_a_layout() -> None:
    with pytest.raises(ConfigError, match="action has 2 numbers in a row, and choices were counted for 3"):
        Layout.from_config({"fields": FIELDS}, 3, 2, {"action": (3, 2, 2)})
    with pytest.raises(ConfigError, match="observation has 3 numbers in a row, and choices were counted for 1"):
        Layout.from_config({"fields": FIELDS}, 3, 2, {"observation": 4})


def test_a_checkpoint_keeps_the_counts() -> None:
    sizes = DataSizes.from_saved({"observation_size": 3, "action_size": 2, "categories": {"action": [3, 2]}})
    assert sizes.categories == {"action": (3, 2)}


@pytest.mark.parametrize("name", ["uniform", "quantile"])
def test_each_choice_is_its_own_bin(recorded: tuple[str, EpisodeStore], name: str) -> None:
    _, found = recorded
    layout = Layout.from_config({"fields": FIELDS}, **found.sizes)
    tokenizer = TOKENIZER.build({"name": name, "num_bins": 4}, size=layout.size, layout=layout)
    values = torch.from_numpy(transitions(found, layout))
    tokenizer.fit(values)
    tokens = tokenizer.encode(values)
    assert tokens[:, :5].equal(values[:, :5].long())
    assert tokenizer.decode(tokens)[:, :5].equal(values[:, :5])
    assert tokenizer.bin_centres(3).tolist() == [0, 1, 2, 2]
    assert tokenizer.bin_centres(4).tolist() == [0, 1, 1, 1]
    with pytest.raises(ConfigError, match="num_bins=2 is too small for the 3 values of the discrete action"):
        TOKENIZER.build({"name": name, "num_bins": 2}, size=layout.size, layout=layout)


def test_losses_of_vectors_are_sums_over_choices(recorded: tuple[str, EpisodeStore]) -> None:
    model = vector_model(recorded[1])
    values = torch.from_numpy(transitions(recorded[1], model.layout))[:12].view(2, 6, -1)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 4:] = False
    outcome = RegressionObjective()(model, VectorBatch(values, mask, starts=torch.zeros(2, dtype=torch.int64)))
    logits = model(values)["action"]
    assert logits.shape == (2, 6, 5)
    expected, right = 0.0, 0
    for row, time in mask.nonzero().tolist():
        said = values[row, time, 3:5].long()
        for part, chosen in ((logits[row, time, :3], said[0]), (logits[row, time, 3:], said[1])):
            expected += F.cross_entropy(part[None], chosen[None]).item()
            right += int(part.argmax() == chosen)
    action = outcome.fields["action"]
    assert action.loss.item() == pytest.approx(expected, rel=1e-5)
    assert (action.correct.item(), action.count.item()) == (right, 2 * mask.sum().item())


def vector_model(store: EpisodeStore) -> VectorModel:
    config = {"fields": {"observation": {"loss_weight": 0.0}, "action": {}}, "vectors": [["observation"], ["action"]]}
    torch.manual_seed(0)
    return VectorModel(
        Layout.from_config(config, **store.sizes), {"name": "continuous"}, GPT, context=6, longest_episode=10
    ).eval()


def token_model(store: EpisodeStore) -> TokenModel:
    layout = Layout.from_config({"fields": FIELDS}, **store.sizes)
    torch.manual_seed(0)
    model = TokenModel(layout, {"name": "uniform", "num_bins": 8}, GPT, context=4)
    model.tokenizer.fit(torch.from_numpy(transitions(store, layout)))
    return model.eval()


def test_every_planner_chooses_what_there_is(recorded: tuple[str, EpisodeStore]) -> None:
    env_id, found = recorded
    beam = {"name": "beam", "beam_width": 2, "horizon": 2, "context": 3, "cdf_act": None}
    tokens, vectors = token_model(found), vector_model(found)
    for model, planner in (
        (tokens, {"name": "sample"}),
        (tokens, beam),
        (tokens, {"name": "random"}),
        (tokens, {"name": "zero"}),
        (vectors, {"name": "sample"}),
        (vectors, {"name": "random"}),
    ):
        envs = Environments(env_id, [Switches(grid="Grid" in env_id) for _ in range(30)])
        policy = Policy(model, planner=planner, score={"name": "reward"} if planner is beam else None)
        observations, _ = envs.reset(range(30))
        policy.reset(30)
        taken, rewards = [], None
        for _ in range(2):
            actions = policy.act(observations, rewards, envs.active)
            taken.append(actions)
            observations, rewards, *_ = envs.step(actions)
        chosen = [set(column) for column in np.concatenate(taken).T.tolist()]
        assert chosen[0] <= {0, 1, 2}, planner
        assert chosen[1] <= {0, 1}, planner
        if planner["name"] == "random" or model is vectors:
            assert chosen == [{0, 1, 2}, {0, 1}]


def test_a_sampled_vector_action_has_the_probability_of_its_choices(recorded: tuple[str, EpisodeStore]) -> None:
    model = vector_model(recorded[1])
    policy = Policy(model, planner={"name": "sample"}, seed=1)
    seen = np.tile(np.array([[1.0, 0.0, 1.0]], np.float32), (4000, 1))
    policy.reset(4000)
    actions = policy.act(seen)
    values = torch.zeros(1, 1, 5)
    values[..., :3] = torch.from_numpy(seen[:1])
    logits = model(values, starts=torch.zeros(1, dtype=torch.int64))["action"][0, -1]
    expected = torch.outer(logits[:3].softmax(-1), logits[3:].softmax(-1))
    found = torch.zeros(3, 2)
    for first, second in actions.astype(int).tolist():
        found[first, second] += 1 / len(actions)
    assert (found - expected).abs().max() < 0.03  # four standard errors of the largest


def test_an_environment_of_other_choices_is_refused() -> None:
    envs = Environments("lamps", [Switches()])
    check_spaces(envs, 3, 2, {"observation": (2, 2, 2), "action": (3, 2)})
    with pytest.raises(ConfigError, match=r"actions of 3, 3 choices and lamps has actions of 3, 2 choices"):
        check_spaces(envs, 3, 2, {"observation": (2, 2, 2), "action": (3, 3)})
    with pytest.raises(ConfigError, match=r"actions of real numbers.*data\.num_actions=\[3, 2\]"):
        check_spaces(envs, 3, 2, {"observation": (2, 2, 2)})
    boxes = Switches()
    boxes.action_space = Box(0, 1, (2,))
    with pytest.raises(ConfigError, match=r"actions of 3, 2 choices and boxes has actions of real numbers; set env_id"):
        check_spaces(Environments("boxes", [boxes]), 3, 2, {"observation": (2, 2, 2), "action": (3, 2)})


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_counts_of_an_extra_are_kept_by_files(suffix: str, tmp_path: Path) -> None:
    tasks, ends = np.stack([np.arange(20) % 5, np.arange(20) % 2], 1), np.arange(20) == 19
    extras = {"task": tasks, "one": tasks[:, 0], "cars": np.zeros((20, 3)), "num_cars": np.arange(20) % 3}
    store = EpisodeStore.from_arrays(
        np.zeros((20, 2)), np.zeros((20, 1)), np.ones(20), ends, ends,
        extras=extras, attributes={"name": "tasks", "num_task": [5, 2], "num_one": [5]},
    )  # fmt: skip
    target = tmp_path / f"tasks.{suffix}"
    writers.write_episodes(find_source_of(store, tmp_path / "store"), str(target))
    again = load_episodes({"name": "arrays", "path": str(target)})
    assert again.sizes["categories"] == {"task": (5, 2), "one": 5}
    np.testing.assert_array_equal(again.extras["task"], tasks)
    np.testing.assert_array_equal(again.extras["num_cars"], extras["num_cars"])


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
@pytest.mark.parametrize(("count", "choices"), [(2, [5, 2]), (3, [4, 3, 2]), (1, [5, 2]), (4, [9])])
def test_counts_are_kept_of_as_many_rows_as_choices(
    suffix: str, count: int, choices: list[int], tmp_path: Path
) -> None:
    ends = np.arange(count) == count - 1
    tasks = np.zeros((count, len(choices)), int)
    store = EpisodeStore.from_arrays(
        np.zeros((count, 2)), np.zeros((count, 1)), np.ones(count), ends, ends,
        extras={"task": tasks}, attributes={"name": "tasks", "num_task": choices},
    )  # fmt: skip
    target = tmp_path / f"tasks.{suffix}"
    writers.write_episodes(find_source_of(store, tmp_path / "store"), str(target))
    again = load_episodes({"name": "arrays", "path": str(target)})
    assert again.sizes["categories"] == {"task": tuple(choices) if len(choices) > 1 else choices[0]}
    assert set(again.extras) == {"task"}


def test_an_extra_called_like_a_count_stays_one(tmp_path: Path) -> None:
    """An array of N numbers is an extra, whatever it is called; one of another length counts."""
    rows = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "rewards": np.ones(4), "offsets": [0, 4]}
    rows |= {"cars": np.zeros((4, 4), int), "bikes": np.zeros((4, 3), int)}
    np.savez(tmp_path / "a.npz", **rows, num_cars=np.arange(4), num_bikes=np.array([2, 3, 4]))
    found = load_episodes({"name": "arrays", "path": str(tmp_path / "a.npz")})
    assert set(found.extras) == {"cars", "bikes", "num_cars"}
    assert found.sizes["categories"] == {"bikes": (2, 3, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["method=bc"]])
def test_from_a_recording_to_the_best_answers(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that are right four times in five are imitated; the likeliest ones are right nearly always."""
    from seqrl.cli import train

    monkeypatch.chdir(tmp_path)
    envs = Environments("lamps/Switches-v0", [Switches() for _ in range(100)])
    draw = np.random.default_rng(0)
    seen, said, earned = [], [], []
    observations, _ = envs.reset(range(100))
    for _ in range(10):
        right = np.stack([observations[:, 0] + observations[:, 1], observations[:, 2]], 1)
        other = np.stack([draw.integers(3, size=100), draw.integers(2, size=100)], 1)
        actions = np.where(draw.random((100, 1)) < 0.8, right, other)
        seen.append(observations)
        said.append(actions)
        observations, rewards, *_ = envs.step(actions)
        earned.append(rewards)
    np.savez(
        "lamps.npz",
        observations=np.stack(seen, 1).reshape(1000, 3),
        actions=np.stack(said, 1).reshape(1000, 2).astype(np.int64),
        rewards=np.stack(earned, 1).reshape(1000),
        offsets=np.arange(0, 1001, 10),
        num_actions=[3, 2],
    )
    fast = ["training.progress_bar=false", "training.loggers=[csv]", "evaluation.settings.progress_bar=false"]
    model = ["backbone.dim=32", "training.max_steps=200", "training.batch_size=64"]
    model += [] if words else ["backbone.num_layers=1", "backbone.num_heads=2", "tokenizer.num_bins=8"]
    data = ["data=arrays", "data.path=lamps.npz", "data.num_observations=[2,2,2]", "data.env_id=lamps/Switches-v0"]
    rows = ["evaluation=none", "strategy=imitation", "planner.temperature=0", "optimizer.learning_rate=3e-3"]
    assert train.run([*words, *data, *model, *rows, *fast]) == 0
    (results,) = tmp_path.glob("runs/*/evaluations/imitation-*/results.json")
    (row,) = json.loads(results.read_text())
    assert row["return_mean"] > 19  # of 20; the data's behaviour earns 17.5
