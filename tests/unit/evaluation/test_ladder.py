"""A ladder names the part that fails: in a world where every part is known, and from numbers of rungs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from seqrl.evaluation.diagnosis import climb_swapped
from seqrl.evaluation.ladder import (
    ALL_SWAPS,
    LEARNT,
    SHORT_SWAPS,
    Ladder,
    LadderSettings,
    Rung,
    Swap,
    judge_rungs,
)
from seqrl.evaluation.search_parts import SimulatorDynamics, UniformCandidates
from seqrl.evaluation.simulators import simulator_of
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Outcome, Parts, Valuation
from seqrl.layout import Layout
from seqrl.models.token import TokenModel

LINE = "tests/Line-v0"
FIELDS = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
SETTINGS = LadderSettings(episodes=6, beam_width=4, n_expand=2, horizon=2, short=True)


class Line(gymnasium.Env[np.ndarray, np.ndarray]):
    """A position in [-2, 2] that an action moves by a tenth of itself; the nearer to 0 it ends, the less is lost."""

    observation_space = Box(-2.0, 2.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(0.5, 1.0, 1) * self.np_random.choice([-1.0, 1.0])
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.state = np.clip(self.state + 0.1 * action, -2.0, 2.0)
        return self.state.copy(), -float(abs(self.state[0])), False, False, {}


@pytest.fixture(autouse=True)
def _line() -> Iterator[None]:
    gymnasium.register(LINE, Line, max_episode_steps=12)
    yield
    del gymnasium.registry[LINE]


class Mirrored(Dynamics):
    """A model that believes actions to push the other way."""

    def __init__(self, true: Dynamics) -> None:
        self.true = true

    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        return self.true.advance(observations, -actions)


class Distance(Valuation):
    """What remains to be lost: `factor` of the distance from 0; the true factor is negative."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        return self.factor * outcome.observations.abs()[:, 0]


class Outward(Candidates):
    """Actions of a behaviour that never comes home."""

    num_draws = 1

    def propose(self, observations: Tensor, uniform: Tensor) -> Tensor:
        return uniform.to(observations) * torch.where(observations < 0, -1.0, 1.0)


def line_model() -> TokenModel:
    layout = Layout.from_config({"fields": FIELDS, "discount": 0.9}, 1, 1)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4}
    model = TokenModel(layout, {"name": "uniform", "num_bins": 5}, backbone, context=4)
    model.tokenizer.fit(torch.tensor([[-2.0] * 4, [2.0] * 4]))
    return model.eval()


def climb(*broken: str) -> list[Rung]:
    """A ladder whose learnt parts are right, except for those that are named."""
    model = line_model()
    true = SimulatorDynamics(simulator_of(LINE), model.layout)
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))
    dynamics = {"simulator": true, "model": Mirrored(true) if "dynamics" in broken else true}
    value = {"true": Distance(-5.0), "learnt": Distance(5.0 if "value" in broken else -5.0)}
    candidates = {"data": anything, "uniform": anything, "model": Outward() if "candidates" in broken else anything}

    def parts(swap: Swap) -> Parts:
        return Parts(dynamics[swap.dynamics], value[swap.value], candidates[swap.candidates])

    return [climb_swapped(swap, parts(swap), model, LINE, SETTINGS) for swap in SHORT_SWAPS]


@pytest.mark.parametrize("part", ["dynamics", "value", "candidates"])
def test_the_broken_part_is_named(part: str) -> None:
    verdict = judge_rungs(climb(part))
    assert verdict.weakest == part
    assert verdict.sentence.startswith("The weakest part is")
    gain = {each.part: each for each in verdict.gains if each.beside == "learnt"}
    assert gain[cast("Any", part)].is_sure
    assert all(not each.is_sure for name, each in gain.items() if name != part)


def test_where_nothing_is_broken_nothing_is_named() -> None:
    verdict = judge_rungs(climb())
    assert verdict.weakest is None
    assert verdict.sentence.startswith("No part is surely the weakest")


def test_true_parts_reach_the_middle_of_the_line() -> None:
    found = {rung.swap: rung for rung in climb("dynamics", "candidates")}
    best, worst = found[Swap("simulator", "true", "data")], found[LEARNT]
    assert min(best.returns) > max(worst.returns)


def rungs(returns: dict[Swap, float]) -> list[Rung]:
    """Rungs of four starts with these means, all else -10."""
    spread = np.array([-0.1, 0.0, 0.0, 0.1])
    return [Rung.of(swap.name, swap, returns.get(swap, -10.0) + spread, None, 0.0) for swap in ALL_SWAPS]


def test_parts_that_fail_together_are_told_apart_beside_true_ones() -> None:
    """Nothing helps alone; with all others true, a learnt value costs more than learnt candidates."""
    best = Swap("simulator", "true", "data")
    found = {
        best: 0.0,
        replace(best, value="learnt"): -8.0,
        replace(best, candidates="model"): -3.0,
        replace(best, dynamics="model"): 0.0,
    }
    verdict = judge_rungs(rungs(found))
    assert verdict.weakest == "value"
    assert "once the other parts are true" in verdict.sentence


def test_of_the_candidates_the_better_ones_count() -> None:
    verdict = judge_rungs(rungs({Swap(candidates="uniform"): 5.0, Swap(candidates="data"): -9.0}))
    assert verdict.weakest == "candidates"
    assert verdict.gains[2].replaced_by == "uniform"
    assert verdict.gains[2].difference == pytest.approx(15.0)


def test_a_ladder_is_kept_as_json() -> None:
    made = rungs({})
    found = Ladder("a.ckpt", LINE, 0, "V", "distance", SETTINGS, made, made[:1], judge_rungs(made))
    read = json.loads(found.to_json())
    assert read["rungs"][0]["swap"] == {"dynamics": "model", "value": "learnt", "candidates": "model"}
    assert read["verdict"]["weakest"] is None
    assert read["settings"]["horizon"] == 2
    assert all(swap in ALL_SWAPS for swap in SHORT_SWAPS)
