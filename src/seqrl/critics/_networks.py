"""What critics are built of."""

from __future__ import annotations

from torch import nn


def make_mlp(inputs: int, hidden: list[int], outputs: int) -> nn.Sequential:
    """Linear layers with a ReLU after each but the last."""
    layers: list[nn.Module] = []
    for dim in hidden:
        layers += [nn.Linear(inputs, dim), nn.ReLU()]
        inputs = dim
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
