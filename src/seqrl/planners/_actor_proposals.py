"""Actions of a critic's own policy among the candidates of a search over tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.critics import Critic
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel

_ROUNDED = 1e-9  # of a share, so that tenths of a number of candidates are whole


def check_share(share: float, candidates: int) -> None:
    """Refuse a share of the candidates that is above none and less than one of them.

    Raises:
        ConfigError: it is.
    """
    if share and share * candidates + _ROUNDED < 1:
        raise ConfigError(
            f"planner.actor_share={share:g} of {candidates} candidates is less than one; use 0, or at least "
            f"{1 / candidates:.3g}"
        )


class ActorProposals:
    """What the policy of a critic would do in the state of every candidate, for a share of them.

    The first of a beam's copies that it gets does exactly that, so that the policy's own plan is always among the
    candidates; the others do so with Gaussian noise.

    Args:
        critic: whose policy.
        share: of the candidates, in [0, 1], spread evenly over them.
        noise: its standard deviation, in halves of the range of the data's actions, 0 or more; the same draws for all
            actions of a chunk, because those of single steps would cancel out.
    """

    def __init__(self, critic: Critic, share: float, noise: float) -> None:
        self.critic, self.share, self.noise = critic, share, noise

    def chosen(self, candidates: int) -> Tensor:
        """(C,) bool, which of the candidates are the policy's."""
        counted = torch.floor(torch.arange(candidates + 1) * self.share + _ROUNDED)
        return counted.diff() > 0

    def propose(
        self, model: TokenModel, states: Tensor, noise: Noise, *, depth: int, copies: int
    ) -> tuple[Tensor, Tensor]:
        """(C,) which candidates the policy decides, and its (B, C, k) action tokens in the states of all of them.

        Args:
            states: (B, C, O) the newest observations of the plans, in the data's units.
            depth: transitions that the plans hold already.
            copies: how many candidates in a row come from one beam.
        """
        layout, candidates = model.layout, states.shape[1]
        size = layout.action_size
        actions = self.critic.act(states)
        uniform = torch.stack(
            [noise.uniform(-1 - depth * size - dim, beams=candidates) for dim in range(size)] * layout.chunk, -1
        )
        low, high = self.critic.action_low, self.critic.action_high
        spread = self.noise * (high - low) / 2 * (~self.exact(candidates, copies)).to(low)[:, None]
        normal = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)).to(actions)
        tokens = model.encode_actions((actions + spread * normal).clamp(low, high).to(states), states)
        return self.chosen(candidates).to(tokens.device), tokens

    def exact(self, candidates: int, copies: int) -> Tensor:
        """(C,) bool; of the copies of one beam, the first that is the policy's has no noise."""
        chosen = self.chosen(candidates).view(-1, copies)
        return (chosen & (chosen.cumsum(1) == 1)).flatten()
