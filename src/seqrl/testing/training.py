"""Contracts of the slots `objective` and `data`: what goes into a training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.objectives import Objective, Outcome
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, ContractViolation, close, require, shape
from seqrl.types import TokenBatch, VectorBatch


def loss_is_finite(component: Component) -> None:
    """The loss is a finite sum and a positive count, with and without a goal."""
    for goal in (False, True):
        model, batch = _setting(component, goal=goal)
        outcome = _outcome(component, model, batch)
        require(
            outcome.total.shape == () and bool(outcome.total.isfinite()),
            f"total has {shape(outcome.total)} and is {outcome.total}; it must be one finite number",
        )
        require(
            outcome.count.shape == () and bool(outcome.count > 0),
            f"count has {shape(outcome.count)} and is {outcome.count}; it must be one positive number",
        )


def loss_is_differentiable(component: Component) -> None:
    """The gradient of `total` is finite and moves the model."""
    model, batch = _setting(component)
    outcome = _outcome(component, model, batch)
    require(outcome.total.requires_grad, "total carries no gradient; do not detach it")
    outcome.total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    require(all(bool(g.isfinite().all()) for g in gradients), "the gradient of total holds NaN or infinity")
    require(any(bool((g != 0).any()) for g in gradients), "the gradient of total is zero for every weight of the model")


def masked_tokens_do_not_count(component: Component) -> None:
    """Tokens past the end of an episode change neither the loss nor its count; a batch of them has none."""
    model, batch = _setting(component)
    if isinstance(batch, TokenBatch):
        changed = (batch.tokens + 1) % model.num_classes
        other: TokenBatch | VectorBatch = replace(batch, tokens=torch.where(batch.mask, batch.tokens, changed))
    else:
        other = replace(batch, values=torch.where(batch.mask[..., None], batch.values, batch.values + 1))
    before, after = _outcome(component, model, batch), _outcome(component, model, other)
    require(
        close(before.total, after.total) and torch.equal(before.count, after.count),
        f"other tokens at masked places change the loss from {before.total:.6g} to {after.total:.6g}; "
        "multiply each target's loss by its mask",
    )
    nothing = float(_outcome(component, model, batch.without_loss()).total.detach())
    require(nothing == 0.0, f"a batch that is masked throughout has a loss of {nothing:.6g}, not 0")


def rows_add_up(component: Component) -> None:
    """The total of a batch is the sum over its rows, so that ranks and batches can be added up."""
    model, batch = _setting(component)
    whole = _outcome(component, model, batch)
    parts = [_outcome(component, model, batch.share(row, len(batch))) for row in range(len(batch))]
    summed = float(whole.total.detach())
    total, count = sum(float(p.total.detach()) for p in parts), sum(float(p.count) for p in parts)
    require(
        abs(total - summed) <= 1e-4 * abs(total) and count == float(whole.count),
        f"the rows of a batch have losses that sum to {total:.6g} over {count:g} tokens, the batch has "
        f"{summed:.6g} over {float(whole.count):g}; give sums, not means",
    )


def store_is_sound(component: Component) -> None:
    """Rows, episodes and segments agree, and all numbers are finite float32."""
    store = _load(component)
    rows = len(store.rewards)
    for name, array, dims in (
        ("observations", store.observations, 2),
        ("actions", store.actions, 2),
        ("rewards", store.rewards, 1),
    ):
        require(
            array.ndim == dims and len(array) == rows and array.dtype == np.float32,
            f"{name} has shape {array.shape} and type {array.dtype}; float32 with {rows} rows is needed",
        )
        require(bool(np.isfinite(array).all()), f"{name} holds NaN or infinity")
    for name, boundaries in (("offsets", store.offsets), ("segments", store.segments)):
        require(
            len(boundaries) > 1
            and boundaries[0] == 0
            and boundaries[-1] == rows
            and bool((np.diff(boundaries) > 0).all()),
            f"{name} must rise from 0 to the number of rows, {rows}; it is {boundaries[:5]}...{boundaries[-1:]}",
        )
    require(bool(np.isin(store.offsets, store.segments).all()), "an episode ends in the middle of a behaviour segment")
    for name, flags in (("terminated", store.terminated), ("truncated", store.truncated)):
        require(
            flags.shape == (store.num_episodes,) and flags.dtype == bool,
            f"{name} has shape {flags.shape} and type {flags.dtype}; {store.num_episodes} bools are needed",
        )
    require(not (store.terminated & store.truncated).any(), "an episode is both terminated and truncated")


def attributes_are_plain(component: Component) -> None:
    """The store has a name, and what it tells of itself can be written into results and checkpoints."""
    store = _load(component)
    require(isinstance(store.attributes.get("name"), str), "the store's attributes lack a `name` for tables")
    for key, value in store.attributes.items():
        plain = value is None or isinstance(value, str | bool | int | float | list | dict)
        require(plain, f"the attribute {key!r} is a {type(value).__name__}; give text, numbers, lists or None")


def loads_the_same_twice(component: Component) -> None:
    """The same options give the same episodes."""
    first, second = _load(component), _load(component)
    require(_same(first, second), "the same options give other episodes the second time; seed what is random")


def reads_what_it_loads(component: Component) -> None:
    """Inspection and conversion, which call `read`, see the episodes that training uses."""
    used = _load(component)
    try:
        shown = component.build().read().store()
    except DataError as error:
        raise ContractViolation(f"no store can be made of what read gives: {error}") from error
    require(_same(shown, used), "read gives other episodes than load; make one of them of the other")
    differing = [key for key in used.attributes if shown.attributes.get(key) != used.attributes[key]]
    require(not differing, f"read and load differ in the attributes {', '.join(differing)}")


OBJECTIVE_CONTRACTS: tuple[Contract, ...] = (
    loss_is_finite,
    loss_is_differentiable,
    masked_tokens_do_not_count,
    rows_add_up,
)
DATA_CONTRACTS: tuple[Contract, ...] = (store_is_sound, attributes_are_plain, loads_the_same_twice, reads_what_it_loads)


def _setting(component: Component, *, goal: bool = False) -> tuple[Any, TokenBatch | VectorBatch]:
    """A model that the objective can train, of tokens or else of vectors, and a batch for it."""
    objective: Objective = component.build()
    if issubclass(TokenModel, objective.learns):
        model = samples.model(samples.layout(goal=goal))
        return model, samples.batch(model)
    vectors = samples.vector_model(samples.layout(goal=goal))
    return vectors, samples.vector_batch(vectors)


def _outcome(component: Component, model: Model, batch: TokenBatch | VectorBatch) -> Outcome:
    objective: Objective = component.build()
    return objective(model, batch)


def _same(one: EpisodeStore, other: EpisodeStore) -> bool:
    names = ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def _load(component: Component) -> EpisodeStore:
    store: EpisodeStore = component.build().load()
    return store
