"""What training minimises (slot `objective`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from seqrl.models.token import SequenceModel
from seqrl.models.vector import VectorModel
from seqrl.types import Batch


@dataclass(frozen=True)
class FieldOutcome:
    """Sums over the tokens of one field, so that batches and ranks can be added up.

    Attributes:
        loss: () sum of unweighted cross-entropies, in nats, or of squared errors of normalised values.
        correct: () how many tokens the mode predicts; 0 of values that have no mode.
        count: () how many tokens or values carry a loss.
    """

    loss: Tensor
    correct: Tensor
    count: Tensor


@dataclass(frozen=True)
class Outcome:
    """The loss of a batch as a sum and a count; their quotient (over all ranks) is what is minimised."""

    total: Tensor
    count: Tensor
    fields: dict[str, FieldOutcome]


class Objective(ABC):
    """Scores a model on a batch of windows.

    Attributes:
        learns: what models it can train: of `tokens`, `vectors`, `codes` (see `Tokenizer.output`).
    """

    learns: tuple[str, ...] = ("tokens", "codes")

    @abstractmethod
    def __call__(self, model: SequenceModel | VectorModel, batch: Batch) -> Outcome:
        """The loss, differentiable in `Outcome.total`, and what is logged of it."""
