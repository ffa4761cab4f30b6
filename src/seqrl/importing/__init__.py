"""Checkpoints of other programs, turned into checkpoints of this one; what they hold is read and never run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from seqrl.errors import ConfigError


@dataclass(frozen=True)
class Wishes:
    """What a user says beside the source.

    Attributes:
        epoch: of the published file names (`state_N.pt`); None for the newest.
        heads: of attention, where the source does not say.
        window: transitions of context, likewise.
    """

    epoch: int | None = None
    heads: int | None = None
    window: int | None = None


@dataclass
class Imported:
    """What a source says, under seqrl's names.

    Attributes:
        settings: sections of a run that the source decides.
        observation_size, action_size: O and A; None where only data can tell.
        longest_episode: steps that the model tells apart, or None for those of the data.
        weights: of the model, its tokenizer's statistics aside.
        step: optimiser steps that the model has seen, as far as the source says.
        mapped: published name of every weight, and what became of it.
        dropped: what was left out, and why.
        assumed: what the source does not say, and what was taken for it.
        statistics: of the tokenizer, by the names of its buffers, where the source holds them.
        drops_last_row: whether the source's code leaves out the last row of a file of data.
        drops_unfinished: whether it leaves out episodes that the recording cut.
        raw_reward_statistics: whether rewards are normalised by what they were before the termination penalty.
        is_normalised: whether values are normalised at all.
    """

    settings: dict[str, Any]
    observation_size: int
    action_size: int
    longest_episode: int | None
    weights: dict[str, Tensor]
    step: int = 0
    mapped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    statistics: dict[str, Tensor] | None = None
    drops_last_row: bool = False
    drops_unfinished: bool = False
    raw_reward_statistics: bool = False
    is_normalised: bool = True


class Renaming:
    """The weights of a source, taken out one by one, so that none is forgotten.

    Args:
        weights: by their published names.
        where: how messages call the source.
    """

    def __init__(self, weights: Mapping[str, Tensor], where: str) -> None:
        self._left = dict(weights)
        self._where = where
        self.mapped: dict[str, str] = {}
        self.dropped: dict[str, str] = {}

    def take(self, name: str, target: str) -> Tensor:
        """A weight in float32, noted as what becomes of it.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._left:
            raise ConfigError(f"{self._where} holds no weight {name!r}; is it of the format that was named?")
        self.mapped[name] = target
        return self._left.pop(name).float()

    def has(self, name: str) -> bool:
        return name in self._left

    def count(self, pattern: str) -> int:
        """How many numbers from 0 on a name has: `blocks.{}.ln1.weight`."""
        number = 0
        while pattern.format(number) in self._left:
            number += 1
        return number

    def drop(self, name: str, why: str) -> None:
        """Leave a weight out, if it is there."""
        if self._left.pop(name, None) is not None:
            self.dropped[name] = why

    def finish(self) -> None:
        """Refuse weights that nobody asked for.

        Raises:
            ConfigError: names the first of them.
        """
        if self._left:
            names = sorted(self._left)
            raise ConfigError(
                f"{self._where} holds {len(names)} weights that this format does not have, such as {names[0]!r}; name "
                "the format that it is of"
            )


def shape_of(weight: Tensor, dims: int, name: str) -> tuple[int, ...]:
    """The sizes of a weight that is to have so many dimensions.

    Raises:
        ConfigError: it has others.
    """
    if weight.dim() != dims:
        raise ConfigError(f"the weight {name!r} has the shape {tuple(weight.shape)}, where {dims} dimensions belong")
    return tuple(weight.shape)


def find_file(source: Path, *names: str) -> Path:
    """The first of some files that a folder has; the source itself if it is a file.

    Raises:
        ConfigError: none of them is there.
    """
    if source.is_file():
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise ConfigError(f"{str(source)!r} has no {' or '.join(names)}; give the folder or the file of the weights")
