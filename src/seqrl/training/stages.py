"""A run, stage by stage: episodes, tokenizer, model; resumed where it was left."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from seqrl.checkpoint import checkpoint_step
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import sample_transitions
from seqrl.data.windows import WindowSettings
from seqrl.envs.reference import normalised_score
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import DATA
from seqrl.runs import RunFolder
from seqrl.tokenizers.report import round_trip_report
from seqrl.training.callbacks import StopAtInterrupt, TrainingMetrics, checkpoints
from seqrl.training.checkpoint_io import AtomicCheckpointIO
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.loggers import loggers
from seqrl.training.module import SequenceModule

_REPORT_SCALARS = 2**23  # of the transitions whose round trip is reported: more take seconds and tell nothing new


def finished(folder: RunFolder) -> Path | None:
    """The checkpoint of a run whose training is done, or None."""
    last = folder.path / "model" / "last.ckpt"
    return last if folder.status().get("model", {}).get("state") == "done" and last.exists() else None


def load_data(config: Mapping[str, Any]) -> EpisodeStore:
    """The episodes of a run."""
    store: EpisodeStore = DATA.build(config["data"]).load()
    return store


def train(config: Mapping[str, Any], folder: RunFolder, store: EpisodeStore | None = None) -> Path:
    """Train what the resolved config of a run asks for, or what is left of it.

    Args:
        store: the episodes, where they are loaded already.

    Returns:
        The checkpoint of the finished model.

    Raises:
        KeyboardInterrupt: Ctrl-C; `last.ckpt` holds the last whole step.
        seqrl.errors.SeqrlError: bad settings or data.
    """
    quiet_lightning()
    done = finished(folder)
    if done is not None:
        return done
    store = store or load_data(config)
    config = {
        **config,
        "observation_size": store.observations.shape[1],
        "action_size": store.actions.shape[1],
        "dataset": describe(store),
    }
    pl.seed_everything(max(0, config["seed"]), verbose=False)  # a negative seed is refused below, in our words
    layout = Layout.from_config(config["layout"], config["observation_size"], config["action_size"])
    training = config["training"]
    for name in ("max_steps", "validate_every", "checkpoint_every", "log_every", "validation_batches"):
        if training[name] < 1:
            raise ConfigError(f"training.{name}={training[name]} is too small; give 1 or more")
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
    data.tokenize(module)
    values = sample_transitions(store, layout, scalars=_REPORT_SCALARS)
    _write_report(folder.path / "tokenizer.csv", round_trip_report(module.model.tokenizer, values, layout))
    last = folder.path / "model" / "last.ckpt"
    _fit(module, data, config, folder, last)
    return last


def describe(store: EpisodeStore) -> dict[str, Any]:
    """What results say of the data: name, environment, size, and how well the behaviour did."""
    complete = store.complete()
    returns = store.returns()[complete if complete.any() else slice(None)]
    env_id = store.attributes.get("env_id")
    unlike = store.attributes.get("return_note")  # such returns are on another scale than an evaluation's
    score = None if env_id is None or unlike else normalised_score(env_id, float(returns.mean()))
    return {
        "name": store.attributes.get("name", "arrays"),
        "d4rl_id": store.attributes.get("d4rl_id"),
        "env_id": env_id,
        "num_transitions": len(store),
        "num_episodes": store.num_episodes,
        "behaviour_return_mean": float(returns.mean()),
        "behaviour_score": score,
    }


def _fit(
    module: SequenceModule, data: EpisodeDataModule, config: Mapping[str, Any], folder: RunFolder, last: Path
) -> None:
    resumed_step = checkpoint_step(last) if last.exists() else 0
    interrupt = StopAtInterrupt()
    trainer = run_trainer(
        config,
        folder,
        has_validation=len(data.validation_episodes) > 0,
        resumed_step=resumed_step,
        callbacks=[interrupt],
    )
    folder.set_status("model", "running", resumed_step)
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        _say_metrics(trainer)
        state = "interrupted" if interrupt.interrupted else "done"
        folder.set_status("model", state, trainer.global_step)
    if interrupt.interrupted:
        raise KeyboardInterrupt


def run_trainer(
    config: Mapping[str, Any],
    folder: RunFolder,
    *,
    has_validation: bool,
    resumed_step: int = 0,
    callbacks: Sequence[Callback] = (),
) -> pl.Trainer:
    """The trainer of a run: its metrics, checkpoints, loggers and progress bar, from the resolved config.

    Args:
        has_validation: whether there are held-out episodes.
        resumed_step: what was logged after it is lost, and is removed.
        callbacks: more of them.
    """
    training = config["training"]
    every = training["checkpoint_every"]
    found: list[Callback] = [
        TrainingMetrics(training["log_every"]),
        *checkpoints(folder.path / "model", every=every, has_validation=has_validation),
        *callbacks,
        _StatusFile(folder),
    ]
    if training["progress_bar"]:
        found.append(TQDMProgressBar(refresh_rate=training["log_every"]))
    return build_trainer(
        config["trainer"],
        max_steps=training["max_steps"],
        val_check_interval=min(training["validate_every"], training["max_steps"]),
        gradient_clip_val=config["optimizer"]["clip_norm"],
        callbacks=found,
        logger=loggers(folder.path, names=training["loggers"], resumed_step=resumed_step),
        enable_progress_bar=training["progress_bar"],
        limit_val_batches=1.0 if has_validation else 0,
        default_root_dir=folder.path,
    )


def _say_metrics(trainer: pl.Trainer) -> None:
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    if logged:
        accuracies = {n.removeprefix("val/").removesuffix("_accuracy"): v for n, v in logged.items() if "accuracy" in n}
        listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in accuracies.items())
        say(
            f"held-out loss after {trainer.global_step} steps: {logged['val/loss']:.3f} nats per token (weighted); "
            f"token accuracy: {listed}"
        )


def quiet_lightning() -> None:
    """Leave out what Lightning says of itself; warnings about a run stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", message=".*does not have many workers")  # batches are cut in the process
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")  # our order follows the step
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # that is resuming


def build_trainer(options: Mapping[str, Any], **fixed: Any) -> pl.Trainer:
    """A Lightning trainer for token windows: one long epoch, counted in steps.

    Args:
        options: `conf/trainer/*.yaml`, passed to `lightning.pytorch.Trainer`.

    Raises:
        ConfigError: options that the trainer refuses.
    """
    if options.get("num_threads"):
        torch.set_num_threads(int(options["num_threads"]))
    passed = {key: value for key, value in options.items() if key != "num_threads"}
    try:
        return pl.Trainer(
            **passed,
            **fixed,
            plugins=[AtomicCheckpointIO()],
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            enable_model_summary=False,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer={dict(passed)} is refused by Lightning: {error}") from error


class _StatusFile(Callback):
    """Keeps the step of the newest checkpoint in status.json."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero:
            self.folder.set_status("model", "running", trainer.global_step)


def _write_report(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
