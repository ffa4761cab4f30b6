"""Training and validation windows as a Lightning data module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seqrl.data.batches import CodeWindows, TokenWindows, ValueWindows, VectorWindows
from seqrl.data.episodes import EpisodeStore
from seqrl.data.order import StepOrder, split_episodes
from seqrl.data.returns import sample_transitions
from seqrl.data.token_cache import encoder_identity, token_dtype
from seqrl.data.windows import Windows, WindowSettings
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.models.code import CodeModel
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.tokenizers import TrajectoryAutoencoder, VectorScaler
from seqrl.training.defaults import training_defaults
from seqrl.training.encoding import encode_store, encode_windows, identify_codes
from seqrl.training.loading import StepsFrom, step_loader
from seqrl.training.module import SequenceModule
from seqrl.types import Batch


class EpisodeDataModule(pl.LightningDataModule):
    """Cuts episodes into batches of windows; every rank takes its share of one global order.

    The episodes may be larger than memory: they are read a chunk at a time, to fit a tokenizer and to encode them.

    Args:
        store: the episodes.
        layout: what a transition is made of.
        window: how windows are cut.
        batch_size: windows per step over all ranks.
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
        window: WindowSettings,
        batch_size: int = 256,
        validation_fraction: float = 0.05,
        validation_batches: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 <= validation_fraction < 1.0:
            raise ConfigError(f"validation_fraction={validation_fraction} is outside [0, 1)")
        if seed < 0:
            raise ConfigError(f"seed={seed} is negative; give 0 or more")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is too small; give 1 or more")
        self.store = store
        self.layout = layout
        self.window = window
        self.batch_size = batch_size
        self.validation_batches = validation_batches
        self.seed = seed
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
        training = training_defaults()
        data = cls(
            store,
            module.model.layout,
            window=WindowSettings(**module.config["window"]),
            batch_size=training["batch_size"] if batch_size is None else batch_size,
            validation_fraction=training["validation_fraction"] if validation_fraction is None else validation_fraction,
            validation_batches=training["validation_batches"],
            seed=module.config["seed"],
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
        _ENCODERS[type(module.model)](self, module)

    def encode(
        self,
        encode: Callable[[Tensor], Tensor],
        vocab_size: int,
        *,
        identity: str | None = None,
        goal_columns: Sequence[int] | None = None,
    ) -> None:
        """Tokenize all transitions.

        Args:
            encode: (n, S) float to (n, K) integers in [0, vocab_size), such as a fitted tokenizer's.
            identity: `seqrl.data.token_cache.encoder_identity` of what `encode` does; the tokens then lie in the
                cache folder. Without it they lie in memory.
            goal_columns: which of the K tokens hold the dimensions of the goal; by default as for one token per scalar.
        """
        tokens = encode_store(self.store, self.layout, encode, token_dtype(vocab_size), identity)
        settings: dict[str, Any] = {"termination_token": vocab_size, "goal_columns": goal_columns}
        self._cut(partial(TokenWindows, self.store, tokens, self.layout, self.window, **settings))

    def _encode_tokens(self, module: SequenceModule) -> None:
        model = module.model
        assert isinstance(model, TokenModel)
        identity = encoder_identity(model.tokenizer, module.config["tokenizer"])
        vocab_size, columns = model.tokenizer.vocab_size, model.goal_columns
        self.encode(model.tokenizer.encode, vocab_size, identity=identity, goal_columns=columns)

    def _encode_vectors(self, module: SequenceModule) -> None:
        tokenizer = module.model.tokenizer
        assert isinstance(tokenizer, VectorScaler)
        identity = encoder_identity(tokenizer, module.config["tokenizer"])
        values = encode_store(self.store, self.layout, tokenizer.normalise, np.dtype(np.float32), identity)
        self._cut(partial(VectorWindows, self.store, values, self.layout, self.window))

    def _encode_values(self, module: SequenceModule) -> None:
        tokenizer = module.model.tokenizer
        assert isinstance(tokenizer, TrajectoryAutoencoder)
        self._values = encode_store(self.store, self.layout, tokenizer.normalise, np.dtype(np.float32), None)
        self._cut(partial(ValueWindows, self.store, self._values, self.layout, self.window))

    def windows_for(self, module: pl.LightningModule, episodes: np.ndarray) -> Windows[Any]:
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
        self.order = StepOrder(len(self.train_windows), self.batch_size, self.seed)

    @property
    def windows_per_epoch(self) -> int:
        return self.order.num_windows

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def sample_windows(self, count: int) -> Any:
        """A batch of windows, at most `count`, evenly spread over the held-out episodes, or all if none is."""
        windows = self._validation_windows if len(self.validation_episodes) else self.train_windows
        indices = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(np.int64)
        return windows.batch(indices, np.random.default_rng(self.seed))

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size % trainer.world_size:
            raise ConfigError(
                f"batch_size={self.batch_size} cannot be shared by {trainer.world_size} ranks; give a multiple"
            )
        windows = self.windows_for(trainer.lightning_module, self.train_episodes)
        batches = _TrainingBatches(windows, self.order, trainer.global_rank, trainer.world_size)
        return step_loader(batches, StepsFrom(trainer.global_step, trainer.max_steps))

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        if len(self.validation_episodes) == 0:
            return []
        trainer = self.trainer
        assert trainer is not None
        windows = self.windows_for(trainer.lightning_module, self.validation_episodes)
        size = min(self.batch_size, len(windows))
        count = min(self.validation_batches, len(windows) // size)
        batches = _ValidationBatches(windows, size, count, self.seed, trainer.global_rank, trainer.world_size)
        return step_loader(batches, range(count))


_ENCODERS: dict[type[Model], Callable[[EpisodeDataModule, SequenceModule], None]] = {
    TokenModel: EpisodeDataModule._encode_tokens,
    VectorModel: EpisodeDataModule._encode_vectors,
    CodeModel: EpisodeDataModule._encode_values,
}


class _TrainingBatches(Dataset[Batch]):
    """One rank's share of the batch of every global step."""

    def __init__(self, windows: Windows[Any], order: StepOrder, rank: int, world_size: int) -> None:
        self.windows, self.order, self.rank, self.world_size = windows, order, rank, world_size

    def __getitem__(self, step: int) -> Batch:
        return _share(self.windows, self.order.batch(step), self.order.generator(step), self.rank, self.world_size)


class _ValidationBatches(Dataset[Batch]):
    """One rank's share of the same batches of held-out windows every time."""

    def __init__(self, windows: Windows[Any], size: int, count: int, seed: int, rank: int, world_size: int) -> None:
        self.windows, self.seed, self.rank, self.world_size = windows, seed, rank, world_size
        self.indices = np.linspace(0, len(windows) - 1, size * count).round().astype(np.int64).reshape(count, size)

    def __getitem__(self, index: int) -> Batch:
        generator = np.random.default_rng([self.seed, 4, index])
        return _share(self.windows, self.indices[index], generator, self.rank, self.world_size)


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
