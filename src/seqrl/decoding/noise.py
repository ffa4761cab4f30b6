"""Drawing tokens from predicted distributions, with noise that depends on nothing but its address."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Multipliers and shifts of the SplitMix64 finaliser (Steele, Lea, Flood 2014), as signed 64-bit integers.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _mix(x: Tensor) -> Tensor:
    """A bijection of int64 in which every input bit moves every output bit."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@dataclass(frozen=True)
class Noise:
    """One uniform number per (environment, time, beam, draw), the same whatever is computed beside it.

    A planner's choices then do not change with the batch, the order of rows or the cache mode.

    Attributes:
        keys: (B,) int64, one key per environment, made of seed, environment and time.
    """

    keys: Tensor

    @staticmethod
    def of(seed: int, environments: Tensor, time: Tensor | int) -> Noise:
        """Noise for the plan that `environments` (B,) make at `time` (steps since reset)."""
        keys = _mix(environments.long() * _GAMMA + seed)
        return Noise(_mix(keys + torch.as_tensor(time, dtype=torch.int64, device=keys.device) * _GAMMA))

    def uniform(self, draw: int, beams: int = 1) -> Tensor:
        """(B, beams) float64 in [0, 1): the numbers of one draw, for every beam of every environment.

        The first draw of the first beam of environment 0 at time 0 under seed 0 is 0.0 exactly, since the mixing keeps
        0: with it, the lowest token that has a probability is drawn. Results that were published hold it, so it stays.
        """
        beam = torch.arange(beams, dtype=torch.int64, device=self.keys.device)
        step = torch.tensor(draw, dtype=torch.int64, device=self.keys.device) * _GAMMA
        bits = _mix(_mix(self.keys[:, None] + beam * _GAMMA) + step)
        return ((bits >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53


def keep_top_k(logits: Tensor, k: int | None) -> Tensor:
    """Rule out all but the `k` likeliest tokens of each row; ties at the border stay in. None keeps all."""
    if k is None or k >= logits.shape[-1]:
        return logits
    border = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < border, -torch.inf)


def drop_tail(logits: Tensor, mass: float | None) -> Tensor:
    """Rule out the least likely tokens whose probabilities sum to less than `mass`; keeps the head. None keeps all.

    Reference: `cdf_act` of the published planner (0.6 by default), easily mistaken for keeping a nucleus of 0.6.
    """
    if not mass:
        return logits
    ascending, order = logits.softmax(-1).sort(dim=-1, stable=True)
    tail = ascending.cumsum(-1) < mass
    tail[..., -1] = False  # the likeliest token stays, whatever rounding does to the sum
    return logits.masked_fill(torch.zeros_like(tail).scatter(-1, order, tail), -torch.inf)


def draw(logits: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
    """(...,) tokens by inversion of the cumulative distribution.

    Args:
        logits: (..., V + 1).
        uniform: (...,) in [0, 1).
        temperature: divides the logits; 0 takes the likeliest token (the lowest id among equals).
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    # Rounded to 1, a uniform would fall behind the support, on a token that was ruled out.
    inside = uniform.to(cumulative.dtype).clamp(max=1.0 - torch.finfo(cumulative.dtype).eps)
    return (cumulative <= inside[..., None] * cumulative[..., -1:]).sum(-1)
