"""Warm-up, then half a cosine."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Interval

from seqrl.registry import register_scheduler
from seqrl.schedulers import Scheduler


@register_scheduler("cosine")
class Cosine(Scheduler):
    """Linear warm-up over a share of the training, then half a cosine down to `final_ratio` at the last step.

    Args:
        warmup_fraction: of the training; the warm-up has one step at least.
    """

    def __init__(
        self,
        max_steps: int,
        *,
        warmup_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.03,
        final_ratio: Annotated[float, Ge(0)] = 0.1,
    ) -> None:
        self.max_steps = max_steps
        self.warmup = max(1, round(max_steps * warmup_fraction))
        self.final_ratio = final_ratio

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.max_steps - self.warmup))
        return self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
