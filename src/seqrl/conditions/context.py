"""Contexts that stay as they are, which the sequence itself carries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from seqrl.conditions import Condition
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.registry import register_condition


@register_condition("context")
class ContextCondition(Condition):
    """Tell the model extras that are known before the action, such as the number of a task, the same in every step.

    Contexts that are not told so are those that the environment tells in its infos.

    Args:
        values: a number, or the numbers of a row, by the name of the extra, in the data's units.

    Raises:
        ConfigError: an extra that the layout does not have before its action, or another number of numbers.
    """

    wants_goals = False

    def __init__(self, *, values: Mapping[str, float | tuple[float, ...]] | None = None) -> None:
        self.contexts = {
            name: tuple(map(float, each)) if isinstance(each, tuple) else (float(each),)
            for name, each in (values or {}).items()
        }

    def check(self, layout: Layout) -> None:
        sizes = {field.name: field.size for field in layout.contexts}
        if not self.contexts:
            listed = ", ".join(sizes) or "none"
            raise ConfigError(
                f"condition=context tells nothing; give '+condition.values.NAME=...' (the layout's contexts: {listed})"
            )
        for name, numbers in self.contexts.items():
            if name not in sizes:
                raise ConfigError(
                    f"condition.values.{name} is no extra that stands before the action in this checkpoint's layout; "
                    f"it has {', '.join(sizes) or 'none'}"
                )
            if len(numbers) != sizes[name]:
                raise ConfigError(f"condition.values.{name} has {len(numbers)} numbers; give {sizes[name]}")
            for number, count in zip(numbers, layout.choices(name), strict=False):
                if number not in range(count):
                    raise ConfigError(f"condition.values.{name}={number:g} is no choice; give 0 to {count - 1}")

    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        return model.encode_goals(None, rows)
