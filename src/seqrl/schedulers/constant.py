"""The learning rate as it is."""

from __future__ import annotations

from seqrl.registry import register_scheduler
from seqrl.schedulers import Scheduler


@register_scheduler("constant")
class Constant(Scheduler):
    """The learning rate as it is."""

    def factor(self, step: int) -> float:
        return 1.0
