"""The stages of a run as objects: what each of them fits, on which batches, with which settings."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from seqrl.callbacks import build_callbacks
from seqrl.config import RunConfig, TrainerConfig, TrainingConfig, TrialConfig
from seqrl.console import say
from seqrl.critics import build_critic
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import sample_transitions
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.errors import ConfigError, did_you_mean
from seqrl.files import write_text
from seqrl.layout import Layout
from seqrl.layout_config import LayoutConfig
from seqrl.registry import TOKENIZER as TOKENIZERS
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import CRITIC, KINDS, MODEL, TOKENIZER, StageKind
from seqrl.tokenizers import TrajectoryAutoencoder
from seqrl.tokenizers._report import reconstruction_report, round_trip_report
from seqrl.training.critic_module import CriticModule, TransitionDataModule
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.launch import count_ranks
from seqrl.training.memory import warn_of_memory
from seqrl.training.module import SequenceModule
from seqrl.training.optim import make_scheduler
from seqrl.training.parallel import replicated
from seqrl.training.stage_module import CODEBOOK, SLOW_COPY, check_precision
from seqrl.training.tokenizer_module import TokenizerModule
from seqrl.training.warm_start import start_from

_REPORT_WINDOWS = 1024
_REPORT_SCALARS = 2**23  # of the transitions whose round trip is reported: more take seconds and tell nothing new
_OF_BATCHES = ("batch_size", "validation_fraction", "validation_batches")


def _do_nothing() -> None: ...


@dataclass(frozen=True)
class Stage:
    """One Lightning fit of a run.

    Attributes:
        kind: what it is called.
        module: what is trained. It logs `val/loss` (see `SequenceModule.on_validation_epoch_end`), has
            `pop_metrics("train")` (see `TrainingMetrics`), one optimizer, and in its steps draws from torch's generator
            only after `seed_step(self, seed)`.
        data: its batches are a function of the global step, as those of `EpisodeDataModule`.
        settings: the section `training`, with what the stage's own section sets instead.
        dataset: what the data are.
        trainer: where and how to compute.
        clip_norm: of the gradient; None or 0 leaves it as it is.
        has_validation: whether `data` has held-out batches.
        tell_loss: what the held-out loss is, in words, of the metrics that validations log.
        finish: what is to be done with the trained module, before the next stage.
        trial: where a search may give the stage up.
        rate: the setting of its learning rate.
    """

    kind: StageKind
    module: pl.LightningModule
    data: EpisodeDataModule | TransitionDataModule
    settings: TrainingConfig
    dataset: DataSummary
    trainer: TrainerConfig
    clip_norm: float | None
    has_validation: bool
    tell_loss: Callable[[Mapping[str, float]], str] = lambda logged: f"{logged['val/loss']:.4g}"
    finish: Callable[[], None] = _do_nothing
    trial: TrialConfig | None = None
    rate: str = "optimizer.learning_rate"


def list_stages(run: RunConfig) -> list[StageKind]:
    """The stages that a run asks for, in order."""
    trainable = getattr(TOKENIZERS.named_by(run.tokenizer), "trainable", False)
    kept = run.init_from is not None and run.warm_start.tokenizer == "keep"  # as it was trained
    return [kind for kind in KINDS if kind.is_asked(run) or (trainable and not kept and kind is TOKENIZER)]


def check_stages(run: RunConfig, sizes: DataSizes) -> None:
    """Refuse, before the first stage, what a later one would refuse after hours, or nobody would measure.

    Raises:
        ConfigError: a batch that the ranks cannot share, an objective that no training logs, or what parts refuse.
    """
    ranks, objective = count_ranks(run.trainer), run.objective_metric
    for kind in list_stages(run):
        own = getattr(run, kind.section) if kind.section else None
        size = (own.on_top_of(run.training) if own else run.training).batch_size
        if size % ranks:
            section = kind.section if own and own.batch_size else "training"
            raise ConfigError(f"{section}.batch_size={size} cannot be shared by {ranks} ranks; give a multiple")
        _check_callbacks(kind, own.on_top_of(run.training) if own else run.training, run)
    with suppress(ArithmeticError, TypeError):  # of an epoch nothing is known yet
        make_scheduler(run.scheduler, max_steps=run.training.max_steps or 1, steps_per_epoch=1)
    with torch.device("meta"):  # without memory for its weights
        module = SequenceModule(run, sizes)
        build_critic(run, sizes)
    if run.trainer.accelerator == "cpu":
        warn_of_memory(module.model, run.backbone, run.training.batch_size // ranks)
    if CRITIC.is_asked(run):
        check_precision(run.trainer.precision, SLOW_COPY)
    of_training = objective.partition("/")[0] in ("train", "val")
    if of_training and "csv" not in map(_name_of, run.training.loggers) and objective != "val/loss":
        raise ConfigError(f"objective_metric={objective!r} is read from metrics.csv; add csv to training.loggers")
    measured = {f"{when}/{name}" for when in ("train", "val") for name in module.train_metrics.names}
    measured |= {"train/gradient_norm", "train/learning_rate", "train/tokens_per_second"}
    if of_training and objective not in measured:
        raise ConfigError(
            f"objective_metric={objective!r} is not measured by this training.{did_you_mean(objective, measured)} "
            f"Measured: {', '.join(sorted(measured))}"
        )


def _name_of(choice: str | Mapping[str, Any]) -> str:
    return choice if isinstance(choice, str) else str(choice["name"])


def _check_callbacks(kind: StageKind, settings: TrainingConfig, run: RunConfig) -> None:
    """Refuse callbacks whose weights a stage cannot take: its parts follow the trained ones, or lie on many ranks."""
    for name, callback in build_callbacks(settings.callbacks).items():
        if not callback.replaces_weights:
            continue
        followed = {TOKENIZER: CODEBOOK, CRITIC: SLOW_COPY}.get(kind)
        if followed is not None:
            raise ConfigError(
                f"training.callbacks has {name!r}, and {followed} follows the weights that the stage {kind.name!r} "
                f"trains; give {kind.section}.callbacks=[] to leave that stage as it is"
            )
        if run.trainer.strategy == "fsdp":
            raise ConfigError(f"{name!r} needs whole weights, which trainer.strategy=fsdp spreads over ranks; use ddp")


def make_stages(run: RunConfig, store: EpisodeStore, dataset: DataSummary, folder: RunFolder) -> list[Stage]:
    """The stages of a run, in order; their models are made, and fitted where fitting is no training.

    Args:
        store: the episodes.
        dataset: what results say of them.
        folder: of the run; reports of the tokenizer go there.

    Raises:
        seqrl.errors.SeqrlError: bad settings or data.
    """
    sizes = DataSizes.of(store)
    layout = sizes.lay_out(run.layout)
    data = EpisodeDataModule(
        store,
        layout,
        window=run.window,
        batch_size=run.training.batch_size,
        validation_fraction=run.training.validation_fraction,
        validation_batches=run.training.validation_batches,
        seed=run.seed,
    )
    module = SequenceModule(run, sizes, dataset)
    critic = CriticModule(run, sizes, dataset) if CRITIC.is_asked(run) else None
    if run.init_from is not None:
        start_from(module, run.init_from, parts=run.warm_start.parts, tokenizer=run.warm_start.tokenizer)
    if run.training.progress_bar:
        _tell_tokenizing(run, module, len(store))
    data.tokenize(module)
    stages = [make_model_stage(run, module, data, dataset)]
    if TOKENIZER in list_stages(run):
        stages.insert(0, _make_tokenizer_stage(run, module, data, dataset, folder))
    elif isinstance(module.model.tokenizer, TrajectoryAutoencoder):  # kept as another run trained it
        _report_reconstruction(module, data, folder)
    else:
        values = sample_transitions(store, layout, scalars=_REPORT_SCALARS)
        _write_report(folder.path / "tokenizer.csv", round_trip_report(module.model.tokenizer, values, layout))
    if critic is not None:
        stages.append(_make_critic_stage(run, critic, store, dataset, layout))
    _check_share(run.trainer.overfit_batches, stages)
    return stages


@rank_zero_only
def _tell_tokenizing(run: RunConfig, module: SequenceModule, transitions: int) -> None:
    """Say what takes its time before the first step."""
    fitting = "" if module.tokenizer_fitted else f"fitting tokenizer={run.tokenizer['name']}, then "
    say(f"{fitting}encoding {transitions:,} transitions")


def _check_share(share: float, stages: Sequence[Stage]) -> None:
    """Refuse a share of the batches that is less than one of them in any stage, in which Lightning would stop."""
    fewest = min(stage.data.steps_per_epoch for stage in stages)
    if 0 < share < 1 and share * fewest < 1:
        raise ConfigError(
            f"trainer.overfit_batches={share:g} is less than one of the {fewest} batches of an epoch; give a number of "
            "batches, as in trainer.overfit_batches=1"
        )


def make_model_stage(run: RunConfig, module: SequenceModule, data: EpisodeDataModule, dataset: DataSummary) -> Stage:
    """The stage that trains the sequence model."""
    return Stage(
        MODEL,
        module,
        data,
        settings=run.training,
        dataset=dataset,
        trainer=run.trainer,
        clip_norm=run.clip_norm,
        has_validation=len(data.validation_episodes) > 0,
        tell_loss=partial(_tell_model_loss, run.layout),
        trial=run.trial,
    )


def _make_tokenizer_stage(
    run: RunConfig, module: SequenceModule, data: EpisodeDataModule, dataset: DataSummary, folder: RunFolder
) -> Stage:
    settings = run.tokenizer_training.on_top_of(run.training)
    if any(getattr(settings, name) != getattr(run.training, name) for name in _OF_BATCHES):
        own = {name: getattr(settings, name) for name in _OF_BATCHES}
        data = EpisodeDataModule(data.store, data.layout, window=data.window, seed=run.seed, **own)
        data.tokenize(module)
    return Stage(
        TOKENIZER,
        TokenizerModule(module),
        data,
        settings=settings,
        dataset=dataset,
        trainer=replicated(run.trainer),
        clip_norm=run.tokenizer_training.clip_norm or run.clip_norm,
        has_validation=len(data.validation_episodes) > 0,
        finish=partial(_report_reconstruction, module, data, folder),
    )


def _make_critic_stage(
    run: RunConfig, module: CriticModule, store: EpisodeStore, dataset: DataSummary, layout: Layout
) -> Stage:
    settings = run.critic_training.on_top_of(run.training)
    data = TransitionDataModule(
        store,
        layout,
        batch_size=settings.batch_size,
        validation_fraction=settings.validation_fraction,
        validation_batches=settings.validation_batches,
        seed=run.seed,
        n_step=module.critic.n_step,
    )
    module.critic.fit(*data.statistics())
    return Stage(
        CRITIC,
        module,
        data,
        settings=settings,
        dataset=dataset,
        trainer=replicated(run.trainer),
        clip_norm=run.critic_training.clip_norm,
        rate="critic_training.learning_rate",
        has_validation=data.has_validation,
    )


def _tell_model_loss(layout: LayoutConfig, logged: Mapping[str, float]) -> str:
    accuracies = {n.removeprefix("val/").removesuffix("_accuracy"): v for n, v in logged.items() if "accuracy" in n}
    unlearnt = [name for name, field in layout.present.items() if field.loss_weight == 0]
    listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in accuracies.items() if name not in unlearnt)
    if not listed:
        what = "mean squared error, normalized"
    elif len(accuracies) < sum(name.endswith("_loss") for name in logged):
        what = f"squared errors and nats (weighted); accuracy: {listed}"
    else:
        what = f"nats per token (weighted); token accuracy: {listed}"
    return f"{logged['val/loss']:.3f} {what}"


def _report_reconstruction(module: SequenceModule, data: EpisodeDataModule, folder: RunFolder) -> None:
    """Write how well the trained tokenizer gives windows back."""
    tokenizer = module.model.tokenizer.eval()
    assert isinstance(tokenizer, TrajectoryAutoencoder)
    rows = reconstruction_report(tokenizer, data.sample_windows(_REPORT_WINDOWS).values, data.layout)
    _write_report(folder.path / "tokenizer.csv", rows)
    tokenizer.train()  # Lightning warns of parts in eval mode; it encodes in that mode all the same


@rank_zero_only
def _write_report(path: Path, rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(text := io.StringIO(), fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())
