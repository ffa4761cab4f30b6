"""Evaluations of many runs: the settings that tell them apart, and their means over training seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.console import say_error
from seqrl.errors import ConfigError, SeqrlError, sentence
from seqrl.evaluation.archive import Evaluation, is_finished, list_evaluations, read_evaluation
from seqrl.evaluation.comparison import RATES, estimate_mean, measure
from seqrl.evaluation.jobs import list_jobs
from seqrl.evaluation.rows import Component, ResultsRow
from seqrl.evaluation.statistics import Estimate
from seqrl.files import fingerprint
from seqrl.runs.finding import find_runs, is_run, is_sweep
from seqrl.runs.folder import read_config
from seqrl.runs.old_names import training_digest
from seqrl.runs.settings import flatten_settings

ESTIMATES = ("return", "score", "success", "clear")  # numbers with an interval
NUMBERS = ("steps", "length", "time_at_goal", "entered", "ms_per_action")  # numbers without one
SEED = "seed"
# Of the row. What a run trained is told by its settings, and the two seeds by `seed` and `evaluation.seed`.
_OF_ROW = (
    *("dataset", "env_id", "plan_every", "precision", "shuffle_goals", "min_cells", "training_steps", "end_at_goal"),
)
_OF_GOALS = ("regions", "map_landmarks")
_DECODING = ("strategy", "planner", "condition", "score", "plan_every")  # and what they tell is not told again:
_TOLD_BY = {
    "training_steps": "training.max_steps",
    **dict.fromkeys(("data", "data.path", "data.id", "env_id"), "dataset"),
}
_OF_STARTS = ("num_episodes", "max_steps", "start_cells", "goals", "tasks", "near")


@dataclass(frozen=True)
class Entry:
    """One finished evaluation of a run.

    Attributes:
        run: folder of the run; that of the evaluation where it lies in no run.
        evaluation: its row and its episodes.
        settings: of the training and of the evaluation by dotted key; a component's own key has its name.
        trained: what runs have in common that differ in the training seed alone; None where nobody knows.
    """

    run: Path
    evaluation: Evaluation
    settings: Mapping[str, Any]
    trained: str | None = None

    @property
    def row(self) -> ResultsRow:
        return self.evaluation.row


@dataclass(frozen=True)
class Result:
    """Evaluations that differ in the training seed alone.

    Attributes:
        entries: one for each training seed, in their order.
        estimates: by name of `ESTIMATES`: the mean with its 95 % interval, over seeds and starts where there are
            several seeds, over starts (of rates Wilson's) where there is one.
        numbers: by name of `NUMBERS`, then of outcomes such as a cost: means over seeds; None where nothing was
            measured.
    """

    entries: list[Entry]
    estimates: Mapping[str, Estimate]
    numbers: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def row(self) -> ResultsRow:
        return self.entries[0].row

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that its entries share."""
        return {key: value for key, value in self.entries[0].settings.items() if key != SEED}

    @property
    def seeds(self) -> list[int]:
        return [entry.row.training_seed for entry in self.entries]

    def value(self, name: str) -> float | None:
        """A number by its name; None where it was not measured."""
        return self.estimates[name].mean if name in self.estimates else self.numbers.get(name)


def collect_entries(paths: Sequence[Path]) -> list[Entry]:
    """The finished evaluations that folders stand for, each once; damaged ones are told and left out.

    Args:
        paths: folders of runs, of sweeps, of single evaluations, or folders of runs.

    Raises:
        ConfigError: a folder that is not there, or none that holds a finished evaluation.
    """
    found: dict[Path, Path] = {}  # evaluation to run
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"there is no folder {str(path)!r}; give runs, a sweep, or a folder of runs")
        for run, folder in _evaluations(path):
            found.setdefault(folder.resolve(), run)
    entries = [entry for folder, run in found.items() if (entry := _read(run, folder)) is not None]
    if not entries:
        listed = ", ".join(repr(str(path)) for path in paths)
        raise ConfigError(f"there is no finished evaluation in {listed}; evaluate first, with seqrl evaluate")
    return entries


def average_seeds(entries: Sequence[Entry]) -> list[Result]:
    """Results of entries that differ in the training seed alone, in the order of their first entries.

    Of two entries with one seed the one that was written last counts.
    """
    groups: dict[str, dict[int, Entry]] = {}
    for entry in sorted(entries, key=lambda each: (each.evaluation.folder / "results.json").stat().st_mtime):
        groups.setdefault(_key(entry), {})[entry.row.training_seed] = entry
    order = list(dict.fromkeys(map(_key, entries)))
    return [estimate_result([groups[key][seed] for seed in sorted(groups[key])]) for key in order]


def estimate_result(entries: Sequence[Entry]) -> Result:
    """The means and intervals of evaluations of the same starts, one for each training seed."""
    evaluations = [entry.evaluation for entry in entries]
    estimates = {}
    for metric in ESTIMATES:
        if (found := _estimate(metric, evaluations)) is not None:
            estimates[metric] = found
    rows = [entry.row for entry in entries]
    numbers = {
        "steps": _mean([row.goals.steps_to_goal_median if row.goals else None for row in rows]),
        "length": _mean([row.length_mean for row in rows]),
        "time_at_goal": _mean([row.goals.time_at_goal if row.goals else None for row in rows]),
        "entered": _mean([row.goals.entered_rate if row.goals else None for row in rows]),
        "ms_per_action": _mean([row.ms_per_action for row in rows]),
    }
    return Result(list(entries), estimates, numbers | _average_outcomes(rows))


def _average_outcomes(rows: Sequence[ResultsRow]) -> dict[str, float | None]:
    """The means of what environments told, such as a cost; `outcome.NAME` where another number has the name."""
    known = dict.fromkeys(name for row in rows for name in row.outcomes or {})
    taken = {*ESTIMATES, *NUMBERS, SEED}
    return {
        f"outcome.{name}" if name in taken else name: _mean([(row.outcomes or {}).get(name) for row in rows])
        for name in known
    }


def list_numbers(results: Sequence[Result]) -> list[str]:
    """The names of all numbers without an interval, those of outcomes last but for the time."""
    outcomes = dict.fromkeys(name for result in results for name in result.numbers if name not in NUMBERS)
    return [*NUMBERS[:-1], *outcomes, NUMBERS[-1]]


def _estimate(metric: str, evaluations: Sequence[Evaluation]) -> Estimate | None:
    """The mean of a metric, or None where it was not measured in all of them."""
    row = evaluations[0].row
    if metric in RATES and not all(metric in each.results for each in evaluations):
        return None
    if metric == "score" and any(each.row.score_mean is None for each in evaluations):
        return None
    if len(evaluations) == 1 and metric not in RATES:  # the interval that the tables of its run show
        mean, bounds = (row.return_mean, row.return_ci95) if metric == "return" else (row.score_mean, row.score_ci95)
        assert mean is not None
        return Estimate(mean, *(bounds or (np.nan, np.nan)))
    value = measure(metric, evaluations)
    counted = evaluations[0].results["counted"] if metric in RATES else None
    return estimate_mean(evaluations, metric, np.stack([value(each) for each in evaluations]), counted)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _evaluations(path: Path) -> Iterator[tuple[Path, Path]]:
    """(run, folder of an evaluation) of all that a folder stands for."""
    if is_finished(path) and (path / "episodes.npz").exists():
        run = path.parent.parent
        yield (run if is_run(run) else path), path
    elif is_sweep(path):
        for job in list_jobs(path):
            for folder in map(Path, job.results):
                if is_finished(folder):
                    yield Path(job.folder or folder), folder
    else:
        runs = [path] if is_run(path) else list(find_runs(path))
        for run in runs or [path]:  # an imported checkpoint may have evaluations and no configuration
            yield from ((run, folder) for folder in list_evaluations(run))


def _read(run: Path, folder: Path) -> Entry | None:
    try:
        evaluation = read_evaluation(folder)
        settings = read_config(run / "config.yaml") if (run / "config.yaml").is_file() else {}
        trained = evaluation.row.training or (training_digest(settings) if settings else None)
        return Entry(run, evaluation, _settings(evaluation.row, settings), trained)
    except SeqrlError as error:
        say_error(sentence(error))
        return None


def _settings(row: ResultsRow, config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a row: its own settings, then those of the training."""
    found: dict[str, Any] = {"strategy": row.strategy, SEED: row.training_seed, "evaluation.seed": row.seed}
    found |= {key: getattr(row, key) for key in _OF_ROW} | {key: getattr(row.starts, key) for key in _OF_STARTS}
    for slot in ("planner", "condition", "score"):
        component: Component = getattr(row, slot)
        found |= {slot: component.name, **{f"{slot}.{key}": value for key, value in component.options.items()}}
    if row.goals is not None:
        found |= {key: getattr(row.goals, key) for key in _OF_GOALS}
    return {**flatten_settings(config), **found}


def _key(entry: Entry) -> str:
    """What evaluations have in common that differ in the training seed alone."""
    row, counted = entry.row, entry.evaluation.results.get("counted", np.empty(0, bool))
    parts = {slot: getattr(row, slot).to_json() for slot in ("planner", "condition", "score")}
    own = {key: entry.settings.get(key) for key in (*_OF_ROW, *_OF_GOALS, "strategy", "evaluation.seed")}
    own["trained"] = entry.trained or str(entry.run)
    shape = list(entry.evaluation.results["returns"].shape)
    return fingerprint([parts, own, asdict(row.starts), shape, np.asarray(counted).tolist()])


def find_varying(results: Sequence[Result]) -> list[str]:
    """The settings of the training and of the data that tell results apart, names of components first.

    Settings of the decoding are told by `seqrl.evaluation.tables.describe_decoding`.
    """
    keys = dict.fromkeys(key for result in results for key in result.settings)
    keys.pop("num_episodes", None)  # for which every table has a column
    varying = [key for key in keys if key.partition(".")[0] not in _DECODING and _tells_apart(results, key)]
    return sorted((key for key in varying if _TOLD_BY.get(key) not in varying), key=lambda key: "." in key)


def _tells_apart(results: Sequence[Result], key: str) -> bool:
    """Whether a setting differs; an option of components of several names, among those of one name."""
    slot = key.partition(".")[0]
    if slot != key and _differ(results, slot):
        return any(_differ([each for each in group if key in each.settings], key) for group in _by_name(results, slot))
    return _differ(results, key)


def _by_name(results: Sequence[Result], slot: str) -> Iterator[list[Result]]:
    for name in dict.fromkeys(str(result.settings.get(slot)) for result in results):
        yield [result for result in results if str(result.settings.get(slot)) == name]


def _differ(results: Sequence[Result], key: str) -> bool:
    return len({str(result.settings.get(key)) for result in results}) > 1
