"""A decoder of gated linear recurrences: what a token leaves behind is a state of fixed size, not keys and values."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from seqrl.attention import Attention
from seqrl.attention.recurrence import widen
from seqrl.backbones import Dim, Dropout, NumHeads, NumLayers
from seqrl.backbones._stack import Mixer, Pattern, RecurrentBackbone
from seqrl.registry import register_backbone


class _MinGru(Mixer):
    """h = (1 - z) h + z candidate, where gate z and candidate are functions of the token alone."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate_and_candidate = nn.Linear(dim, 2 * width)
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention, layer: int) -> Tensor:
        gate, candidate = self.gate_and_candidate(x).chunk(2, dim=-1)
        gate = widen(gate)
        state = attention.recur(layer, torch.sigmoid(-gate), torch.sigmoid(gate) * candidate)
        mixed: Tensor = self.out(state.to(x.dtype))
        return mixed


@register_backbone("mingru")
class MinGruBackbone(RecurrentBackbone):
    """minGRU: a GRU whose gate and candidate do not look at the state, so that training is a parallel scan.

    A step of decoding costs the same however long the past, and the state goes on past the trained window
    (`cache: window`). Layers of attention, with rotary positions, may stand between; there is no convolution.

    Args:
        num_layers, dim: 4 and 128 as in `gpt`.
        expansion: width of the state in units of `dim`.
        pattern: kinds of layers, repeated until there are `num_layers`: `[recurrence]`, or a mixture such as
            `[recurrence, attention]`.
        num_heads: of layers that attend; `dim` is a multiple of twice as many.
        embedding_dropout, residual_dropout, attention_dropout: probabilities.

    Raises:
        ConfigError: `dim` cannot be split into the heads.

    Reference: Feng et al. 2024, "Were RNNs All We Needed?", section 3.1 (arXiv 2410.01201).
    """

    def __init__(
        self,
        *,
        num_layers: NumLayers = 4,
        dim: Dim = 128,
        expansion: Annotated[int, Interval(ge=1, le=64)] = 2,
        pattern: Pattern = ("recurrence",),
        num_heads: NumHeads = 4,
        embedding_dropout: Dropout = 0.1,
        residual_dropout: Dropout = 0.1,
        attention_dropout: Dropout = 0.1,
    ) -> None:
        super().__init__(
            lambda: _MinGru(dim, expansion * dim),
            num_layers=num_layers,
            pattern=pattern,
            dim=dim,
            num_heads=num_heads,
            embedding_dropout=embedding_dropout,
            residual_dropout=residual_dropout,
            attention_dropout=attention_dropout,
        )
