"""Two trained models, or two groups of them that differ in the training seed, on the same starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from seqrl.d4rl.reference import reference
from seqrl.errors import ConfigError, did_you_mean
from seqrl.evaluation.archive import Evaluation, is_finished, list_evaluations, read_evaluation, read_row
from seqrl.evaluation.jobs import UNREADABLE, list_jobs
from seqrl.evaluation.statistics import Estimate, rate_difference, seed_difference, seed_mean, seed_rate

METRICS = ("return", "score", "success", "clear")
RATES = {"success": "goals", "clear": "regions"}  # of episodes toward goals, and the setting that they need
# Of the runs of one side. Rows of before they told the last of these have None in all of them.
_SAME = (
    *("dataset", "planner", "condition", "plan_every", "training_steps", "precision", "regions", "map_landmarks"),
    *("score", "shuffle_goals", "training", "end_at_goal"),
)


@dataclass(frozen=True)
class Comparison:
    """How much better the first side is.

    Attributes:
        metric: one of `METRICS` (all but the return in percent points).
        row_a, row_b: names of the results rows.
        mean_a, mean_b, difference: means over training seeds and episodes, and `mean_a - mean_b`.
        ci95: interval of the difference, or None where there is none.
        better, equal: shares of the pairs of episodes from one start in which the first side is better, or the same.
        seeds_a, seeds_b: training seeds.
        seeds_paired: both sides have the same training seeds; the runs of a seed are then compared with each other.
        starts, episodes: start states, and pairs of episodes.
        note: what the interval does not say, a sentence without its full stop; empty where it says all.
        runs_a, runs_b: folders of the evaluations.
        ci95_a, ci95_b: intervals of the two means, of success at least Wilson's; None where there is none.
    """

    metric: str
    row_a: str
    row_b: str
    mean_a: float
    mean_b: float
    difference: float
    ci95: list[float] | None
    better: float
    equal: float
    seeds_a: list[int]
    seeds_b: list[int]
    seeds_paired: bool
    starts: int
    episodes: int
    note: str
    runs_a: list[str]
    runs_b: list[str]
    ci95_a: list[float] | None = None
    ci95_b: list[float] | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def compare_runs(
    runs_a: Sequence[Path],
    runs_b: Sequence[Path],
    *,
    row_a: str | None = None,
    row_b: str | None = None,
    metric: str | None = None,
) -> Comparison:
    """Compare evaluations start by start.

    Args:
        runs_a, runs_b: run folders, sweep folders or evaluation folders; the runs of a side differ in the seed.
        row_a, row_b: which results row of each run (`reward`, `greedy imitation`, ...); the only one by default, and
            for the second side the row of that name.
        metric: one of `METRICS`; by default `clear` (success without having been inside a region) where both were
            judged by regions, success where both have goals, else the return.

    Raises:
        ConfigError: a folder without evaluations, a row that is not there or there twice, evaluations in other
            environments or from other starts, two runs of one side with the same seed or other settings.
    """
    ours = _side(runs_a, row_a)
    theirs = _side(runs_b, row_b, default=ours[0].row.strategy)
    for side in (ours, theirs):
        _check_side(side)
    every = [*ours, *theirs]
    metric = metric or choose_metric(every)
    _check_pairs(metric, every)
    value = measure(metric, every)
    counted = ours[0].results["counted"] if metric in RATES else None
    seeds = [[each.row.training_seed for each in side] for side in (ours, theirs)]
    paired = seeds[0] == seeds[1]
    left, right = (np.stack([value(each) for each in side]) for side in (ours, theirs))  # (s, n, m)
    if metric in RATES:
        estimate = rate_difference(left > 0, right > 0, counted, paired=paired, drives=min(map(_count_drives, every)))
    else:
        estimate = seed_difference(left, right, counted, paired=paired)
    counts = np.ones(left.shape[1:], bool) if counted is None else counted
    gaps = (left - right if paired else (left[:, None] - right).reshape(-1, *left.shape[1:]))[:, counts]
    return Comparison(
        metric=metric,
        row_a=ours[0].row.strategy,
        row_b=theirs[0].row.strategy,
        mean_a=float(left[:, counts].mean()),
        mean_b=float(right[:, counts].mean()),
        difference=estimate.mean,
        ci95=estimate.interval,
        better=float((gaps > 0).mean()),
        equal=float((gaps == 0).mean()),
        seeds_a=seeds[0],
        seeds_b=seeds[1],
        seeds_paired=paired,
        starts=left.shape[1],
        episodes=int(gaps.size),
        note=_note(seeds, estimate.interval),
        runs_a=[str(each.folder) for each in ours],
        runs_b=[str(each.folder) for each in theirs],
        ci95_a=estimate_mean(ours, metric, left, counted).interval,
        ci95_b=estimate_mean(theirs, metric, right, counted).interval,
    )


def estimate_mean(side: Sequence[Evaluation], metric: str, values: np.ndarray, counted: np.ndarray | None) -> Estimate:
    """The mean of evaluations that differ in the training seed, with its interval over seeds and starts.

    Args:
        side: the evaluations.
        metric: one of `METRICS`.
        values: (s, n, m) of it, rates in percent.
        counted: (n, m) bool; None: all count.
    """
    if metric not in RATES:
        return seed_mean(values, counted)
    return seed_rate(values > 0, counted, drives=_count_drives(side[0]))


def _count_drives(evaluation: Evaluation) -> int:
    """Episodes that were run from a start: 1 where one is judged by all goals."""
    return int(evaluation.results["returns"].shape[1])


def _note(seeds: Sequence[list[int]], interval: list[float] | None) -> str:
    if interval is None:
        return "one start and one training seed give no interval"
    few = min(map(len, seeds))
    if few == 1:
        return (
            "a side has one training seed only: the interval is one over starts and says nothing about training seeds; "
            "train more seeds for a claim about the method"
        )
    return "with fewer than 3 training seeds the interval is hardly one over seeds" if few < 3 else ""


def choose_metric(every: Sequence[Evaluation]) -> str:
    """The metric that evaluations are judged by where nobody chose one: `clear`, `success` or `return`."""
    shared = [rate for rate in ("clear", "success") if all(rate in each.results for each in every)]
    return shared[0] if shared else "return"


def measure(metric: str, every: Sequence[Evaluation]) -> Callable[[Evaluation], np.ndarray]:
    """What gives an evaluation's (n, m) numbers."""
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} is unknown.{did_you_mean(metric, METRICS)} Metrics: {', '.join(METRICS)}")
    if metric in RATES:
        for each in every:
            if metric not in each.results:
                raise ConfigError(
                    f"{each.folder} was run without {RATES[metric]}; compare the return, or evaluate with "
                    f"{RATES[metric]}=..."
                )
        return lambda each: each.results[metric] * 100.0
    known = reference(every[0].row.env_id)
    if metric == "return":
        return lambda each: each.results["returns"].mean(1, keepdims=True)
    for each in every:
        if known is None or each.row.score_mean is None:
            raise ConfigError(
                f"{each.folder} has no normalised score: {each.row.env_id} has no reference returns, or the task is "
                "not its own; compare the return"
            )
    assert known is not None
    return lambda each: known.score(each.results["returns"]).mean(1, keepdims=True)


def _side(paths: Sequence[Path], row: str | None, default: str | None = None) -> list[Evaluation]:
    """One evaluation of every run, in the order of the training seeds."""
    chosen = [_chosen(name, found, row, default) for path in paths for name, found in _runs(path)]
    if not chosen:
        raise ConfigError("a side names no run; give RUN_A and RUN_B one folder each, or several separated by commas")
    return sorted(map(read_evaluation, dict.fromkeys(chosen)), key=lambda each: each.row.training_seed)


def _runs(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """The runs that a folder stands for, each with the folders of its evaluations."""
    if not path.is_dir():
        raise ConfigError(f"there is no folder {str(path)!r}; give run folders, as in runs/run-1f4aa5f5, or a sweep's")
    if (path / "episodes.npz").exists():
        yield path, [path]
    elif (path / "jobs").is_dir():
        jobs = list_jobs(path)
        damaged = next((job.error for job in jobs if job.state == UNREADABLE), None)
        if damaged:
            raise ConfigError(damaged)
        unfinished = sum(job.state != "done" for job in jobs)
        if unfinished or not jobs:
            raise ConfigError(
                f"{unfinished} of {len(jobs)} jobs of {str(path)!r} are not done; run the sweep again first"
            )
        for job in jobs:
            yield Path(job.folder or path), [Path(folder) for folder in job.results]
    else:
        yield path, list_evaluations(path)


def _chosen(run: Path, candidates: Sequence[Path], row: str | None, default: str | None) -> Path:
    """The evaluation of a run that a row's name means."""
    missing = [str(each) for each in candidates if not is_finished(each)]
    if missing or not candidates:
        what = f"lacks {', '.join(missing)}" if missing else "holds no finished evaluation"
        raise ConfigError(f"{str(run)!r} {what}; run seqrl evaluate checkpoint={run}")
    rows = {each: read_row(each).strategy for each in candidates}
    names = list(dict.fromkeys(rows.values()))
    known = ", ".join(map(repr, names))
    wanted = row or (names[0] if len(names) == 1 else default)
    if wanted is None:
        raise ConfigError(f"{str(run)!r} has the rows {known}; choose one with --row")
    chosen = [each for each, name in rows.items() if name == wanted]
    if not chosen:
        raise ConfigError(f"{str(run)!r} has no row {wanted!r}.{did_you_mean(wanted, names)} Rows: {known}")
    if len(chosen) > 1:
        listed = ", ".join(map(str, chosen))
        raise ConfigError(f"{str(run)!r} has {len(chosen)} rows {wanted!r}; give the folder of one: {listed}")
    return chosen[0]


def _check_side(side: Sequence[Evaluation]) -> None:
    """The runs of one side differ in their training seed and in nothing else that the rows tell."""
    first = side[0]
    for before, each in pairwise(side):
        if before.row.training_seed == each.row.training_seed:
            raise ConfigError(
                f"{before.folder} and {each.folder} both have training seed {each.row.training_seed}; give one run "
                "for each seed on a side"
            )
    for each in side[1:]:
        told = [other.row.to_json() for other in (first, each)]
        for key in _SAME:
            ours, other = (row.get(key) for row in told)
            if ours != other:
                raise ConfigError(
                    f"{key} is {ours} in {first.folder} and {other} in {each.folder}; the runs of one side may differ "
                    "in their training seed only"
                )


def _check_pairs(metric: str, every: Sequence[Evaluation]) -> None:
    """All evaluations measure the same from the same starts."""
    for other in every[1:]:
        _check_starts(every[0], other)
        _check_protocol(metric, every[0], other)


def _check_protocol(metric: str, first: Evaluation, other: Evaluation) -> None:
    """What a metric depends on beside the starts is the same in two evaluations."""
    key = {"clear": "regions", "success": ""}.get(metric, "end_at_goal")
    values = [each.row.to_json().get(key) for each in (first, other)]
    if values[0] != values[1]:
        raise ConfigError(
            f"{key} is {values[0]} in {first.folder} and {values[1]} in {other.folder}, so that --metric {metric} "
            "measures two things; evaluate both in the same way, or compare by another metric"
        )


def _check_starts(first: Evaluation, other: Evaluation) -> None:
    """Two evaluations begin in the same states of the same environment."""
    again = "evaluate both in the same way"
    kept = [{**asdict(each.row.starts), "env_id": each.row.env_id} for each in (first, other)]
    for key, value in kept[0].items():
        if kept[1][key] != value:
            raise ConfigError(
                f"{key} is {value} in {first.folder} and {kept[1][key]} in {other.folder}, so that nothing is paired; "
                f"{again}"
            )
    ours, theirs = first.results, other.results
    if len(ours["returns"]) != len(theirs["returns"]) or not np.array_equal(
        ours.get("counted", np.empty(0)), theirs.get("counted", np.empty(0))
    ):
        raise ConfigError(f"{first.folder} and {other.folder} do not count the same starts; {again} (min_cells)")
