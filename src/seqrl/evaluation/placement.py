"""The policy of an evaluation: where its model runs, and how finely its weights are kept."""

from __future__ import annotations

import copy

import torch

from seqrl.acting.policy import Policy
from seqrl.config import EvaluationConfig
from seqrl.critics import Critic
from seqrl.errors import ConfigError
from seqrl.models import Model

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device_of(name: str) -> torch.device:
    """The device behind `auto`, `cpu`, `cuda` or `cuda:1`; `seqrl.config.RowSettings` says which names there are.

    Raises:
        ConfigError: there is none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name!r} was asked for and torch sees no GPU; give auto or cpu")
    return device


def placed(model: Model, *, device: str, precision: str) -> Model:
    """The model on a device; a copy of it where its weights are rounded, because others may want them as they are."""
    model = model.to(device_of(device))
    dtype = PRECISIONS[precision]
    return model if dtype == torch.float32 else copy.deepcopy(model).cast(dtype)


def policy_of(model: Model, config: EvaluationConfig, critic: Critic | None = None) -> Policy:
    """What decodes a model as an evaluation says.

    Raises:
        ConfigError: a place, precision or strategy that does not fit.
    """
    return Policy(
        placed(model, device=config.device, precision=config.precision),
        planner=config.planner,
        condition=config.condition,
        score=config.score,
        critic=critic,
        seed=config.seed,
        plan_every=config.plan_every,
    )
