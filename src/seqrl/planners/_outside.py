"""How far imagined states lie outside of the range of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.models.token import TokenModel


def distance_outside(model: TokenModel, observations: Tensor) -> Tensor:
    """(...) how far (..., O) observations lie outside of the range of the data, in widths of that range, summed over
    dimensions; those that the data never change do not count. Needs `can_tell_outside`."""
    places = model.places("observation")
    edges = [model.tokenizer.outer_edges(place) for place in range(places.start, places.stop)]
    low, high = (torch.stack(each).to(observations) for each in zip(*edges, strict=True))
    beyond = (low - observations).maximum(observations - high).clamp(min=0)
    return torch.where(high > low, beyond / (high - low), 0.0).sum(-1)


def can_tell_outside(model: TokenModel) -> bool:
    """Whether the tokenizer knows the range of the data in every dimension of an observation."""
    return has_token_each(model, "observation") and model.tokenizer.tells_range


def has_token_each(model: TokenModel, field: str) -> bool:
    """Whether each number of a field has a token of its own, and these are in order."""
    if field in model.layout.categories:
        return False
    ordered = model.ordered[model.places(field)]
    return len(ordered) == model.layout.field(field).size and all(ordered)
