"""One dimension of imagined transitions, or the norm of several, for scores that ask something of it."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Len
from torch import Tensor

from seqrl.errors import ConfigError, show_value
from seqrl.layout import Layout
from seqrl.layout_config import FIELDS
from seqrl.scores import Trace

OWN = ("observation", "action")

Dimension = Annotated[int, Ge(0)]
Dimensions = Dimension | Annotated[tuple[Dimension, ...], Len(1)]
"""A dimension of a field, or several, whose Euclidean norm counts: the speed of a velocity."""


def find_extras(field: str) -> tuple[str, ...]:
    """What a score that looks at a field must want of the extras."""
    return () if field in OWN else (field,)


def check_dimension(layout: Layout, field: str, dim: Dimensions) -> None:
    """Refuse a field without dimensions of its own, and a dimension that it does not have.

    Raises:
        ConfigError: says which it has.
    """
    if field in FIELDS and field not in OWN:
        raise ConfigError(f"score.field={field} is no field of dimensions; give observation, action or an extra")
    size = layout.field(field).size
    dims = [dim] if isinstance(dim, int) else list(dim)
    if max(dims) >= size:
        raise ConfigError(
            f"score.dim={show_value(dim)} names a dimension of the {field}, and it has {size}; give 0 to {size - 1}"
        )
    if len(set(dims)) < len(dims):
        raise ConfigError(f"score.dim={show_value(dim)} names a dimension twice; give each once")


def find_dimension(trace: Trace, field: str, dim: Dimensions) -> tuple[Tensor, Tensor]:
    """(..., h) numbers that the plan's actions bring about, and which of them count; of several dimensions their norm.

    Of observations these are the imagined ones that follow each action, of actions and extras all; what stands after
    an imagined end does not count. The trace holds transitions, and for observations what follows the last one.
    """
    assert trace.observations is not None and trace.actions is not None
    if field != "observation":
        states = trace.actions if field == "action" else trace.extras[field]
        over = None if trace.over is None else trace.over[..., :-1]
    else:
        assert trace.next_observation is not None
        states = torch.cat([trace.observations[..., 1:, :], trace.next_observation[..., None, :]], -2)
        over = None if trace.over is None else trace.over[..., 1:]
    values = states[..., dim] if isinstance(dim, int) else states[..., list(dim)].norm(dim=-1)
    return values, torch.ones_like(values, dtype=torch.bool) if over is None else ~over
