"""Warm-up, a plateau, then a straight line down."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Interval

from seqrl.errors import ConfigError
from seqrl.registry import register_scheduler
from seqrl.schedulers import Scheduler


@register_scheduler("warmup_stable_decay")
class WarmupStableDecay(Scheduler):
    """Linear warm-up, the full learning rate, then a linear decay over the last share of the training.

    Args:
        max_steps: of the training; known when it begins.
        warmup_fraction: of the training; the warm-up has one step at least.
        decay_fraction: of the training, at its end; with `warmup_fraction` 1 at most.
        final_ratio: what the rate would be multiplied by in the step after the last.

    Raises:
        ConfigError: the two fractions are more than the training.

    Reference: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations" (arXiv
    2405.18392), section 3, who call it constant with cooldown; the name is that of Hu et al. 2024 (arXiv 2404.06395).
    """

    def __init__(
        self,
        max_steps: int,
        *,
        warmup_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.03,
        decay_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.3,
        final_ratio: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        if warmup_fraction + decay_fraction > 1:
            raise ConfigError(
                f"scheduler.warmup_fraction={warmup_fraction:g} and scheduler.decay_fraction={decay_fraction:g} are "
                "more than the whole training; give two fractions whose sum is 1 at most"
            )
        self.max_steps = max_steps
        self.warmup = max(1, round(max_steps * warmup_fraction))
        self.decay = round(max_steps * decay_fraction)
        self.final_ratio = final_ratio

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        left = max(0, self.max_steps - step)
        if left >= self.decay:
            return 1.0
        return self.final_ratio + (1 - self.final_ratio) * left / self.decay
