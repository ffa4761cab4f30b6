"""Bins that hold equal shares of the data of each dimension."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import register_tokenizer
from seqrl.tokenizers import NumBins, Tokenizer, discrete_scalars, ordered_scalars


@register_tokenizer("quantile")
class QuantileTokenizer(Tokenizer):
    """`num_bins` bins, each with the same share of the training values; each decodes to the mean of its values.

    A value with the weight of two bins or more (a sparse reward's zero, a clipped action) gets one bin to itself, so
    that it survives a round trip exactly; bins that ties leave empty decode to their boundary and are never encoded
    to. The values of a discrete field are their own bins.

    The published code cuts and decodes otherwise, and both can be had: with `edges="published"` a bin begins at every
    `ceil(n / V)`-th of the n sorted values, whatever ties do, and the last one ends at the largest; there are fewer
    bins where n is small. With `decode_to="midpoints"` a bin decodes to the middle of its two edges, which moves heavy
    ties and the tails.

    Args:
        size, layout: known from the data; without a layout nothing is discrete.
        num_bins: V, per dimension.
        edges: None for quantiles in which heavy ties have bins of their own, or `published`.
        decode_to: None for the mean of a bin's training values, or `midpoints`.
        uniform_fields: fields of the layout whose bins have equal widths instead, as those of `uniform`: quantiles make
            bins narrow where values are many, which of an action says little of what it does.
        embed_numbers: let the model's embedding know the numbers of bins, so that neighbours begin alike.

    Reference: Janner et al. 2021, section 3.1, "quantile discretization".
    """

    boundaries: Tensor
    centres: Tensor
    vocab_size: int

    def __init__(
        self,
        size: int,
        layout: Layout | None = None,
        *,
        num_bins: NumBins = 100,
        edges: Literal["published"] | None = None,
        decode_to: Literal["midpoints"] | None = None,
        uniform_fields: tuple[str, ...] = (),
        embed_numbers: bool = False,
    ) -> None:
        super().__init__()
        self._uniform = _find_scalars(layout, uniform_fields)
        self._edges, self._decode_to = edges, decode_to
        self.tells_range = decode_to is not None
        self.fits_all = edges == "published"
        self.tokens_per_step = size
        self.vocab_size = num_bins
        self.embed_numbers = embed_numbers
        self._discrete = discrete_scalars(layout, num_bins)
        # The published rule compares in double precision.
        self._dtype = np.dtype(np.float64 if edges == "published" else np.float32)
        self.register_buffer("boundaries", torch.from_numpy(np.zeros((size, num_bins - 1), self._dtype)))
        self.register_buffer("centres", torch.zeros(size, num_bins))

    def ordered(self, layout: Layout) -> tuple[bool, ...]:
        return ordered_scalars(layout)

    def fit(self, values: Tensor) -> None:
        for s, column in enumerate(values.detach().cpu().numpy().astype(self._dtype).T):
            if s in self._uniform:
                edges = np.linspace(column.min(), column.max(), self.vocab_size + 1, dtype=np.float64)
                self.boundaries[s] = torch.from_numpy(edges[1:-1])
                self.centres[s] = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
                continue
            published = self._edges == "published"
            boundaries = (_published_boundaries if published else _boundaries)(column, self.vocab_size)
            bins = np.searchsorted(boundaries, column, side="right")
            counts = np.bincount(bins, minlength=self.vocab_size)
            if self._decode_to == "midpoints":
                centres = _midpoints(boundaries, column)
            else:
                sums = np.bincount(bins, weights=column, minlength=self.vocab_size)
                edges = np.append(boundaries, column.max()).clip(max=column.max())
                centres = np.where(counts > 0, sums / np.maximum(counts, 1), edges)
            self.centres[s] = torch.from_numpy(centres.astype(np.float32))
            self.boundaries[s] = torch.from_numpy(
                boundaries if published else _close_empty_bins(boundaries, column, counts)
            )
        for s, count in self._discrete.items():
            self.boundaries[s] = torch.arange(self.vocab_size - 1) + 0.5
            self.centres[s] = torch.arange(self.vocab_size).clamp(max=count - 1)

    def encode(self, values: Tensor) -> Tensor:
        rounded = values.double() if self._edges == "published" else values.float()
        columns = rounded.reshape(-1, values.shape[-1]).T.contiguous()  # (S, rows)
        tokens = torch.searchsorted(self.boundaries, columns.to(self.boundaries.dtype), right=True)
        return tokens.T.reshape(values.shape)

    def decode(self, tokens: Tensor) -> Tensor:
        flat = tokens.clamp(max=self.vocab_size - 1).reshape(-1, self.tokens_per_step)
        return self.centres.T.gather(0, flat).reshape(tokens.shape)

    def outer_edges(self, position: int) -> tuple[Tensor, Tensor]:
        if self._decode_to is None:
            return super().outer_edges(position)
        inner, middles = self.boundaries[position], self.centres[position]
        return 2 * middles[0] - inner[0].clamp(max=middles.max()), 2 * middles[-1] - inner[-1].clamp(max=middles[-1])


def _find_scalars(layout: Layout | None, fields: tuple[str, ...]) -> frozenset[int]:
    """The scalars of a transition that fields hold.

    Raises:
        ConfigError: a field that the layout does not have.
    """
    there = {field.name: field for field in layout.fields} if layout is not None else {}
    for name in fields:
        if name not in there:
            raise ConfigError(
                f"tokenizer.uniform_fields names {name!r}, which the layout does not have; give some of "
                f"{', '.join(there) or 'a layout, which names fields'}"
            )
    return frozenset(s for name in fields for s in range(there[name].start, there[name].start + there[name].size))


def _boundaries(column: np.ndarray, num_bins: int) -> np.ndarray:
    """(V - 1,) ascending float32 inner boundaries; bin i holds values in [boundary i-1, boundary i)."""
    levels = np.arange(1, num_bins) / num_bins
    boundaries = np.quantile(column.astype(np.float64), levels, method="higher").astype(np.float32)
    # A repeated boundary is a value with the weight of several bins. Raising the last repeat to the next float makes
    # the bin [value, value]: below it lies everything smaller, above it everything larger. The maximum needs no such
    # bin (nothing is larger), and the top bin must not stay empty: placeholders for "very large" encode to it.
    repeats = boundaries[1:] == boundaries[:-1]
    ends_run = np.append(False, repeats) & ~np.append(repeats, False) & (boundaries < column.max())
    boundaries[ends_run] = np.nextafter(boundaries[ends_run], np.float32(np.inf))
    return boundaries


def _published_boundaries(column: np.ndarray, num_bins: int) -> np.ndarray:
    """(V - 1,) ascending inner boundaries of the published rule; infinite where there are fewer bins than V.

    Where they are fewer, the largest value takes the tokens behind the last bin, as it does in the published code,
    which cannot decode them; here they decode to that value.
    """
    starts = np.sort(column)[:: -(-len(column) // num_bins)]
    bins = len(starts)
    boundaries = np.full(num_bins - 1, np.inf)
    boundaries[: bins - 1] = starts[1:]
    boundaries[bins - 1 : bins + 1] = column.max()  # nothing is left of V - 1 where there are V bins
    return boundaries


def _midpoints(boundaries: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(V,) middles of the bins between (V - 1,) inner boundaries; the largest value for tokens behind the last bin."""
    edges = np.concatenate([[column.min()], boundaries, [column.max()]]).astype(np.float64).clip(max=column.max())
    middles: np.ndarray = (edges[1:] + edges[:-1]) / 2
    return middles


def _close_empty_bins(boundaries: np.ndarray, column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The boundaries with no room left for empty bins: what lies in a gap of the data goes to the nearer used bin.

    A bin that no training value fell into has a token that the model has never seen.
    """
    closed, ordered, stops = boundaries.copy(), np.sort(column), counts.cumsum()
    used = np.flatnonzero(counts)
    closed[: used[0]] = -np.inf
    for below, above in pairwise(used):
        if above > below + 1:
            largest, smallest = ordered[stops[below] - 1], ordered[stops[below]]
            middle = np.float32((float(largest) + float(smallest)) / 2)
            closed[below:above] = max(middle, np.nextafter(largest, smallest))
    return closed
