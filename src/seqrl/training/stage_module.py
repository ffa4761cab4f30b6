"""What the Lightning modules of all stages share: their logs, and what any Lightning trainer may ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging
from torch import Tensor

from seqrl.checkpoints.migration import migrate
from seqrl.config import CriticConfig, SchedulerComponent, SequenceConfig
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.errors import ConfigError
from seqrl.training.callbacks import TrainingMetrics
from seqrl.training.loading import follow_trainer, lacks_batches
from seqrl.training.metrics import log_validation, pop_means
from seqrl.training.optim import check_length
from seqrl.training.parallel import over_ranks

CODEBOOK, SLOW_COPY = "the codebook of a tokenizer", "the slow copy of a critic's networks"
"""What follows weights as a moving average, in words."""
_FOLLOWING = ("evaluation", "objective_metric")  # sections of a run that no stage knows


class StageModule(pl.LightningModule):
    """A stage's module, which trains under `seqrl train` and in a trainer of one's own.

    Attributes:
        config: of the run.
        schedule: of the learning rate; None: it is constant.
        train_metrics, val_metrics: means of what is logged.
        moving_average: what of the module follows its weights as a moving average, in words; None: nothing does.
    """

    config: SequenceConfig | CriticConfig
    schedule: SchedulerComponent | None = None
    train_metrics: Any  # of `seqrl.training.metrics`
    val_metrics: Any
    moving_average: str | None = None
    _gradients: dict[str, Tensor] | None = None
    _tells_loss = False

    def configure_callbacks(self) -> Sequence[Callback]:
        """What logs the training, where nobody does yet: in a trainer of one's own."""
        found = [each for each in self._callbacks() if isinstance(each, TrainingMetrics)]
        self._tells_loss = all(each.every is None for each in found)
        return [] if found else [TrainingMetrics()]

    def setup(self, stage: str) -> None:
        """Refuse what no option of a trainer can get from this module.

        Raises:
            ConfigError: `predict`; a training without an end whose schedule needs one; averages that the trainer's
                precision cannot hold, or that its weight averaging would leave behind.
        """
        if stage == "predict":
            raise ConfigError(
                "trainer.predict has no answer to give, since a plan needs a planner; use seqrl.Policy(module.model) "
                "to act, and trainer.validate for the held-out loss"
            )
        if stage != "fit":
            return
        if self.schedule is not None:
            check_length(self.trainer, self.schedule)
        if self.moving_average is not None:
            check_precision(self.trainer.precision, self.moving_average)
            if any(isinstance(each, StochasticWeightAveraging) for each in self._callbacks()):
                raise ConfigError(
                    f"StochasticWeightAveraging averages weights, and would leave {self.moving_average} behind; train "
                    "without it"
                )

    def _callbacks(self) -> list[Callback]:
        found: list[Callback] = getattr(self.trainer, "callbacks")  # noqa: B009 (Lightning does not declare them)
        return found

    def tell_loss(self, loss: Tensor) -> Tensor:
        """The loss of a training step, which callbacks and the progress bar of a trainer of one's own may look at."""
        if self._tells_loss:
            ranks = self.trainer.world_size
            mean = over_ranks(loss) / ranks if ranks > 1 else loss.detach()
            self.log("train/loss", mean, prog_bar=True, logger=False, on_step=True, on_epoch=False)
        return loss

    def on_train_start(self) -> None:
        follow_trainer(self.trainer.train_dataloader, self.trainer)
        gradients, self._gradients = self._gradients, None
        for name, parameter in self.named_parameters():
            if gradients is not None and name in gradients:
                parameter.grad = gradients[name].to(parameter)

    def on_validation_epoch_end(self) -> None:
        log_validation(self, self.pop_metrics("val"))

    def test_step(self, batch: Any, batch_index: int) -> None:
        """What `validation_step` does; the means are logged under `test/`."""
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        log_validation(self, pop_means(self.val_metrics, "test"))

    def predict_step(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `setup` refuses it."""

    def pop_metrics(self, stage: str) -> dict[str, float]:
        """Means over all ranks since the last call, by logged name."""
        return pop_means(self.train_metrics if stage == "train" else self.val_metrics, stage)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the gradients of a step whose batches have not all been seen."""
        if self._trainer is not None and lacks_batches(self._trainer):
            ranks = self._trainer.world_size
            found = {name: each.grad for name, each in self.named_parameters() if each.grad is not None}
            checkpoint["gradients"] = {
                name: over_ranks(grad) / ranks if ranks > 1 else grad.clone() for name, grad in found.items()
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(migrate(checkpoint, "the checkpoint"))
        self._gradients = checkpoint.get("gradients")


def keep_config(
    config: SequenceConfig | CriticConfig | Mapping[str, Any], sizes: DataSizes | None, dataset: DataSummary | None
) -> dict[str, Any]:
    """The hyperparameters that a module's checkpoint keeps, plain: its run, word for word, and what its data are.

    Args:
        config: of a run that is checked; or plain, with the sizes of the data, as a script or a checkpoint has it.

    Raises:
        ConfigError: a run whose data have no sizes.
    """
    if isinstance(config, Mapping):
        return dict(config)
    if sizes is None:
        raise ConfigError("the sizes of the data are missing; give sizes=DataSizes.of(store)")
    kept = {key: value for key, value in config.given.items() if key not in _FOLLOWING}
    return kept | asdict(sizes) | ({} if dataset is None else {"dataset": asdict(dataset)})


def check_precision(precision: Any, moving_average: str) -> None:
    """Refuse a precision that rounds away the steps of a moving average.

    Args:
        precision: as a Lightning trainer names it.
        moving_average: in words.
    """
    if precision in ("16-true", "bf16-true"):
        raise ConfigError(
            f"precision={precision!r} is too coarse for {moving_average}, whose steps would be rounded away; use "
            "'32-true', 'bf16-mixed' or '64-true' for this training"
        )
