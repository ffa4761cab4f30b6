"""One dimension of imagined transitions, for scores that ask something of it."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.layout_config import FIELDS
from seqrl.scores import Trace

OWN = ("observation", "action")


def find_extras(field: str) -> tuple[str, ...]:
    """What a score that looks at a field must want of the extras."""
    return () if field in OWN else (field,)


def check_dimension(layout: Layout, field: str, dim: int) -> None:
    """Refuse a field without dimensions of its own, and a dimension that it does not have.

    Raises:
        ConfigError: says which it has.
    """
    if field in FIELDS and field not in OWN:
        raise ConfigError(f"score.field={field} is no field of dimensions; give observation, action or an extra")
    size = layout.field(field).size
    if dim >= size:
        raise ConfigError(f"score.dim={dim} names a dimension of the {field}, and it has {size}; give 0 to {size - 1}")


def find_dimension(trace: Trace, field: str, dim: int) -> tuple[Tensor, Tensor]:
    """(..., h) numbers that the plan's actions bring about, and which of them count.

    Of observations these are the imagined ones that follow each action, of actions and extras all; what stands after
    an imagined end does not count. The trace holds transitions, and for observations what follows the last one.
    """
    assert trace.observations is not None and trace.actions is not None
    if field != "observation":
        values = (trace.actions if field == "action" else trace.extras[field])[..., dim]
        over = None if trace.over is None else trace.over[..., :-1]
    else:
        assert trace.next_observation is not None
        values = torch.cat([trace.observations[..., 1:, dim], trace.next_observation[..., None, dim]], -1)
        over = None if trace.over is None else trace.over[..., 1:]
    return values, torch.ones_like(values, dtype=torch.bool) if over is None else ~over
