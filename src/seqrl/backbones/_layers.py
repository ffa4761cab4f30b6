"""What several backbones have in common: rotary angles, gated feed-forward layers, first weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.errors import ConfigError

EPSILON = 1e-5  # of RMS norms
_MULTIPLE = 8  # widths of matrix products stay a multiple of this


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse a width that cannot be split into heads of pairs, which rotations turn.

    Raises:
        ConfigError: `dim` is no multiple of `2 * num_heads`.
    """
    if dim % (2 * num_heads):
        raise ConfigError(f"backbone.dim={dim} is no multiple of twice backbone.num_heads={num_heads}")


def rotation_frequencies(head_dim: int, base: float, device: torch.device | None = None) -> Tensor:
    """(head_dim / 2,) radians that each pair of a head turns by from one position to the next, in float64.

    Reference: Su et al. 2021 (rotary positions).
    """
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    return base**-exponents


def rotation_angles(positions: Tensor, head_dim: int, base: float) -> Tensor:
    """(R, n, 1, head_dim / 2) angles of (R, n) positions, in float64, in which far positions do not blur."""
    return (positions[..., None] * rotation_frequencies(head_dim, base, positions.device))[:, :, None]


def feed_forward_width(dim: int) -> int:
    """Of a gated layer: three matrices of 8/3 of the width have as many weights as the two of 4 times it in `gpt`."""
    return -(-8 * dim // (3 * _MULTIPLE)) * _MULTIPLE


def feed_forward(x: Tensor, gate_and_up: nn.Linear, down: nn.Linear) -> Tensor:
    """A gated (SwiGLU) layer.

    Reference: Shazeer 2020.
    """
    gate, up = gate_and_up(x).chunk(2, dim=-1)
    out: Tensor = down(F.silu(gate) * up)
    return out


def draw_weights(network: nn.Module) -> None:
    """Draw the matrices of all linear layers as GPT-2 does; biases stay."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
