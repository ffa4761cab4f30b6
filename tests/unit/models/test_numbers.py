"""Ordinal targets and embeddings that know numbers, against computations by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import norm

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.building import SequenceModel
from seqrl.models.token import TokenModel
from seqrl.objectives.next_token import NextTokenObjective
from seqrl.testing import samples
from seqrl.training.module import SequenceModule
from seqrl.types import TokenBatch

BINS = 6
BACKBONE = {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 8}
FIELDS = {"observation": {}, "action": {"loss_weight": 5.0}, "reward": {}}


def built(tokenizer: str = "uniform", categories: dict[str, int] | None = None, **options: Any) -> TokenModel:
    layout = Layout.from_config({"fields": FIELDS, "discount": 0.9}, 2, 1, categories)
    torch.manual_seed(1)
    model = SequenceModel(layout, {"name": tokenizer, "num_bins": BINS, **options}, BACKBONE, context=3)
    assert isinstance(model, TokenModel)
    samples.scramble(model)
    return model.eval()  # nothing is dropped


def batch(rows: int = 4) -> TokenBatch:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, BINS, (rows, 3, 4), generator=generator)
    tokens[0, 2] = BINS  # an end
    mask = torch.rand(rows, 3, 4, generator=generator) < 0.8
    return TokenBatch(tokens, mask)


@pytest.mark.parametrize("tokenizer", ["uniform", "quantile"])
@pytest.mark.parametrize("deviation", [0.3, 0.75, 2.0])
@pytest.mark.parametrize("categories", [{}, {"action": 4}])
def test_targets_are_gaussians_over_bins(tokenizer: str, deviation: float, categories: dict[str, int]) -> None:
    model, given = built(tokenizer, categories), batch()
    found = NextTokenObjective(ordinal=deviation)(model, given)
    logits = model(given.tokens).detach().double().log_softmax(-1)
    targets, mask = given.tokens.flatten(1)[:, 1:], given.mask.flatten(1)[:, 1:]
    total = 0.0
    for row in range(len(targets)):
        for number in range(targets.shape[1]):
            place, token = (number + 1) % 4, int(targets[row, number])
            if not mask[row, number]:
                continue
            if token == BINS or (place == 2 and categories):
                wanted = [float(each == token) for each in range(BINS + 1)]
            else:
                shares = [
                    norm.cdf((b + 0.5 - token) / deviation) - norm.cdf((b - 0.5 - token) / deviation)
                    for b in range(BINS)
                ]
                wanted = [share / sum(shares) for share in shares] + [0.0]
            loss = -sum(w * float(logits[row, number, b]) for b, w in enumerate(wanted))
            total += loss * (5.0 if place == 2 else 1.0)
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-5)
    assert float(found.count) == mask.sum()


def test_a_narrow_gaussian_is_a_bin_and_none_is_the_loss_of_before() -> None:
    model, given = built(), batch()
    plain = NextTokenObjective()(model, given).total.detach()
    assert float(NextTokenObjective(ordinal=0.01)(model, given).total.detach()) == pytest.approx(float(plain), rel=1e-5)
    assert float(NextTokenObjective(ordinal=None)(model, given).total.detach()) == float(plain)


@pytest.mark.parametrize("tokenizer", ["uniform", "quantile"])
@pytest.mark.parametrize("categories", [{}, {"observation": 3}])
def test_an_embedding_adds_waves_of_the_number(tokenizer: str, categories: dict[str, int]) -> None:
    layout = Layout.from_config({"fields": FIELDS, "discount": 0.9}, 1 if categories else 2, 1, categories)
    options = {"name": tokenizer, "num_bins": BINS, "embed_numbers": True}
    model = SequenceModel(layout, options, BACKBONE, context=3)
    samples.scramble(model)
    steps = layout.size
    tokens = torch.arange(2 * steps)[None] % (BINS + 1)
    found = model.embed(tokens, first=1).detach()
    assert model.numbers is not None
    for number, token in enumerate(tokens[0].tolist()):
        place = (number + 1) % steps
        wanted = model.embedding.weight[token + place * (BINS + 1)].detach().clone()
        if token < BINS and not (categories and place == 0):
            u = (2 * token + 1) / BINS - 1
            waves = [u] + [wave(math.pi * 2**k * u) for k in range(5) for wave in (math.sin, math.cos)]
            wanted += torch.tensor(waves) @ model.numbers.weight[place].detach()
        assert found[0, number].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_numbers_change_nothing_unless_they_are_asked_for() -> None:
    torch.manual_seed(1)
    plain = built()
    assert plain.numbers is None
    assert not [name for name, _ in plain.named_parameters() if "numbers" in name]
    knowing = built(embed_numbers=True)
    assert knowing.numbers is not None
    assert knowing.numbers.weight.grad is None
    NextTokenObjective()(knowing, batch()).total.backward()
    gradient = knowing.numbers.weight.grad
    assert gradient is not None
    assert all(bool(gradient[place].abs().sum() > 0) for place in range(4))


@pytest.mark.parametrize("tokenizer", [{"name": "kmeans", "num_clusters": 3, "num_bins": 4}])
def test_tokens_without_numbers_are_refused(tokenizer: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"objective\.ordinal=0\.75 is for tokens that stand for numbers"):
        SequenceModule.for_store(
            samples.store(), tokenizer=tokenizer, backbone=BACKBONE, objective={"ordinal": 0.75}, window=3
        )


@pytest.mark.parametrize("deviation", [0.0, -1.0, "x"])
def test_a_deviation_is_above_zero(deviation: Any) -> None:
    with pytest.raises(ConfigError, match=r"objective\.ordinal="):
        SequenceModule.for_store(samples.store(), backbone=BACKBONE, objective={"ordinal": deviation}, window=3)
