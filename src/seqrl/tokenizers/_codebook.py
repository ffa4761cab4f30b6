"""A codebook that follows the vectors it stands for: vector quantisation without a gradient of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

RECENT = 100
"""A code counts as used if it was chosen within this many training steps."""


@dataclass(frozen=True)
class Quantised:
    """Vectors and the codes nearest to them.

    Attributes:
        vectors: (..., C) the codes' vectors, through which gradients pass straight to what was quantised.
        codes: (...) int64 in [0, V).
        commitment: () mean squared distance of what was quantised to its codes' vectors.
        counts: (V,) float, how often each code was chosen, over all ranks.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    counts: Tensor

    @property
    def perplexity(self) -> Tensor:
        """() how many codes are in use, as if all were equally likely: the exponential of their entropy."""
        shares = self.counts / self.counts.sum()
        return torch.special.entr(shares).sum().exp()


class Codebook(nn.Module):
    """V vectors of C numbers; each is the moving average of the vectors that chose it.

    Codes that nothing has chosen for `revive_after` training steps, all of them before the first one, are put where
    the vectors of the present batch lie. All ranks see the same counts, sums and revivals, so that their codebooks
    stay equal.

    Args:
        num_codes: V.
        dim: C.
        decay: of the moving averages of counts and sums, in [0, 1).
        revive_after: training steps; None never revives a code that was used once.
        late: whether a step in training goes on with the vectors of before the averages move, as published.

    Reference: van den Oord et al. 2017, appendix A.1; revival after Dhariwal et al. 2020 (Jukebox), section 3.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(self, num_codes: int, dim: int, *, decay: float, revive_after: int | None, late: bool = False) -> None:
        super().__init__()
        self.late = late
        self.decay = decay
        self.revive_after = revive_after
        self.register_buffer("vectors", torch.zeros(num_codes, dim))
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))
        self.register_buffer("idle", torch.full((num_codes,), -1))  # steps since the last use; -1 before the first step

    def nearest(self, features: Tensor) -> Tensor:
        """(..., C) to (...) codes; the lowest of those that are equally near."""
        flat = features.flatten(0, -2).to(self.vectors.dtype)
        distances = self.vectors.square().sum(-1) - 2 * flat @ self.vectors.T  # less the features' own squares
        return distances.argmin(-1).view(features.shape[:-1])

    def forward(self, features: Tensor) -> Quantised:
        """Quantise (..., C); in training mode the codebook follows, and revives what lies idle."""
        flat = features.detach().flatten(0, -2).to(self.vectors.dtype)
        if self.training:
            self._revive(flat)
        codes = self.nearest(features.detach())
        counts = _summed(F.one_hot(codes.flatten(), len(self.vectors)).to(flat).sum(0))
        before = self.vectors[codes].to(features)
        if self.training:
            self._follow(flat, codes.flatten(), counts)
        chosen = self.vectors[codes].to(features)
        passed = features + ((before if self.late else chosen) - features).detach()
        return Quantised(passed, codes, F.mse_loss(features, chosen), counts)

    @property
    def used_share(self) -> Tensor:
        """() share of the codes that were chosen lately, in [0, 1]."""
        return ((self.idle >= 0) & (self.idle < RECENT)).float().mean()

    def _follow(self, flat: Tensor, codes: Tensor, counts: Tensor) -> None:
        sums = _summed(torch.zeros_like(self.sums).index_add_(0, codes, flat))
        self.counts.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        moved = (counts > 0)[:, None]  # the quotient of those that were not chosen stays, up to underflow
        self.vectors.copy_(torch.where(moved, self.sums / self.counts[:, None], self.vectors))
        self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))

    def _revive(self, flat: Tensor) -> None:
        dead = self.idle < 0
        if self.revive_after is not None:
            dead = dead | (self.idle >= self.revive_after)
        if not bool(dead.any()):
            return
        places = flat[torch.randint(len(flat), (len(self.vectors),), device=flat.device)]
        if _is_distributed():
            dist.broadcast(places, src=0)
        self.vectors.copy_(torch.where(dead[:, None], places, self.vectors))
        self.sums.copy_(torch.where(dead[:, None], places, self.sums))
        self.counts.copy_(torch.where(dead, 1.0, self.counts))
        self.idle.copy_(torch.where(dead, 0, self.idle))


def _summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    if _is_distributed():
        dist.all_reduce(tensor)
    return tensor


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
