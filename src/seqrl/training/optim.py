"""Optimizer groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from seqrl.errors import ConfigError, did_you_mean


def split_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(decayed, plain): the weights of linear layers, and everything else (embeddings, norms, biases)."""
    linear = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
    decayed = [p for p in module.parameters() if id(p) in linear]
    return decayed, [p for p in module.parameters() if id(p) not in linear]


def check_optimizer(config: Mapping[str, Any]) -> None:
    """Refuse settings that `conf/optimizer/adamw.yaml` does not have.

    Raises:
        ConfigError: names them.
    """
    known = ("learning_rate", "betas", "weight_decay", "clip_norm")
    for key in config:
        if key not in known:
            raise ConfigError(
                f"optimizer has no setting {key!r}.{did_you_mean(key, known)} Settings: {', '.join(known)}"
            )


def adamw(module: nn.Module, *, learning_rate: float, betas: list[float], weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays the weights of linear layers only (Janner et al. 2021, appendix A, and their code)."""
    decayed, plain = split_decay(module)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(betas[0], betas[1]))


def cosine(
    max_steps: int, steps_per_epoch: int, *, warmup_fraction: float, final_ratio: float
) -> Callable[[int], float]:
    """Linear warm-up over a share of the training, then half a cosine down to `final_ratio` at the last step."""
    warmup = max(1, round(max_steps * warmup_fraction))

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
        return final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

    return multiplier


def tt_reference(
    max_steps: int, steps_per_epoch: int, *, warmup_epochs: float, cosine_epochs: float, final_ratio: float
) -> Callable[[int], float]:
    """The published schedule, which is cyclic by accident.

    Warm-up over one epoch, a cosine that reaches its floor after 20 epochs and is not stopped there: it climbs back
    to 1 at epoch 39 and falls again. For reproducing published numbers only.
    """
    warmup, end = warmup_epochs * steps_per_epoch, cosine_epochs * steps_per_epoch

    def multiplier(step: int) -> float:
        done = step + 1
        if done < warmup:
            return done / warmup
        progress = (done - warmup) / max(1.0, end - warmup)
        return max(final_ratio, 0.5 * (1 + math.cos(math.pi * progress)))

    return multiplier


def constant(max_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate as it is, for tests and for other people's schedules."""
    return lambda step: 1.0


_SCHEDULES: dict[str, Callable[..., Callable[[int], float]]] = {
    "constant": constant,
    "cosine": cosine,
    "tt_reference": tt_reference,
}


def schedule(config: Mapping[str, Any], *, max_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Factor on the learning rate by step, 0 being the first.

    Args:
        config: `{"name": ..., **options}`, see `conf/scheduler`.

    Raises:
        ConfigError: an unknown name or option.
    """
    options = dict(config)
    name = options.pop("name")
    if name not in _SCHEDULES:
        raise ConfigError(
            f"no scheduler named {name!r}.{did_you_mean(name, _SCHEDULES)} Available: {', '.join(_SCHEDULES)}"
        )
    try:
        return _SCHEDULES[name](max_steps, steps_per_epoch, **options)
    except TypeError as error:
        raise ConfigError(f"scheduler {name!r}: {error}; see conf/scheduler/{name}.yaml for its options") from error


def adamw_and_schedule(module: pl.LightningModule, config: Mapping[str, Any]) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns for the sections `optimizer` and `scheduler` of a run's config."""
    options = {key: value for key, value in config["optimizer"].items() if key != "clip_norm"}  # the trainer's business
    optimizer = adamw(module, **options)
    steps = getattr(getattr(module.trainer, "datamodule", None), "steps_per_epoch", 1)
    multiplier = schedule(config["scheduler"], max_steps=module.trainer.max_steps, steps_per_epoch=steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
