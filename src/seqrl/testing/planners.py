"""Contracts of the slot `planner`."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.code import CodeModel
from seqrl.models.token import TokenModel
from seqrl.planners import Planner
from seqrl.registry import SCORE
from seqrl.scores import Score
from seqrl.testing import samples
from seqrl.testing.contract import CannotTell, Component, Contract, ContractViolation, close, require, shape
from seqrl.types import CodeHistory, History, Plan, TokenHistory

_LENGTHS = (3, 1, 0)  # past transitions of the rows that are planned for


def shapes_and_bounds(component: Component) -> None:
    """A plan has H actions per row, in the units and within the range of the data, and a finite value."""
    planner, model, score = _setting(component)
    history = samples.history(model, _LENGTHS)
    plan = _plan(planner, model, history, score)
    rows, size = len(_LENGTHS), model.layout.field("action").size
    wanted = (rows, planner.horizon, size)
    require(
        plan.actions.shape == wanted and plan.actions.is_floating_point(),
        f"actions have {shape(plan.actions)}; (B, horizon, A) = {wanted} floats are needed",
    )
    require(
        plan.value.shape == (rows,) and bool(plan.value.isfinite().all()),
        f"value has {shape(plan.value)}, or is not finite; one finite number per row, ({rows},), is needed",
    )
    recorded = torch.from_numpy(samples.store().actions)
    low, high = recorded.amin(0) - 1e-5, recorded.amax(0) + 1e-5
    require(
        bool(((plan.actions >= low) & (plan.actions <= high)).all()),
        f"actions reach from {plan.actions.min():.3g} to {plan.actions.max():.3g}, beyond those of the data "
        f"({low.min():.3g} to {high.max():.3g})",
    )
    if plan.tokens is None or not isinstance(history, TokenHistory):
        return
    steps, observation = model.tokens_per_step, model.layout.field("observation").size
    require(
        plan.tokens.shape == (rows, planner.horizon, steps),
        f"tokens have {shape(plan.tokens)}; (B, horizon, K) = {(rows, planner.horizon, steps)} is needed",
    )
    require(
        torch.equal(plan.tokens[:, 0, :observation], history.tokens[:, -observation:]),
        "the first imagined transition does not begin with the present observation",
    )


def batch_invariance(component: Component) -> None:
    """A row's plan depends neither on the rows beside it nor on their order, nor on padding."""
    planner, model, score = _setting(component)
    history = samples.history(model, _LENGTHS)
    together = _plan(planner, model, history, score)
    for row, length in enumerate(_LENGTHS):
        own = _rows(history, [row], padding=(max(_LENGTHS) - length) * model.tokens_per_step)
        alone = planner.plan(model, own, score, _noise([row]))
        require(
            close(alone.actions, together.actions[row : row + 1]),
            f"row {row} gets another plan alone than in a batch; draw from `noise`, and compute row by row",
        )
    order = [2, 0, 1]
    plan = planner.plan(model, _rows(history, order), score, _noise(order))
    require(close(plan.actions, together.actions[order]), "another order of the rows changes their plans")


def same_seed_same_plan(component: Component) -> None:
    """The same noise gives the same plan, whatever happened before."""
    planner, model, score = _setting(component)
    history = samples.history(model, _LENGTHS)
    torch.manual_seed(1)
    first = _plan(planner, model, history, score)
    planner.plan(model, samples.history(model, [2, 2]), score, _noise([7, 8]))
    torch.manual_seed(2)
    second = _plan(planner, model, history, score)
    require(
        torch.equal(first.actions, second.actions) and torch.equal(first.value, second.value),
        "the same history and noise give two different plans; draw from `noise` only, and keep no state",
    )


def leaves_its_inputs_alone(component: Component) -> None:
    """Neither the history nor the model is changed by planning."""
    planner, model, score = _setting(component)
    history = samples.history(model, _LENGTHS)
    before = copy.deepcopy(history)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    _plan(planner, model, history, score)
    require(
        all(_unchanged(getattr(history, each.name), getattr(before, each.name)) for each in fields(before)),
        "planning changes the history that it was given; copy before writing",
    )
    kept = all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    require(kept and not model.training, "planning changes the model or leaves it in training mode")


def cache_modes_agree(component: Component) -> None:
    """With an option `cache`, `none` and `exact` give the same plan."""
    if not component.has_option("cache"):
        return
    plans = []
    for mode in ("none", "exact"):
        planner, model, score = _setting(component.replace(cache=mode))
        plans.append(_plan(planner, model, samples.history(model, _LENGTHS), score))
    require(
        close(plans[0].actions, plans[1].actions) and close(plans[0].value, plans[1].value),
        "cache=exact gives another plan than cache=none; the cache must not change what is computed",
    )


def plans_without_a_past(component: Component) -> None:
    """The first step of an episode, with nothing but an observation, can be planned."""
    planner, model, score = _setting(component)
    try:
        plan = _plan(planner, model, samples.history(model, [0, 0]), score)
    except Exception as error:
        raise ContractViolation(f"a history without transitions fails: {type(error).__name__}: {error}") from error
    require(
        len(plan.actions) == 2 and bool(plan.actions.isfinite().all()),
        f"a history without transitions gives actions of {shape(plan.actions)}, or not finite ones",
    )


def refuses_or_serves(component: Component) -> None:
    """Every layout and score is either refused by `check`, with a ConfigError, or can be planned with."""
    for what, layout in samples.layouts().items():
        for name in SCORE.builtin_names():
            planner: Planner = component.build(critic=samples.critic())
            score: Score = SCORE.build({"name": name}, discount=layout.step_discount, critic=samples.critic())
            where = f"a layout {what} and score {name!r}"
            try:
                model = _model(planner, layout, samples.WINDOW)
                planner.check_score(score)
                planner.check(model, score)
            except ConfigError:  # the planner's, or no model of the kind that it serves has such a layout
                continue
            except Exception as error:
                raise ContractViolation(f"check of {where} raises {type(error).__name__}, not ConfigError") from error
            try:
                planner.plan(model, samples.history(model, [1]), score, _noise([0]))
            except Exception as error:
                raise ContractViolation(
                    f"check accepts {where}, and plan fails with it: {type(error).__name__}: {error}"
                ) from error


CONTRACTS: tuple[Contract, ...] = (
    shapes_and_bounds,
    batch_invariance,
    same_seed_same_plan,
    leaves_its_inputs_alone,
    cache_modes_agree,
    plans_without_a_past,
    refuses_or_serves,
)


def _setting(component: Component) -> tuple[Planner, TokenModel | CodeModel, Score]:
    """The planner with a model and a score that it accepts."""
    planner: Planner = component.build(critic=samples.critic())
    layout = samples.layout(goal=planner.wants_target)
    refusal: Exception | None = None
    for window in (samples.WINDOW, 4 * samples.WINDOW):  # the longer one for planners that look further
        model = _model(planner, layout, window)
        # The simplest first, the one that wants most last.
        for name in sorted(SCORE.builtin_names(), key=lambda name: (name != "likelihood", name == "critic")):
            score: Score = SCORE.build({"name": name}, discount=layout.step_discount, critic=samples.critic())
            try:
                planner.check_score(score)
                planner.check(model, score)
            except ConfigError as error:
                refusal = error
            else:
                return planner, model, score
    raise CannotTell(f"check refuses every built-in score, even with a complete layout: {refusal}")


def _model(planner: Planner, layout: Layout, window: int) -> TokenModel | CodeModel:
    """A model of a class that the planner serves: of tokens, or else of codes."""
    make = samples.model if issubclass(TokenModel, planner.serves) else samples.code_model
    return make(layout, window=window)


def _noise(environments: list[int]) -> Noise:
    return Noise.of(5, torch.tensor(environments), time=0)


def _rows(history: TokenHistory | CodeHistory, rows: list[int], padding: int = 0) -> TokenHistory | CodeHistory:
    """Some environments of a history, without `padding` tokens on the left."""
    observation = None if history.observation is None else history.observation[rows]
    if isinstance(history, CodeHistory):
        return replace(history, state=history.state[rows], observation=observation)
    goal = None if history.goal is None else history.goal[rows]
    tokens, lengths = history.tokens[rows, padding:], history.lengths[rows]
    target = None if history.target is None else history.target[rows]
    return replace(history, tokens=tokens, lengths=lengths, goal=goal, observation=observation, target=target)


def _unchanged(after: Any, before: Any) -> bool:
    return torch.equal(after, before) if isinstance(before, Tensor) else bool(after == before)


def _plan(planner: Planner, model: TokenModel | CodeModel, history: History, score: Score) -> Plan:
    with torch.no_grad():
        return planner.plan(model, history, score, _noise(list(range(len(history)))))
