"""The contracts of optimizers and schedulers."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from seqrl.optimizers import Optimizer
from seqrl.schedulers import Scheduler
from seqrl.testing.contract import Component, require

MAX_STEPS, STEPS_PER_EPOCH = 40, 8
_TARGETS = 40  # of a step, at most


def every_parameter_once(component: Component) -> None:
    """Each parameter of a module stands in one group, and no other tensor does."""
    module = _module()
    groups = _optimizer(component).build(module).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for number, name in names.items():
        require(held.count(number) == 1, f"the parameter {name!r} stands in {held.count(number)} groups; one is needed")
    require(set(held) == set(names), "a group holds a tensor that is no parameter of the module")


def loss_falls(component: Component) -> None:
    """Thirty steps on one batch lower its loss."""
    module = _module()
    optimizer = _optimizer(component).build(module)
    losses = [_step(module, optimizer) for _ in range(30)]
    require(losses[-1] < losses[0], f"30 steps on one batch change its loss from {losses[0]:.4g} to {losses[-1]:.4g}")


def learning_rate_is_obeyed(component: Component) -> None:
    """Schedulers multiply the learning rate of the groups: at 0 nothing moves."""
    module = _module()
    optimizer = _optimizer(component).build(module)
    before = copy.deepcopy(module.state_dict())
    for group in optimizer.param_groups:
        require(group.get("lr", 0) > 0, "a group has no learning rate 'lr' above 0, which schedulers multiply")
        group["lr"] = 0.0
    _step(module, optimizer)
    moved = [name for name, weight in module.state_dict().items() if not torch.equal(weight, before[name])]
    require(not moved, f"with a learning rate of 0 a step moves {', '.join(moved)}")


def state_goes_on(component: Component) -> None:
    """A new optimizer that loads the state of another takes the same steps."""
    module = _module()
    optimizer = _optimizer(component).build(module)
    for _ in range(3):
        _step(module, optimizer)
    other = copy.deepcopy(module)
    resumed = _optimizer(component).build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(module, optimizer)
    _step(other, resumed)
    same = all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    require(same, "resumed from its state, the optimizer takes another step; keep what it needs in its state")


def factors_are_numbers(component: Component) -> None:
    """Finite and 0 or more in every step, also past the end of the training."""
    scheduler = _scheduler(component)
    for step in range(2 * MAX_STEPS):
        factor = _factor(scheduler, step)
        require(math.isfinite(factor) and factor >= 0, f"factor({step}) is {factor}; give a finite number, 0 or more")


def step_alone_decides(component: Component) -> None:
    """A run that was resumed asks for late steps first."""
    scheduler, resumed = _scheduler(component), _scheduler(component)
    forward = [_factor(scheduler, step) for step in range(MAX_STEPS)]
    if scheduler.counts_targets:  # what it counted decides, and is remembered
        resumed.count(scheduler.targets)
        later = range(MAX_STEPS, 2 * MAX_STEPS)
        same = [_factor(scheduler, step) for step in later] == [_factor(resumed, step) for step in later]
        require(same, "resumed with what it had counted, it gives other factors; keep nothing else")
        return
    backward = [resumed.factor(step) for step in reversed(range(MAX_STEPS))]
    require(forward == backward[::-1], "a step has another factor when other steps were asked for before")


def training_gets_somewhere(component: Component) -> None:
    """The learning rate of the groups is what a user set: some step comes near it, and none goes far beyond."""
    scheduler = _scheduler(component)
    most = max(_factor(scheduler, step) for step in range(MAX_STEPS))
    require(0.1 <= most <= 10, f"the largest factor is {most:.4g}; scale factors so that it is about 1")


OPTIMIZER_CONTRACTS = (every_parameter_once, loss_falls, learning_rate_is_obeyed, state_goes_on)
SCHEDULER_CONTRACTS = (factors_are_numbers, step_alone_decides, training_gets_somewhere)


def _optimizer(component: Component) -> Optimizer:
    optimizer: Optimizer = component.build()
    return optimizer


def _scheduler(component: Component) -> Scheduler:
    scheduler: Scheduler = component.build(
        max_steps=MAX_STEPS, steps_per_epoch=STEPS_PER_EPOCH, targets_per_epoch=STEPS_PER_EPOCH * _TARGETS
    )
    return scheduler


def _factor(scheduler: Scheduler, step: int) -> float:
    """The factor of a step, after the step before it was counted."""
    if step > 0:
        scheduler.count(_TARGETS - step % 3)
    return scheduler.factor(step)


def _module() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def _step(module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """One step on a fixed batch; returns the loss before it."""

    def closure() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(torch.arange(5)), torch.arange(5) % 3)
        loss.backward()
        return float(loss.detach())

    return float(optimizer.step(closure))
