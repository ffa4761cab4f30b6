"""What the published Trajectory Transformer and TAP compute alike, in plain loops that share nothing with seqrl."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "fixtures" / "published"
Weights = dict[str, Tensor]


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def block(x: Tensor, weights: Weights, prefix: str, heads: int, seen: Tensor) -> Tensor:
    """Attention, and a feed-forward layer with an exact GELU; `seen` (L, L) says which key each query may see."""
    size = x.shape[-1] // heads
    normed = layer_norm(x, weights, f"{prefix}ln1")
    query, key, value = (linear(normed, weights, f"{prefix}attn.{part}") for part in ("query", "key", "value"))
    attended = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = query[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(size)
        attended.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value[..., own])
    x = x + linear(torch.cat(attended, dim=-1), weights, f"{prefix}attn.proj")
    widened = linear(layer_norm(x, weights, f"{prefix}ln2"), weights, f"{prefix}mlp.0")
    return x + linear(widened * 0.5 * (1 + torch.erf(widened / math.sqrt(2))), weights, f"{prefix}mlp.2")
