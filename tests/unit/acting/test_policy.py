"""Policies: history, queue of planned actions, and rows that know nothing of each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners import Planner
from seqrl.registry import CONDITION
from seqrl.scores import Score
from seqrl.types import Plan, TokenHistory

LayoutConfig = Callable[..., dict[str, Any]]

GOAL = {"dims": [0, 1], "dropout": 0.1}
SAMPLE = {"name": "sample", "temperature": 1.0}
BEAM = {"name": "beam", "beam_width": 3, "n_expand": 2, "horizon": 3, "context": 3}


def make_model(config: dict[str, Any], tokenizer: str = "uniform") -> TokenModel:
    """Random weights, large enough that what the model sees decides what it does; float64."""
    torch.manual_seed(0)
    layout = Layout.from_config(config, 3, 2)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 8}
    model = TokenModel(layout, {"name": tokenizer, "num_bins": 6}, backbone, context=4)
    model.tokenizer.fit(torch.from_numpy(np.random.default_rng(0).normal(size=(50, layout.size)).astype(np.float32)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double()


@pytest.fixture
def model(plain_layout_config: LayoutConfig) -> TokenModel:
    return make_model(plain_layout_config())


@pytest.fixture
def goal_model(plain_layout_config: LayoutConfig) -> TokenModel:
    return make_model(plain_layout_config(goal=GOAL))


class _Recorder(Planner):
    """Plans five steps of actions that tell their row, time and step, and keeps what it was asked."""

    horizon = 5

    def __init__(self) -> None:
        self.histories: list[TokenHistory] = []
        self.noises: list[Noise] = []

    def check(self, model: TokenModel, score: Score) -> None:
        """Fits everything."""

    def plan(self, model: TokenModel, history: TokenHistory, score: Score, noise: Noise) -> Plan:
        self.histories.append(history)
        self.noises.append(noise)
        rows = torch.arange(1.0, len(history.tokens) + 1)[:, None]
        values = 100 * len(self.histories) + 10 * rows + torch.arange(5.0)  # (B, H)
        return Plan(values[..., None].expand(-1, -1, 2), torch.zeros(len(rows)))


def recording(model: TokenModel, condition: dict[str, Any] | None = None, **options: Any) -> tuple[Policy, _Recorder]:
    parts, planner = Strategy.build(model.layout, planner=SAMPLE, condition=condition), _Recorder()
    return Policy(model, replace(parts, planner=planner), **options), planner


def drive(
    policy: Policy, observations: np.ndarray, rewards: np.ndarray, keys: np.ndarray, goals: np.ndarray | None = None
) -> np.ndarray:
    """(B, T, A) actions for given observations (B, T, O) and rewards (B, T)."""
    policy.reset(len(keys), environments=keys, goals=goals)
    taken = []
    for step in range(observations.shape[1]):
        taken.append(policy.act(observations[:, step], rewards[:, step - 1] if step else None))
    return np.stack(taken, axis=1)


@pytest.fixture
def experience() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"observations": rng.normal(size=(4, 6, 3)), "rewards": rng.normal(size=(4, 6)), "keys": np.arange(4) * 7}


@pytest.mark.parametrize("planner", [SAMPLE, BEAM], ids=["sample", "beam"])
@pytest.mark.parametrize("tokenizer", ["uniform", "quantile"])
def test_an_environment_gets_the_same_actions_alone_and_in_a_batch(
    plain_layout_config: LayoutConfig, experience: dict[str, np.ndarray], planner: dict[str, Any], tokenizer: str
) -> None:
    model = make_model(plain_layout_config(goal=GOAL), tokenizer)
    goals = np.random.default_rng(2).normal(size=(4, 2))
    condition = {"name": "goal"}
    policy = Policy(model, planner=planner, condition=condition, seed=3)
    whole = drive(policy, **experience, goals=goals)
    assert whole.shape == (4, 6, 2)
    assert whole.dtype == np.float32
    assert len(np.unique(whole.reshape(4, -1), axis=0)) > 1  # they do differ
    order = np.array([2, 0])
    part = drive(policy, **{name: array[order] for name, array in experience.items()}, goals=goals[order])
    np.testing.assert_array_equal(part, whole[order])


@pytest.mark.parametrize("planner", [SAMPLE, BEAM], ids=["sample", "beam"])
def test_random_choices_follow_seed_key_and_time_alone(
    model: TokenModel, experience: dict[str, np.ndarray], planner: dict[str, Any]
) -> None:
    same = {name: np.repeat(array[:1], 4, axis=0) for name, array in experience.items()}
    actions = drive(Policy(model, planner=planner), **same)
    assert len(np.unique(actions.reshape(4, -1), axis=0)) == 1  # equal keys, equal draws
    again = drive(Policy(model, planner=planner), **same)
    np.testing.assert_array_equal(actions, again)
    other = drive(Policy(model, planner=planner), **{**same, "keys": np.arange(4)})
    assert len(np.unique(other.reshape(4, -1), axis=0)) > 1
    assert not np.array_equal(actions, drive(Policy(model, planner=planner, seed=1), **same))


def test_noise_is_addressed_by_seed_key_and_time(model: TokenModel) -> None:
    policy, planner = recording(model, seed=5)
    policy.reset(3, environments=np.array([4, 9, 4]))
    policy.act(np.zeros((3, 3)))
    policy.act(np.zeros((3, 3)), np.zeros(3), np.array([False, True, True]))
    assert planner.noises[0].keys.equal(Noise.of(5, torch.tensor([4, 9, 4]), 0).keys)
    assert planner.noises[1].keys.equal(Noise.of(5, torch.tensor([9, 4]), 1).keys)


def test_the_history_holds_what_was_seen_done_and_earned(model: TokenModel) -> None:
    policy, planner = recording(model)
    policy.reset(2)
    observations, rewards = (
        np.random.default_rng(0).normal(size=(6, 2, 3)),
        np.random.default_rng(1).normal(size=(6, 2)),
    )
    actions = [policy.act(observations[t], rewards[t - 1] if t else None) for t in range(6)]
    past = [
        # The return-to-go of the past is a placeholder beyond everything: "all went well".
        model.tokenizer.encode(
            torch.from_numpy(np.hstack([observations[t], actions[t], rewards[t][:, None], [[1e6]] * 2]))
        )
        for t in range(5)
    ]
    assert past[0][:, -1].tolist() == [5, 5]
    for t, history in enumerate(planner.histories):
        kept = past[max(0, t - 3) : t]  # three transitions, and the present one makes the trained window
        present = model.tokenizer.encode(torch.from_numpy(np.hstack([observations[t], np.zeros((2, 4))])))[:, :3]
        assert history.tokens.equal(torch.cat([*kept, present], dim=1))
        assert history.lengths.tolist() == [len(kept)] * 2
        assert history.goal is None


def test_plan_every_carries_out_the_planned_actions_in_order(model: TokenModel) -> None:
    policy, planner = recording(model, plan_every=3)
    policy.reset(2)
    taken = [policy.act(np.zeros((2, 3)), np.zeros(2))[:, 0].tolist() for _ in range(7)]
    assert taken == [[110, 120], [111, 121], [112, 122], [210, 220], [211, 221], [212, 222], [310, 320]]
    assert len(planner.histories) == 3
    assert planner.histories[1].lengths.tolist() == [3, 3]  # what happened in between is not forgotten


def test_a_whole_plan_may_be_carried_out(model: TokenModel) -> None:
    policy, _ = recording(model, plan_every=5)
    policy.reset(1)
    taken = [float(policy.act(np.zeros((1, 3)), np.zeros(1))[0, 0]) for _ in range(6)]
    assert taken == [110, 111, 112, 113, 114, 210]


def test_reset_forgets_history_and_queue(model: TokenModel) -> None:
    policy, planner = recording(model, plan_every=3)
    for _ in range(2):
        policy.reset(1)
        policy.act(np.zeros((1, 3)))
        assert planner.histories[-1].lengths.tolist() == [0]
    assert len(planner.histories) == 2


def test_where_all_have_ended_nothing_is_planned(model: TokenModel) -> None:
    policy = Policy(model, planner=SAMPLE)
    policy.reset(2)
    actions = policy.act(np.zeros((2, 3)), active=np.zeros(2, bool))
    np.testing.assert_array_equal(actions, np.zeros((2, 2)))
    assert policy.plan is None


def test_inactive_rows_get_zeros_and_cost_nothing(model: TokenModel) -> None:
    policy, planner = recording(model)
    policy.reset(3)
    policy.act(np.zeros((3, 3)))
    actions = policy.act(np.zeros((3, 3)), np.zeros(3), np.array([True, False, True]))
    assert actions[:, 0].tolist() == [210, 0, 220]
    assert len(planner.histories[1].tokens) == 2


def test_rows_that_end_while_a_plan_is_carried_out_get_zeros(model: TokenModel) -> None:
    policy, _ = recording(model, plan_every=3)
    policy.reset(2)
    policy.act(np.zeros((2, 3)))
    actions = policy.act(np.zeros((2, 3)), np.zeros(2), np.array([False, True]))
    assert actions.tolist() == [[0, 0], [121, 121]]


def test_rows_that_end_do_not_change_the_others(model: TokenModel, experience: dict[str, np.ndarray]) -> None:
    policy = Policy(model, planner=BEAM, seed=1)
    whole = drive(policy, **experience)
    policy.reset(4, environments=experience["keys"])
    for step in range(6):
        active = np.array([True, step < 2, True, step < 4])
        observations, rewards = experience["observations"][:, step].copy(), experience["rewards"][:, step - 1].copy()
        observations[~active], rewards[~active] = 50.0, -50.0
        actions = policy.act(observations, rewards if step else None, active)
        np.testing.assert_array_equal(actions[active], whole[active, step])
        assert (actions[~active] == 0).all()


def test_goals_reach_the_planner_in_the_bins_of_their_dimensions(goal_model: TokenModel) -> None:
    goals = np.array([[0.3, -1.0], [1.2, 0.4]])
    values = torch.zeros(2, 7)
    values[:, :2] = torch.from_numpy(goals)
    wanted = goal_model.tokenizer.encode(values)[:, :2]
    policy, planner = recording(goal_model, condition={"name": "goal"})
    policy.reset(2, goals=goals)
    policy.act(np.zeros((2, 3)), active=np.array([False, True]))
    assert planner.histories[0].goal is not None
    assert planner.histories[0].goal.equal(wanted[1:])


def test_without_a_condition_the_goal_is_null(goal_model: TokenModel) -> None:
    policy, planner = recording(goal_model)
    policy.reset(2, goals=np.ones((2, 2)))  # not looked at
    assert policy.goals is None
    policy.act(np.zeros((2, 3)))
    assert planner.histories[0].goal is not None
    assert planner.histories[0].goal.tolist() == [[6, 6]] * 2


@pytest.mark.parametrize("goals", [None, np.zeros((2, 3)), np.zeros((1, 2)), np.zeros(2)])
def test_a_goal_strategy_needs_fitting_goals(goal_model: TokenModel, goals: np.ndarray | None) -> None:
    policy = Policy(goal_model, planner=SAMPLE, condition={"name": "goal"})
    given = "none given" if goals is None else r"shape \(.*\) given"
    with pytest.raises(ConfigError, match=rf"condition 'goal' needs goals of shape \(2, 2\); {given}"):
        policy.reset(2, goals=goals)


def test_strategies_that_the_layout_cannot_carry_are_refused(
    model: TokenModel, plain_layout_config: LayoutConfig
) -> None:
    with pytest.raises(
        ConfigError, match=r"layout has no goal, which condition 'goal' needs; train with 'layout\.goal="
    ):
        Policy(model, planner=SAMPLE, condition={"name": "goal"})
    without = make_model(plain_layout_config(fields={"observation": {}, "action": {}, "reward": {}}))
    with pytest.raises(ConfigError, match=r"no 'value' field .* train with '\+layout\.fields\.value=\{hidden: true\}'"):
        Policy(without, planner=BEAM, score={"name": "reward"})


def test_a_policy_that_was_not_reset_says_so(model: TokenModel) -> None:
    with pytest.raises(ConfigError, match=r"the policy was not reset; call reset\(2\) before the first act"):
        Policy(model, planner=SAMPLE).act(np.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (3,), (2, 1, 3)])
def test_observations_of_another_shape_are_refused(model: TokenModel, shape: tuple[int, ...]) -> None:
    policy = Policy(model, planner=SAMPLE)
    policy.reset(2)
    with pytest.raises(ConfigError, match=rf"observations have shape \({shape[0]},.*the policy was reset for \(2, 3\)"):
        policy.act(np.zeros(shape))


@pytest.mark.parametrize(
    ("planner", "plan_every", "horizon"), [(BEAM, 0, 3), (BEAM, -1, 3), (BEAM, 4, 3), (SAMPLE, 2, 1)]
)
def test_more_steps_than_a_plan_has_are_refused(
    model: TokenModel, planner: dict[str, Any], plan_every: int, horizon: int
) -> None:
    with pytest.raises(ConfigError, match=rf"plan_every={plan_every} is outside \[1, {horizon}\], the steps of this"):
        Policy(model, planner=planner, plan_every=plan_every)


@pytest.mark.parametrize("context", [1, 6])  # 5 is the default of a beam, which is cut
@pytest.mark.parametrize("planner", [SAMPLE, BEAM], ids=["sample", "beam"])
def test_a_context_beyond_the_trained_window_is_refused(
    model: TokenModel, planner: dict[str, Any], context: int
) -> None:
    with pytest.raises(ConfigError, match=rf"planner\.context={context} is outside \[2, 4\], the trained window"):
        Policy(model, planner={**planner, "context": context})


def test_the_model_is_put_into_eval_mode(model: TokenModel) -> None:
    Policy(model.train(), planner=SAMPLE)
    assert not model.training


def test_what_is_not_finite_or_of_another_shape_is_refused(model: TokenModel, goal_model: TokenModel) -> None:
    policy = Policy(model, planner={"name": "sample"})
    policy.reset(3)
    seen = np.zeros((3, model.layout.field("observation").size))
    seen[1, 0] = np.nan
    with pytest.raises(ConfigError, match=r"observations of environments \[1\] are not finite"):
        policy.act(seen)
    policy.act(seen, active=np.array([True, False, True]))  # what has ended is not looked at
    for changes in ({"rewards": np.zeros((3, 1))}, {"rewards": np.zeros(3), "active": np.ones(2, bool)}):
        with pytest.raises(ConfigError, match=r"the policy was reset for \(3,\)"):
            policy.act(np.zeros_like(seen), **changes)
    with pytest.raises(ConfigError, match="a goal is not finite"):
        Policy(goal_model, planner={"name": "sample"}, condition={"name": "goal"}).reset(1, goals=[[np.nan, 0.0]])
    with pytest.raises(ConfigError, match=r"condition\.target=nan is no number"):
        CONDITION.build({"name": "target_return", "target": math.nan})


def test_rewards_are_asked_for_where_the_layout_has_them(model: TokenModel) -> None:
    policy = Policy(model, planner={"name": "sample"})
    policy.reset(1)
    policy.act(np.zeros((1, 3)))
    with pytest.raises(ConfigError, match="give act\\(\\) what the previous actions earned"):
        policy.act(np.zeros((1, 3)))
