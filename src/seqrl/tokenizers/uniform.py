"""Equal-width bins over the range of each dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.layout import Layout
from seqrl.registry import register_tokenizer
from seqrl.tokenizers import NumBins, Tokenizer, discrete_scalars, ordered_scalars


@register_tokenizer("uniform")
class UniformTokenizer(Tokenizer):
    """`num_bins` bins of equal width between the smallest and the largest value of each dimension.

    The error of a round trip is at most half a bin, `(high - low) / (2 * num_bins)`, whatever the data; dimensions
    with heavy tails waste bins on them. A constant dimension decodes exactly. The values of a discrete field are their
    own bins.

    Args:
        size, layout: known from the data; without a layout nothing is discrete.
        num_bins: V, per dimension.
        embed_numbers: let the model's embedding know the numbers of bins, so that neighbours begin alike.

    Reference: Janner et al. 2021, section 3.1, "uniform discretization".
    """

    low: Tensor
    high: Tensor
    last: Tensor
    vocab_size: int
    tells_range = True

    def __init__(
        self,
        size: int,
        layout: Layout | None = None,
        *,
        num_bins: NumBins = 100,
        embed_numbers: bool = False,
    ) -> None:
        super().__init__()
        self.tokens_per_step = size
        self.vocab_size = num_bins
        self.embed_numbers = embed_numbers
        self._discrete = discrete_scalars(layout, num_bins)
        last = torch.full((size,), torch.inf, dtype=torch.float64)
        for s, count in self._discrete.items():
            last[s] = count - 1
        self.register_buffer("last", last, persistent=False)  # values; tokens beyond decode to them
        self.register_buffer("low", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("high", torch.zeros(size, dtype=torch.float64))

    def ordered(self, layout: Layout) -> tuple[bool, ...]:
        return ordered_scalars(layout)

    def fit(self, values: Tensor) -> None:
        self.low.copy_(values.amin(0))
        self.high.copy_(values.amax(0))
        for s in self._discrete:  # bins of width 1, with the values in their middles
            self.low[s], self.high[s] = -0.5, self.vocab_size - 0.5

    def encode(self, values: Tensor) -> Tensor:
        span = self.high - self.low
        scale = torch.where(span > 0, self.vocab_size / span, torch.zeros_like(span))
        bins = ((values.to(self.low.dtype) - self.low) * scale).floor()
        return bins.clamp_(0, self.vocab_size - 1).long()

    def decode(self, tokens: Tensor) -> Tensor:
        width = (self.high - self.low) / self.vocab_size
        centres = self.low + (tokens.clamp(max=self.vocab_size - 1) + 0.5) * width
        return centres.minimum(self.last).float()

    def outer_edges(self, position: int) -> tuple[Tensor, Tensor]:
        return self.low[position], self.high[position]
