"""Percentiles of predicted distributions."""

from __future__ import annotations

import torch
from torch import Tensor


def find_percentile(probabilities: Tensor, centres: Tensor, percentile: float) -> Tensor:
    """(...,) percentile of (..., V) probabilities of bins, whose values are (V,)."""
    ordered, order = centres.sort()  # bins of a plugin need not rise
    cumulative = probabilities[..., order].cumsum(-1)
    passed = cumulative > percentile * cumulative[..., -1:]
    return ordered[passed.to(torch.uint8).argmax(-1)]


def find_published_percentile(probabilities: Tensor, centres: Tensor, middle: Tensor, percentile: float) -> Tensor:
    """(...,) values of the bin below the one at which the probability is passed.

    Below the first bin, and where the probability is not reached, stands the () middle of the whole range: the
    published code takes the edges `inds - 1` and `inds` of bin `inds`, and counts from the end where that is -1.
    """
    ordered, order = centres.sort()
    passed = probabilities[..., order].cumsum(-1) > percentile
    below = torch.cat([middle.to(ordered)[None], ordered[:-1]])
    return below[passed.to(torch.uint8).argmax(-1)]
