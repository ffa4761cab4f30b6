"""`seqrl train`: one run, from its configuration to its results table."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from seqrl.cli.application import composing, plain, run_application
from seqrl.cli.checking import (
    check_deletions,
    check_objective,
    check_plugged,
    check_row,
    check_sections,
    check_training,
    check_without_data,
    find_start,
    load_named_plugins,
    take_check,
)
from seqrl.cli.rows import Rows, compose_rows
from seqrl.cli.sweep import Identity, forget_failure
from seqrl.cli.words import spell_words
from seqrl.config import RunConfig
from seqrl.console import say, say_error
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


def run(arguments: list[str]) -> int:
    """Run the command; see `seqrl.cli.application.run_application` for the exit status."""
    try:
        arguments, only_check = take_check(arguments)
        words = spell_words("train", arguments)
        return run_application("train", words, _check if only_check else _task, _identify)
    except ConfigError as error:
        say_error(f"ConfigError: {error}")
        return 2


def _read(cfg: DictConfig) -> tuple[RunConfig, dict[str, Any], Rows]:
    """The composed run, typed and plain, and the rows that follow it; refused here if its settings are wrong."""
    config = find_start(plain(cfg))
    words = list(HydraConfig.get().overrides.task)
    check_sections(config)
    check_deletions(words)
    load_named_plugins(config)
    run = RunConfig.from_dict(config)
    if _needs_processes(config["trainer"]):
        from seqrl.training.launch import check_ranks

        check_ranks(config["trainer"])
    check_training(run)
    name_beginning(config)
    rows = compose_rows(run.to_dict()["evaluation"], words)
    for row in rows.configs:
        check_row(row)
    check_objective(run.objective_metric, [row["label"] for row in rows.configs])
    if run.check_plugins:
        check_plugged(config, rows.configs)
    return run, config, rows


def _check(cfg: DictConfig, job: Job) -> None:
    run, _, rows = _read(cfg)
    check_without_data(run, [check_row(row) for row in rows.configs])
    say("the configuration is sound, as far as it can be told without reading episodes")


def _task(cfg: DictConfig, job: Job) -> None:
    _, config, rows = _read(cfg)
    evaluation, objective = config.pop("evaluation"), config.pop("objective_metric")
    identity = identify(config)
    found = find_run(config, identity)
    if found is None:
        found = find_path(config["runs_dir"]) / name_run(config, identity, _changed(cfg))
    folder = RunFolder(found)
    job.folder = str(folder.path)
    say(f"run folder: {folder.path}")
    with folder.held(), keep_console(folder.path):
        forget_failure(folder)
        path = folder.write_config({**config, "evaluation": evaluation, "objective_metric": objective})
        note_invocation(folder.path, list(HydraConfig.get().overrides.task), config["trainer"])
        _train_and_evaluate(config, folder, path, rows, job, identity, objective)
    job.objective = (objective, job.metrics.get(objective))
    if objective not in job.metrics and objective != "val/loss":  # as without held-out episodes
        say(f"objective_metric={objective!r} was not measured. Measured: {', '.join(sorted(job.metrics))}")


def _identify(cfg: DictConfig) -> Identity:
    """Of a run as it will be named; `complete` goes by what lies in its folder."""
    config = find_start(plain(cfg))
    evaluation, objective = config.pop("evaluation"), config.pop("objective_metric")
    load_named_plugins(config)
    run = identify(config)
    name = f"{name_beginning(config)}-{run.digest}"
    folder = find_run(config, run) or find_path(config["runs_dir"]) / name
    complete = folder.is_dir() and _is_complete(RunFolder(folder)) and is_certain(RunFolder(folder), run)
    return Identity.of([name, evaluation, objective], folder, complete=complete)


def _is_complete(folder: RunFolder) -> bool:
    begun = [kind for kind in KINDS if kind.name in folder.status()]
    return MODEL in begun and all(folder.is_done(kind.name) for kind in begun)


def _changed(cfg: DictConfig) -> dict[str, Any]:
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


def _train_and_evaluate(
    config: Mapping[str, Any],
    folder: RunFolder,
    path: Path,
    rows: Rows,
    job: Job,
    identity: RunIdentity,
    objective: str,
) -> None:
    # torch and Lightning take seconds to import: --help and --cfg must not wait for them.
    from seqrl.evaluation.evaluate import evaluate_all

    try:
        last = _train(config, folder, path, rows, identity, objective)
    except Exception:
        _draw_curves(folder)
        raise
    finally:  # a training that was given up has numbers too
        job.metrics |= last_metrics(folder.path / "metrics.csv")
    _draw_curves(folder)
    done = evaluate_all(rows.configs, last, folder.path, baseline=rows.baseline)
    job.results = [str(each.folder) for each in done]
    job.add_rows([each.row for each in done])
    if any(config["diagnostics"] for config in rows.configs):
        from seqrl.cli.pictures import draw_plans

        draw_plans(done)
    if rows.figure:
        from seqrl.cli.pictures import draw

        draw(done, folder.path)
    from seqrl.cli.pictures import CURVES
    from seqrl.evaluation.publishing import publish_results

    pictures = [folder.path / CURVES, *sorted(folder.path.glob("paths*.png"))]
    publish_results(config["training"]["loggers"], folder.path, done, pictures)


def _draw_curves(folder: RunFolder) -> None:
    """Draw the learning curves where there are newer numbers than in the picture."""
    from seqrl.cli.pictures import CURVES, draw_training

    logged, picture = folder.path / "metrics.csv", folder.path / CURVES
    if logged.exists() and not (picture.exists() and picture.stat().st_mtime >= logged.stat().st_mtime):
        with suppress(OSError, ConfigError):  # a full disk is told by what matters
            if drawn := draw_training(folder.path):
                say(f"picture: {drawn}")


def _train(
    config: Mapping[str, Any], folder: RunFolder, path: Path, rows: Rows, identity: RunIdentity, objective: str
) -> Path:
    from seqrl.evaluation.evaluate import check
    from seqrl.training.run import finished, load_data, summarize_data, train
    from seqrl.training.same_data import check_trained, saw
    from seqrl.training.stages import check_stages

    certain = begin(folder, identity) and not has_plugin_source(config["data"])
    last = finished(config, folder)
    if last is not None and certain:
        say(f"the model is trained already: {last}")
        return last
    try:
        store = load_data(config)
    except DataError as error:
        if last is None:
            raise
        say(f"the model is trained already: {last}; whether on these data cannot be told ({error})")
        return last
    identity = _identify_again(config, identity)
    if last is None:  # before the training, not after it
        check_stages({**config, **store.sizes, "longest_episode": int(store.lengths.max())}, objective)
        for row in rows.configs:
            check(row, config, store)
    dataset = cache(lambda: summarize_data(store))
    if not certain:
        check_trained(folder, dataset())
    note_files(folder, identity)
    share_stages(folder, identity, lambda checkpoint, kind: saw(checkpoint, kind, dataset()))
    last = finished(config, folder)
    if last is not None:
        say(f"the model is trained already: {last}")
        return last
    if _needs_processes(config["trainer"]):
        return _train_in_processes(path, config["trainer"])
    return train(config, folder, store)


def _identify_again(config: Mapping[str, Any], before: RunIdentity) -> RunIdentity:
    """The identity of a run after its data were read, with the files that were fetched.

    Raises:
        DataError: something was exchanged meanwhile.
    """
    now = identify(config)
    if now != before or now.changed_files(before):
        what = now.difference(before) or " and ".join(now.changed_files(before)) or "a file"
        raise DataError(f"{what} changed while it was read; start the command again when it is written")
    return now


def _needs_processes(trainer: Mapping[str, Any]) -> bool:
    several = trainer.get("devices", 1) != 1 or trainer.get("num_nodes", 1) != 1
    return several or str(trainer.get("strategy", "auto")) not in ("auto", "single_device")


def _train_in_processes(path: Path, trainer: Mapping[str, Any]) -> Path:
    """Train in ranks that start without Hydra, from the config alone."""
    from seqrl.training.launch import run_ranks

    try:
        run_ranks(path, trainer)
    except KeyboardInterrupt:
        # Where srun ends the other ranks after one failed, their interruption is all that its exit status tells.
        reasons = [
            stage.reason or "a rank failed"
            for stage in RunFolder(path.parent).status().values()
            if stage.state == "failed"
        ]
        if reasons:
            raise SeqrlError(reasons[0]) from None
        raise
    return path.parent / "model" / "last.ckpt"
