"""What a contract check is made of: a component that can be built anew, and a violation told in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqrl.registry import registry_of


class ContractViolation(AssertionError):
    """A component does not do what its slot promises; the message is a sentence for its author."""


class CannotTell(ContractViolation):
    """None of the check's own settings suit a component; before a training that is no reason to refuse it."""


@dataclass(frozen=True)
class Component:
    """A registered name with options, from which a check builds as many instances as it wants.

    Attributes:
        slot, name: where it is registered.
        options: as a config would give them.
    """

    slot: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, **runtime: Any) -> Any:
        """A new instance; `runtime` is what only a run knows, such as a tokenizer's `size`.

        Raises:
            seqrl.errors.ConfigError: an unknown name, or options that the component refuses.
        """
        return registry_of(self.slot).build({"name": self.name, **self.options}, **runtime)

    def has_option(self, name: str) -> bool:
        return any(option.name == name for option in registry_of(self.slot).options(self.name))

    def replace(self, **options: Any) -> Component:
        """The same component with other options."""
        return Component(self.slot, self.name, {**self.options, **options})


Contract = Callable[[Component], None]
"""Raises `ContractViolation`; its name and the first line of its docstring are what users read."""


def require(fulfilled: bool | Tensor, sentence: str) -> None:
    """Raise a violation unless `fulfilled`."""
    if not fulfilled:
        raise ContractViolation(sentence)


def close(first: Tensor, second: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether two results are the same up to rounding; different shapes and NaN are not."""
    return first.shape == second.shape and torch.allclose(
        first.double(), second.double(), rtol=tolerance, atol=tolerance
    )


def shape(tensor: Any) -> str:
    """How to speak of a result in a message."""
    if isinstance(tensor, Tensor):
        return f"shape {tuple(tensor.shape)} and type {str(tensor.dtype).removeprefix('torch.')}"
    return f"a {type(tensor).__name__}"
