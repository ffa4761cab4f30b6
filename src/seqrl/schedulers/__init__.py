"""Schedulers: the learning rate over a training."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Scheduler(ABC):
    """The learning rate by step; one class per file, chosen by `scheduler=NAME`.

    Besides its options, a constructor may take what is only known when a training begins: `max_steps`, its length,
    `steps_per_epoch`, the steps in which every window is seen once on average, and `targets_per_epoch`, how many tokens
    (of vectors: transitions) all windows have to predict; None where nobody counts them.

    Attributes:
        counts_targets: whether `count` is to be told of every step.
        targets: what it was told, all together; it travels in checkpoints.
    """

    counts_targets: bool = False
    targets: int = 0

    @abstractmethod
    def factor(self, step: int) -> float:
        """What the optimizer's learning rate is multiplied by in a step, 0 being the first; 0 or more."""

    def count(self, targets: int) -> None:
        """Hear, before the factor of the next step, how many targets that are no termination token a step had.

        Args:
            targets: of all ranks together; a target counts whether or not it carries a loss.
        """
        self.targets += targets
