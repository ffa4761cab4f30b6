"""Numbered batches in epochs: what every data module hands to the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import lightning.pytorch as pl
import torch

from seqrl.errors import ConfigError


class Pinned(Protocol):
    """What a loader hands out: it can be brought to where a GPU fetches it from."""

    def pin_memory(self) -> Self: ...


T = TypeVar("T", bound=Pinned)


class BatchLoader(Generic[T]):
    """Whole batches by number, cut in this process: cutting them takes less time than handing them over.

    No `DataLoader`, because Lightning would share its numbers out among ranks, which share each batch here.

    Args:
        cut: makes what a rank sees of a batch of a number: (number, rank, ranks).
        length: batches of an epoch, as many as the windows fill.
    """

    def __init__(self, cut: Callable[[int, int, int], T], length: int) -> None:
        self.cut, self.length = cut, length
        self._trainer: pl.Trainer | None = None

    def follow(self, trainer: pl.Trainer) -> None:
        """Be read by a trainer: it says which rank this is."""
        self._trainer = trainer

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[T]:
        return self._read(range(len(self)))

    def _read(self, numbers: Iterable[int]) -> Iterator[T]:
        rank, ranks = self._rank()
        for number in numbers:
            batch = self.cut(number, rank, ranks)
            yield batch.pin_memory() if torch.cuda.is_available() else batch

    def _rank(self) -> tuple[int, int]:
        """Which rank of how many this process is."""
        if self._trainer is not None:
            return self._trainer.global_rank, self._trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1


class ValidationLoader(BatchLoader[T]):
    """The same batches of held-out data every time.

    With a fraction as `overfit_batches`, of which Lightning takes the share of these too, they are repeated until that
    is one batch at least.
    """

    def __len__(self) -> int:
        share: float = 0 if self._trainer is None else getattr(self._trainer, "overfit_batches")  # noqa: B009
        return max(self.length, math.ceil(1 / share)) if isinstance(share, float) and 0 < share < 1 else self.length

    def __iter__(self) -> Iterator[T]:
        return self._read(number % self.length for number in range(len(self)))


class TrainingLoader(BatchLoader[T]):
    """Training batches, which never begin anew: an epoch goes on with the number after the last one that was trained.

    What a trainer has trained, the trainer knows, whichever checkpoint it went on from. With `overfit_batches` all of
    its epochs are the first batches. With `accumulate_grad_batches` an epoch is a multiple of it, so that every step
    has its batches. Without a trainer, each reading goes on where the one before stopped.

    Args:
        cut: see `BatchLoader`.
        length: batches of an epoch without accumulation.
        shared: the setting that says how many windows a batch has over all ranks, and how many.

    Raises:
        ConfigError: a batch that the ranks cannot share.
    """

    def __init__(self, cut: Callable[[int, int, int], T], length: int, *, shared: tuple[str, int]) -> None:
        super().__init__(cut, length)
        self._shared = shared
        self._next = 0

    def follow(self, trainer: pl.Trainer) -> None:
        name, size = self._shared
        if size % trainer.world_size:
            raise ConfigError(f"{name}={size} cannot be shared by {trainer.world_size} ranks; give a multiple")
        super().follow(trainer)

    def __len__(self) -> int:
        every = 1 if self._trainer is None else self._trainer.accumulate_grad_batches
        return math.ceil(self.length / every) * every

    def __iter__(self) -> Iterator[T]:
        # A generator: Lightning asks for it before it has counted what a checkpoint went through.
        if self._trainer is not None:
            again: float = getattr(self._trainer, "overfit_batches")  # noqa: B009 (Lightning does not declare it)
            self._next = batches_done(self._trainer, again=again > 0)
        first = self._next
        for batch in self._read(range(first, first + len(self))):
            self._next += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that a training can go on from here; the trainer's own count is what decides."""
        return {"next": self._next}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._next = state_dict["next"]


def batches_done(trainer: pl.Trainer, *, again: bool = False) -> int:
    """How many batches a trainer has trained on, which is the number of the present one during its step.

    Args:
        again: count the present epoch's alone.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.current.completed if again else progress.total.completed


def lacks_batches(trainer: pl.Trainer) -> bool:
    """Whether the optimizer's next step has had some of its batches, but not all (`accumulate_grad_batches`)."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.current.ready % trainer.accumulate_grad_batches != 0 and not progress.is_last_batch


L = TypeVar("L", bound=BatchLoader[Any])


def followed(loader: L, trainer: pl.Trainer | None) -> L:
    """A data module's loader, read by its trainer if that is what asks."""
    if trainer is not None and trainer.state.status == "running":
        loader.follow(trainer)
    return loader


def follow_trainer(loaders: Any, trainer: pl.Trainer) -> None:
    """Have loaders that were given to `fit` by themselves, without their data module, be read by its trainer."""
    several = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    for loader in several if isinstance(several, Sequence) else [several]:
        if isinstance(loader, BatchLoader):
            loader.follow(trainer)
