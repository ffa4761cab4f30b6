"""What is known of plans after an evaluation, as it is kept on disk and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Agreement:
    """What plans predicted against what came.

    Attributes:
        plans: how many are compared.
        bias: mean of predicted - realised; `bias_ci95` over episodes, None where one episode is all there is.
        correlation: None where one of the two does not vary.
        points: (predicted, realised) of some plans.
    """

    plans: int
    predicted_mean: float
    realised_mean: float
    bias: float
    bias_ci95: list[float] | None
    correlation: float | None
    points: list[list[float]]


@dataclass(frozen=True)
class Calibration:
    """The returns that plans promised; None where the model predicts no such thing, or too little was seen.

    Attributes:
        horizon: imagined rewards against those of as many steps.
        end: with the value of what follows, against everything that was earned.
    """

    horizon: Agreement | None
    end: Agreement | None


@dataclass(frozen=True)
class StepErrors:
    """Errors of what was imagined some steps ahead, in deviations; None where there is nothing to compare.

    Attributes:
        steps: actions that were carried out in between.
        points: plans that are compared.
        observation_rmse, reward_rmse: of the model; true ends are left out where a penalty stands for the reward.
        floor: of the tokenizer's round trip of what was really seen.
        persistence: of predicting that nothing changes.
    """

    steps: int
    points: int
    observation_rmse: float | None
    floor: float | None
    persistence: float | None
    reward_rmse: float | None


@dataclass(frozen=True)
class PlanQuality:
    """How good the plans of an evaluation were.

    Attributes:
        horizon: transitions of a plan.
        unit: whose standard deviations errors are given in: those of the data, or of what the evaluation saw.
        calibration: of the evaluation's plans.
        model: by log (`evaluation`, `open_loop`), the errors by steps ahead; empty with a stride.
    """

    horizon: int
    discount: float
    termination_penalty: float | None
    unit: Literal["data", "visited"]
    calibration: Calibration
    model: Mapping[str, list[StepErrors]]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made of one; keys that say whose it is are left out.

        Raises:
            KeyError, TypeError: it is no such content.
        """
        calibration = {
            name: None if each is None else Agreement(**each) for name, each in content["calibration"].items()
        }
        return cls(
            content["horizon"],
            content["discount"],
            content["termination_penalty"],
            content["unit"],
            Calibration(**calibration),
            {log: [StepErrors(**each) for each in entries] for log, entries in content["model"].items()},
        )
