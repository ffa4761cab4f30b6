"""Schedulers: the learning rate over a training."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Scheduler(ABC):
    """The learning rate by step; one class per file, chosen by `scheduler=NAME`.

    Besides its options, a constructor may take what is only known when a training begins: `max_steps`, its length, and
    `steps_per_epoch`, the steps in which every window is seen once on average.
    """

    @abstractmethod
    def factor(self, step: int) -> float:
        """What the optimizer's learning rate is multiplied by in a step, 0 being the first; 0 or more."""
