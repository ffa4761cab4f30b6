"""What conditions on goals have in common."""

from __future__ import annotations

from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model


def check_goals(name: str, layout: Layout, guidance: float) -> None:
    """Refuse a layout without a goal, or without the null goal that guidance compares with.

    Raises:
        ConfigError: names the override that adds it.
    """
    if layout.goal is None:
        raise ConfigError(
            f"the checkpoint's layout has no goal, which condition {name!r} needs; train with "
            "'layout.goal={dims: [0, 1], dropout: 0.1, draw: uniform}' (the observation dimensions of your goal)"
        )
    if guidance != 1 and layout.goal.dropout == 0:
        raise ConfigError(
            f"condition.guidance={guidance:g} compares the goal with the null goal, which this checkpoint "
            "never saw; use condition.guidance=1, or train with layout.goal.dropout=0.5"
        )


def encode_goals(name: str, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
    """What a model reads of (rows, G) goals.

    Raises:
        ConfigError: goals are missing, or have the wrong size.
    """
    assert model.layout.goal is not None
    size = len(model.layout.goal.dims)
    if goals is None or goals.shape != (rows, size):
        given = "none" if goals is None else f"shape {tuple(goals.shape)}"
        raise ConfigError(f"condition {name!r} needs goals of shape ({rows}, {size}); {given} given")
    return model.encode_goals(goals, rows)
