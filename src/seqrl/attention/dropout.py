"""Dropout whose random numbers cost a tenth: 16 bits of a 64-bit draw for each feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 2**16
"""Probabilities are multiples of 1 / STEPS: 0.1 becomes 0.1000061 (8 bits would make it 0.1015625)."""


def round_probability(probability: float) -> float:
    """The probability in [0, 1) with which features are really dropped; one of them in STEPS is always kept."""
    return min(round(probability * STEPS), STEPS - 1) / STEPS


def draw_kept(like: Tensor, probability: float) -> Tensor:
    """Which features of a tensor stay, 0 or 1 in its own type: each by itself, with one less the rounded probability.

    A function of the state of torch's generator on the CPU, as `nn.Dropout` is, with other numbers: `bernoulli_` draws
    53 bits for each feature, one after the other.
    """
    count = like.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits; [0, 2^63) without
    first_kept = round(round_probability(probability) * STEPS) - STEPS // 2
    kept = torch.empty(
        like.shape, dtype=like.dtype
    )  # of numbers: products with those of bool take twenty times as long
    return torch.ge(draws.view(torch.int16)[:count].view(like.shape), first_kept, out=kept)


class FastDropout(nn.Dropout):
    """`nn.Dropout` with the masks of `draw_kept`; what is kept is divided by the share that really is.

    On other devices, where torch's own is fast, and in evaluation it is `nn.Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        probability = round_probability(self.p)
        if not self.training or input.device.type != "cpu" or not probability:
            return super().forward(input)
        return input * draw_kept(input, self.p).mul_(1 / (1 - probability))
