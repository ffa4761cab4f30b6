"""Ending a training that gets no better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge

from seqrl.callbacks import Training, TrainingCallback
from seqrl.errors import ConfigError, did_you_mean
from seqrl.registry import register_callback


@register_callback("early_stopping")
class EarlyStopping(TrainingCallback):
    """Ends a stage when a number of its validations has not improved for a while.

    Args:
        metric: of a validation, such as `val/loss`.
        patience: validations without an improvement that end it.
        min_delta: a change must be larger to be one.
        mode: `min` where less is better.
    """

    def __init__(
        self,
        metric: str = "val/loss",
        patience: Annotated[int, Ge(1)] = 5,
        min_delta: Annotated[float, Ge(0)] = 0.0,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        self._metric, self._patience, self._min_delta = metric, patience, min_delta
        self._sign = 1 if mode == "min" else -1
        self._best, self._waited = math.inf, 0

    def on_validation(self, training: Training) -> None:
        if self._metric not in training.metrics:
            known = sorted(training.metrics)
            raise ConfigError(
                f"early_stopping watches metric={self._metric!r}, which no validation of the {training.stage} measures."
                f"{did_you_mean(self._metric, known)} Measured: {', '.join(known)}"
            )
        value = self._sign * training.metrics[self._metric]
        if value < self._best - self._min_delta:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            best = f"{self._sign * self._best:.4g}" if math.isfinite(self._best) else "none"
            training.end(f"early_stopping: {self._metric} did not get better than {best} in {self._waited} validations")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best, self._waited = state["best"], state["waited"]
