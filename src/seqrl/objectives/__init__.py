"""What training minimises (slot `objective`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqrl.models import Model
from seqrl.models.autoregressive import AutoregressiveModel


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
        learns: the class of models that it can train.
    """

    learns: type[Model] = AutoregressiveModel  # type: ignore[type-abstract]

    def check(self, model: Any) -> None:  # noqa: B027 - most objectives fit every model that they learn
        """Refuse a model of the class `learns` that lacks what an option needs; fits all by default.

        Raises:
            seqrl.errors.ConfigError: says what is missing.
        """

    @abstractmethod
    def __call__(self, model: Any, batch: Any) -> Outcome:
        """The loss, differentiable in `Outcome.total`, and what is logged of it.

        Args:
            model: of the class `learns`.
            batch: of that class's type of batch, see `seqrl.types`.
        """


def whole(numbers: Tensor) -> Tensor:
    """Numbers with the digits that sums over thousands of them need: those of half precision in float32."""
    return numbers.float() if numbers.dtype in (torch.float16, torch.bfloat16) else numbers
