"""Imagined rewards, and from there on a critic's word."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from seqrl.critics import Critic
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import register_score
from seqrl.scores import Score, Trace


@register_score("critic")
class CriticScore(Score):
    """Discounted rewards of a plan, and the critic's value of what follows them (TT+Q).

        q    sum_{k<h-1} gamma^k r_k + gamma^(h-1) min_i Q_i(s_{h-1}, a_{h-1})
        v    sum_{k<h}   gamma^k r_k + gamma^h V(s_h)

    No reward is counted beside a Q that contains it, and nothing past an imagined end. With horizon 1, `q` is the best
    of `n` sampled actions by Q. `v` needs the state after the last transition, which the search must then decode for
    all candidates instead of the survivors alone; `q` looks at what is there.

    Args:
        discount: gamma between two transitions, in [0, 1].
        critic: of the same run; its `reward_shift` is added to the imagined rewards as well.
        use: `q` or `v`.

    Reference: Janner et al. 2021, section 4.2, "combining with Q-functions", which leaves the formula open.
    """

    wants_transitions = True

    def __init__(self, discount: float, critic: Critic | None = None, *, use: Literal["q", "v"] = "q") -> None:
        self.discount = discount
        self.critic = critic
        self.use = use
        self.wants_next_observation = use == "v"

    def check(self, layout: Layout) -> None:
        layout.field("reward")
        if self.critic is None:
            raise ConfigError("score=critic needs a critic and the run has none; train with critic=iql")
        if layout.termination_penalty is not None:
            raise ConfigError(
                f"score=critic adds imagined rewards to values without a termination penalty, and the layout's is "
                f"{layout.termination_penalty}; train with layout.termination_penalty=null"
            )

    def __call__(self, trace: Trace) -> Tensor:
        assert self.critic is not None and trace.rewards is not None
        if trace.observations is None or trace.actions is None or (self.use == "v" and trace.next_observation is None):
            raise ConfigError(
                f"score=critic with use={self.use} looks at imagined states that this planner does not show; use "
                "planner=beam"
            )
        if self.use == "q":
            value = self.critic.q(trace.observations[..., -1, :], trace.actions[..., -1, :])
            rewards = trace.rewards[..., :-1]
        else:
            assert trace.next_observation is not None
            value = self.critic.v(trace.next_observation)
            rewards = trace.rewards
        depth = rewards.shape[-1]
        rewards = rewards + self.critic.reward_shift
        if trace.over is not None:
            rewards = rewards.masked_fill(trace.over[..., :depth], 0.0)
            value = value.masked_fill(trace.over[..., depth], 0.0)
        powers = self.discount ** torch.arange(depth + 1, device=rewards.device, dtype=rewards.dtype)
        earned = (rewards * powers[:depth]).sum(-1)
        return earned + powers[depth] * value.to(earned)
