"""What a plan is conditioned on (slot `condition`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from seqrl.layout import Layout
from seqrl.model import SequenceModel


class Condition(ABC):
    """Makes the prefix tokens of every plan of an episode."""

    wants_goals: bool

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Refuse a layout that cannot carry the condition.

        Raises:
            seqrl.errors.ConfigError: names the missing field and the override that adds it.
        """

    @abstractmethod
    def prefix(self, model: SequenceModel, goals: Tensor | None, rows: int) -> Tensor | None:
        """(rows, P) prefix tokens, or None where the layout has no prefix.

        Args:
            goals: (rows, G) float32 in the data's units, or None.

        Raises:
            seqrl.errors.ConfigError: goals are needed and missing, or have the wrong size.
        """
