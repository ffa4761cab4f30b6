"""A run, stage by stage: episodes, tokenizer, model; resumed where it was left."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from seqrl.console import say
from seqrl.d4rl.reference import normalised_score
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import sample_transitions
from seqrl.data.summary import DataSummary
from seqrl.data.windows import WindowSettings
from seqrl.errors import ConfigError, PrunedError, Stopped
from seqrl.files import copy_file, write_text
from seqrl.layout import Layout
from seqrl.registry import DATA, TOKENIZER
from seqrl.runs.folder import STAGES, RunFolder
from seqrl.tokenizers import CodeTokenizer
from seqrl.tokenizers._report import reconstruction_report, round_trip_report
from seqrl.training.callbacks import ClipGradient, ShowProgress, StopAtInterrupt, TrainingMetrics
from seqrl.training.checkpoint_io import AtomicCheckpointIO, Checkpoints, resumable
from seqrl.training.critic_module import CriticModule, TransitionDataModule
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.health import StopWhenNotFinite
from seqrl.training.loggers import loggers
from seqrl.training.module import SequenceModule
from seqrl.training.parallel import CompileModel, cluster_environment, replicated, strategy
from seqrl.training.pruning import PruneTrial
from seqrl.training.tokenizer_module import TokenizerModule, stage_settings

_REPORT_WINDOWS = 1024
_REPORT_SCALARS = 2**23  # of the transitions whose round trip is reported: more take seconds and tell nothing new


def stages(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that a config asks for, in order."""
    trainable = getattr(TOKENIZER.get(config["tokenizer"]["name"]), "trainable", False)
    asked = {"tokenizer": trainable, "model": True, "critic": config.get("critic")}
    return tuple(stage for stage in STAGES if asked[stage])


def finished(config: Mapping[str, Any], folder: RunFolder) -> Path | None:
    """The model's checkpoint of a run whose stages are all done, or None."""
    if all(_is_done(stage, folder) for stage in stages(config)):
        return folder.path / "model" / "last.ckpt"
    return None


def _is_done(stage: str, folder: RunFolder) -> bool:
    return folder.status().get(stage, {}).get("state") == "done" and (folder.path / stage / "last.ckpt").exists()


def load_data(config: Mapping[str, Any]) -> EpisodeStore:
    """The episodes of a run; with `data.top_fraction` the best of them, see `EpisodeStore.best`."""
    source = dict(config["data"])
    top_fraction = source.pop("top_fraction", None)  # of every source, and none of its business
    store: EpisodeStore = DATA.build(source).load()
    return store if top_fraction is None else store.best(top_fraction)


def train(config: Mapping[str, Any], folder: RunFolder, store: EpisodeStore | None = None) -> Path:
    """Train the stages that the resolved config of a run asks for, or what is left of them.

    Args:
        store: the episodes, where they are loaded already.

    Returns:
        The checkpoint of the finished model.

    Raises:
        seqrl.errors.Stopped: Ctrl-C, or a signal of a cluster; `last.ckpt` holds the last whole step.
        seqrl.errors.SeqrlError: bad settings or data.
    """
    quiet_lightning()
    done = finished(config, folder)
    if done is not None:
        return done
    store = store or load_data(config)
    config = {
        **config,
        **store.sizes,
        "longest_episode": int(store.lengths.max()),
        "dataset": asdict(describe(store)),
    }
    pl.seed_everything(max(0, config["seed"]), verbose=False)  # a negative seed is refused below, in our words
    layout = Layout.from_config(config["layout"], **store.sizes)
    training = config["training"]
    check_training("training", training)
    data = EpisodeDataModule(
        store,
        layout,
        window=WindowSettings(**config["window"]),
        batch_size=training["batch_size"],
        validation_fraction=training["validation_fraction"],
        validation_batches=training["validation_batches"],
        seed=config["seed"],
    )
    module = SequenceModule(config)
    critic = CriticModule(config) if config.get("critic") else None  # refused now, if at all, not after the model
    data.tokenize(module)
    if "tokenizer" in stages(config):
        _fit_tokenizer(module, data, config, folder)
    else:
        values = sample_transitions(store, layout, scalars=_REPORT_SCALARS)
        _write_report(folder.path / "tokenizer.csv", round_trip_report(module.model.tokenizer, values, layout))
    last = fit_stage("model", module, data, config, folder, has_validation=len(data.validation_episodes) > 0)
    if critic is not None:
        _fit_critic(critic, store, layout, config, folder)
    return last


def _fit_tokenizer(
    module: SequenceModule, data: EpisodeDataModule, config: Mapping[str, Any], folder: RunFolder
) -> None:
    training = stage_settings(config)
    check_training("tokenizer_training", training)
    has_validation = len(data.validation_episodes) > 0
    fit_stage(
        "tokenizer", TokenizerModule(module), data, config, folder, training=training, has_validation=has_validation
    )
    tokenizer = module.model.tokenizer.eval()
    assert isinstance(tokenizer, CodeTokenizer)
    rows = reconstruction_report(tokenizer, data.sample_windows(_REPORT_WINDOWS).values, data.layout)
    _write_report(folder.path / "tokenizer.csv", rows)
    tokenizer.train()  # Lightning warns of parts in eval mode; it encodes in that mode all the same


def _fit_critic(
    module: CriticModule, store: EpisodeStore, layout: Layout, config: Mapping[str, Any], folder: RunFolder
) -> None:
    training = {**config["training"], **config["critic_training"]}
    check_training("critic_training", training)
    data = TransitionDataModule(
        store,
        layout,
        batch_size=training["batch_size"],
        validation_fraction=training["validation_fraction"],
        validation_batches=training["validation_batches"],
        seed=config["seed"],
    )
    module.critic.fit(*data.statistics())
    fit_stage("critic", module, data, config, folder, training=training, has_validation=data.has_validation)


def check_training(section: str, training: Mapping[str, Any]) -> None:
    """Refuse settings of a stage's training that are too small.

    Args:
        section: of the configuration: `training`, `tokenizer_training` or `critic_training`.

    Raises:
        ConfigError: names the setting.
    """
    for name in ("max_steps", "validate_every", "checkpoint_every", "log_every", "validation_batches", "keep_last"):
        if training[name] < 1:
            raise ConfigError(f"{section}.{name}={training[name]} is too small; give 1 or more")


def describe(store: EpisodeStore) -> DataSummary:
    """What results say of the data: name, environment, size, and how well the behaviour did."""
    complete = store.complete()
    returns = store.returns()[complete if complete.any() else slice(None)]
    env_id = store.attributes.get("env_id")
    unlike = store.attributes.get("return_note")  # such returns are on another scale than an evaluation's
    score = None if env_id is None or unlike else normalised_score(env_id, float(returns.mean()))
    return DataSummary(
        name=store.attributes.get("name", "arrays"),
        d4rl_id=store.attributes.get("d4rl_id"),
        env_id=env_id,
        num_transitions=len(store),
        num_episodes=store.num_episodes,
        behaviour_return_mean=float(returns.mean()),
        behaviour_return_max=float(returns.max()),
        behaviour_score=score,
        standard_deviations=store.standard_deviations(),
    )


def fit_stage(
    stage: str,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    config: Mapping[str, Any],
    folder: RunFolder,
    *,
    training: Mapping[str, Any] | None = None,
    has_validation: bool = True,
) -> Path:
    """Train one stage of a run, or what is left of it; afterwards the module holds the weights of its `last.ckpt`.

    Args:
        stage: one of `seqrl.runs.folder.STAGES`. Its checkpoints lie in RUN/<stage>, its metrics are named
            <stage>/train/... and <stage>/val/..., without the stage for `model`.
        module: logs `val/loss` (see `SequenceModule.on_validation_epoch_end`), has `pop_metrics("train")` (see
            `TrainingMetrics`), one optimizer, and in its steps draws from torch's generator only after
            `seed_step(self, seed)`.
        data: its batches are a function of the global step, as those of `EpisodeDataModule`.
        config: of the run.
        training: the stage's own settings in place of `config["training"]`, all keys of it; `clip_norm` in it, if any,
            stands for `config["optimizer"]["clip_norm"]`.
        has_validation: whether `data` has held-out batches.

    Returns:
        The stage's `last.ckpt`.

    Raises:
        seqrl.errors.Stopped: Ctrl-C, or a signal of a cluster; `last.ckpt` holds the last whole step.
        seqrl.errors.DivergedError: a loss or gradient is not finite; see `StopWhenNotFinite`.
        seqrl.errors.CheckpointError: no checkpoint of those that are there can be read.
    """
    last = folder.path / stage / "last.ckpt"
    if _is_done(stage, folder):
        module.load_state_dict(torch.load(last, map_location="cpu", weights_only=True)["state_dict"])
        return last
    checkpoint, resumed_step = resumable(last.parent, stage)
    interrupt = StopAtInterrupt()
    search = PruneTrial(**config["trial"]) if stage == "model" and config.get("trial") else None
    trainer = run_trainer(
        config,
        folder,
        stage=stage,
        training=training,
        has_validation=has_validation,
        resumed_step=resumed_step,
        callbacks=[interrupt, *([search] if search else [])],
    )

    def tell(state: str, step: int, reason: str | None = None) -> None:
        if trainer.is_global_zero:
            folder.set_status(stage, state, step, reason)

    if trainer.is_global_zero and checkpoint is not None and checkpoint != last:
        copy_file(checkpoint, last)  # else a run that needs no more steps would be left without it
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except BaseException as error:
        by_hand = isinstance(error, (KeyboardInterrupt, SystemExit))  # a second Ctrl-C: Lightning exits
        state = "interrupted" if by_hand else "pruned" if isinstance(error, PrunedError) else "failed"
        begun = folder.status().get(stage)
        if begun is not None or not isinstance(error, ConfigError):  # else it was refused, and there is nothing to tell
            step = resumed_step if begun is None else begun["step"]
            tell(state, step, None if by_hand else f"{type(error).__name__}: {error}")
        if isinstance(error.__context__, Stopped):  # before the first step, Lightning turns that into SystemExit
            raise error.__context__ from None
        if by_hand:
            raise KeyboardInterrupt from error
        raise
    if interrupt.number is not None:
        tell("interrupted", trainer.global_step)
        raise Stopped(interrupt.number)
    if search and search.pruned:
        tell("pruned", trainer.global_step)
        raise PrunedError(f"given up after {trainer.global_step} steps: other trials did better")
    if trainer.is_global_zero:
        _say_metrics(stage, trainer)
    tell("done", trainer.global_step)
    return last


def run_trainer(
    config: Mapping[str, Any],
    folder: RunFolder,
    *,
    stage: str = "model",
    training: Mapping[str, Any] | None = None,
    has_validation: bool,
    resumed_step: int = 0,
    callbacks: Sequence[Callback] = (),
) -> pl.Trainer:
    """The trainer of a stage: its metrics, checkpoints, loggers and progress bar, from the resolved config.

    Args:
        training: settings of the stage, those of the model by default.
        has_validation: whether there are held-out batches.
        resumed_step: what was logged after it is lost, and is removed.
        callbacks: more of them.
    """
    training = training or config["training"]
    every, log_every = training["checkpoint_every"], training["log_every"]
    gradient = ClipGradient(training.get("clip_norm", config["optimizer"]["clip_norm"]))
    found: list[Callback] = [
        *callbacks,
        gradient,
        StopWhenNotFinite(folder.path / stage, every=log_every, checkpoint_every=every, gradient=gradient),
        TrainingMetrics(log_every, gradient),
        Checkpoints(
            folder.path / stage,
            stage=stage,
            every=every,
            keep=training["keep_last"],
            continued=resumed_step > 0,
            saved=lambda step: folder.set_status(stage, "running", step),
        ),
    ]
    if training["progress_bar"]:
        found.append(ShowProgress(stage, every=log_every))
    options = config["trainer"] if stage == "model" else replicated(config["trainer"])
    return build_trainer(
        options,
        max_steps=training["max_steps"],
        val_check_interval=min(training["validate_every"], training["max_steps"]),
        callbacks=found,
        logger=loggers(folder.path, names=training["loggers"], stage=stage, resumed_step=resumed_step),
        enable_progress_bar=False,  # ours
        limit_val_batches=1.0 if has_validation else 0,
        default_root_dir=folder.path,
    )


def _say_metrics(stage: str, trainer: pl.Trainer) -> None:
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    if stage != "model" and "val/loss" in logged:
        say(f"{stage}: held-out loss after {trainer.global_step} steps: {logged['val/loss']:.4g}")
    elif logged:
        accuracies = {n.removeprefix("val/").removesuffix("_accuracy"): v for n, v in logged.items() if "accuracy" in n}
        listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in accuracies.items())
        if not listed:
            what = "mean squared error, normalized"
        elif len(accuracies) < sum(name.endswith("_loss") for name in logged):
            what = f"squared errors and nats (weighted); accuracy: {listed}"
        else:
            what = f"nats per token (weighted); token accuracy: {listed}"
        say(f"held-out loss after {trainer.global_step} steps: {logged['val/loss']:.3f} {what}")


def quiet_lightning() -> None:
    """Leave out what Lightning says of itself; warnings about a run stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", message=".*does not have many workers")  # batches are cut in the process
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")  # our order follows the step
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a login node may train as well
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # that is resuming


def build_trainer(options: Mapping[str, Any], **fixed: Any) -> pl.Trainer:
    """A Lightning trainer for token windows: one long epoch, counted in steps.

    Args:
        options: `conf/trainer/*.yaml`, passed to `lightning.pytorch.Trainer`.

    Raises:
        ConfigError: options that the trainer refuses.
    """
    if options.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={options['accumulate_grad_batches']!r} is not possible, since a step is "
            "one batch here; give training.batch_size, which the ranks of trainer.devices share"
        )
    threads = options.get("num_threads")
    if threads is not None:
        if not isinstance(threads, int) or threads < 1:
            raise ConfigError(f"trainer.num_threads={threads!r} is no number of threads; give 1 or more, or null")
        torch.set_num_threads(threads)
    passed = {key: value for key, value in options.items() if key not in ("num_threads", "compile", "strategy")}
    callbacks = [*fixed.pop("callbacks", []), *([CompileModel()] if options.get("compile") else [])]
    try:
        return pl.Trainer(
            **passed,
            **fixed,
            strategy=strategy(options),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), cluster_environment(options)],
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            enable_model_summary=False,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer={dict(passed)} is refused by Lightning: {error}") from error


@rank_zero_only
def _write_report(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())
