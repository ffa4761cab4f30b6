"""`seqrl train`: one run, from its configuration to its results table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig

from seqrl.cli.application import plain, run_application, translate
from seqrl.console import say
from seqrl.errors import ConfigError, SeqrlError

if TYPE_CHECKING:
    from seqrl.evaluation.evaluate import Evaluation

# Overrides of these reach the evaluations that follow the training.
_DECODING_GROUPS = ("strategy", "planner", "condition", "score")


def run(arguments: list[str]) -> int:
    """Run the command; see `seqrl.cli.application.run_application` for the exit status."""
    return run_application("train", arguments, _task)


def _task(cfg: DictConfig) -> None:
    config = plain(cfg)
    rows = compose_evaluations(config.pop("evaluation"), list(HydraConfig.get().overrides.task))
    for group in (*_DECODING_GROUPS, "strategy_name"):
        config.pop(group, None)
    # torch and Lightning take seconds to import: --help and --cfg must not wait for them.
    from seqrl.evaluation.evaluate import evaluate_all
    from seqrl.runs import RunFolder, run_name

    folder = RunFolder(Path(config["runs_dir"]) / run_name(config))
    path = folder.write_config(config)
    say(f"run folder: {folder.path}")
    last = _train_in_processes(path) if _needs_processes(config["trainer"]) else _train_here(config, path)
    done = evaluate_all(rows["rows"], last, folder.path, baseline=rows["baseline"])
    if rows["figure"]:
        draw(done, folder.path)


def draw(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Draw the paths of the evaluations that were run toward goals, strategies below each other."""
    from seqrl.analysis.maze import PathPanel, draw_paths
    from seqrl.evaluation.goals import maze_of

    with_goals = [e for e in evaluations if "paths" in e.results and e.row["planner"]["name"] != "zero"]
    if not with_goals:
        return
    panels = [
        PathPanel(
            e.row["strategy"],
            e.results["paths"],
            e.results["success"],
            e.results["counted"],
            [(plan.observations[..., :2], plan.environments) for plan in e.plans if plan.observations.shape[1] > 1],
        )
        for e in with_goals
    ]
    first = with_goals[0]
    say(f"picture: {draw_paths(folder / 'paths.png', maze_of(first.row['env_id']), first.results['goals'], panels)}")


def compose_evaluations(evaluation: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The resolved configs of the evaluations that follow a training.

    Args:
        evaluation: the `evaluation` section of conf/train.yaml.
        overrides: what the user typed; `strategy=...` replaces the listed rows, and overrides of planner, condition
            and score go to every row that has such a setting.

    Raises:
        ConfigError: a row that does not compose, or an override that fits no row.
    """
    rows: dict[str, list[str]] = dict(evaluation["strategies"] or {})
    decoding = [o for o in overrides if _key(o).split(".")[0] in _DECODING_GROUPS]
    chosen = [o for o in decoding if _key(o) == "strategy"]
    if chosen:
        rows = {o.partition("=")[2]: [o] for o in chosen}
    decoding = [o for o in decoding if o not in chosen]
    used: set[str] = set()
    composed = []
    for label, own in rows.items():
        words = [*own, *evaluation["overrides"], "checkpoint=none"]
        try:
            row = hydra.compose("evaluate", words)
        except HydraException as error:
            problem = translate(error, "evaluate", words)
            raise ConfigError(f"evaluation.strategies: row {label!r}: {problem}") from error
        for override in [*evaluation["where_they_fit"], *decoding]:
            try:
                row = hydra.compose("evaluate", [*words, override])
            except ConfigCompositionException:
                continue
            words.append(override)
            used.add(override)
        composed.append({**plain(row), "label": label})
    lost = [o for o in decoding if o not in used]
    if rows and lost:
        raise ConfigError(f"override {lost[0]!r} fits none of the evaluations {', '.join(rows)}")
    baseline = evaluation["baseline"] if evaluation["baseline"] in rows else None
    return {"rows": composed, "baseline": baseline, "figure": evaluation["figure"]}


def _key(override: str) -> str:
    """What an override sets: `planner.horizon` of `+planner.horizon=5`."""
    return override.lstrip("+~").partition("=")[0]


def _needs_processes(trainer: Mapping[str, Any]) -> bool:
    return str(trainer.get("strategy", "auto")) not in ("auto", "single_device") or trainer.get("devices", 1) != 1


def _train_here(config: Mapping[str, Any], path: Path) -> Path:
    from seqrl.runs import RunFolder
    from seqrl.training.stages import train

    return train(config, RunFolder(path.parent))


def _train_in_processes(path: Path) -> Path:
    """Start the first rank as a process of its own, without Hydra; it starts the others the same way."""
    status = subprocess.run([sys.executable, "-m", "seqrl.training.worker", str(path)], check=False).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise SeqrlError(f"training in several processes failed with status {status}; its message stands above")
    return path.parent / "model" / "last.ckpt"
