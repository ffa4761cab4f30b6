"""Finished evaluations on disk: `results.json` (the row), `episodes.npz`, and perhaps `diagnostics.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.config import EvaluationConfig
from seqrl.errors import ConfigError, DataError, explain_unread, is_damage
from seqrl.evaluation.plan_results import PlanQuality
from seqrl.evaluation.rows import ROW_FORMAT, ResultsRow
from seqrl.files import fingerprint, read_json, reason_of, write_file, write_text
from seqrl.formats.npz import read_npz
from seqrl.paths import find_path
from seqrl.runs.code import hash_plugins
from seqrl.runs.finding import is_run

ROW, EPISODES, PLAN_QUALITY = "results.json", "episodes.npz", "diagnostics.json"
EVALUATIONS = "evaluations"  # folder of a run
OUTCOME = "outcome_"  # before the names of outcomes, among the results of an evaluation


@dataclass(frozen=True)
class ImaginedPath:
    """Where a plan, made at one time step, expected to go.

    Attributes:
        time: steps since the start of the episode.
        environments: (b,) which environments were still running.
        observations: (b, H, O) decoded from the plan's tokens, the present observation first.
    """

    time: int
    environments: np.ndarray
    observations: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation.

    Attributes:
        folder: where its files are.
        row: what stands in the table and in results.json.
        results: per-episode results, see `seqrl.evaluation.protocol.EpisodeResults`.
        plans: imagined paths (maze environments), for the pictures.
    """

    folder: Path
    row: ResultsRow
    results: dict[str, np.ndarray]
    plans: list[ImaginedPath]


def write_evaluation(evaluation: Evaluation) -> None:
    """Write the episodes, then the row: where results.json is, the rest is complete.

    A row of before goes first, so that a kill leaves no row of one evaluation with episodes of another.
    """
    (evaluation.folder / ROW).unlink(missing_ok=True)
    arrays: dict[str, Any] = dict(evaluation.results)
    for number, plan in enumerate(evaluation.plans):
        arrays[f"plan_{number}_time"] = np.array(plan.time)
        arrays[f"plan_{number}_environments"] = plan.environments
        arrays[f"plan_{number}_observations"] = plan.observations.astype(np.float32)
    with write_file(evaluation.folder / EPISODES) as file:
        np.savez_compressed(file, **arrays)
    write_text(evaluation.folder / ROW, json.dumps([evaluation.row.to_json()], indent=2) + "\n")


def forget_evaluation(folder: Path) -> None:
    """Remove the row of an evaluation, then how good its plans were, before a folder gets the parts of another one."""
    for name in (ROW, PLAN_QUALITY):
        (folder / name).unlink(missing_ok=True)


def read_evaluation(folder: Path) -> Evaluation:
    """Read back what `write_evaluation` wrote, now or in an older version.

    Raises:
        DataError: a file is missing, damaged or cannot be read.
    """
    row = read_row(folder)
    try:
        arrays = read_npz(folder / EPISODES).arrays
        results = {name: array for name, array in arrays.items() if not name.startswith("plan_")}
        _check_results(results)
        numbers = sorted(int(found[1]) for name in arrays if (found := re.fullmatch(r"plan_(\d+)_observations", name)))
        plans = [
            ImaginedPath(
                int(arrays[f"plan_{n}_time"]), arrays[f"plan_{n}_environments"], arrays[f"plan_{n}_observations"]
            )
            for n in numbers
        ]
    except Exception as error:  # a broken byte can lead numpy and zipfile anywhere
        raise _unread(folder / EPISODES, error) from error
    return Evaluation(folder, row, results, plans)


def _check_results(results: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where results are not what `seqrl.evaluation.protocol.EpisodeResults` has."""
    if "returns" not in results:
        raise ValueError("it holds no returns")
    for name, array in results.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} are no numbers")
    if results["returns"].ndim != 2:
        raise ValueError(f"returns have {results['returns'].ndim} dimensions, not 2")


def read_row(folder: Path) -> ResultsRow:
    """The results row of a finished evaluation.

    Raises:
        DataError: there is none, it is damaged, or it cannot be read.
    """
    try:
        content = read_json(folder / ROW)
        (row,) = content if isinstance(content, list) else [content]
        return ResultsRow.from_json(row)
    except Exception as error:  # what stands in its parts was checked by nobody
        raise _unread(folder / ROW, error) from error


def write_plan_quality(evaluation: Evaluation, quality: PlanQuality) -> None:
    """Write how good the plans of an evaluation were, beside its results."""
    row = evaluation.row.to_json()
    about = {key: row[key] for key in ("strategy", "dataset", "env_id", "plan_every", "num_episodes")}
    write_text(evaluation.folder / PLAN_QUALITY, json.dumps({**about, **asdict(quality)}, indent=2) + "\n")


def read_plan_quality(folder: Path) -> PlanQuality | None:
    """What `write_plan_quality` wrote into the folder of an evaluation; None where nobody asked for it.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    file = folder / PLAN_QUALITY
    if not file.exists():
        return None
    try:
        return PlanQuality.from_json(read_json(file))
    except Exception as error:  # what stands in its parts was checked by nobody
        raise _unread(file, error) from error


def is_finished(folder: Path) -> bool:
    """Whether an evaluation was written to its end."""
    return (folder / ROW).exists()


def list_evaluations(run: Path) -> list[Path]:
    """The folders of a run's finished evaluations, by name."""
    return [file.parent for file in sorted(run.glob(f"evaluations/*/{ROW}"))]


def place_evaluation(config: EvaluationConfig, checkpoint_digest: str, run: Path) -> Path:
    """`<run>/evaluations/<label>-<hash>`, the hash being of the settings, of plugins and of the checkpoints' content.

    Args:
        config: its `output` stands for the folder where it is given.
        checkpoint_digest: hash of the content of the model's and the critic's checkpoint.

    Raises:
        ConfigError: its `output` is the folder of a run, or of all of a run's evaluations.
    """
    if config.output:
        place = find_path(config.output)
        if is_run(place) or (place.name == EVALUATIONS and is_run(place.parent)):
            raise ConfigError(f"output={config.output!r} is a folder of a run, whose files lie there; give another")
        return place
    kept = {k: v for k, v in config.to_dict().items() if k not in ("checkpoint", "output", "progress_bar")}
    for later in (
        "diagnostics",
        "trajectories",
        "plans",
        "regions",
        "end_at_goal",
        "tasks",
        "near",
        "map_landmarks",
    ):  # evaluations of before there were any keep their place
        if not kept[later]:
            del kept[later]
    if "percentile_rule" in kept["planner"] and kept["planner"]["percentile_rule"] is None:
        kept["planner"] = {key: value for key, value in kept["planner"].items() if key != "percentile_rule"}
    if kept["score"].get("name") == "limit" and not kept["score"].get("total"):
        kept["score"] = {key: value for key, value in kept["score"].items() if key != "total"}
    if config.goals is not None:  # as they were typed, before they had a type
        kept["goals"] = [[int(x) if x.is_integer() else x for x in map(float, goal)] for goal in config.goals]
    kept["plugins"] = []
    if code := hash_plugins(kept, config.plugins):
        kept["code"] = code
    digest = fingerprint([kept, checkpoint_digest, ROW_FORMAT])
    name = re.sub(r"[^\w.-]+", "_", label_of(config)).encode()[:200].decode(errors="ignore")  # a folder's has 255 bytes
    return run / EVALUATIONS / f"{name}-{digest[:8]}"


def label_of(config: EvaluationConfig) -> str:
    """Name of the row. A control must not pass for the strategy that it controls."""
    own = config.strategy_name + (", shuffled goals" if config.shuffle_goals else "")
    own += ", landmarks of the map" if config.map_landmarks else ""
    return config.label or own


def _unread(path: Path, error: Exception) -> DataError:
    if not is_damage(error):
        return DataError(explain_unread(path, error))
    reason = reason_of(error)
    return DataError(f"{str(path)!r} is no readable evaluation ({reason}); remove its folder and evaluate again")
