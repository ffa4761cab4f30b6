"""Contracts of the slots `condition` and `score`, which are pure functions of what a planner shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.scores import Distribution, Score, Trace
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, ContractViolation, close, require, shape


def prefix_fits_the_layout(component: Component) -> None:
    """A layout is refused by ConfigError, or gets prefix tokens of the shape that it has."""
    for what, layout in samples.layouts().items():
        condition: Condition = component.build()
        if not _accepts(condition, layout, what=what):
            continue
        model = samples.model(layout)
        prefix = condition.prefix(model, _goals(layout), 3)
        if layout.prefix_size == 0:
            require(prefix is None, f"a layout {what} has no prefix, and the condition gives one; give None")
            continue
        require(
            isinstance(prefix, Tensor) and prefix.shape == (3, layout.prefix_size) and prefix.dtype == torch.int64,
            f"for a layout {what} the prefix is {shape(prefix)}; int64 of shape (3, {layout.prefix_size}) is needed",
        )
        assert prefix is not None
        require(
            bool(((prefix >= 0) & (prefix <= model.termination_token)).all()),
            f"prefix tokens reach from {int(prefix.min())} to {int(prefix.max())}, outside [0, V]",
        )


def prefix_is_row_by_row(component: Component) -> None:
    """A row's prefix depends on its own goal alone, and on nothing that was asked before."""
    layout = samples.layout(goal=True)
    condition: Condition = component.build()
    if not _accepts(condition, layout, what="with a goal"):
        return
    model, goals, order = samples.model(layout), _goals(layout), torch.tensor([2, 0, 1])
    first = condition.prefix(model, goals, 3)
    shuffled, again = condition.prefix(model, goals[order], 3), condition.prefix(model, goals, 3)
    assert first is not None and shuffled is not None and again is not None
    require(torch.equal(shuffled, first[order]), "rows in another order get other prefixes; compute row by row")
    require(
        torch.equal(again, first), "the same goals give two different prefixes; a condition must be a pure function"
    )


def goals_are_asked_for(component: Component) -> None:
    """`wants_goals` is true where goals are needed, and missing goals are refused by ConfigError."""
    layout = samples.layout(goal=True)
    condition: Condition = component.build()
    wants: Any = getattr(condition, "wants_goals", None)
    require(isinstance(wants, bool), f"wants_goals is {wants!r}; say True or False")
    if not _accepts(condition, layout, what="with a goal"):
        return
    try:
        condition.prefix(samples.model(layout), None, 3)
    except ConfigError:
        require(wants, "the condition refuses to work without goals, although wants_goals is False")
    except Exception as error:
        raise ContractViolation(f"missing goals raise {type(error).__name__}, not ConfigError: {error}") from error
    else:
        require(not wants, "wants_goals is True, but missing goals are not refused by ConfigError")


def score_has_a_number_per_plan(component: Component) -> None:
    """(..., h) traces become (...) finite numbers, in any number of leading dimensions."""
    trace = _trace(_layout_for(component))
    for one in (trace, _rows(trace, torch.tensor(0))):
        score = component.build(discount=0.9, critic=samples.critic())(one)
        wanted = one.log_probs.shape[:-1]
        require(
            isinstance(score, Tensor) and score.shape == wanted and bool(score.isfinite().all()),
            f"a trace of shape {tuple(one.log_probs.shape)} gets {shape(score)}, or numbers that are not finite; "
            f"one finite number per plan, {tuple(wanted)}, is needed",
        )


def score_is_pure(component: Component) -> None:
    """A plan's score depends on its own trace alone, and the trace stays as it was."""
    score: Score = component.build(discount=0.9, critic=samples.critic())
    layout = _layout_for(component)
    trace, untouched, order = _trace(layout), _trace(layout), torch.tensor([2, 0, 1])
    first = score(trace)
    require(close(score(_rows(trace, order)), first[order]), "rows in another order get other scores")
    require(close(score(_rows(trace, order[:1])), first[order[:1]]), "a row gets another score alone than in a batch")
    require(torch.equal(score(trace), first), "the same trace gets two different scores; keep no state")
    for name, given in vars(untouched).items():
        require(_same(given, getattr(trace, name)), f"scoring changes {name} of the trace")


def score_refuses_or_serves(component: Component) -> None:
    """Every layout is either refused by `check`, with a ConfigError, or can be scored."""
    for what, layout in samples.layouts().items():
        score: Score = component.build(discount=layout.step_discount, critic=samples.critic())
        if not _accepts(score, layout, what=what):
            continue
        try:
            score(_trace(layout))
        except Exception as error:
            raise ContractViolation(
                f"check accepts a layout {what}, and scoring fails with it: {type(error).__name__}: {error}"
            ) from error


CONDITION_CONTRACTS: tuple[Contract, ...] = (prefix_fits_the_layout, prefix_is_row_by_row, goals_are_asked_for)
SCORE_CONTRACTS: tuple[Contract, ...] = (score_has_a_number_per_plan, score_is_pure, score_refuses_or_serves)


def _accepts(part: Condition | Score, layout: Layout, *, what: str) -> bool:
    try:
        part.check(layout)
    except ConfigError:
        return False
    except Exception as error:
        raise ContractViolation(f"check of a layout {what} raises {type(error).__name__}, not ConfigError") from error
    return True


def _layout_for(component: Component) -> Layout:
    """One with the extras that a score wants, whatever they are called."""
    return samples.layout(extras=component.build(discount=0.9, critic=samples.critic()).wants_extras)


def _goals(layout: Layout) -> Tensor:
    size = layout.prefix_size or 2
    return torch.randn(3, size, generator=torch.Generator().manual_seed(6))


def _trace(layout: Layout) -> Trace:
    """Three environments, four beams, three transitions."""
    generator = torch.Generator().manual_seed(7)
    numbers = [torch.randn(3, 4, 3, dtype=torch.float64, generator=generator) for _ in range(4)]
    return Trace(
        -numbers[0].abs(),
        -numbers[0].abs() - numbers[1].abs(),
        numbers[2] if layout.has("reward") else None,
        numbers[3] if layout.has("value") else None,
        observations=torch.randn(3, 4, 3, samples.sizes()[0], generator=generator),
        actions=torch.randn(3, 4, 3, samples.sizes()[1], generator=generator),
        next_observation=torch.randn(3, 4, samples.sizes()[0], generator=generator),
        target=torch.randn(3, 4, 2, generator=generator),
        goal_evidence=torch.randn(3, 4, 3, generator=generator),
        over=torch.arange(4) > torch.arange(4)[:, None].expand(3, 4, 1),
        reward_distributions=_beliefs(generator) if layout.has("reward") else None,
        value_distributions=_beliefs(generator) if layout.has("value") else None,
        extras={
            each.name: torch.randn(3, 4, 3, each.size, generator=generator)
            for each in (*layout.contexts, *layout.outcomes)
        },
    )


def _beliefs(generator: torch.Generator) -> Distribution:
    """Of every transition, over five values."""
    weights = torch.randn(3, 4, 3, 5, dtype=torch.float64, generator=generator)
    return Distribution(weights.softmax(-1), torch.randn(5, dtype=torch.float64, generator=generator))


def _rows(trace: Trace, rows: Tensor) -> Trace:
    chosen: Any = {name: _row_of(part, rows) for name, part in vars(trace).items() if part is not None}
    return replace(trace, **chosen)


def _row_of(part: Any, rows: Tensor) -> Any:
    if isinstance(part, Mapping):
        return {name: each[rows] for name, each in part.items()}
    if isinstance(part, Distribution):
        return replace(part, probabilities=part.probabilities[rows])
    return part[rows]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return torch.equal(one.probabilities, other.probabilities) and torch.equal(one.values, other.values)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
