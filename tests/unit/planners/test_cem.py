"""The cross-entropy method finds what trying everything finds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners.cem import CemPlanner
from seqrl.scores import Score, Trace
from seqrl.scores.critic import CriticScore
from seqrl.scores.likelihood import LikelihoodScore
from seqrl.scores.reward import RewardScore
from seqrl.testing import samples

NOISE = Noise.of(3, torch.arange(2), 0)


class Nearness(Score):
    """Largest where the actions of the plan are (0.3, -0.5), (-0.2, 0.1), ...; whatever follows them."""

    wants_transitions = True
    wanted = torch.tensor([[0.3, -0.5], [-0.2, 0.1], [0.7, 0.7]])

    def check(self, layout: Layout) -> None:
        layout.field("action")

    def __call__(self, trace: Trace) -> Tensor:
        assert trace.actions is not None
        gaps = trace.actions - self.wanted[: trace.actions.shape[-2]].to(trace.actions)
        return -gaps.square().sum((-1, -2))


def centres(model: TokenModel) -> list[Tensor]:
    action = model.layout.field("action")
    return [model.tokenizer.bin_centres(action.start + dim) for dim in range(action.size)]


def test_sequences_of_actions_come_as_near_as_bins_allow() -> None:
    model = samples.model(samples.layout())
    history, score = samples.history(model, [0, 2]), Nearness()
    with torch.no_grad():
        plan = CemPlanner(horizon=3, candidates=128, elites=12, iterations=8).plan(model, history, score, NOISE)
    grids = centres(model)
    nearest = torch.stack(
        [
            torch.stack([grid[(grid - number).abs().argmin()] for grid, number in zip(grids, step, strict=True)])
            for step in Nearness.wanted
        ]
    )
    torch.testing.assert_close(plan.actions, nearest.expand(2, -1, -1), atol=1e-5, rtol=0)
    assert torch.equal(plan.tokens[:, 0, :3], history.tokens[:, -3:])


def all_plans(model: TokenModel, history: Any, score: Score) -> Tensor:
    """(B,) the largest score of all actions of one transition, each imagined greedily by whole passes."""
    known, action, steps = model.places("action").start, model.places("action"), model.tokens_per_step
    found = []
    for pair in itertools.product(range(model.tokenizer.vocab_size), repeat=action.stop - action.start):
        tokens = torch.cat([history.tokens[:, -known:], torch.tensor(pair).expand(len(history), -1)], 1)
        estimates = {}
        for place in range(action.stop, steps):
            padded = torch.nn.functional.pad(tokens, (0, steps - tokens.shape[1]))
            logits = model(padded[:, None])[:, place - 1]
            name = model.token_fields[place]
            beliefs = logits.softmax(-1)[..., :-1]
            estimates[name] = beliefs @ model.tokenizer.bin_centres(place).to(beliefs)
            tokens = torch.cat([tokens, logits.argmax(-1)[:, None]], 1)
        rewards, values = estimates["reward"], estimates["value"]
        nothing = torch.zeros(len(history), 1, dtype=rewards.dtype)
        found.append(score(Trace(nothing, nothing, rewards[:, None], values[:, None])))
    return torch.stack(found).amax(0)


def test_the_best_action_of_all_is_found_by_imagined_reward_and_value() -> None:
    model, score = samples.model(samples.layout()), RewardScore(0.9)
    history = samples.history(model, [0, 0])
    with torch.no_grad():
        best = all_plans(model, history, score)
        search = CemPlanner(horizon=1, candidates=256, elites=32, iterations=3)
        plan = search.plan(model, history, score, NOISE)
    torch.testing.assert_close(plan.value, best, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_the_critics_best_action_is_found_without_gradients(kind: str) -> None:
    critic = samples.critic()
    layout = samples.layout()
    model: Any = samples.model(layout) if kind == "tokens" else samples.vector_model(layout)
    if kind == "tokens":
        history: Any = samples.history(model, [0, 0])
    else:
        history = model.history(torch.zeros(2, 0, layout.size), torch.randn(2, layout.size).double())
    score = CriticScore(0.9, critic)
    search = CemPlanner(horizon=1, candidates=256, elites=24, iterations=6, critic=critic)
    search.check(model, score)
    with torch.no_grad():
        plan = search.plan(model, history, score, NOISE)
        low, high = model.tokenizer.action_range(layout)
        if kind == "tokens":
            axes, states = centres(model), model.tokenizer.decode(plan.tokens)[:, 0, layout.field("observation").slice]
        else:
            axes, states = [torch.linspace(float(a), float(b), 201) for a, b in zip(low, high, strict=True)], None
        grid = torch.cartesian_prod(*axes)
        seen = history.observation if states is None else states
        every = critic.q(seen[:, None].expand(-1, len(grid), -1), grid.expand(2, -1, -1))
    assert (plan.value >= every.amax(1) - 1e-3).all()
    assert ((plan.actions >= low - 1e-6) & (plan.actions <= high + 1e-6)).all()


def test_more_rounds_never_give_a_worse_plan() -> None:
    model, score = samples.model(samples.layout()), RewardScore(0.9)
    history = samples.history(model, [1, 3])
    with torch.no_grad():
        values = [
            CemPlanner(horizon=2, candidates=16, elites=4, iterations=n).plan(model, history, score, NOISE).value
            for n in (1, 2, 4)
        ]
    assert (values[1] >= values[0]).all()
    assert (values[2] >= values[1]).all()


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        ({"elites": 65}, lambda: samples.model(samples.layout()), "elites=65 is above planner.candidates=64"),
        ({}, lambda: samples.model(samples.layout(with_return=True)), "cannot imagine a desired return"),
        (
            {},
            lambda: samples.vector_model(samples.layout()),
            r"planner.horizon=1 and a run that was trained with critic",
        ),
        ({"horizon": 1}, lambda: samples.vector_model(samples.layout()), "imagines nothing"),
    ],
)
def test_what_it_cannot_search_is_refused(options: dict[str, Any], model: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CemPlanner(**options).check(model(), LikelihoodScore())


def test_discrete_actions_are_refused() -> None:
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}}}, 2, 1, {"action": 3})
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    model = TokenModel(layout, {"name": "uniform", "num_bins": 8}, backbone, context=3)
    with pytest.raises(ConfigError, match="these actions are discrete; use planner=beam"):
        CemPlanner().check(model, LikelihoodScore())
