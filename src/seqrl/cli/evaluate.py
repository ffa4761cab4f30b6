"""`seqrl evaluate`: act with a trained model."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from seqrl.cli.application import plain, run_application
from seqrl.cli.sweep import Job


def run(arguments: list[str]) -> int:
    """Run the command; see `seqrl.cli.application.run_application` for the exit status."""
    return run_application("evaluate", arguments, _task)


def _task(cfg: DictConfig, job: Job) -> None:
    config = plain(cfg)
    from seqrl.evaluation.evaluate import checkpoint_file, evaluate_all
    from seqrl.plugins import load_plugins

    load_plugins(config["plugins"])
    checkpoint = checkpoint_file(Path(config["checkpoint"]))
    folder = checkpoint.parent.parent if checkpoint.parent.name == "model" else checkpoint.parent
    done = evaluate_all([{**config, "label": config["label"] or config["strategy_name"]}], checkpoint, folder)
    job.folder = str(folder)
    job.add_rows([each.row for each in done])
