"""Extras in evaluations: what environments tell, what is summed up, and who is refused before a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.config import EvaluationConfig
from seqrl.envs import Environments, make_environments
from seqrl.envs.told import read_told
from seqrl.errors import ConfigError
from seqrl.evaluation.protocol import check_environment
from seqrl.evaluation.rollout import rollout
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.testing import samples

FIELDS: dict[str, Any] = {
    "observation": {},
    "price": {},
    "action": {},
    "reward": {},
    "cost": {},
    "pair": {"hidden": True},
}
LAYOUT = Layout.from_config({"fields": FIELDS}, 3, 2, extras={"price": 1, "cost": 1, "pair": 2})


def model() -> TokenModel:
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    made = TokenModel(LAYOUT, {"name": "uniform", "num_bins": 8}, backbone, context=4).eval()
    made.tokenizer.fit(torch.randn(50, LAYOUT.size, generator=torch.Generator().manual_seed(0)))
    samples.scramble(made)
    return made


class Shop(gymnasium.Env[np.ndarray, np.ndarray]):
    """Costs of 1, 2, 3, ... in its steps; prices are the number of the step."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, silent: tuple[str, ...] = (), length: int = 4) -> None:
        self.silent, self.length, self.seen = silent, length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.seen = 0
        return np.zeros(3, np.float32), self._tell()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.seen += 1
        return np.zeros(3, np.float32), 1.0, self.seen == self.length, False, self._tell()

    def _tell(self) -> dict[str, Any]:
        info = {"price": float(self.seen), "cost": self.seen, "pair": [1.0, 2.0], "other": "text"}
        return {name: value for name, value in info.items() if name not in self.silent}


@pytest.fixture(autouse=True)
def shops() -> Iterator[None]:
    """`shops/Shop-v0`, and those that keep something to themselves."""
    names = {"shops/Shop-v0": (), "shops/Free-v0": ("price",), "shops/Blind-v0": ("cost",), "shops/Odd-v0": ("pair",)}
    for name, silent in names.items():
        gymnasium.register(name, Shop, max_episode_steps=10, kwargs={"silent": silent})
    yield
    for name in names:
        del gymnasium.registry[name]


def act(env_id: str = "shops/Shop-v0", condition: dict[str, Any] | None = None, **options: Any) -> Any:
    policy = Policy(model(), planner={"name": "sample"}, condition=condition)
    envs = make_environments(env_id, 2)
    try:
        return rollout(policy, envs, seeds=[0, 1], **options)
    finally:
        envs.close()


def test_outcomes_are_kept_and_summed_over_the_steps_that_were_lived() -> None:
    episodes = act()
    np.testing.assert_array_equal(episodes.outcomes["cost"][..., 0], [[1, 2, 3, 4]] * 2)
    assert episodes.outcomes["pair"].shape == (2, 4, 2)
    assert {name: sums.tolist() for name, sums in episodes.outcome_sums.items()} == {"cost": [10.0, 10.0]}
    assert "pair" not in episodes.outcome_sums, "pairs are no one number"
    longer = Environments("mixed", [Shop(length=2), Shop(length=4)])
    policy = Policy(model(), planner={"name": "sample"})
    assert rollout(policy, longer, seeds=[0, 1], max_steps=6).outcome_sums["cost"].tolist() == [3.0, 10.0]


def test_hidden_outcomes_may_be_missing_and_contexts_may_be_given() -> None:
    assert list(act("shops/Odd-v0").outcome_sums) == ["cost"]
    assert act("shops/Free-v0", {"name": "context", "values": {"price": 2.0}}).lengths.tolist() == [4, 4]


def config(**options: Any) -> EvaluationConfig:
    parts = {"planner": {"name": "sample"}, "condition": {"name": "none"}, "score": {"name": "likelihood"}}
    return EvaluationConfig.from_dict({"checkpoint": "none", **parts, **options})


@pytest.mark.parametrize(
    ("env_id", "condition", "message"),
    [
        ("shops/Free-v0", {"name": "none"}, r"needs 'price', and nobody tells it"),
        ("shops/Blind-v0", {"name": "none"}, r"looks back at 'cost' of earlier steps"),
        ("shops/Free-v0", {"name": "context", "values": {"price": 2.0}}, None),
        ("shops/Odd-v0", {"name": "none"}, None),
    ],
)
def test_an_environment_that_tells_too_little_is_refused_before_a_training(
    env_id: str, condition: dict[str, Any], message: str | None
) -> None:
    if message is None:
        check_environment(config(condition=condition), LAYOUT, env_id)
        return
    with pytest.raises(ConfigError, match=message):
        check_environment(config(condition=condition), LAYOUT, env_id)
    check_environment(config(condition=condition, planner={"name": "zero"}), LAYOUT, env_id)


@pytest.mark.parametrize("odd", ["text", [1.0, 2.0], float("nan"), None, {"a": 1}])
def test_what_is_no_number_is_refused_by_name(odd: Any) -> None:
    with pytest.raises(ConfigError, match=r"Shop-v0 tells 'cost' as .*needs 1 finite numbers"):
        read_told([{"cost": odd}], {"cost": 1}, "Shop-v0")
    found = read_told([{"cost": np.array([2.5])}, {}], {"cost": 1}, "Shop-v0")
    assert torch.from_numpy(found["cost"]).isnan().tolist() == [[False], [True]]


def test_the_behaviour_is_summed_up_as_evaluations_are() -> None:
    from seqrl.data.episodes import EpisodeStore
    from seqrl.training.run import summarize_data

    ends = np.array([False, False, True, False, True, False])  # the recording stopped in the third episode
    cost, gap = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 500.0]), np.array([1.0, np.nan, 1.0, 1.0, 1.0, 1.0])
    store = EpisodeStore.from_arrays(
        np.zeros((6, 3)), np.zeros((6, 2)), np.ones(6), ends, np.zeros(6, bool),
        extras={"cost": cost, "gap": gap, "pair": np.zeros((6, 2)), "unused": cost, "word": np.array(list("abcdef"))},
    )  # fmt: skip
    summary = summarize_data(store, ["cost", "gap", "pair", "word"])  # who reads the data for training refuses words
    assert summary.behaviour_outcomes == {"cost": 18.0}  # of whole episodes, as their returns
    assert summarize_data(store).behaviour_outcomes == {}


@pytest.mark.parametrize(("env_id", "told"), [("shops/Shop-v0", False), ("seqrl/Maze2d-Umaze-v1", True)])
def test_mujoco_is_told_where_it_simulates(env_id: str, told: bool) -> None:
    from seqrl.envs.mujoco_state import find_mujoco

    envs = make_environments(env_id, 1)
    try:
        assert (find_mujoco(envs.envs[0]) is not None) == told
    finally:
        envs.close()


def test_data_of_an_environments_own_are_no_mujoco() -> None:
    assert act().mujoco is False
    Shop.data = {"of": "its own"}  # type: ignore[attr-defined]
    try:
        assert act().mujoco is False
        assert act().qpos is None
    finally:
        del Shop.data  # type: ignore[attr-defined]
