"""A model that came from a checkpoint, with what the file says of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqrl.data.summary import DataSummary
from seqrl.models import Model


@dataclass(frozen=True)
class Loaded:
    """A trained model and how it came about.

    Attributes:
        model: in eval mode, on the CPU.
        config: that of its run as the file keeps it, word for word: for hashes, and for people.
        versions: packages it was trained with.
        step: optimiser steps it has seen.
    """

    model: Model
    config: dict[str, Any]
    versions: dict[str, str]
    step: int

    @property
    def dataset(self) -> DataSummary:
        """What its data were; of a checkpoint that somebody else's script wrote, nothing is known of them."""
        return DataSummary.from_saved(self.config)

    @property
    def source(self) -> Mapping[str, Any] | None:
        """The config of what its episodes came from; None where a script had them from somewhere."""
        found: Mapping[str, Any] | None = self.config.get("data")
        return found

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def max_steps(self) -> int | None:
        """The steps that its training was to take; None where nobody said."""
        section = self.config.get("training")
        return None if section is None else int(section["max_steps"])
