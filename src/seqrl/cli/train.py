"""`seqrl train`: one run, from its configuration to its results table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seqrl.cli.application import composing, plain, run_application
from seqrl.cli.checking import (
    check_deletions,
    check_objective,
    check_plugged,
    check_sections,
    check_training,
    check_without_data,
    find_start,
    load_named_plugins,
    take_check,
)
from seqrl.cli.presets import check_context, leave_out_foreign
from seqrl.cli.rows import Rows, compose_rows
from seqrl.cli.sweep import Identity, forget_failure
from seqrl.cli.telling import tell_errors
from seqrl.cli.words import spell_words
from seqrl.config import RunConfig, TrainerConfig
from seqrl.console import say, tell_import
from seqrl.errors import ConfigError, DataError, SeqrlError
from seqrl.evaluation.jobs import Job
from seqrl.paths import find_path
from seqrl.runs.console_log import keep_console
from seqrl.runs.folder import RunFolder
from seqrl.runs.identity import RunIdentity, has_plugin_source, identify
from seqrl.runs.metrics import last_metrics
from seqrl.runs.naming import find_run, name_beginning, name_run
from seqrl.runs.provenance import note_invocation
from seqrl.runs.sharing import begin, is_certain, note_files, share_stages
from seqrl.runs.stages import KINDS, MODEL


@tell_errors()
def run(arguments: list[str]) -> int:
    """Run the command; see `seqrl.cli.application.run_application` for the exit status."""
    arguments, only_check = take_check(arguments)
    words = spell_words("train", arguments)
    return run_application("train", words, _check if only_check else _task, _identify)


def _read(cfg: DictConfig, *, only_check: bool = False) -> tuple[RunConfig, Rows]:
    """The composed run, and the rows that follow it; refused here if its settings are wrong.

    Args:
        only_check: nothing is to be run here: a GPU may be missing.
    """
    words = list(HydraConfig.get().overrides.task)
    config = find_start(leave_out_foreign(plain(cfg), words))
    check_sections(config)
    check_deletions(words)
    tell_import("torch", "PyTorch", config["training"]["progress_bar"])
    load_named_plugins(config)
    run = RunConfig.from_dict(config)
    _check_devices(run.trainer, only_check=only_check)
    check_training(run)
    check_context(words, lambda: run.window.length)
    name_beginning(run)
    rows = compose_rows(run.to_dict()["evaluation"], words)
    check_objective(run.objective_metric, [str(row.label) for row in rows.configs])
    if run.check_plugins:
        check_plugged(run, rows.configs)
    return run, rows


def _check_devices(trainer: TrainerConfig, *, only_check: bool) -> None:
    wants_gpu = trainer.accelerator in ("gpu", "cuda")
    if wants_gpu and only_check:
        return  # it may run on another machine
    if trainer.needs_processes:
        from seqrl.training.launch import check_ranks

        check_ranks(trainer)
    elif wants_gpu:
        from seqrl.training.launch import check_gpu

        check_gpu(trainer.accelerator)


def _check(cfg: DictConfig, job: Job) -> None:
    run, rows = _read(cfg, only_check=True)
    check_without_data(run, rows.configs)
    say("the configuration is sound, as far as it can be told without reading episodes")


def _task(cfg: DictConfig, job: Job) -> None:
    run, rows = _read(cfg)
    objective, identity = run.objective_metric, identify(run)
    found = find_run(run, identity)
    if found is None:
        found = find_path(run.runs_dir) / name_run(run, identity, _find_changes(cfg))
    folder = RunFolder(found)
    job.folder = str(folder.path)
    with folder.held(), keep_console(folder.path):
        forget_failure(folder)
        folder.write_config(run.given)
        note_invocation(folder.path, list(HydraConfig.get().overrides.task), run.trainer)
        _train_and_evaluate(run, folder, rows, job, identity)
    job.objective = (objective, job.metrics.get(objective))
    if objective not in job.metrics and objective != "val/loss":  # as without held-out episodes
        say(f"objective_metric={objective!r} was not measured. Measured: {', '.join(sorted(job.metrics))}")


def _identify(cfg: DictConfig, words: Sequence[str]) -> Identity:
    """Of a run as it will be named; `complete` goes by what lies in its folder."""
    config = find_start(leave_out_foreign(plain(cfg), words, quiet=True))
    training = config.get("training")  # which nobody checked yet
    tell_import("torch", "PyTorch", isinstance(training, Mapping) and training.get("progress_bar"))
    load_named_plugins(config)
    run = RunConfig.from_dict(config)
    identity = identify(run)
    name = f"{name_beginning(run)}-{identity.digest}"
    folder = find_run(run, identity) or find_path(run.runs_dir) / name
    complete = folder.is_dir() and _is_complete(RunFolder(folder)) and is_certain(RunFolder(folder), identity)
    return Identity.of([name, config["evaluation"], run.objective_metric], folder, complete=complete)


def _is_complete(folder: RunFolder) -> bool:
    begun = [kind for kind in KINDS if kind.name in folder.status()]
    return MODEL in begun and all(folder.is_done(kind.name) for kind in begun)


def _find_changes(cfg: DictConfig) -> dict[str, Any]:
    """What the command sets otherwise than the defaults, or than those of its experiment, by key."""
    settings = HydraConfig.get()
    overrides = OverridesParser.create().parse_overrides(list(settings.overrides.task))
    chosen, presets = settings.runtime.choices, ("experiment", "method", "debug")
    words = [str(each.input_line) for each in overrides if each.key_or_group in presets]
    base = composing(lambda: hydra.compose("train", words, return_hydra_config=True))
    changed: dict[str, Any] = {}
    for override in overrides:
        key = override.key_or_group
        if key in chosen:
            if key in presets or base.hydra.runtime.choices.get(key) != chosen[key]:
                changed[key] = chosen[key]
            continue
        value = OmegaConf.select(cfg, key)
        if key.partition(".")[0] in changed or OmegaConf.select(base, key) != value:
            changed[key] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    return changed


def _train_and_evaluate(run: RunConfig, folder: RunFolder, rows: Rows, job: Job, identity: RunIdentity) -> None:
    # torch and Lightning take seconds to import: --help and --cfg must not wait for them.
    from seqrl.evaluation.evaluate import evaluate_all

    try:
        last = _train(run, folder, rows, identity)
    except Exception:
        _draw_curves(folder)
        raise
    finally:  # a training that was given up has numbers too
        job.metrics |= last_metrics(folder.path / "metrics.csv")
    _draw_curves(folder)
    done = evaluate_all(rows.configs, last, folder.path, baseline=rows.baseline)
    job.results = [str(each.folder) for each in done]
    job.add_rows([each.row for each in done])
    if any(config.diagnostics for config in rows.configs):
        from seqrl.cli.pictures import draw_plans

        draw_plans(done)
    if rows.figure:
        from seqrl.cli.pictures import draw

        draw(done, folder.path)
    from seqrl.cli.pictures import CURVES
    from seqrl.evaluation.publishing import publish_results

    pictures = [folder.path / CURVES, *sorted(folder.path.glob("paths*.png"))]
    publish_results(run.training.loggers, folder.path, done, pictures)
    if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweep has one page of all its runs, when somebody asks for it
        _write_report(folder)


def _write_report(folder: RunFolder) -> None:
    """Tell the run on one page, which takes a fraction of a second."""
    from seqrl.reports.page import write_report

    with suppress(OSError, ConfigError):  # a full disk is told by what matters
        say(f"report: {write_report(folder.path)}")


def _draw_curves(folder: RunFolder) -> None:
    """Draw the learning curves where there are newer numbers than in the picture."""
    from seqrl.cli.pictures import CURVES, draw_training

    logged, picture = folder.path / "metrics.csv", folder.path / CURVES
    if logged.exists() and not (picture.exists() and picture.stat().st_mtime >= logged.stat().st_mtime):
        with suppress(OSError, ConfigError):  # a full disk is told by what matters
            if drawn := draw_training(folder.path):
                say(f"picture: {drawn}")


def _train(run: RunConfig, folder: RunFolder, rows: Rows, identity: RunIdentity) -> Path:
    tell_import("lightning", "Lightning", run.training.progress_bar)
    from seqrl.data.extras import check_extras
    from seqrl.data.summary import DataSizes
    from seqrl.evaluation.evaluate import check_evaluation
    from seqrl.sources import load_episodes
    from seqrl.training.run import find_finished, summarize_data, train
    from seqrl.training.same_data import check_trained, saw
    from seqrl.training.stages import check_stages

    certain = begin(folder, identity) and not has_plugin_source(run.data)
    last = find_finished(run, folder)
    if last is not None and certain:
        _tell_trained(folder, last)
        return last
    if run.training.progress_bar:
        say(f"reading the episodes of {_name_data(run.data)}")
    try:
        store = load_episodes(run.data)
    except DataError as error:
        if last is None:
            raise
        _tell_trained(folder, last, f"; whether on these data cannot be told ({error})")
        return last
    identity = _identify_again(run, identity)
    if last is None:  # before the training, not after it
        sizes = DataSizes.of(store)
        check_stages(run, sizes)
        check_extras(store, sizes.lay_out(run.layout))
        for row in rows.configs:
            check_evaluation(row, run, store)
    dataset = cache(lambda: summarize_data(store, run.layout.extras))
    if not certain:
        check_trained(folder, dataset())
    say(f"run folder: {folder.path}")  # nothing is refused any more
    note_files(folder, identity)
    share_stages(folder, identity, lambda checkpoint, kind: saw(checkpoint, kind, dataset()))
    last = find_finished(run, folder)
    if last is not None:
        say(f"the model is trained already: {last}")
        return last
    if run.trainer.needs_processes:
        return _train_in_processes(folder, run.trainer)
    return train(run, folder, store)


def _tell_trained(folder: RunFolder, last: Path, rest: str = "") -> None:
    say(f"run folder: {folder.path}")
    say(f"the model is trained already: {last}{rest}")


def _name_data(data: Mapping[str, Any]) -> str:
    """The source as it is typed, with what names its data."""
    told = [f"data.{key}={data[key]}" for key in ("id", "path", "maze") if isinstance(data.get(key), str)]
    return " ".join([f"data={data['name']}", *told])


def _identify_again(run: RunConfig, before: RunIdentity) -> RunIdentity:
    """The identity of a run after its data were read, with the files that were fetched.

    Raises:
        DataError: something was exchanged meanwhile.
    """
    now = identify(run)
    if now != before or now.changed_files(before):
        what = now.difference(before) or " and ".join(now.changed_files(before)) or "a file"
        raise DataError(f"{what} changed while it was read; start the command again when it is written")
    return now


def _train_in_processes(folder: RunFolder, trainer: TrainerConfig) -> Path:
    """Train in ranks that start without Hydra, from the `config.yaml` of the run alone."""
    from seqrl.training.launch import run_ranks

    try:
        run_ranks(folder.config_file, trainer)
    except KeyboardInterrupt:
        # Where srun ends the other ranks after one failed, their interruption is all that its exit status tells.
        reasons = [stage.reason or "a rank failed" for stage in folder.status().values() if stage.state == "failed"]
        if reasons:
            raise SeqrlError(reasons[0]) from None
        raise
    return folder.checkpoint(MODEL.name)
