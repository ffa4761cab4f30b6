"""What a policy is told of the extras of its layout: contexts before an action, outcomes after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Field, Layout

Extras = dict[str, Tensor]


def read_extras(
    layout: Layout,
    given: Mapping[str, Any] | None,
    active: np.ndarray,
    fixed: Mapping[str, Sequence[float]],
    device: torch.device,
) -> tuple[Extras, Extras]:
    """Contexts of the present step, which all must be known, and outcomes of the step before, as far as they are told.

    Args:
        given: (B, n) or (B,) numbers by name; NaN where an environment did not tell.
        active: (B,) bool, environments that still run; the others get zeros.
        fixed: contexts that a condition tells instead.

    Returns:
        (B, n) float32 by name.

    Raises:
        ConfigError: a context that nobody tells, or numbers of another shape.
    """
    told = given or {}
    contexts = {}
    for field in layout.contexts:
        if field.name in fixed:
            contexts[field.name] = torch.tensor(fixed[field.name], device=device).expand(len(active), -1)
            continue
        found = _read(told, field, active, device)
        if found is None:
            raise ConfigError(
                f"every decision of this checkpoint needs {field.name!r}, and nobody tells it: the environment would "
                f"in info[{field.name!r}], a script in act(extras={{{field.name!r}: ...}}); or use condition=context "
                f"'+condition.values.{field.name}=...'"
            )
        contexts[field.name] = _check_choices(found, field, layout)
    outcomes = {field.name: _read(told, field, active, device) for field in layout.outcomes}
    return contexts, {name: values for name, values in outcomes.items() if values is not None}


def require_outcomes(layout: Layout, outcomes: Mapping[str, Tensor]) -> None:
    """Refuse to go on without what the model looks back at; hidden fields play no part.

    Raises:
        ConfigError: names the field.
    """
    for field in layout.outcomes:
        if field.name not in outcomes and not field.hidden:
            raise ConfigError(
                f"this checkpoint looks back at {field.name!r} of earlier steps, and nobody tells it: the environment "
                f"would in info[{field.name!r}], a script in act(extras={{{field.name!r}: ...}}); or train with "
                f"layout.fields.{field.name}.hidden=true, which needs none"
            )


def _read(told: Mapping[str, Any], field: Field, active: np.ndarray, device: torch.device) -> Tensor | None:
    """(B, n) of one field; None where a running environment did not tell it."""
    if field.name not in told:
        return None
    values = np.asarray(told[field.name], np.float32)
    rows = len(active)
    if values.shape not in {(rows, field.size), (rows,) if field.size == 1 else (rows, field.size)}:
        raise ConfigError(f"{field.name!r} has shape {values.shape}; ({rows}, {field.size}) numbers are needed")
    values = values.reshape(rows, field.size)
    if not np.isfinite(values[active]).all():
        return None
    return torch.from_numpy(np.where(active[:, None], values, np.float32(0.0))).to(device)


def _check_choices(values: Tensor, field: Field, layout: Layout) -> Tensor:
    for column, count in enumerate(layout.choices(field.name)):
        own = values[:, column]
        if not bool(((own >= 0) & (own < count) & (own == own.floor())).all()):
            raise ConfigError(f"{field.name!r} is one of {count} choices, 0 to {count - 1}, and others were told")
    return values
