"""What figures make of numbers: verdicts, tables and published values, on numbers made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seqrl.analysis.attention import Patterns
from seqrl.analysis.bins import Bins
from seqrl.analysis.references import References
from seqrl.data.episodes import EpisodeStore
from seqrl.evaluation.jobs import Job
from seqrl.evaluation.rows import ResultsRow
from seqrl.reproduction import Finding, Options, Progress, Report, judge
from seqrl.reproduction.ablations import AXES, Ablations
from seqrl.reproduction.fig2 import measure_distances, pick_typical, share_outside
from seqrl.reproduction.fig3 import CEILING, Likelihoods, find_countable, keep_masked
from seqrl.reproduction.fig4 import stripe_factor
from seqrl.reproduction.pages import write_report
from seqrl.reproduction.published import ANTMAZE, AVERAGES, LOCOMOTION, METHODS, QUANTILE, UNIFORM, match_table
from seqrl.reproduction.table1 import Table1, collect_rows, mean_score
from seqrl.reproduction.table2 import Table2, published_table

MakeRow = Callable[..., ResultsRow]


def test_published_averages_are_those_of_the_lines() -> None:
    """CQL, DT, BC, MBOP and BRAC as printed to a tenth; so is the Trajectory Transformer's."""
    for place, method in enumerate(METHODS):
        assert np.mean([each[0][place] for each in LOCOMOTION.values()]) == pytest.approx(AVERAGES[method], abs=0.06)
    assert np.mean([each[1][0] for each in LOCOMOTION.values()]) == pytest.approx(AVERAGES[UNIFORM], abs=0.06)
    assert np.mean([each[2][0] for each in LOCOMOTION.values()]) == pytest.approx(AVERAGES[QUANTILE], abs=0.06)
    assert np.mean([each[-1] for each in ANTMAZE.values()]) == pytest.approx(84.0)
    assert published_table()[-1] == "| average | 10.9 | 43.9 | 63.2 | 11.8 | 84.0 |"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hopper-medium-v2", "hopper-medium"),
        ("hopper-medium-replay-v2", "hopper-medium-replay"),
        ("Walker2d-medium-expert", "walker2d-medium-expert"),
        ("hopper-expert", None),
        ("mine", None),
    ],
)
def test_data_sets_find_their_line(name: str, line: str | None) -> None:
    assert match_table(name) == line


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 2, "agrees"), (-2, -0.1, "does not agree"), (-1, 1, "not told apart")]
)
def test_verdicts_go_by_intervals(low: float, high: float, verdict: str) -> None:
    assert judge(low, high) == verdict


def test_distances_of_rollouts_by_hand() -> None:
    """Two rollouts of one reference; a dimension that never changes does not count."""
    future = np.array([[[0.0, 5.0, 1.0], [2.0, 5.0, 1.0]]])
    samples = np.array([[[[3.0, 5.0, 1.0], [2.0, 5.0, 1.0]], [[0.0, 5.0, 9.0], [2.0, 5.0, 1.0]]]])
    found = measure_distances(samples, future, np.array([1.0, 0.0, 4.0]))
    np.testing.assert_allclose(found, [[[np.sqrt(9 / 2), 0], [np.sqrt(4 / 2), 0]]])
    outside = share_outside(samples, np.array([0.0, 4.0, 0.0]), np.array([2.0, 6.0, 8.0]))
    assert outside.tolist() == [[True, True]]
    assert share_outside(samples, np.zeros(3), np.array([3.0, 6.0, 8.5])).tolist() == [[False, False]]


def test_the_typical_reference_has_the_median_distance() -> None:
    assert pick_typical(np.array([5.0, 1.0, 3.0])[:, None, None]) == 2


def test_stripes_are_dense_where_nothing_else_is_beyond_the_band() -> None:
    """Even attention has 0.05 of its 0.7 beyond the band on stripes; a head with 0.12 of 0.18 is 9.3 times denser."""
    even = Patterns(*map(np.array, (0.3, 0.06, 0.05, 0.06, 0.2, 0.6)))
    head = Patterns(*map(np.array, (0.82, 0.64, 0.12, 0.0, 0.2, 0.2)))
    assert stripe_factor(head, even) == pytest.approx((0.12 / 0.18) / (0.05 / 0.7))
    assert stripe_factor(even, even) == pytest.approx(1.0)


def test_what_counts_is_seen_and_no_mark() -> None:
    """Dimension 0: a number beside the mark shares its bin; dimension 1 never changes; dimension 2 is as others are."""
    bins = Bins(np.array([[0.0, 1.0, 1.5, 4.0], [2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]]), np.array([1.0, 0.0, 1.0]))
    values = np.array([[[0.0, 2.0, 0.0], [1.2, 2.0, 0.5], [1.3, 2.0, 1.5], [3.0, 2.0, 2.5]]])
    observed = np.ones((1, 4, 3), bool)
    observed[0, 1, 0] = observed[0, 3, 2] = False
    found = find_countable(bins, References(values, observed, 0, slice(0, 3), slice(3, 3), np.zeros(1, int)))
    assert found.tolist() == [[[False, False, True], [False, False, True], [True, False, False]]]


def test_curves_are_means_over_references_that_show_something() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0]])
    found = Likelihoods("", {CEILING: values})
    mean, low, high = found.curves()[CEILING]
    np.testing.assert_allclose(mean, [2.0, 5.0])
    assert low[0] <= 2.0 <= high[0]
    np.testing.assert_allclose(found.stretch(CEILING, 1, 2), [1.0, 4.0])


@pytest.mark.parametrize("note", [None, "the training data is not D4RL's"])
def test_scores_by_tokenizer_and_seed(note: str | None, make_row: MakeRow, tmp_path: Path) -> None:
    jobs = []
    for tokenizer, scores in (("uniform", (40.0, 44.0)), ("quantile", (60.0, 64.0))):
        for seed, score in enumerate(scores):
            job = Job([f"tokenizer={tokenizer}", f"seed={seed}"], "done")
            job.add_rows([
                make_row(strategy="reward", dataset="hopper-medium", score_mean=score,
                         score_ci95=[score - 1, score + 1], score_note=note),
                make_row(strategy="greedy imitation", dataset="hopper-medium", score_mean=10.0, score_note=note),
            ])  # fmt: skip
            jobs.append(job)
    rows = collect_rows({"cpu": jobs})
    assert {key: [row.score_mean for row in of["reward"]] for key, of in rows.items()} == {
        ("hopper-medium", "uniform"): [40.0, 44.0],
        ("hopper-medium", "quantile"): [60.0, 64.0],
    }
    mean, interval = mean_score(rows["hopper-medium", "uniform"]["reward"])
    assert (mean, interval) == (42.0, (40.0, 44.0))
    report = Table1().report(Progress(Options("cpu", tmp_path), {"cpu": jobs}))
    assert (tmp_path / "table1.png").is_file()
    verdicts = {each.claim.partition(": ")[2]: each.verdict for each in report.findings}
    assert verdicts == {
        "TT, uniform scores 67.4 ± 2.9": "of other data" if note else "does not agree",
        "TT, quantile scores 61.1 ± 3.6": "of other data" if note else "agrees",
        "quantile bins are behind uniform ones, by 6.3": "does not agree",
    }
    assert any(
        line.startswith("| hopper-medium | 67.4 ± 2.9 | 61.1 ± 3.6 | 42.0 [40.0, 44.0]") for line in report.lines
    )


def test_the_search_is_compared_with_its_controls(make_row: MakeRow, tmp_path: Path) -> None:
    jobs = []
    for seed, (ours, critic) in enumerate([(60.0, 90.0), (70.0, 60.0)]):
        job = Job([f"seed={seed}"], "done", folder=str(tmp_path))
        job.add_rows([
            make_row(strategy=label, training_seed=seed, return_mean=mean, return_ci95=[mean - 2, mean + 2])
            for label, mean in (("TT+Q", ours), ("IQL", critic), ("reward", 10.0))
        ])  # fmt: skip
        jobs.append(job)
    report = Table2().report(Progress(Options("cpu", tmp_path), {"table2": jobs}))
    assert [each.verdict for each in report.findings] == ["agrees", "not told apart"]
    assert (tmp_path / "table2.png").is_file()


@pytest.mark.parametrize("alike", [True, False])
def test_ablations_change_one_setting_at_a_time(alike: bool, make_row: MakeRow, tmp_path: Path) -> None:
    options = Options("cpu", tmp_path, ("checkpoint=runs/a",))
    runs = {each.key: list(each.words(Progress(options))) for each in Ablations().runs(options)}
    assert set(runs) == {"base", *AXES["cpu"], "cache"}
    assert set(runs["cache"]) - set(runs["base"]) == {"planner.cache=exact,none", "max_steps=10"}
    mine = Options("cpu", tmp_path, ("checkpoint=runs/a", "max_steps=3"))
    assert not any(word.startswith("max_steps") for run in Ablations().runs(mine) for word in run.words(Progress(mine)))
    for axis, values in AXES["cpu"].items():
        changed = set(runs[axis]) - set(runs["base"])
        assert changed == {f"planner.{axis}={','.join(values)}"}
    jobs = {"base": [Job([], "done")]}
    jobs["base"][0].add_rows([make_row(ms_per_action=5.0, score_mean=50.0, score_ci95=[45.0, 55.0])])
    for axis, values in AXES["cpu"].items():
        jobs[axis] = []
        for value in values:
            job = Job([f"planner.{axis}={value}"], "done")
            score = 10.0 if axis == "horizon" else 50.0
            job.add_rows([make_row(ms_per_action=2.0, score_mean=score, score_ci95=[score - 5, score + 5])])
            jobs[axis].append(job)
    jobs["cache"] = [Job([f"planner.cache={cache}"], "done") for cache in ("exact", "none")]
    for job, score in zip(jobs["cache"], (0.2, 0.2 if alike else 0.9), strict=True):
        job.add_rows([make_row(score_mean=score, score_ci95=[score - 0.1, score + 0.1])])
    report = Ablations().report(Progress(options, jobs))
    apart = {each.claim.split()[0] for each in report.findings if each.verdict == "intervals apart"}
    assert apart == ({"horizon"} if alike else {"horizon", "cache"})
    assert (tmp_path / "ablations.png").is_file()


def test_pages_say_what_was_run_and_what_agrees(tmp_path: Path) -> None:
    report = Report({"x": [1.0, float("nan")]}, [Finding("it is so", "1 [0, 2]", "agrees")], ["a line"])
    commands = {"commands": ["seqrl train -m a=1"], "published": ["seqrl train -m a=2"], "seconds": 3.0}
    files = write_report(Table1(), Options("cpu", tmp_path), report, **commands)  # type: ignore[arg-type]
    content = json.loads(files[0].read_text())
    assert content["x"] == [1.0, None], "JSON has no NaN"
    assert content["findings"] == [{"claim": "it is so", "measured": "1 [0, 2]", "verdict": "agrees"}]
    page = files[1].read_text()
    for text in ("| it is so | 1 [0, 2] | agrees |", "seqrl train -m a=1", "seqrl train -m a=2", "a line"):
        assert text in page


def test_the_half_hidden_recording_is_that_of_the_data(tmp_path: Path) -> None:
    """Of other data in the same folder, the panel of all observations and the one of half would not belong together."""
    stores = [
        EpisodeStore.from_arrays(
            np.full((20, 2), level) + np.arange(20)[:, None],
            np.full((20, 1), action),
            np.zeros(20),
            np.arange(20) == 19,
            np.zeros(20, bool),
        )
        for level, action in ((0.0, 0.0), (100.0, 0.0), (0.0, 1.0))
    ]
    places = [keep_masked(store, tmp_path) for store in stores]
    assert len(set(places)) == 3
    for store, place in zip(stores, places, strict=True):
        kept = EpisodeStore.open(place)
        seen = np.asarray(kept.extras["observed"][:])
        assert 0 < seen.mean() < 1
        np.testing.assert_array_equal(np.asarray(kept.observations)[seen], np.asarray(store.observations)[seen])
        np.testing.assert_array_equal(kept.actions, store.actions)
        written = (place / "store.json").stat().st_mtime_ns
        assert keep_masked(store, tmp_path) == place
        assert (place / "store.json").stat().st_mtime_ns == written
