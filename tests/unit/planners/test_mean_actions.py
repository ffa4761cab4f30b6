"""Actions decoded to the mean of their distributions, against whole passes of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.building import SequenceModel
from seqrl.models.token import TokenModel
from seqrl.planners.sample import SamplePlanner
from seqrl.registry import SCORE
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract
from seqrl.testing.planners import CONTRACTS
from seqrl.types import TokenHistory

ROWS = 4


def next_logits(model: TokenModel, known: Tensor) -> Tensor:
    """(B, V) of the token that follows (B, n) known ones, without the termination token."""
    steps = model.tokens_per_step
    padded = torch.nn.functional.pad(known, (0, -known.shape[1] % steps + steps)).unflatten(1, (-1, steps))
    with torch.no_grad():
        return model(padded)[:, known.shape[1] - 1, :-1]


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("past", [0, 2])
def test_every_number_is_the_mean_given_those_before_it(temperature: float, past: int) -> None:
    model = samples.model(samples.layout())
    history = samples.history(model, [past] * ROWS)
    assert isinstance(history, TokenHistory)
    planner = SamplePlanner(action="mean", temperature=temperature)
    score = SCORE.build({"name": "likelihood"}, discount=0.9)
    planner.check(model, score)
    plan = planner.plan(model, history, score, Noise.of(0, torch.arange(ROWS), time=0))
    known, wanted = history.tokens, []
    for place in range(model.places("action").start, model.places("action").stop):
        centres = model.tokenizer.bin_centres(place).double()
        wanted.append((next_logits(model, known).double() / temperature).softmax(-1) @ centres)
        nearest = (wanted[-1][:, None] - centres).abs().argmin(-1)
        known = torch.cat([known, nearest[:, None]], 1)
    assert plan.actions[:, 0].numpy() == pytest.approx(torch.stack(wanted, -1).numpy(), abs=1e-5)
    assert plan.tokens is not None
    assert torch.equal(plan.tokens[:, 0, model.places("action")], known[:, history.tokens.shape[1] :])


def test_nothing_is_drawn() -> None:
    model = samples.model(samples.layout())
    history = samples.history(model, [1] * ROWS)
    score = SCORE.build({"name": "likelihood"}, discount=0.9)
    plans = [
        SamplePlanner(action="mean").plan(model, history, score, Noise.of(seed, torch.arange(ROWS), time=seed))
        for seed in (0, 1)
    ]
    assert torch.equal(plans[0].actions, plans[1].actions)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_the_contracts_of_planners_hold_with_means(contract: Contract) -> None:
    contract(Component("planner", "sample", {"action": "mean"}))


def small(tokenizer: dict[str, Any], categories: dict[str, int] | None = None) -> Any:
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}}, "discount": 0.9}, 3, 1, categories)
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4}
    return SequenceModel(layout, {"num_bins": 5, **tokenizer}, backbone, context=3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (small({"name": "uniform"}, {"action": 4}), {}, "takes means, and these actions are discrete"),
        (small({"name": "quantile"}, {"action": 2}), {}, "takes means, and these actions are discrete"),
        (small({"name": "kmeans", "num_clusters": 2}), {}, "tokenizer gives actions other tokens"),
        (small({"name": "uniform"}), {"temperature": 0}, "planner.temperature=0 leaves one bin"),
    ],
)
def test_means_of_what_is_no_number_are_refused(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy(model, planner={"name": "sample", "action": "mean", **options})
