"""What a plan is conditioned on (slot `condition`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from seqrl.layout import Layout
from seqrl.models import Model


class Guide(ABC):
    """Chooses, step by step, which goals the model is told in the episodes of a batch."""

    def seed_draws(self, seed: int, keys: Tensor) -> None:
        """Take the seed of all random choices and the (B,) keys of the environments; asked before the first step.

        Whoever draws does so by these alone, so that no draw depends on the other episodes of the batch.
        """
        del seed, keys  # most draw nothing

    @abstractmethod
    def choose(self, observations: Tensor) -> Tensor:
        """(B, G) goals for the present step; asked once in every step, of (B, O) observations in the data's units."""


class Condition(ABC):
    """Makes the prefix of every plan of an episode, or asks for a return.

    Attributes:
        wants_goals: whether it needs goals.
        wants_landmarks: whether it needs a graph of landmarks, as `model.landmarks`.
        contexts: numbers of extras that are known before the action, told in every step instead of by environments.
        target_return: the return of the episode that is asked for, in the data's units; None where none is.
        guidance: how many times what the prefix changes about actions counts; see
            `seqrl.decoding.guided.GuidedSession`.
    """

    wants_goals: bool
    wants_landmarks: bool = False
    contexts: Mapping[str, tuple[float, ...]] = MappingProxyType({})
    target_return: float | None = None
    guidance: float = 1.0

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Refuse a layout that cannot carry the condition.

        Raises:
            seqrl.errors.ConfigError: names the missing field and the override that adds it.
        """

    @abstractmethod
    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        """What `model.encode_goals` makes of goals; None where the layout has no goal.

        Args:
            goals: (rows, G) float32 in the data's units, or None.

        Raises:
            seqrl.errors.ConfigError: goals are needed and missing, or have the wrong size.
        """

    def follow(self, model: Model, goals: Tensor) -> Guide | None:
        """What chooses other goals than the (rows, G) of new episodes on the way to them; None where they are told.

        The guide has the state of the episodes; a condition has none.
        """
        return None
