"""Batches by global step: what every data module hands to the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

T = TypeVar("T")


class StepsFrom(Sampler[int]):
    """Global steps from where the run stands to its end; the length counts from 0, as Lightning's progress does."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))

    def __len__(self) -> int:
        return self.last


def step_loader(batches: Dataset[T], steps: Sampler[int] | Iterable[int]) -> DataLoader[T]:
    """Whole batches by number, cut in this process: cutting them takes less time than handing them over."""
    pin = torch.cuda.is_available()
    return DataLoader(batches, sampler=steps, batch_size=None, num_workers=0, pin_memory=pin)
