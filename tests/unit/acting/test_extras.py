"""Extras in decoding: what a policy is told of them, and what searches show to scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.conditions.context import ContextCondition
from seqrl.data.summary import DataSizes
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners.beam import BeamPlanner
from seqrl.planners.latent_beam import LatentBeamPlanner
from seqrl.planners.rollouts import RolloutsPlanner
from seqrl.planners.zero import ZeroPlanner
from seqrl.scores import Score, Trace
from seqrl.scores.limit import LimitScore
from seqrl.scores.sum import SumScore
from seqrl.scores.target import TargetScore
from seqrl.testing import samples

LAYOUT = samples.layout(extras=("price", "cost"))
GREEDY = {"name": "sample", "temperature": 0.0}


class Watcher(Score):
    """Keeps what it is shown."""

    wants_transitions = True
    wants_extras = ("price", "cost")

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def check(self, layout: Layout) -> None:
        layout.field("cost")

    def __call__(self, trace: Trace) -> torch.Tensor:
        self.traces.append(trace)
        return trace.log_probs.sum(-1)


def expected_costs(model: TokenModel, tokens: torch.Tensor) -> torch.Tensor:
    """(H, 2) of one plan of (H, K) tokens, by whole passes through the model."""
    flat = tokens.reshape(1, -1)
    padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % model.tokens_per_step))
    logits = model(padded.unflatten(1, (-1, model.tokens_per_step)))[0]
    cost, found = model.places("cost"), []
    for step in range(len(tokens)):
        for place in range(cost.start, cost.stop):
            beliefs = logits[step * model.tokens_per_step + place - 1].softmax(-1)[:-1]
            found.append(beliefs @ model.tokenizer.bin_centres(place).to(beliefs))
    return torch.stack(found).view(-1, 2)


@pytest.mark.parametrize("planner", ["beam", "rollouts"])
def test_searches_show_expected_outcomes_and_imagined_contexts(planner: str) -> None:
    model, score = samples.model(LAYOUT), Watcher()
    search: Any = (
        BeamPlanner(beam_width=3, horizon=3, context=None)
        if planner == "beam"
        else RolloutsPlanner(candidates=6, horizon=3)
    )
    search.check_score(score)
    search.check(model, score)
    history = samples.history(model, [0])
    known = model.places("action").start
    with torch.no_grad():
        plan = search.plan(model, history, score, Noise.of(0, torch.tensor([0]), 0))
        wanted = expected_costs(model, plan.tokens[0])
    assert (plan.tokens[0, 0, :known] == history.tokens[0, -known:]).all(), "the present context is a fact"
    torch.testing.assert_close(
        plan.transitions[0][:, LAYOUT.field("cost").slice], wanted, atol=1e-5, rtol=1e-5, check_dtype=False
    )
    decoded = model.tokenizer.decode(plan.tokens)[0]
    torch.testing.assert_close(
        plan.transitions[0][:, LAYOUT.field("price").slice], decoded[:, LAYOUT.field("price").slice]
    )
    last = score.traces[-1]
    best = int(last.log_probs[0].sum(-1).argmax())
    torch.testing.assert_close(last.extras["cost"][0, best], wanted, atol=1e-5, rtol=1e-5, check_dtype=False)
    assert last.extras["price"].shape == (1, last.log_probs.shape[1], 3, 2)
    assert not torch.equal(last.extras["price"][0, best, 1:], last.extras["price"][0, best, :-1])


def test_codes_show_outcomes_and_refuse_contexts() -> None:
    model, score = samples.code_model(samples.layout(extras=("cost",))), Watcher()
    score.wants_extras = ("cost",)
    search = LatentBeamPlanner(horizon=6, beam_width=4)
    search.check_score(score)
    with torch.no_grad():
        plan = search.plan(model, samples.history(model, [0]), score, Noise.of(0, torch.tensor([0]), 0))
    wanted = plan.transitions[0, :, model.layout.field("cost").slice]
    best = int(score.traces[-1].log_probs[0].sum(-1).argmax())
    torch.testing.assert_close(score.traces[-1].extras["cost"][0, best], wanted)
    with pytest.raises(ConfigError, match=r"a goal, a return or a context"):
        samples.code_model(LAYOUT)


def policy(model: Any = None, condition: dict[str, Any] | None = None, planner: dict[str, Any] = GREEDY) -> Policy:
    found = Policy(model or samples.model(LAYOUT), planner=planner, condition=condition)
    found.reset(2)
    return found


def told(step: int, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    return {"price": rng.normal(size=(2, 2)), "cost": rng.normal(size=(2, 2)), **changes}


def test_a_policy_sees_the_context_of_now_and_the_outcomes_of_before() -> None:
    model = samples.model(LAYOUT)
    acting, rng = policy(model), np.random.default_rng(9)
    seen = rng.normal(size=(3, 2, 3)).astype(np.float32)
    actions = [acting.act(seen[0], extras=told(0))]
    actions.append(acting.act(seen[1], np.array([0.5, -0.5]), extras=told(1)))
    present = torch.zeros(2, LAYOUT.size)
    past = torch.zeros(2, 1, LAYOUT.size)
    for rows, step in ((past[:, 0], 0), (present, 1)):
        rows[:, LAYOUT.field("observation").slice] = torch.from_numpy(seen[step])
        rows[:, LAYOUT.field("price").slice] = torch.from_numpy(told(step)["price"]).float()
    past[:, 0, LAYOUT.field("action").slice] = torch.from_numpy(actions[0])
    past[:, 0, LAYOUT.field("reward").start] = torch.tensor([0.5, -0.5])
    past[:, 0, LAYOUT.field("value").start] = 1e6
    past[:, 0, LAYOUT.field("cost").slice] = torch.from_numpy(told(1)["cost"]).float()
    wanted = acting.strategy.planner.plan(
        model, model.history(past, present, time=1), acting.strategy.score, Noise.of(0, torch.arange(2), 1)
    )
    np.testing.assert_array_equal(actions[1], wanted.actions[:, 0].float())
    other = policy(model)
    other.act(seen[0], extras=told(0))
    assert (other.act(seen[1], np.array([0.5, -0.5]), extras=told(2)) != actions[1]).any(), "extras matter"


def test_a_condition_tells_a_context_as_an_environment_would() -> None:
    model, seen = samples.model(LAYOUT), np.ones((2, 3), np.float32)
    by_hand = policy(model).act(seen, extras={"price": np.array([[1.5, -2.0]] * 2)})
    by_condition = policy(model, {"name": "context", "values": {"price": [1.5, -2.0]}}).act(seen)
    np.testing.assert_array_equal(by_condition, by_hand)


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({}, r"needs 'price', and nobody tells it.*condition=context"),
        ({"price": np.array([[1.0, np.nan], [0.0, 0.0]])}, "needs 'price', and nobody tells it"),
        ({"price": np.zeros((2, 3))}, r"'price' has shape \(2, 3\); \(2, 2\)"),
    ],
)
def test_contexts_that_nobody_tells_are_refused(extras: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy().act(np.zeros((2, 3)), extras=extras)
    policy(planner={"name": "zero"}).act(np.zeros((2, 3)))  # baselines look at none


def test_outcomes_are_needed_unless_they_are_hidden() -> None:
    acting, price = policy(), {"price": np.zeros((2, 2))}
    acting.act(np.zeros((2, 3)), extras=price)
    with pytest.raises(ConfigError, match=r"looks back at 'cost'.*layout.fields.cost.hidden=true"):
        acting.act(np.zeros((2, 3)), np.zeros(2), extras=price)
    fields = {"observation": {}, "action": {}, "cost": {"hidden": True}}
    hidden = samples.model(Layout.from_config({"fields": fields}, 3, 2, extras={"cost": 2}))
    without, with_some = policy(hidden), policy(hidden)
    for step in range(3):
        seen = np.full((2, 3), 0.1 * step)
        np.testing.assert_array_equal(
            without.act(seen, np.zeros(2)), with_some.act(seen, np.zeros(2), extras={"cost": np.full((2, 2), step)})
        )


def test_ended_environments_need_tell_nothing() -> None:
    extras = {"price": np.array([[1.0, 2.0], [np.nan, np.nan]])}
    actions = policy().act(np.zeros((2, 3)), active=np.array([True, False]), extras=extras)
    assert (actions[1] == 0).all()


def test_choices_are_checked_and_change_what_a_model_of_vectors_does() -> None:
    episodes = samples.store()
    rows = len(episodes)
    extras = {"task": np.arange(rows) % 3}
    store = type(episodes)(**{**{k: v for k, v in vars(episodes).items() if k != "identity"}, "extras": extras})
    store = store.described(num_task=3)
    config = {"fields": {"observation": {"loss_weight": 0}, "task": {"loss_weight": 0}, "action": {}}}
    layout = Layout.from_config(config, **store.sizes)
    from seqrl.models.vector import VectorModel

    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    model = VectorModel(layout, {"name": "continuous"}, backbone, context=3, longest_episode=9).eval()
    samples.scramble(model)
    assert DataSizes.of(store).lay_out  # what a checkpoint keeps
    seen = np.zeros((2, 3), np.float32)
    first, second = (policy(model).act(seen, extras={"task": np.full(2, task)}) for task in (0, 1))
    assert (first != second).any()
    with pytest.raises(ConfigError, match=r"'task' is one of 3 choices, 0 to 2"):
        policy(model).act(seen, extras={"task": np.full(2, 3)})
    with pytest.raises(ConfigError, match=r"condition.values.task=3 is no choice"):
        policy(model, {"name": "context", "values": {"task": 3.0}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"tells nothing.*\(the layout's contexts: price\)"),
        ({"cost": (1.0, 2.0)}, "values.cost is no extra that stands before the action.*it has price"),
        ({"price": 1.0}, "values.price has 1 numbers; give 2"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContextCondition(values=values).check(LAYOUT)


def costly(values: list[list[float]], over: list[bool] | None = None) -> Trace:
    cost = torch.tensor(values)[..., None]
    zeros = torch.zeros(cost.shape[:-1])
    states = zeros[..., None]
    ends = None if over is None else torch.tensor(over).expand(*zeros.shape[:-1], -1)
    return Trace(zeros, zeros, None, None, states, states, extras={"cost": cost}, over=ends)


def test_a_limit_of_a_cost_counts_by_step_or_in_total() -> None:
    plans = costly([[1.0, 3.0, 2.0], [0.0, 0.0, 5.5]])
    assert LimitScore(field="cost", high=1.5)(plans).tolist() == [-2.0, -4.0]
    assert LimitScore(field="cost", high=5.0, total=True, cost=2.0)(plans).tolist() == [-2.0, -1.0]
    assert LimitScore(field="cost", low=6.0, total=True)(plans).tolist() == [0.0, -0.5]
    assert TargetScore(field="cost", value=2.0)(plans).tolist() == pytest.approx([0.0, -1 / 6])
    ended = costly([[1.0, 3.0, 2.0]], [False, False, True, True])  # what stands after an imagined end costs nothing
    assert LimitScore(field="cost", high=3.5, total=True)(ended).tolist() == [-0.5]


def test_scores_of_extras_are_refused_where_nobody_has_or_shows_them() -> None:
    plain = samples.layout()
    for score in (
        LimitScore(field="cost", high=1.0),
        SumScore(0.9, terms={"safe": {"name": "limit", "field": "cost", "high": 1.0}}),
    ):
        assert score.wants_extras == ("cost",)
        with pytest.raises(ConfigError, match=r"no 'cost' field.*'\+layout.fields.cost=\{\}'"):
            score.check(plain)
        with pytest.raises(ConfigError, match=r"no 'cost' field"):
            BeamPlanner(context=None).check(samples.model(plain), score)
    with pytest.raises(ConfigError, match=r"score.field=reward is no field of dimensions"):
        LimitScore(field="reward", high=1.0).check(plain)
    with pytest.raises(ConfigError, match=r"score.dim=2 names a dimension of the cost, and it has 2"):
        LimitScore(field="cost", high=1.0, dim=2).check(LAYOUT)
    ZeroPlanner().check_score(LimitScore(field="cost", high=1.0))  # ranks nothing
