"""Contracts of the slots `condition` and `score`, which are pure functions of what a planner shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqrl.conditions import Condition
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.scores import Score, Trace
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, ContractViolation, close, require, shape
from seqrl.testing.traces import ask, find_difference, layout_for, take_plans, trace_of


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
    score = _score(component)
    trace = trace_of(score, layout_for(score))
    for one in (trace, take_plans(trace, 0)):
        found = ask(score, one)
        wanted = one.log_probs.shape[:-1]
        require(
            isinstance(found, Tensor) and found.shape == wanted and bool(found.isfinite().all()),
            f"a trace of shape {tuple(one.log_probs.shape)} gets {shape(found)}, or numbers that are not finite; "
            f"one finite number per plan, {tuple(wanted)}, is needed",
        )


def score_is_pure(component: Component) -> None:
    """A plan's score depends on its own trace alone, and the trace stays as it was."""
    score = _score(component)
    layout = layout_for(score)
    trace, untouched, order = trace_of(score, layout), trace_of(score, layout), torch.tensor([2, 0, 1])
    first = ask(score, trace)
    require(close(ask(score, take_plans(trace, order)), first[order]), "rows in another order get other scores")
    require(
        close(ask(score, take_plans(trace, order[:1])), first[order[:1]]),
        "a row gets another score alone than in a batch",
    )
    for index in _each(first):
        alone = ask(score, take_plans(trace, index))
        require(close(alone, first[index]), "a plan gets another score alone than beside others")
    require(torch.equal(ask(score, trace), first), "the same trace gets two different scores; keep no state")
    _require_untouched(trace, untouched, "scoring")


def lost_plans_are_told_each_by_itself(component: Component) -> None:
    """`find_lost` gives None, or a bool for each plan by its own trace alone; the trace stays as it was."""
    score = _score(component)
    layout = layout_for(score)
    trace, untouched = (trace_of(score, layout, partial=True) for _ in range(2))
    lost = ask(score, trace, lost=True)
    for one in (trace, take_plans(trace, 0)):
        found, wanted = ask(score, one, lost=True), one.log_probs.shape[:-1]
        require(
            found is None or (isinstance(found, Tensor) and found.shape == wanted and found.dtype == torch.bool),
            f"of a trace of shape {tuple(one.log_probs.shape)} find_lost gives {shape(found)}; None, or one bool per "
            f"plan, {tuple(wanted)}, is needed",
        )
    _require_untouched(trace, untouched, "find_lost")
    if lost is None:
        return
    require(
        torch.equal(ask(score, trace, lost=True), lost),
        "find_lost tells the same trace otherwise when it is asked again; keep no state",
    )
    for index in [(torch.tensor([2, 0, 1]),), *_each(lost)]:
        found = ask(score, take_plans(trace, index), lost=True)
        require(
            found is not None and torch.equal(found, lost[index]),
            "find_lost tells otherwise of a plan that stands alone, or elsewhere; compare no plans with each other",
        )


def score_refuses_or_serves(component: Component) -> None:
    """Every layout is either refused by `check`, with a ConfigError, or can be scored."""
    for what, layout in samples.layouts().items():
        score: Score = component.build(discount=layout.step_discount, critic=samples.critic())
        if not _accepts(score, layout, what=what):
            continue
        try:
            ask(score, trace_of(score, layout))
        except ContractViolation:
            raise
        except Exception as error:
            raise ContractViolation(
                f"check accepts a layout {what}, and scoring fails with it: {type(error).__name__}: {error}"
            ) from error


CONDITION_CONTRACTS: tuple[Contract, ...] = (prefix_fits_the_layout, prefix_is_row_by_row, goals_are_asked_for)
SCORE_CONTRACTS: tuple[Contract, ...] = (
    score_has_a_number_per_plan,
    score_is_pure,
    lost_plans_are_told_each_by_itself,
    score_refuses_or_serves,
)


def _accepts(part: Condition | Score, layout: Layout, *, what: str) -> bool:
    try:
        part.check(layout)
    except ConfigError:
        return False
    except Exception as error:
        raise ContractViolation(f"check of a layout {what} raises {type(error).__name__}, not ConfigError") from error
    return True


def _score(component: Component) -> Score:
    made: Score = component.build(discount=0.9, critic=samples.critic())
    return made


def _each(found: Tensor) -> Iterator[tuple[slice, slice]]:
    """Every plan of (B, C), as an index that leaves it alone."""
    rows, plans = found.shape
    return ((slice(row, row + 1), slice(plan, plan + 1)) for row in range(rows) for plan in range(plans))


def _require_untouched(trace: Trace, untouched: Trace, what: str) -> None:
    name = find_difference(trace, untouched)
    require(name is None, f"{what} changes {name} of the trace")


def _goals(layout: Layout) -> Tensor:
    size = layout.prefix_size or 2
    return torch.randn(3, size, generator=torch.Generator().manual_seed(6))
