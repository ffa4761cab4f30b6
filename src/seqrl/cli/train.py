"""`seqrl train`: one run, from its configuration to its results table."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seqrl.cli.application import plain, run_application
from seqrl.cli.rows import Rows, compose_rows
from seqrl.console import say
from seqrl.errors import ConfigError, SeqrlError
from seqrl.plugins import load_plugins
from seqrl.runs import RunFolder, run_name

_DECODING = re.compile(r"[+~]*(planner|condition|score)(\.[^=]*)?=(.*)", re.DOTALL)


def run(arguments: list[str]) -> int:
    """Run the command; see `seqrl.cli.application.run_application` for the exit status."""
    try:
        return run_application("train", [_reroute(argument) for argument in arguments], _task)
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 2


def _reroute(argument: str) -> str:
    """Settings of decoding belong to the evaluations that follow: `planner.beam_width=64` is short for
    `evaluation.decoding.planner.beam_width=64`, and `strategy=goal` for `evaluation.strategy=goal`."""
    if argument.startswith("strategy="):
        return f"evaluation.{argument}"
    match = _DECODING.fullmatch(argument)
    if match is None:
        return argument
    group, option, value = match.groups()
    if option is None:
        raise ConfigError(
            f"{argument} would turn every row of the results table into the same; choose strategy=..., or write the "
            f'row: \'+evaluation.strategies.mine=["strategy=goal","{argument}"]\''
        )
    return f"++evaluation.decoding.{group}{option}={value}"


def _task(cfg: DictConfig) -> None:
    config = plain(cfg)
    load_plugins(config["plugins"])
    rows = compose_rows(config.pop("evaluation"), list(HydraConfig.get().overrides.task))
    # torch and Lightning take seconds to import: --help and --cfg must not wait for them.
    from seqrl.evaluation.evaluate import evaluate_all

    folder = RunFolder(Path(config["runs_dir"]) / run_name(config))
    path = folder.write_config(config)
    say(f"run folder: {folder.path}")
    last = _train(config, folder, path, rows)
    done = evaluate_all(rows.configs, last, folder.path, baseline=rows.baseline)
    if rows.figure:
        from seqrl.cli.pictures import draw

        draw(done, folder.path)


def _train(config: Mapping[str, Any], folder: RunFolder, path: Path, rows: Rows) -> Path:
    from seqrl.evaluation.evaluate import check
    from seqrl.training.stages import finished, load_data, train

    last = finished(folder)
    if last is not None:
        say(f"the model is trained already: {last}")
        return last
    store = load_data(config)
    for row in rows.configs:  # before the training, not after it
        check(row, config, store)
    if _needs_processes(config["trainer"]):
        return _train_in_processes(path)
    return train(config, folder, store)


def _needs_processes(trainer: Mapping[str, Any]) -> bool:
    return str(trainer.get("strategy", "auto")) not in ("auto", "single_device") or trainer.get("devices", 1) != 1


def _train_in_processes(path: Path) -> Path:
    """Start the first rank as a process of its own, without Hydra; it starts the others the same way."""
    process = subprocess.Popen([sys.executable, "-m", "seqrl.training.worker", str(path)])
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the ranks were told as well: they finish their step and save
        status = process.wait()
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise SeqrlError(f"training in several processes failed with status {status}; its message stands above")
    return path.parent / "model" / "last.ckpt"
