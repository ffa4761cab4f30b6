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

from seqrl.critics.iql import IqlCritic
from seqrl.data.episodes import EpisodeStore
from seqrl.decoding.noise import Noise
from seqrl.evaluation.candidate_ranking import MOST_STATES, Ranking, pick_states, rank_candidates
from seqrl.evaluation.diagnosis import _own_search, build_search, climb_swapped
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
from seqrl.evaluation.search_parts import ModelDynamics, SimulatorDynamics, UniformCandidates
from seqrl.evaluation.simulators import simulator_of
from seqrl.evaluation.swapped_search import Candidates, Dynamics, Outcome, Parts, SwappedSearch, Valuation
from seqrl.evaluation.transition_errors import TransitionErrors, find_deviations, measure_errors
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import SCORE
from seqrl.types import Conditioning

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


class Ending(Dynamics):
    """Counts transitions; the second one ends the episode. There are no rewards."""

    def advance(self, observations: Tensor, actions: Tensor) -> Outcome:
        following = observations + 1
        return Outcome(torch.zeros(len(following)), following, following[:, 0] > 1.5)


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

    return [climb_swapped(swap, parts(swap), model, LINE, SETTINGS)[0] for swap in SHORT_SWAPS]


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
    ranking = Ranking(4, 8, 0.5, [0.4, 0.6], 2.0, None, 0.1, None, 1.0, None)
    errors = TransitionErrors(64, 0.1, 0.9, 1.0, 0.2, None, 0.5)
    found = Ladder("a.ckpt", LINE, 0, "V", "distance", SETTINGS, made, made[:1], judge_rungs(made), ranking, errors)
    read = json.loads(found.to_json())
    assert read["rungs"][0]["swap"] == {"dynamics": "model", "value": "learnt", "candidates": "model"}
    assert read["verdict"]["weakest"] is None
    assert read["settings"]["horizon"] == 2
    assert (read["ranking"]["correlation"], read["ranking"]["promised_ci95"]) == (0.5, None)
    assert (read["errors"]["percentile_99"], read["errors"]["mean_of_choices"]) == (0.9, None)
    assert all(swap in ALL_SWAPS for swap in SHORT_SWAPS)


class Told(SwappedSearch):
    """A search that promises numbers that are given."""

    def __init__(self, promised: list[list[float]]) -> None:
        self.promised = torch.tensor(promised)

    def rate_first_actions(self, observations: Tensor, action_size: int, noise: Noise) -> Tensor:
        return self.promised


def test_a_ranking_counts_ranks_and_what_the_choice_is_worth() -> None:
    promised = Told([[1.0, 2.0, 6.0], [9.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
    worth = Told([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [4.0, 0.0, -1.0]])
    found = rank_candidates(promised, worth, [np.zeros((2, 1)), np.zeros((1, 1))], 1, seed=0)
    assert (found.states, found.candidates) == (3, 3)
    assert found.correlation == pytest.approx((1 - 1 + 0) / 3)
    assert found.promised == pytest.approx((3 + 5 + 0) / 3)
    assert found.kept == pytest.approx((1 - 1 + 3) / 3)  # of equal promises the first is chosen
    assert found.best == pytest.approx((1 + 1 + 3) / 3)
    assert "3 first actions in 3 states" in found.sentence


class Leading(Told):
    """A search whose first transitions lead where it is told, with as many candidates as that has columns."""

    def __init__(self, promised: list[list[float]], reached: list[Any], over: list[list[bool]]) -> None:
        super().__init__(promised)
        self.reached, self.over = torch.tensor(reached), torch.tensor(over)

    def try_first_actions(self, observations: Tensor, noise: Noise) -> Outcome:
        return Outcome(torch.zeros_like(self.promised), self.reached, self.over)


def test_errors_of_transitions_are_counted_in_deviations_without_those_that_end() -> None:
    """Two states, two candidates; two of the four end the episode, one of them in imagination. Errors by hand:
    sqrt((0.5^2 + 0) / 2), and of the second state sqrt((3^2 + 4^2) / 2), its choice; that of the first is left out."""
    here = [np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]])]
    stays, ends = [[False, True], [False, False]], [[False, False], [False, True]]
    reached = [[[1.0, 0.0], [0.0, 0.0]], [[6.0, 2.0], [9.0, 9.0]]]
    really = [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    promised = [[0.0, 1.0], [2.0, 1.0]]
    found = measure_errors(
        Leading(promised, reached, stays), Leading(promised, really, ends), here, np.array([2.0, 0.5]), 1, seed=0
    )
    small, large = 0.125**0.5, 12.5**0.5
    assert found == TransitionErrors(
        2,
        pytest.approx((small + large) / 2),
        pytest.approx(small + 0.99 * (large - small)),
        pytest.approx(large),
        pytest.approx((small + large) / 2),
        pytest.approx(large),
        pytest.approx(0.125**0.5 / 2),
    )
    assert "Of 2 first transitions" in found.sentence
    every = [[True, True], [True, True]]
    assert (
        measure_errors(Leading(promised, reached, stays), Leading(promised, really, every), here, np.ones(2), 1, seed=0)
        is None
    )


def test_a_mirrored_model_errs_by_twice_what_an_action_does() -> None:
    model = line_model()
    true = SimulatorDynamics(simulator_of(LINE), model.layout)
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))
    states = [np.array([[0.6], [0.9]]), np.array([[-0.8]])]

    def search(dynamics: Dynamics) -> SwappedSearch:
        return build_search(Parts(dynamics, Distance(-5.0), anything), model, replace(SETTINGS, horizon=1))

    right = measure_errors(search(true), search(true), states, np.array([0.5]), 1, seed=0)
    wrong = measure_errors(search(Mirrored(true)), search(true), states, np.array([0.5]), 1, seed=0)
    assert right is not None
    assert wrong is not None
    assert (right.mean, right.largest, wrong.transitions) == (0.0, 0.0, 3 * 8)
    assert wrong.mean == pytest.approx(2 * wrong.mean_of_no_change, rel=1e-5)
    assert 0 < wrong.mean_of_no_change < 0.1 / 0.5
    assert wrong.mean_of_choices is not None
    assert wrong.mean_of_choices > wrong.mean  # it takes the largest actions of the wrong sign


def test_deviations_of_the_data_are_units_even_where_nothing_changes() -> None:
    observations = np.array([[0.0, 3.0], [4.0, 3.0]], np.float32)
    store = EpisodeStore.from_episodes(
        [{"observations": observations, "actions": np.zeros((2, 1)), "rewards": np.zeros(2), "terminated": False}]
    )
    assert find_deviations(store).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("follows", [False, True])
def test_a_mirrored_model_orders_the_other_way_round(*, follows: bool) -> None:
    model = line_model()
    true = SimulatorDynamics(simulator_of(LINE), model.layout)
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))

    def search(dynamics: Dynamics) -> SwappedSearch:
        return build_search(Parts(dynamics, Distance(-5.0), anything), model, SETTINGS, anything if follows else None)

    states = [np.array([[0.6], [0.9]]), np.array([[-0.8]])]
    same = rank_candidates(search(true), search(true), states, 1, seed=0)
    assert same.correlation == pytest.approx(1.0)
    assert same.promised == same.kept == same.best > 0
    other = rank_candidates(search(Mirrored(true)), search(true), states, 1, seed=0)
    assert other.correlation == pytest.approx(-1.0)
    assert other.kept < 0 < other.promised
    assert other.best == same.best


def test_first_actions_are_rated_as_the_search_itself_would_with_one_look() -> None:
    """Where nothing follows the first action, the best promise is the value of the plan."""
    model = line_model()
    true = SimulatorDynamics(simulator_of(LINE), model.layout)
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))
    search = build_search(Parts(true, Distance(-5.0), anything), model, replace(SETTINGS, horizon=1))
    rows, noise = torch.tensor([[0.7], [-0.6]]), Noise.of(0, torch.arange(2), 0)
    rated = search.rate_first_actions(rows, 1, noise)
    past = rows.new_zeros(2, 0, 4)
    present = torch.cat([rows, rows.new_zeros(2, 3)], 1)
    history = model.history(past, present, Conditioning(None))
    likelihood = SCORE.build({"name": "likelihood"}, discount=0.9)
    torch.testing.assert_close(rated.amax(1), search.plan(model, history, likelihood, noise).value)
    assert rated.shape == (2, 8)


@pytest.mark.parametrize("follows", [False, True])
def test_every_state_that_a_plan_comes_to_takes_its_cost_off(*, follows: bool) -> None:
    model = line_model()
    true = SimulatorDynamics(simulator_of(LINE), model.layout)
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))
    rows, noise = torch.tensor([[0.7], [-0.6]]), Noise.of(0, torch.arange(2), 0)

    def rate(horizon: int, find_cost: Any) -> Tensor:
        search = build_search(
            Parts(true, Distance(-5.0), anything),
            model,
            replace(SETTINGS, horizon=horizon),
            anything if follows else None,
        )
        search.find_cost = find_cost
        return search.rate_first_actions(rows, 1, noise)

    free = rate(3, None)
    torch.testing.assert_close(rate(3, lambda states: torch.full(states.shape[:-1], 0.5)), free - 3 * 0.5)
    torch.testing.assert_close(rate(1, lambda states: states.abs()[..., 0]), rate(1, None) * 6 / 5)


def test_what_follows_an_end_takes_nothing_off() -> None:
    model = line_model()
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))
    search = build_search(Parts(Ending(), Distance(0.0), anything), model, replace(SETTINGS, horizon=4))
    search.find_cost = lambda states: torch.ones(states.shape[:-1])
    rated = search.rate_first_actions(torch.zeros(1, 1), 1, Noise.of(0, torch.arange(1), 0))
    assert rated.tolist() == [[-1.0] * 8], "the second transition ends the episode"


def test_a_cost_of_leaving_the_data_is_that_of_the_planner() -> None:
    """In widths of the range of the data, [-2, 2]."""
    layout = Layout.from_config({"fields": {**FIELDS, "difference": {}}, "discount": 0.9}, 1, 1)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4}
    model = TokenModel(layout, {"name": "uniform", "num_bins": 5}, backbone, context=4)
    model.tokenizer.fit(torch.tensor([[-2.0] * 5, [2.0] * 5]))
    anything = UniformCandidates(np.array([-1.0]), np.array([1.0]))
    parts = Parts(ModelDynamics(model), Distance(-5.0), anything)
    settings = replace(SETTINGS, outside_cost=8.0, search="rollouts", actor_noise=0.3)
    search = build_search(parts, model, settings)
    assert search.find_cost is not None
    assert search.find_cost(torch.tensor([[[-3.0], [0.0], [2.5]]])).tolist() == [[2.0, 0.0, 1.0]]
    assert build_search(parts, model, SETTINGS).find_cost is None
    true = replace(parts, dynamics=SimulatorDynamics(simulator_of(LINE), layout))
    assert build_search(true, model, settings).find_cost is None, "a simulator is right everywhere"
    assert _own_search(IqlCritic(1, 1, 0.9), settings)[0]["outside_cost"] == 8.0


def test_states_are_spread_over_the_steps_that_an_episode_had() -> None:
    observations = np.arange(2 * 101).reshape(2, 101, 1)
    long, short = pick_states(observations, np.array([100, 5]), stride=2)
    assert len(long) == MOST_STATES
    assert (long[0, 0], long[-1, 0]) == (0, 98)
    assert (np.diff(long[:, 0]) % 2 == 0).all()
    assert short[:, 0].tolist() == [101, 103, 105]
