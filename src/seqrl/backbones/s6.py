"""A decoder of selective state spaces: every channel keeps several decaying sums of what tokens choose to write."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.attention import Attention
from seqrl.attention.recurrence import widen
from seqrl.backbones import Dim, Dropout, NumHeads, NumLayers
from seqrl.backbones._stack import Mixer, Pattern, RecurrentBackbone
from seqrl.registry import register_backbone

_STEP_SIZES = (1e-3, 1e-1)  # at the start of training, uniform in their logarithm


class _SelectiveStateSpace(Mixer):
    """h = exp(-step rate) h + step b u and y = c h + skip u, where u, step, b and c are linear functions of the token.

    Biases of b and c begin at 1, so that at first every state is a moving average that is read as it is. Without them
    what is read is a product of small projections, whose gradients are products of what is left: nothing is learnt.
    """

    def __init__(self, dim: int, width: int, state_size: int) -> None:
        super().__init__()
        self.sizes = (width, width, state_size, state_size)
        self.project = nn.Linear(dim, sum(self.sizes))
        self.log_rate = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, dim, bias=False)
        low, high = map(math.log, _STEP_SIZES)
        steps = torch.exp(low + (high - low) * torch.rand(width))
        inverse = steps + torch.log(-torch.expm1(-steps))  # of softplus
        with torch.no_grad():
            self.project.bias.copy_(torch.cat([torch.zeros(width), inverse, torch.ones(2 * state_size)]))

    def forward(self, x: Tensor, positions: Tensor, attention: Attention, layer: int) -> Tensor:
        u, step, write, read = self.project(x).split(self.sizes, dim=-1)
        step = F.softplus(widen(step))
        decay = torch.exp(-step[..., None] * self.log_rate.exp())  # (R, n, width, state_size)
        state = attention.recur(layer, decay, (step * u)[..., None] * write[:, :, None])
        found = (state @ read[..., None].to(state.dtype))[..., 0] + self.skip * u
        mixed: Tensor = self.out(found.to(x.dtype))
        return mixed


@register_backbone("s6")
class S6Backbone(RecurrentBackbone):
    """Diagonal selective state spaces (the recurrence of Mamba), each followed by a feed-forward layer.

    What a token writes and how fast each state decays depends on the token. A step of decoding costs the same however
    long the past, and the state goes on past the trained window (`cache: window`). Other than in Mamba there is neither
    a convolution before the recurrence nor a gate behind it, and step sizes have a projection of full rank. Layers of
    attention, with rotary positions, may stand between.

    Args:
        num_layers, dim: 4 and 128 as in `gpt`.
        expansion: channels in units of `dim`, 2 as published.
        state_size: states of a channel; 16 as published, which takes twice the memory of training.
        pattern: kinds of layers, repeated until there are `num_layers`: `[recurrence]`, or a mixture such as
            `[recurrence, attention]`.
        num_heads: of layers that attend; `dim` is a multiple of twice as many.
        embedding_dropout, residual_dropout, attention_dropout: probabilities.

    Raises:
        ConfigError: `dim` cannot be split into the heads.

    Reference: Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", algorithm 2; learnt
    biases of b and c that begin at 1, in place of the convolution, are those of Lahoti et al. 2026, "Mamba-3",
    https://arxiv.org/abs/2603.15569.
    """

    def __init__(
        self,
        *,
        num_layers: NumLayers = 4,
        dim: Dim = 128,
        expansion: Annotated[int, Interval(ge=1, le=64)] = 2,
        state_size: Annotated[int, Interval(ge=1, le=1024)] = 8,
        pattern: Pattern = ("recurrence",),
        num_heads: NumHeads = 4,
        embedding_dropout: Dropout = 0.1,
        residual_dropout: Dropout = 0.1,
        attention_dropout: Dropout = 0.1,
    ) -> None:
        super().__init__(
            lambda: _SelectiveStateSpace(dim, expansion * dim, state_size),
            num_layers=num_layers,
            pattern=pattern,
            dim=dim,
            num_heads=num_heads,
            embedding_dropout=embedding_dropout,
            residual_dropout=residual_dropout,
            attention_dropout=attention_dropout,
        )
