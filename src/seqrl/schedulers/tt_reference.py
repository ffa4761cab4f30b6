"""The published schedule of the Trajectory Transformer, cyclic by accident."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt

from seqrl.registry import register_scheduler
from seqrl.schedulers import Scheduler


@register_scheduler("tt_reference")
class TTReference(Scheduler):
    """The published schedule, which is cyclic by accident; for reproducing published numbers only.

    Warm-up over one epoch, a cosine that reaches its floor after 20 epochs and is not stopped there: it climbs back
    to 1 at epoch 39 and falls again.
    """

    def __init__(
        self,
        steps_per_epoch: int,
        *,
        warmup_epochs: Annotated[float, Ge(0)] = 1.0,
        cosine_epochs: Annotated[float, Gt(0)] = 20.0,
        final_ratio: Annotated[float, Ge(0)] = 0.1,
    ) -> None:
        self.warmup, self.end = warmup_epochs * steps_per_epoch, cosine_epochs * steps_per_epoch
        self.final_ratio = final_ratio

    def factor(self, step: int) -> float:
        done = step + 1
        if done < self.warmup:
            return done / self.warmup
        progress = (done - self.warmup) / max(1.0, self.end - self.warmup)
        return max(self.final_ratio, 0.5 * (1 + math.cos(math.pi * progress)))
