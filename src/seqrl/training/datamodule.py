"""Training and validation windows as a Lightning data module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch import Tensor

from seqrl.config import TrainingConfig, WindowConfig
from seqrl.data.batches import CodeWindows, TokenWindows, ValueWindows, VectorWindows
from seqrl.data.episodes import EpisodeStore
from seqrl.data.order import StepOrder, check_batches, split_episodes
from seqrl.data.returns import sample_transitions
from seqrl.data.token_cache import encoder_identity, token_dtype
from seqrl.data.windows import Windows
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.code import CodeModel
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.tokenizers import TrajectoryAutoencoder, VectorScaler
from seqrl.training.encoding import encode_store, encode_windows, identify_codes
from seqrl.training.loading import TrainingLoader, ValidationLoader, followed
from seqrl.training.module import SequenceModule
from seqrl.types import Batch


class EpisodeDataModule(pl.LightningDataModule):
    """Cuts episodes into batches of windows; every rank takes its share of one global order.

    An epoch is `steps_per_epoch` batches. Batches are numbered over the whole training, and their windows are a
    function of seed and number: whatever limits a trainer sets, and wherever it was interrupted, no batch comes twice.

    The episodes may be larger than memory: they are read a chunk at a time, to fit a tokenizer and to encode them.

    Args:
        store: the episodes.
        layout: what a transition is made of.
        window: how windows are cut.
        batch_size: windows per batch over all ranks.
        validation_fraction: share of the episodes that is held out, in [0, 1).
        validation_batches: how many batches of held-out windows are looked at, evenly spread over them.
        seed: of split, order and goal draws.

    Raises:
        ConfigError: a batch size that the ranks cannot share, or a fraction outside [0, 1).
    """

    def __init__(
        self,
        store: EpisodeStore,
        layout: Layout,
        *,
        window: WindowConfig,
        batch_size: int = 256,
        validation_fraction: float = 0.05,
        validation_batches: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batches(batch_size, validation_fraction, seed)
        self.store = store
        self.layout = layout
        self.window = window
        self.batch_size = batch_size
        self.validation_batches = validation_batches
        self.seed = seed
        self._module: SequenceModule | None = None
        self._codes: tuple[str | None, np.ndarray] | None = None  # of which tokenizer, and the codes
        self.train_episodes, self.validation_episodes = split_episodes(store.num_episodes, validation_fraction, seed)

    @classmethod
    def for_module(
        cls,
        module: SequenceModule,
        store: EpisodeStore,
        *,
        batch_size: int | None = None,
        validation_fraction: float | None = None,
    ) -> EpisodeDataModule:
        """The episodes as a module wants them, tokenized: its layout, window and seed, and its tokenizer.

        A tokenizer without statistics is fitted to the training episodes; that of a loaded checkpoint stays as it is.

        Args:
            batch_size, validation_fraction: as in `conf/train.yaml` where they are not given.
        """
        training = TrainingConfig()
        data = cls(
            store,
            module.model.layout,
            window=module.config.window,
            batch_size=training.batch_size if batch_size is None else batch_size,
            validation_fraction=training.validation_fraction if validation_fraction is None else validation_fraction,
            validation_batches=training.validation_batches,
            seed=module.config.seed,
        )
        data.tokenize(module)
        return data

    def training_values(self, *, every: bool = False) -> np.ndarray:
        """(n, S) transitions of the training episodes for the tokenizer's statistics, a sample where there are many.

        Args:
            every: all of them, however many there are.
        """
        limit = {"scalars": len(self.store) * self.layout.size} if every else {}
        return sample_transitions(self.store, self.layout, self.train_episodes, seed=self.seed, **limit)

    def tokenize(self, module: SequenceModule) -> None:
        """Encode the episodes with a module's tokenizer, fitted to the training episodes if it has no statistics.

        Tokens are kept in the cache folder, for other runs and ranks with the same data and tokenizer.
        """
        if not module.tokenizer_fitted:
            module.fit_tokenizer(self.training_values(every=module.model.tokenizer.fits_all))
        self._module = module
        _ENCODERS[type(module.model)](self, module)

    def encode(
        self,
        encode: Callable[[Tensor], Tensor],
        vocab_size: int,
        *,
        identity: str | None = None,
        goal_columns: Sequence[int] | None = None,
        difference_columns: Sequence[int] | None = None,
    ) -> None:
        """Tokenize all transitions.

        Args:
            encode: (n, S) float to (n, K) integers in [0, vocab_size), such as a fitted tokenizer's.
            identity: `seqrl.data.token_cache.encoder_identity` of what `encode` does; the tokens then lie in the
                cache folder. Without it they lie in memory.
            goal_columns, difference_columns: which of the K tokens hold the dimensions of the goal, and the field
                `difference`; by default as for one token per scalar.
        """
        tokens = encode_store(self.store, self.layout, encode, token_dtype(vocab_size), identity)
        settings: dict[str, Any] = {
            "termination_token": vocab_size,
            "goal_columns": goal_columns,
            "difference_columns": difference_columns,
        }
        self._cut(partial(TokenWindows, self.store, tokens, self.layout, self.window, **settings))

    def _encode_tokens(self, module: SequenceModule) -> None:
        model = module.model
        assert isinstance(model, TokenModel)
        identity = encoder_identity(model.tokenizer, module.config.tokenizer)
        columns = {"goal_columns": model.goal_columns, "difference_columns": model.difference_columns}
        self.encode(model.tokenizer.encode, model.tokenizer.vocab_size, identity=identity, **columns)

    def _encode_vectors(self, module: SequenceModule) -> None:
        tokenizer = module.model.tokenizer
        assert isinstance(tokenizer, VectorScaler)
        identity = encoder_identity(tokenizer, module.config.tokenizer)
        values = encode_store(self.store, self.layout, tokenizer.normalise, np.dtype(np.float32), identity)
        self._cut(partial(VectorWindows, self.store, values, self.layout, self.window))

    def _encode_values(self, module: SequenceModule) -> None:
        tokenizer = module.model.tokenizer
        assert isinstance(tokenizer, TrajectoryAutoencoder)
        self._values = encode_store(self.store, self.layout, tokenizer.normalise, np.dtype(np.float32), None)
        self._cut(partial(ValueWindows, self.store, self._values, self.layout, self.window))

    def windows_for(self, module: pl.LightningModule | None, episodes: np.ndarray) -> Windows[Any]:
        """The windows that a module learns from; of a prior over codes, whose tokenizer is trained, those of codes.

        Args:
            episodes: (E',) which episodes to cut.
        """
        if not isinstance(module, SequenceModule) or not isinstance(module.model, CodeModel):
            return self._windows(episodes=episodes)
        identity, steps = identify_codes(module), module.model.tokenizer.steps_per_code
        if self._codes is None or identity is None or self._codes[0] != identity:
            self._codes = identity, encode_windows(module, self.store, self._values, self.window, identity)
        settings: dict[str, Any] = {"steps_per_code": steps, "episodes": episodes}
        return CodeWindows(self.store, self._codes[1], self._values, self.layout, self.window, **settings)

    def _cut(self, windows: Callable[..., Windows[Any]]) -> None:
        """Cut training and held-out windows; `windows` makes those of some episodes."""
        self._windows = windows
        self.train_windows = windows(episodes=self.train_episodes)
        if len(self.validation_episodes):
            self._validation_windows = windows(episodes=self.validation_episodes)
        self.order = self._make_order()

    def _make_order(self) -> StepOrder:
        return StepOrder(len(self.train_windows), self.batch_size, self.seed)

    @property
    def windows_per_epoch(self) -> int:
        return self.order.num_windows

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch: the full ones that the windows fill, 1 at least."""
        return self.order.steps_per_epoch

    def sample_windows(self, count: int) -> Any:
        """A batch of windows, at most `count`, evenly spread over the held-out episodes, or all if none is."""
        windows = self._validation_windows if len(self.validation_episodes) else self.train_windows
        indices = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(np.int64)
        return windows.batch(indices, np.random.default_rng(self.seed))

    def train_dataloader(self) -> TrainingLoader[Any]:
        """Training batches; the numbers of an epoch's are as many as there are full batches of windows."""
        windows = self.windows_for(self._learner(), self.train_episodes)
        order = self.order if self.order.batch_size == self.batch_size else self._make_order()  # a tuner may set it
        cut = partial(_cut_training, windows, order)
        loader = TrainingLoader(cut, order.steps_per_epoch, shared=("batch_size", self.batch_size))
        return followed(loader, self.trainer)

    def val_dataloader(self) -> ValidationLoader[Any] | list[ValidationLoader[Any]]:
        """The same batches of held-out windows every time; an empty list where no episode is held out."""
        if len(self.validation_episodes) == 0:
            return []
        windows = self.windows_for(self._learner(), self.validation_episodes)
        size = min(self.batch_size, len(windows))
        count = min(self.validation_batches, len(windows) // size)
        indices = np.linspace(0, len(windows) - 1, size * count).round().astype(np.int64).reshape(count, size)
        loader = ValidationLoader(partial(_cut_validation, windows, indices, self.seed), count)
        return followed(loader, self.trainer)

    def test_dataloader(self) -> ValidationLoader[Any] | list[ValidationLoader[Any]]:
        """What `val_dataloader` gives: of other episodes, make a data module of them."""
        return self.val_dataloader()

    def _learner(self) -> pl.LightningModule | None:
        """The module that batches are for: the trainer's, else the one whose tokenizer encoded the episodes, if any.

        Raises:
            ConfigError: the episodes are not encoded yet.
        """
        if not hasattr(self, "order"):
            raise ConfigError(
                "these episodes are not tokenized yet; make the data with EpisodeDataModule.for_module(module, store), "
                "or call data.tokenize(module)"
            )
        running = self.trainer is not None and self.trainer.state.status == "running"
        return self.trainer.lightning_module if self.trainer is not None and running else self._module


_ENCODERS: dict[type[Model], Callable[[EpisodeDataModule, SequenceModule], None]] = {
    TokenModel: EpisodeDataModule._encode_tokens,
    VectorModel: EpisodeDataModule._encode_vectors,
    CodeModel: EpisodeDataModule._encode_values,
}


def _cut_training(windows: Windows[Any], order: StepOrder, number: int, rank: int, ranks: int) -> Any:
    """One rank's share of a training batch."""
    return _share(windows, order.batch(number), order.generator(number), rank, ranks)


def _cut_validation(windows: Windows[Any], indices: np.ndarray, seed: int, number: int, rank: int, ranks: int) -> Any:
    """One rank's share of a batch of held-out windows, whose numbers are (batches, windows)."""
    return _share(windows, indices[number], np.random.default_rng([seed, 4, number]), rank, ranks)


def _share(
    windows: Windows[Any], indices: np.ndarray, generator: np.random.Generator, rank: int, world_size: int
) -> Batch:
    """One rank's windows of a batch, which are the same windows whatever the number of ranks.

    A rank that is left without any gets one of another's, which carries no loss: sharded weights are gathered by all.
    """
    if rank >= len(indices):
        other: Batch = windows.batch(indices[:1], generator)
        return other.without_loss()
    if windows.goal is None:  # nothing is drawn: the windows of the other ranks need not be cut
        own: Batch = windows.batch(indices[rank::world_size], generator)
        return own
    whole: Batch = windows.batch(indices, generator)
    return whole.share(rank, world_size)
