"""The critic as a Lightning module, and the transitions that it learns from as a data module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from seqrl.config import CriticConfig
from seqrl.critics import Transitions, build_critic
from seqrl.data.episodes import EpisodeStore
from seqrl.data.order import StepOrder, check_batches, split_episodes
from seqrl.data.returns import join_actions, sample_transitions
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.training.checkpoint_io import describe_checkpoint
from seqrl.training.loading import TrainingLoader, ValidationLoader, followed
from seqrl.training.metrics import ScalarMeans
from seqrl.training.seeding import seed_step
from seqrl.training.stage_module import SLOW_COPY, StageModule, check_precision, keep_config


class CriticModule(StageModule):
    """Trains a critic on single transitions with Adam at a constant learning rate.

    Logs the means of what the critic's loss returns, under `train/` and `val/`.

    Args:
        config: of a run; or a plain dict with `layout`, `critic`, `critic_training` and `seed`, and with
            `observation_size` and `action_size`. It travels in the checkpoint, word for word, and may hold more.
        sizes: of the data, where `config` does not hold them.
        dataset: what the data are, for the checkpoint.

    Raises:
        ConfigError: no critic, or whatever it refuses.
    """

    config: CriticConfig
    moving_average = SLOW_COPY

    def __init__(
        self,
        config: CriticConfig | Mapping[str, Any],
        sizes: DataSizes | None = None,
        dataset: DataSummary | None = None,
    ) -> None:
        super().__init__()
        kept = keep_config(config, sizes, dataset)
        self.save_hyperparameters({"config": kept}, logger=False)
        self.config = config if isinstance(config, CriticConfig) else CriticConfig.from_saved(kept)
        sizes = DataSizes.from_saved(kept)
        critic = build_critic(self.config, sizes)
        if critic is None:
            raise ConfigError("there is no critic to train; add critic=iql")
        check_precision(self.config.trainer.precision, SLOW_COPY)
        self.critic = critic
        state, action = (torch.zeros(1, len(each)) for each in (critic.observation_mean, critic.action_low))
        nothing = Transitions(state, action, torch.zeros(1), state, torch.zeros(1, dtype=torch.bool))
        with torch.no_grad():  # tells what will be logged
            names = list(critic.eval().loss(nothing))
        critic.train()
        self.train_metrics = ScalarMeans(names)
        self.val_metrics = ScalarMeans(names)

    def training_step(self, batch: Transitions, batch_index: int) -> Tensor:
        seed_step(self, self.config.seed)
        losses = self.critic.loss(batch)
        self.train_metrics.update(losses, len(batch.rewards))
        return self.tell_loss(losses["loss"])

    def validation_step(self, batch: Transitions, batch_index: int) -> None:
        self.val_metrics.update(self.critic.loss(batch), len(batch.rewards))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learnt = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learnt, lr=self.config.critic_training.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["seqrl"] = describe_checkpoint(self.config, {"critic": self.critic})


class TransitionDataModule(pl.LightningDataModule):
    """Single transitions in batches; every rank takes its share of one global order. Epochs as of `EpisodeDataModule`.

    Left out is what has no next observation although the episode goes on: the last step of one that a time limit or
    the end of the recording cut (with `layout.stride`, the last steps). Values are therefore never learnt from the cut
    itself, and learning bootstraps through it; only true ends end a return.

    Args:
        store: the episodes.
        layout: gives discount and stride: a transition spans `stride` steps and earns their discounted sum; and
            `chunk`, how many of its actions count.
        batch_size: transitions per step over all ranks.
        validation_fraction: share of the episodes that is held out, in [0, 1); the same ones as for the model.
        validation_batches: how many batches of held-out transitions are looked at, evenly spread over them.
        seed: of split and order.
        n_step: transitions of the layout that a batch's rewards and next observations span, 1 or more.

    Raises:
        ConfigError: what `check_batches` refuses, or episodes without a single whole transition.
    """

    def __init__(
        self,
        store: EpisodeStore,
        layout: Layout,
        *,
        batch_size: int = 256,
        validation_fraction: float = 0.05,
        validation_batches: int = 8,
        seed: int = 0,
        n_step: int = 1,
    ) -> None:
        super().__init__()
        check_batches(batch_size, validation_fraction, seed)
        self.store = store
        self.layout = layout
        self.batch_size = batch_size
        self.validation_batches = validation_batches
        self.train_episodes, self.validation_episodes = split_episodes(store.num_episodes, validation_fraction, seed)
        self.train_transitions = TransitionRows(store, layout, self.train_episodes, n_step)
        self.validation_transitions = TransitionRows(store, layout, self.validation_episodes, n_step)
        if not len(self.train_transitions):
            raise ConfigError("no episode holds a transition with its next observation; a critic cannot be trained")
        self.order = StepOrder(len(self.train_transitions), batch_size, seed)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """(n, O) observations and (n, A) actions of the training episodes for `Critic.fit`, a sample where many."""
        sizes = (self.store.observations.shape[1], self.store.actions.shape[1])
        section = {
            "fields": {"observation": {}, "action": {}},
            "stride": self.layout.stride,
            "chunk": self.layout.chunk,
        }
        fields = Layout.from_config(section, *sizes)
        values = torch.from_numpy(sample_transitions(self.store, fields, self.train_episodes, scalars=2**24))
        return values[:, : sizes[0]], values[:, sizes[0] :]

    @property
    def has_validation(self) -> bool:
        return len(self.validation_transitions) > 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch: the full ones that the transitions fill, 1 at least."""
        return self.order.steps_per_epoch

    def train_dataloader(self) -> TrainingLoader[Transitions]:
        """Training batches."""
        cut = partial(_cut_training, self.train_transitions, self.order)
        shared = ("critic_training.batch_size", self.batch_size)
        loader = TrainingLoader(cut, self.steps_per_epoch, shared=shared)
        return followed(loader, self.trainer)

    def val_dataloader(self) -> ValidationLoader[Transitions] | list[ValidationLoader[Transitions]]:
        """The same batches of held-out transitions every time; an empty list where there are none."""
        if not self.has_validation:
            return []
        size = min(self.batch_size, len(self.validation_transitions))
        count = min(self.validation_batches, len(self.validation_transitions) // size)
        chosen = np.linspace(0, len(self.validation_transitions) - 1, size * count).round().astype(np.int64)
        loader = ValidationLoader(partial(_cut, self.validation_transitions, chosen.reshape(count, size)), count)
        return followed(loader, self.trainer)

    def test_dataloader(self) -> ValidationLoader[Transitions] | list[ValidationLoader[Transitions]]:
        """What `val_dataloader` gives: of other episodes, make a data module of them."""
        return self.val_dataloader()


class TransitionRows:
    """The transitions of some episodes that critics learn from, by number, cut out of the episodes when asked for.

    Args:
        store: the episodes.
        layout: gives discount, stride and chunk.
        episodes: (E',) which of them.
        n_step: transitions of the layout that each one spans, 1 or more. What is nearer to a cut than that is left out.
    """

    def __init__(self, store: EpisodeStore, layout: Layout, episodes: np.ndarray, n_step: int = 1) -> None:
        self.store, self.discount = store, layout.discount
        self.span = layout.stride * n_step  # steps of the environment
        self.chunk = layout.chunk
        self.starts, self.stops = store.offsets[episodes], store.offsets[episodes + 1]
        lengths = self.stops - self.starts
        counts = np.where(store.terminated[episodes], lengths, np.maximum(lengths - self.span, 0))
        self.firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def take(self, numbers: np.ndarray) -> Transitions:
        """The transitions of (B,) numbers in [0, len)."""
        episode = np.searchsorted(self.firsts, numbers, side="right") - 1
        rows, stops = self.starts[episode] + numbers - self.firsts[episode], self.stops[episode]
        steps = rows[:, None] + np.arange(self.span)  # (B, span)
        inside = steps < stops[:, None]
        rewards = np.where(inside, self.store.rewards[np.minimum(steps, stops[:, None] - 1)], 0.0)
        following = rows + self.span
        return Transitions(
            torch.from_numpy(np.asarray(self.store.observations[rows], np.float32)),
            torch.from_numpy(np.asarray(join_actions(self.store, rows, self.chunk), np.float32)),
            torch.from_numpy((rewards * self.discount ** np.arange(self.span)).sum(1).astype(np.float32)),
            torch.from_numpy(np.asarray(self.store.observations[np.minimum(following, stops - 1)], np.float32)),
            torch.from_numpy(following >= stops),  # counted in episodes with a true end alone
        )


def _cut_training(transitions: TransitionRows, order: StepOrder, number: int, rank: int, ranks: int) -> Transitions:
    """One rank's share of a training batch."""
    return transitions.take(order.batch(number)[rank::ranks])


def _cut(transitions: TransitionRows, chosen: np.ndarray, number: int, rank: int, ranks: int) -> Transitions:
    """One rank's share of a batch of held-out transitions, whose numbers are (batches, transitions)."""
    return transitions.take(chosen[number, rank::ranks])
