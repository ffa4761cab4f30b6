"""Fast dropout keeps the shares that it says, and repeats itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqrl.attention.dropout import STEPS, FastDropout, draw_kept, round_probability


@pytest.mark.parametrize("probability", [0.0, 1e-6, 0.1, 0.25, 0.5, 0.9, 0.99999, 1 - 1e-9])
def test_a_probability_moves_by_half_a_step_at_most_and_leaves_something(probability: float) -> None:
    rounded = round_probability(probability)
    assert rounded * STEPS == int(rounded * STEPS) < STEPS
    assert abs(rounded - probability) <= (0.5 if rounded < 1 - 1 / STEPS else 1) / STEPS


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
def test_features_are_kept_at_the_rate_that_is_asked_for_and_independently(probability: float) -> None:
    torch.manual_seed(0)
    kept = draw_kept(torch.empty(1000, 1003), probability)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    keep, deviation = 1 - probability, (probability * (1 - probability)) ** 0.5
    assert kept.mean().item() == pytest.approx(keep, abs=5 * deviation / kept.numel() ** 0.5)
    centred = ((kept - keep) / deviation).double()
    flat = centred.flatten()
    for shift in (1, 2, 3, 4, 8, 1003):  # within a draw, from one to the next, from row to row
        correlation = (flat[shift:] * flat[:-shift]).mean().item()
        assert abs(correlation) < 5 / len(flat) ** 0.5
    for place in range(4):  # all 16-bit pieces of a draw alike
        assert flat[place::4].mean().abs().item() < 5 * 2 / len(flat) ** 0.5


def test_the_mean_stays_what_it_was_and_gradients_follow_the_mask() -> None:
    torch.manual_seed(1)
    layer = FastDropout(0.1).train()
    x = torch.ones(400, 1000, requires_grad=True)
    out = layer(x)
    scale = 1 / (1 - round(0.1 * STEPS) / STEPS)
    assert out.detach().unique().tolist() == pytest.approx([0, scale], rel=1e-7)
    assert out.mean().item() == pytest.approx(1, abs=5 * (0.1 / 0.9 / x.numel()) ** 0.5)
    (gradient,) = torch.autograd.grad((out * 3).sum(), x)
    torch.testing.assert_close(gradient, 3 * out.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_seed_repeats_a_mask_and_another_draws_another(dtype: torch.dtype) -> None:
    layer, x = FastDropout(0.5).train(), torch.ones(7, 33, dtype=dtype)
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(layer(x))
        assert masks[-1].dtype == dtype
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(layer(x), layer(x)), "each call draws anew"


def test_in_evaluation_and_without_probability_nothing_is_drawn() -> None:
    x = torch.randn(5, 6)
    state = torch.get_rng_state()
    assert torch.equal(FastDropout(0.5).eval()(x), x)
    assert torch.equal(FastDropout(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(FastDropout(0.5), nn.Dropout)
