"""Which models' token steps are one compiled call, and why others' are not."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from seqrl.backbones import Backbone
from seqrl.compiled.library import load_library
from seqrl.compiled.step import CompiledStep, find_obstacle
from seqrl.models.autoregressive import AutoregressiveModel


@dataclass(frozen=True)
class _Kept:
    """A step, and the weights that it was packed from: kept alive, so that no other tensor can lie in their place."""

    step: CompiledStep
    weights: list[Tensor]
    versions: list[tuple[int, int]]


# Kept here and not in the model, which may be copied.
_steps: weakref.WeakKeyDictionary[AutoregressiveModel, _Kept] = weakref.WeakKeyDictionary()


def _forget_steps(*_: Any) -> None:
    _steps.clear()


# Fused optimizers write to weights and leave their versions as they were.
register_optimizer_step_post_hook(_forget_steps)


@torch.no_grad()
def find_step(model: AutoregressiveModel) -> CompiledStep | str:
    """The compiled token step of a model's present weights, or why there is none. The first call on a machine compiles.

    Weights are packed anew when their versions change, and after any step of an optimizer. Those that are written to
    through `.data` by other means keep their version, and what was packed of them before stays in use.
    """
    if getattr(model.next_logits, "__func__", None) is not AutoregressiveModel.next_logits:
        return "the model has its own way to logits"
    program = model.backbone.declare_program() if _declares_its_forward(type(model.backbone)) else None
    if program is None:
        return "the backbone declares no program"
    obstacle = find_obstacle(model.backbone, program, model.head.weight)
    if obstacle is not None:
        return obstacle
    weights = [weight.detach() for weight in (*model.backbone.parameters(), model.head.weight)]
    versions = [(weight.data_ptr(), weight._version) for weight in weights]
    kept = _steps.get(model)
    if kept is None or kept.versions != versions:
        heads = weights[-1].view(model.tokens_per_step, model.num_classes, -1)
        kept = _steps[model] = _Kept(CompiledStep(program, heads), weights, versions)
    return kept.step


def describe_path(model: AutoregressiveModel) -> str:
    """How a model's cached token steps are computed on a CPU, for people."""
    found = find_step(model)
    return f"tensor operations ({found})" if isinstance(found, str) else f"one compiled call ({load_library()[1]})"


def _declares_its_forward(cls: type[Backbone]) -> bool:
    """Whether the program is of this class's `forward`, and not of one that it replaced."""
    owners = [next(owner for owner in cls.__mro__ if name in vars(owner)) for name in ("declare_program", "forward")]
    return issubclass(*owners)
