"""The search of a decoding strategy (slot `planner`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from seqrl.decoding.noise import Noise
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.scores import Score
from seqrl.types import Plan


class Planner(ABC):
    """Proposes actions for a batch of environments; holds settings, never state.

    Attributes:
        horizon: H, transitions of a plan.
        serves: the class of models that it can decode, or several.
        asks_model: whether it looks at the sequence model at all; baselines do not.
    """

    horizon: int
    serves: type[Model] | tuple[type[Model], ...] = TokenModel
    asks_model: bool = True

    @abstractmethod
    def check(self, layout: Layout, score: Score) -> None:
        """Refuse a layout or a score that the search cannot work with.

        Raises:
            seqrl.errors.ConfigError: says what is missing and the override that adds it.
        """

    @abstractmethod
    def plan(self, model: Any, history: Any, score: Score, noise: Noise) -> Plan:
        """Search from a history.

        Args:
            model: of a class that it serves, in eval mode.
            history: of that class of model, B rows; it carries the condition.
            score: ranks candidates.
            noise: every random choice comes from it, addressed by beam and draw, so that a plan depends neither on
                the other rows nor on the cache mode.
        """
