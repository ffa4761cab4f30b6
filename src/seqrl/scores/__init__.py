"""How good an imagined sequence is (slot `score`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from seqrl.layout import Layout


@dataclass(frozen=True)
class Trace:
    """What a search has imagined so far, h transitions deep; leading dimensions are environments and beams.

    Attributes:
        action_log_probs: (..., h) log-likelihood of each transition's action tokens, in nats, before any filter.
        log_probs: (..., h) log-likelihood of all tokens that were decoded for the transition.
        rewards: (..., h) expected reward, in the data's units; None where the layout has no reward field.
        values: (..., h) expected return-to-go after the transition; None where the layout has no value field.
        observations, actions: (..., h, O) and (..., h, A) in the data's units, as their tokens decode; None for scores
            that do not want transitions.
        next_observation: (..., O) what follows the last transition; None for scores that do not want it.
        over: (..., h + 1) bool, whether the imagined episode had ended before each transition, and after the last; the
            last entry means something only beside `next_observation`. What stands there is no state. None for scores
            that do not want transitions, and where a search cannot tell.
    """

    action_log_probs: Tensor
    log_probs: Tensor
    rewards: Tensor | None
    values: Tensor | None
    observations: Tensor | None = None
    actions: Tensor | None = None
    next_observation: Tensor | None = None
    over: Tensor | None = None


class Score(ABC):
    """Ranks partial plans; higher is better.

    Attributes:
        wants_transitions: whether traces must hold `observations` and `actions`.
        wants_next_observation: whether traces must hold `next_observation`, which a search decodes for every candidate
            then, and not for its survivors alone.
    """

    wants_transitions: bool = False
    wants_next_observation: bool = False

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Refuse a layout that lacks what the score needs.

        Raises:
            seqrl.errors.ConfigError: names the missing field and the override that adds it.
        """

    @abstractmethod
    def __call__(self, trace: Trace) -> Tensor:
        """(...) score of each partial plan, from all of its transitions so far."""
