"""The slot `callback`: what happens beside the optimisation of a stage, at its steps and validations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from seqrl.registry import CALLBACK


@dataclass
class Training:
    """A stage in the midst of its training, as a callback sees it; the only thing it may do is to ask for the end.

    Attributes:
        stage: `tokenizer`, `model` or `critic`.
        model: what is trained.
        step: optimiser steps so far.
        max_steps: after which the training ends by itself.
        metrics: by name, such as `val/loss`, of the last validation; of the training where they were logged.
        end_reason: why a callback asked for the end, a sentence without its full stop; None where none did.
    """

    stage: str
    model: nn.Module
    step: int
    max_steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    end_reason: str | None = None

    def end(self, reason: str) -> None:
        """Ask for the end of the stage after the present step; the run then counts as trained to its end.

        Args:
            reason: told to the user, as in `early_stopping: val/loss did not fall for 5 validations`.
        """
        self.end_reason = self.end_reason or reason


class TrainingCallback:
    """Watches the training of a stage. One object is made for each stage; every rank has its own.

    Attributes:
        replaces_weights: whether `weights` gives some; such callbacks do not go with models whose parts follow the
            trained weights, nor with weights that are spread over ranks.
    """

    replaces_weights: ClassVar[bool] = False

    def on_start(self, training: Training) -> None:
        """Called before the first step of a command, after `load_state_dict` where a training goes on."""

    def on_step(self, training: Training) -> None:
        """Called after each step of the optimizer."""

    def on_validation(self, training: Training) -> None:
        """Called after each validation, with its metrics; all ranks see the same."""

    def weights(self) -> Mapping[str, Tensor] | None:
        """Parameters of the model by name, to validate with and to keep in checkpoints instead of the trained ones.

        None where there are none. The training itself goes on with its own.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on needs: plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def callback_config(choice: str | Mapping[str, Any]) -> dict[str, Any]:
    """An element of `training.callbacks` as a component's config: `early_stopping` is short for its name alone."""
    return {"name": choice} if isinstance(choice, str) else dict(choice)


def build_callbacks(choices: Sequence[str | Mapping[str, Any]]) -> dict[str, TrainingCallback]:
    """The callbacks that a stage asks for, by name.

    Raises:
        ConfigError: an unknown name or option.
    """
    return {config["name"]: CALLBACK.build(config) for config in map(callback_config, choices)}
