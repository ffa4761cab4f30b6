"""Paired comparisons of evaluations: against enumeration, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.cli import compare
from seqrl.d4rl.reference import reference
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import Evaluation, ImaginedPath, write_evaluation
from seqrl.evaluation.comparison import compare_runs
from seqrl.evaluation.rows import GoalResults, ResultsRow
from seqrl.evaluation.statistics import bootstrap, seed_difference

Evaluate = Callable[..., Path]
GOAL_KEYS = {each.name for each in fields(GoalResults)}


@pytest.fixture
def evaluation(make_row: Callable[..., ResultsRow]) -> Evaluate:
    """`evaluation(folder, returns, **changes)`: a run folder with one finished evaluation, and changes of its row."""

    def write(folder: Path, returns: Any, *, label: str = "reward", **changes: Any) -> Path:
        place = folder / "evaluations" / f"{label}-{changes.pop('digest', '0')}"
        place.mkdir(parents=True)
        results = {"returns": np.asarray(returns, float)[:, None], **changes.pop("results", {})}
        row = make_row(**{"strategy": label, "env_id": "Hopper-v4", "training_seed": 0, **changes})
        plans = [ImaginedPath(0, np.arange(len(returns)), np.zeros((len(returns), 1, 2)))]
        write_evaluation(Evaluation(place, row, results, plans))
        return folder

    return write


def enumerated(ours: np.ndarray, theirs: np.ndarray, *, paired: bool) -> np.ndarray:
    """The difference in every resample that a hierarchical bootstrap may draw, each as likely as the others."""
    (seeds, starts), others = ours.shape, len(theirs)
    means = []
    for chosen in itertools.product(range(starts), repeat=starts):
        for left in itertools.product(range(seeds), repeat=seeds):
            rights = [left] if paired else itertools.product(range(others), repeat=others)
            for right in rights:
                mine = np.mean([ours[s, e] for s in left for e in chosen])
                means.append(mine - np.mean([theirs[s, e] for s in right for e in chosen]))
    return np.sort(means)


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_is_that_of_all_resamples(paired: bool) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1.0, 1.0, (2, 3)), rng.normal(0.0, 1.0, (2, 3))
    every = enumerated(ours, theirs, paired=paired)
    found = seed_difference(ours[..., None], theirs[..., None], paired=paired, samples=60_000)
    assert found.mean == pytest.approx(ours.mean() - theirs.mean())
    for bound, share in ((found.low, 0.025), (found.high, 0.975)):  # up to the error of drawing
        around = np.quantile(every, [share - 0.004, share + 0.004])
        assert around[0] - 1e-9 <= bound <= around[1] + 1e-9


def test_one_seed_is_the_bootstrap_over_starts() -> None:
    rng = np.random.default_rng(1)
    ours, theirs, counted = rng.normal(size=(1, 30, 2)), rng.normal(size=(1, 30, 2)), rng.random((30, 2)) < 0.8
    found, plain = seed_difference(ours, theirs, counted, paired=True), bootstrap((ours - theirs)[0], counted)
    assert found.mean == pytest.approx(plain.mean)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.02)


def test_what_all_seeds_share_in_a_start_does_not_average_out() -> None:
    """Ten seeds that do the same from every start are no more evidence than one of them."""
    rng = np.random.default_rng(2)
    one = rng.normal(size=(1, 20, 1))
    zeros = np.zeros_like(one)
    alone = seed_difference(one, zeros, paired=True)
    ten = seed_difference(np.repeat(one, 10, 0), np.repeat(zeros, 10, 0), paired=True)
    assert (ten.low, ten.high) == pytest.approx((alone.low, alone.high), abs=0.03)


def test_seeds_widen_the_interval_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(3)
    level = rng.normal(0, 5, (4, 1, 1))  # what a seed does to both sides alike
    ours, theirs = level + 1 + rng.normal(0, 0.1, (4, 25, 1)), level + rng.normal(0, 0.1, (4, 25, 1))
    paired, loose = (seed_difference(ours, theirs, paired=each) for each in (True, False))
    assert paired.mean == loose.mean == pytest.approx(1, abs=0.1)
    assert paired.high - paired.low < 0.2
    assert loose.high - loose.low > 3


def test_a_comparison_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: Evaluate) -> None:
    """Three seeds on two starts each; B's seeds are given in another order."""
    ours = {1: [4.0, 6.0], 2: [5.0, 5.0], 3: [9.0, 1.0]}
    theirs = {1: [3.0, 6.0], 2: [7.0, 1.0], 3: [2.0, 2.0]}
    runs_a = [evaluation(tmp_path / f"a{seed}", each, training_seed=seed) for seed, each in ours.items()]
    runs_b = [evaluation(tmp_path / f"b{seed}", theirs[seed], training_seed=seed) for seed in (3, 1, 2)]
    output = tmp_path / "new" / "comparison.json"
    words = [",".join(map(str, runs)) for runs in (runs_a, runs_b)]
    assert compare.run([*words, "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    # Gaps: +1, 0 | -2, +4 | +7, -1.
    assert (content["mean_a"], content["mean_b"], content["difference"]) == (5.0, 3.5, 1.5)
    assert (content["better"], content["equal"], content["episodes"]) == (0.5, pytest.approx(1 / 6), 6)
    assert (content["seeds_a"], content["seeds_b"], content["seeds_paired"]) == ([1, 2, 3], [1, 2, 3], True)
    every = enumerated(np.array(list(ours.values())), np.array(list(theirs.values())), paired=True)
    assert content["ci95"][0] == pytest.approx(np.quantile(every, 0.025), abs=0.1)
    assert content["ci95"][1] == pytest.approx(np.quantile(every, 0.975), abs=0.1)
    printed = capsys.readouterr().out
    assert "A - B: +1.50 of return, 95 % interval [" in printed
    assert "better in 50 % of 6 pairs of episodes and equal in 17 %; 2 starts, seeds paired" in printed
    assert "note:" not in printed


def test_one_seed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: Evaluate) -> None:
    a, b = evaluation(tmp_path / "a", [1, 2, 4]), evaluation(tmp_path / "b", [0, 1, 1])
    assert compare.run([str(a), str(b)]) == 0
    assert "says nothing about training seeds" in capsys.readouterr().out
    assert compare_runs([a], [b]).note


def test_other_seeds_are_compared_unpaired(tmp_path: Path, evaluation: Evaluate) -> None:
    runs = {s: evaluation(tmp_path / str(s), [float(s), 1.0], training_seed=s) for s in (1, 2, 3, 4)}
    found = compare_runs([runs[1], runs[2]], [runs[3], runs[4]])
    assert not found.seeds_paired
    assert (found.difference, found.episodes, found.better, found.equal) == (-1.0, 8, 0.0, 0.5)


def test_success_counts_what_counts(tmp_path: Path, evaluation: Evaluate) -> None:
    counted = np.array([[True, False], [True, True]])
    goals = {"counted": counted, "goals": np.zeros((2, 2))}
    yes, no = np.ones((2, 2), bool), np.array([[False, True], [True, False]])
    a = evaluation(tmp_path / "a", [0, 0], results={**goals, "success": yes})
    b = evaluation(tmp_path / "b", [0, 0], results={**goals, "success": no})
    found = compare_runs([a], [b])
    assert (found.metric, found.episodes) == ("success", 3)
    assert found.difference == pytest.approx(100 * 2 / 3)
    assert compare_runs([a], [b], metric="return").difference == 0
    other = evaluation(tmp_path / "c", [0, 0], results={**goals, "counted": ~counted, "success": yes})
    with pytest.raises(ConfigError, match="do not count the same starts"):
        compare_runs([a], [other])


def test_scores_are_on_the_scale_of_the_references(tmp_path: Path, evaluation: Evaluate) -> None:
    known = reference("Hopper-v4")
    assert known is not None
    a = evaluation(tmp_path / "a", [known.maximum] * 2)
    b = evaluation(tmp_path / "b", [known.minimum] * 2)
    assert compare_runs([a], [b], metric="score").difference == pytest.approx(100)
    unknown = evaluation(tmp_path / "c", [1, 2], score_mean=None)
    with pytest.raises(ConfigError, match="no normalised score"):
        compare_runs([a], [unknown], metric="score")


def test_a_sweep_is_the_runs_of_its_jobs(tmp_path: Path, evaluation: Evaluate) -> None:
    runs = [evaluation(tmp_path / f"run-{s}", [float(s), 0.0], training_seed=s) for s in range(3)]
    sweep = tmp_path / "sweep-1"
    (sweep / "jobs").mkdir(parents=True)
    for number, run in enumerate([*runs, runs[0]]):  # jobs that differ in decoding share a run
        job = {"state": "done", "folder": str(run), "results": [str(run / "evaluations" / "reward-0")]}
        (sweep / "jobs" / f"{number:05d}.json").write_text(json.dumps(job))
        evaluation(run, [5.0, 5.0], training_seed=number, digest=f"later{number}")  # none of the sweep's
    other = evaluation(tmp_path / "other", [0.0, 0.0], training_seed=9)
    found = compare_runs([sweep], [other])
    assert (found.seeds_a, found.mean_a) == ([0, 1, 2], 0.5)
    (sweep / "jobs" / "00004.json").write_text(json.dumps({"state": "failed", "folder": None}))
    with pytest.raises(ConfigError, match="1 of 5 jobs"):
        compare_runs([sweep], [other])


def test_rows_are_chosen_by_name(tmp_path: Path, evaluation: Evaluate) -> None:
    run = evaluation(tmp_path / "run", [3, 3], label="reward")
    evaluation(run, [1, 1], label="greedy imitation")
    assert compare_runs([run], [run], row_a="reward", row_b="greedy imitation").difference == 2
    with pytest.raises(ConfigError, match=r"rows 'greedy imitation', 'reward'; choose one with --row"):
        compare_runs([run], [run])
    with pytest.raises(ConfigError, match=r"no row 'reword'\. Did you mean 'reward'"):
        compare_runs([run], [run], row_a="reword")
    evaluation(run, [2, 2], label="reward", digest="1")
    with pytest.raises(ConfigError, match=r"2 rows 'reward'; give the folder of one: .*reward-0, .*reward-1"):
        compare_runs([run], [run], row_a="reward")
    chosen = [run / "evaluations" / f"reward-{digest}" for digest in "01"]
    assert compare_runs(chosen[:1], chosen[1:]).difference == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "Hopper-v5"}, "env_id is Hopper-v4 in .* and Hopper-v5 in .*nothing is paired"),
        ({"starts": {"seed": 1}}, "seed is 0 in .* and 1 in"),
        ({"starts": {"num_episodes": 9}}, "num_episodes is 10 in .* and 9 in"),
        ({"starts": {"max_steps": 10}}, "max_steps is None in .* and 10 in"),
        ({"starts": {"goals": [[1, 1]]}}, "goals is None"),
    ],
)
def test_other_starts_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str], evaluation: Evaluate
) -> None:
    a, b = evaluation(tmp_path / "a", [1, 2]), evaluation(tmp_path / "b", [1, 2], **changes)
    with pytest.raises(ConfigError, match=words):
        compare_runs([a], [b])
    assert compare.run([str(a), str(b)]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: ")


def test_a_side_is_one_method(tmp_path: Path, evaluation: Evaluate) -> None:
    first = evaluation(tmp_path / "a", [1, 2], training_seed=1)
    with pytest.raises(ConfigError, match="both have training seed 1"):
        compare_runs([first, evaluation(tmp_path / "b", [1, 2], training_seed=1)], [first])
    with pytest.raises(ConfigError, match=r"planner is .* may differ in their training seed only"):
        compare_runs([first, evaluation(tmp_path / "c", [1, 2], training_seed=2, planner={"name": "zero"})], [first])
    for key, other in (
        ("score", {"name": "reward"}),
        ("condition", {"name": "return", "target": 1.0}),
        ("training", "0f0f0f0f"),
    ):
        odd = evaluation(tmp_path / key, [1, 2], training_seed=2, **{key: other})
        with pytest.raises(ConfigError, match=rf"{key} is .* may differ in their training seed only"):
            compare_runs([first, odd], [first])


def test_what_holds_no_evaluation_is_refused(tmp_path: Path, evaluation: Evaluate) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        compare_runs([tmp_path / "nothing"], [tmp_path])
    with pytest.raises(ConfigError, match="holds no finished evaluation"):
        compare_runs([tmp_path], [tmp_path])
    a = evaluation(tmp_path / "a", [1, 2])
    with pytest.raises(ConfigError, match=r"metric 'retrun' is unknown\. Did you mean 'return'"):
        compare_runs([a], [a], metric="retrun")
    with pytest.raises(ConfigError, match="was run without goals"):
        compare_runs([a], [a], metric="success")


@pytest.mark.parametrize(
    ("theirs", "margin", "status"),
    [([1, 2, 4], "0", 0), ([2, 3, 5], "0.5", 1), ([2, 3, 5], "1", 0), ([0, 0, 0], "0", 0), ([9, 9, 9], "1e9", 0)],
)
def test_a_model_that_is_worse_is_an_exit_status(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    evaluation: Evaluate,
    theirs: list[float],
    margin: str,
    status: int,
) -> None:
    a, b = evaluation(tmp_path / "a", [1, 2, 4]), evaluation(tmp_path / "b", theirs)
    assert compare.run([str(a), str(b), "--fail-if-worse", margin]) == status
    assert f"A is {'' if status else 'not '}worse than B by more than" in capsys.readouterr().out
    assert compare.run([str(a), str(b)]) == 0


@pytest.mark.parametrize("margin", ["-1", "nan", "inf"])
def test_a_margin_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: Evaluate, margin: str
) -> None:
    a = evaluation(tmp_path / "a", [1, 2, 4])
    assert compare.run([str(a), str(a), f"--fail-if-worse={margin}"]) == 2
    assert "is no margin; give 0 or more" in capsys.readouterr().err


def test_sides_have_their_own_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: Evaluate
) -> None:
    goals = {"counted": np.ones((4, 1), bool), "goals": np.zeros((1, 2))}
    a = evaluation(tmp_path / "a", [0] * 4, results={**goals, "success": np.ones((4, 1), bool)})
    b = evaluation(tmp_path / "b", [0] * 4, results={**goals, "success": np.zeros((4, 1), bool)})
    found = compare_runs([a], [b])
    assert found.ci95_a == pytest.approx([51.0, 100.0], abs=0.1)  # Wilson's of 4 of 4
    assert found.ci95_b == pytest.approx([0.0, 49.0], abs=0.1)
    assert compare.run([str(a), str(b)]) == 0
    assert "mean success 100.00 [51.01, 100.00]" in capsys.readouterr().out
    plain = evaluation(tmp_path / "c", [1, 2, 4])
    mean = bootstrap(np.array([1.0, 2.0, 4.0]))
    assert compare_runs([plain], [plain]).ci95_a == pytest.approx(mean.interval, abs=0.05)


@pytest.mark.parametrize(
    ("metric", "key", "value"),
    [("return", "end_at_goal", True), ("clear", "regions", [[0.0, 0.0, 1.0, 1.0]])],
)
def test_what_a_metric_depends_on_is_the_same_on_both_sides(
    evaluation: Evaluate, make_row: Callable[..., ResultsRow], tmp_path: Path, metric: str, key: str, value: Any
) -> None:
    every = np.ones((2, 1), bool)
    results = {"success": every, "clear": every, "counted": every, "goals": np.zeros((1, 2))}
    goals = {name: each for name, each in make_row(toward_goals=True).to_json().items() if name in GOAL_KEYS}
    first = evaluation(tmp_path / "a", [1, 2], results=results, **{**goals, "regions": [[5.0, 5.0, 6.0, 6.0]]})
    told = {**goals, "regions": [[5.0, 5.0, 6.0, 6.0]], key: value}
    second = evaluation(tmp_path / "b", [1, 2], results=results, **told)
    with pytest.raises(ConfigError, match=f"{key} is .* so that --metric {metric} measures two things"):
        compare_runs([first], [second], metric=metric)
    assert compare_runs([first], [second], metric="success").difference == 0.0
    third = evaluation(tmp_path / "c", [1, 2], results=results, training_seed=1, **told)
    with pytest.raises(ConfigError, match=f"{key} is .*; the runs of one side may differ in their training seed only"):
        compare_runs([first, third], [first], metric="success")
