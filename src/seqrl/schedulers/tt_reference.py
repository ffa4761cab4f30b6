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

    The first step runs at the full rate. Progress is counted in targets that are no termination token, of all ranks
    together, against all targets of an epoch: warm-up takes a little more than an epoch where many windows pass an
    end. The cosine reaches its floor after about 20 epochs and is not stopped there: it climbs back to 1 around epoch
    39 and falls again.

    Args:
        steps_per_epoch, targets_per_epoch: known when a training begins; where nobody counts targets (None), every step
            counts the same.
    """

    def __init__(
        self,
        steps_per_epoch: int,
        targets_per_epoch: int | None = None,
        *,
        warmup_epochs: Annotated[float, Ge(0)] = 1.0,
        cosine_epochs: Annotated[float, Gt(0)] = 20.0,
        final_ratio: Annotated[float, Ge(0)] = 0.1,
    ) -> None:
        self.counts_targets = targets_per_epoch is not None
        epoch = steps_per_epoch if targets_per_epoch is None else targets_per_epoch
        self.warmup, self.end = warmup_epochs * epoch, cosine_epochs * epoch
        self.final_ratio = final_ratio

    def factor(self, step: int) -> float:
        if step == 0:
            return 1.0
        done = self.targets if self.counts_targets else step
        if done < self.warmup:
            return done / max(1.0, self.warmup)
        progress = (done - self.warmup) / max(1.0, self.end - self.warmup)
        return max(self.final_ratio, 0.5 * (1 + math.cos(math.pi * progress)))
