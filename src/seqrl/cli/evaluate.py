"""`seqrl evaluate`: act with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seqrl.cli.application import plain, run_application
from seqrl.cli.checking import check_deletions, check_with_checkpoint, load_named_plugins, take_check
from seqrl.cli.presets import check_context, leave_out_foreign
from seqrl.cli.sweep import Identity
from seqrl.cli.telling import tell_errors
from seqrl.cli.words import spell_words
from seqrl.config import EvaluationConfig
from seqrl.console import say, tell_import
from seqrl.evaluation.jobs import Job
from seqrl.registry import SCORE


@tell_errors()
def run(arguments: list[str]) -> int:
    """Run the command; see `seqrl.cli.application.run_application` for the exit status."""
    arguments, only_check = take_check(arguments)
    words = spell_words("evaluate", arguments)
    return run_application("evaluate", words, _check if only_check else _task, _identify)


def _read(cfg: DictConfig) -> EvaluationConfig:
    """The composed evaluation, refused here if its settings are wrong."""
    words = list(HydraConfig.get().overrides.task)
    config = leave_out_foreign(plain(cfg), words)
    check_deletions(words)
    tell_import("torch", "PyTorch", config["progress_bar"])
    load_named_plugins(config)
    evaluation = EvaluationConfig.from_dict(config)
    check_context(words, lambda: _window_of(evaluation))
    return evaluation


def _window_of(config: EvaluationConfig) -> int:
    """Transitions that the checkpoint's model sees at once."""
    from seqrl.checkpoints.loading import checkpoint_file, load

    return load(checkpoint_file(config.checkpoint)).model.context


def _check(cfg: DictConfig, job: Job) -> None:
    config = _read(cfg)
    from seqrl.checkpoints.loading import checkpoint_file

    checkpoint = checkpoint_file(config.checkpoint)
    check_with_checkpoint(config, checkpoint)
    _check_score(config, checkpoint)
    say("the configuration is sound, and the checkpoint serves it")


def _check_score(config: EvaluationConfig, checkpoint: Path) -> None:
    """Refuse a plugin's score that reads what it does not ask for; a training checks all its contracts."""
    terms = config.score.get("terms")
    parts = [config.score, *(terms.values() if isinstance(terms, Mapping) else ())]
    if all(part is None or part["name"] in SCORE.builtin_names() for part in parts):
        return
    from seqrl.checkpoints.loading import load, load_critic
    from seqrl.testing.preflight import check_wants

    check_wants(config.score, load(checkpoint).model.layout, load_critic(checkpoint))


def _task(cfg: DictConfig, job: Job) -> None:
    config = _read(cfg)
    from seqrl.checkpoints.loading import checkpoint_file, run_folder
    from seqrl.evaluation.evaluate import evaluate_all

    checkpoint = checkpoint_file(config.checkpoint)
    _check_score(config, checkpoint)
    folder = run_folder(checkpoint)
    done = evaluate_all([replace(config, label=config.label or config.strategy_name)], checkpoint, folder)
    job.folder = str(folder)
    job.results = [str(each.folder) for each in done]
    job.add_rows([each.row for each in done])
    if config.diagnostics:
        from seqrl.cli.pictures import draw_plans

        draw_plans(done)


def _identify(cfg: DictConfig, words: Sequence[str]) -> Identity:
    """The checkpoint counts with its age; where the user chose the folder, the evaluation is written anew."""
    config = leave_out_foreign(plain(cfg), words, quiet=True)
    from seqrl.checkpoints.loading import checkpoint_file, run_folder

    checkpoint = checkpoint_file(config["checkpoint"])
    state = checkpoint.stat()
    parts = [config, state.st_size, state.st_mtime_ns]
    return Identity.of(parts, run_folder(checkpoint), complete=config["output"] is None)
