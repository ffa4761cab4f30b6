"""Embeddings that know which number a token stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_OCTAVES = 5  # the finest wave is 2**-4 of the range of bins long


class NumberEmbedding(nn.Module):
    """Adds to a token's own row a learnt linear map of smooth functions of its number, `i` of V bins in order.

    So that neighbouring bins begin alike, and what is learnt of one tells of the others: `u = (2 i + 1) / V - 1`, and
    sine and cosine of `pi 2^k u`. Places whose tokens have no order, and the termination token, get nothing.

    Args:
        vocab_size: V.
        ordered: (K,) of which tokens of a transition the numbers mean something.
        dim: D.

    Reference: Tancik et al. 2020, "Fourier features let networks learn high frequency functions in low dimensional
    domains".
    """

    features: Tensor

    def __init__(self, vocab_size: int, ordered: Sequence[bool], dim: int) -> None:
        super().__init__()
        number = (2 * torch.arange(vocab_size) + 1) / vocab_size - 1
        waves = [wave(math.pi * 2**k * number) for k in range(_OCTAVES) for wave in (torch.sin, torch.cos)]
        features = torch.stack([number, *waves], -1)
        self.register_buffer("features", nn.functional.pad(features, (0, 0, 0, 1)), persistent=False)
        self.ordered: Tensor
        self.register_buffer("ordered", torch.tensor(ordered), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(ordered), features.shape[-1], dim))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, tokens: Tensor, place: Tensor) -> Tensor:
        """(R, n) tokens at (n,) places of their transitions to (R, n, D)."""
        weight = self.weight[place] * self.ordered[place][:, None, None]
        return torch.einsum("rnf,nfd->rnd", self.features[tokens], weight)
