"""`seqrl results`: which evaluations are found, what is averaged over seeds, and what is shown of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seqrl.cli import results as command
from seqrl.cli import summary
from seqrl.config import RunConfig
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import Evaluation, write_evaluation
from seqrl.evaluation.comparison import compare_runs
from seqrl.evaluation.jobs import Job, locate_record, write_job
from seqrl.evaluation.results import average_seeds, collect_entries, find_varying
from seqrl.evaluation.rows import GoalResults, ResultsRow
from seqrl.evaluation.selection import keep_where, read_condition, sort_results
from seqrl.evaluation.statistics import bootstrap
from seqrl.runs.metrics import Metric, write_metrics

Write = Callable[..., Path]
GOAL_KEYS = {each.name for each in fields(GoalResults)}
BEAM = {"name": "beam", "beam_width": 8, "horizon": 5, "n_expand": 2, "context": 5, "cache": "exact"}


@pytest.fixture
def write_run(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> Write:
    """`write_run(name, returns, label=..., settings={...}, **row)`: one more evaluation of a run in `runs`."""

    def write(
        name: str,
        returns: Any,
        *,
        label: str = "reward",
        settings: dict[str, Any] | None = None,
        results: dict[str, np.ndarray] | None = None,
        **row: Any,
    ) -> Path:
        run = tmp_path / "runs" / name
        place = run / "evaluations" / f"{label.replace(' ', '_')}-{len(list(run.glob('evaluations/*')))}"
        place.mkdir(parents=True)
        config = RunConfig().to_dict()
        for key, value in (settings or {}).items():
            section, _, option = key.rpartition(".")
            (config[section] if section else config)[option] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        values = np.asarray(returns, float)[:, None]
        estimate = bootstrap(values)
        kept = {"return_mean": estimate.mean, "return_ci95": estimate.interval, "score_mean": None, "score_ci95": None}
        told = {"strategy": label, "env_id": "Pendulum-v1", "planner": BEAM, "training_seed": 0, **kept, **row}
        found = Evaluation(place, make_row(**told), {"returns": values, **(results or {})}, [])
        write_evaluation(found)
        return run

    return write


def printed(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert command.run([str(word) for word in words]) == 0
    return capsys.readouterr().out


def table(capsys: pytest.CaptureFixture[str], *words: Any) -> list[dict[str, str]]:
    """The rows of the CSV that a command prints."""
    return list(csv.DictReader(io.StringIO(printed(capsys, *words, "--format", "csv"))))


def test_runs_may_stand_on_both_sides_of_a_switch(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_run(name, [1.0, 2.0], training=name * 8) for name in "ab")
    assert len(table(capsys, first, "--row", "reward", second)) == len(table(capsys, first, second, "--row", "reward"))
    assert len(table(capsys, "--per-seed", first, "--reverse", second)) == len(table(capsys, first, second))


def test_seeds_are_averaged_as_compare_does(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {1: [4.0, 6.0, 2.0], 2: [5.0, 5.0, 7.0], 3: [9.0, 1.0, 3.0]}
    runs = [write_run(f"a{seed}", values, training_seed=seed) for seed, values in ours.items()]
    (result,) = average_seeds(collect_entries([tmp_path / "runs"]))
    assert result.seeds == [1, 2, 3]
    side = compare_runs(runs, runs)
    assert result.estimates["return"].mean == pytest.approx(side.mean_a) == pytest.approx(np.mean(list(ours.values())))
    assert result.estimates["return"].interval == side.ci95_a
    (row,) = table(capsys, tmp_path / "runs")
    assert (row["seeds"], row["return"], row["episodes"]) == ("1, 2, 3", f"{side.mean_a:.8g}", "30")
    assert float(row["return_ci95_low"]) == pytest.approx(side.ci95_a[0])  # type: ignore[index]
    assert row["runs"].split(";") == [str(run) for run in runs]
    assert [each["seeds"] for each in table(capsys, tmp_path / "runs", "--per-seed")] == ["1", "2", "3"]


def test_one_seed_has_the_interval_of_its_own_table(write_run: Write, tmp_path: Path) -> None:
    write_run("a", [1.0, 2.0, 6.0])
    (result,) = average_seeds(collect_entries([tmp_path / "runs"]))
    assert result.estimates["return"] == bootstrap(np.array([1.0, 2.0, 6.0]))


def test_success_has_a_width_whatever_happened(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = {"success": np.ones((5, 1), bool), "counted": np.ones((5, 1), bool), "goals": np.zeros((1, 2))}
    for seed in (0, 1):
        write_run(f"a{seed}", [1.0] * 5, training_seed=seed, results=everything)
    (row,) = table(capsys, tmp_path / "runs")
    assert (row["success"], row["success_ci95_high"]) == ("100", "100")
    assert 60 < float(row["success_ci95_low"]) < 80  # Wilson's of 10 of 10


@pytest.mark.parametrize(
    "other",
    [
        {"plan_every": 2},
        {"planner": {**BEAM, "context": 3}},
        {"score": {"name": "critic"}},
        {"training": "ffffffff"},
        {"training_steps": 7},
        {"starts": {"max_steps": 5}},
        {"label": "imitation"},
        {"end_at_goal": True},
        {"starts": {"near": [15, 25]}},
        {"starts": {"tasks": [[[1, 1], [2, 2]]]}},
    ],
)
def test_what_differs_in_more_than_the_seed_is_no_average(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any]
) -> None:
    write_run("a", [1.0, 2.0], training_seed=0)
    write_run("b", [1.0, 2.0], training_seed=1, **other)
    rows = table(capsys, tmp_path / "runs")
    assert [row["seeds"] for row in rows] == ["0", "1"]
    if "training" not in other:  # a hash, whose meaning the configuration has
        shown = [{k: v for k, v in row.items() if k not in ("seeds", "runs", "evaluations")} for row in rows]
        assert shown[0] != shown[1]


@pytest.mark.parametrize("other", [{"map_landmarks": True}, {"regions": [[0.0, 0.0, 1.0, 1.0]]}])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_control_is_not_the_row_that_it_controls(
    write_run: Write,
    tmp_path: Path,
    make_row: Callable[..., ResultsRow],
    capsys: pytest.CaptureFixture[str],
    other: dict[str, Any],
    seed: int,
) -> None:
    goals = {key: value for key, value in make_row(toward_goals=True).to_json().items() if key in GOAL_KEYS}
    reached = {"success": np.ones((2, 1), bool), "counted": np.ones((2, 1), bool), "goals": np.zeros((1, 2))}
    missed = {**reached, "success": np.zeros((2, 1), bool)}
    write_run("a", [1.0, 2.0], label="landmarks", results=missed, **goals)
    write_run("b", [1.0, 2.0], label="landmarks", results=reached, training_seed=seed, **{**goals, **other})
    assert [row["success"] for row in table(capsys, tmp_path / "runs")] == ["0", "100"]


def test_rows_without_a_digest_are_told_apart_by_their_configuration(write_run: Write, tmp_path: Path) -> None:
    """As those that older versions wrote."""
    write_run("a", [1.0, 2.0], training=None, settings={"seed": 1}, training_seed=1)
    write_run("b", [1.0, 3.0], training=None, settings={"seed": 2}, training_seed=2)
    write_run("c", [1.0, 3.0], training=None, settings={"seed": 2, "backbone": {"name": "llama"}}, training_seed=2)
    found = average_seeds(collect_entries([tmp_path / "runs"]))
    assert [each.seeds for each in found] == [[1, 2], [2]]


def test_the_settings_that_differ_are_shown(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dim in (32, 64):
        backbone = {"name": "gpt", "dim": dim, "num_layers": 2}
        settings = {
            "backbone": backbone,
            "training.max_steps": dim * 10,
            "training.log_every": dim,
            "runs_dir": str(dim),
        }
        write_run(f"dim{dim}", [dim, dim], settings=settings, training=f"{dim:08d}", training_steps=dim * 10)
    found = average_seeds(collect_entries([tmp_path / "runs"]))
    assert find_varying(found) == ["backbone.dim", "training.max_steps"]
    assert [row["backbone.dim"] for row in table(capsys, tmp_path / "runs")] == ["32", "64"]
    assert "backbone.num_layers" not in table(capsys, tmp_path / "runs")[0]
    chosen = table(capsys, tmp_path / "runs", "--columns", "backbone.num_layers,dataset")
    assert [row["backbone.num_layers"] for row in chosen] == ["2", "2"]
    shown = printed(capsys, tmp_path / "runs")
    assert " dim " in shown
    assert "max_steps" in shown


def test_options_of_other_components_are_no_columns(write_run: Write, tmp_path: Path) -> None:
    tokenizers = [{"name": "uniform", "num_bins": 50}, {"name": "kmeans", "num_codes": 9}]
    for number, tokenizer in enumerate(tokenizers):
        write_run(str(number), [1.0, 2.0], settings={"tokenizer": tokenizer}, training=str(number))
    assert find_varying(average_seeds(collect_entries([tmp_path / "runs"]))) == ["tokenizer"]
    write_run("2", [1.0, 2.0], settings={"tokenizer": {"name": "uniform", "num_bins": 90}}, training="2")
    found = find_varying(average_seeds(collect_entries([tmp_path / "runs"])))
    assert found == ["tokenizer", "tokenizer.num_bins"]


def test_conditions(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dim in (32, 64, 128):
        for seed in (0, 1):
            settings = {"backbone": {"name": "gpt", "dim": dim}, "seed": seed}
            name = f"{dim}-{seed}"
            write_run(name, [dim + seed] * 2, settings=settings, training=f"{dim:08d}", training_seed=seed)
    runs = tmp_path / "runs"

    def dims(*words: str) -> list[str]:
        return [row["backbone.dim"] for row in table(capsys, runs, "--columns=backbone.dim", *words)]

    assert dims("--where", "backbone.dim>=64") == ["128", "64"]
    assert dims("--where", "backbone.dim!=64", "--sort", "backbone.dim") == ["32", "128"]
    assert dims("--where", "return<64", "--where", "strategy=reward") == ["32"]
    assert dims("--sort", "return", "--reverse") == ["128", "64", "32"]
    assert dims("--sort", "return_mean") == ["32", "64", "128"]
    (one,) = table(capsys, runs, "--where", "seed=1", "--where", "backbone.dim=32")
    assert (one["seeds"], one["return"]) == ("1", "33")
    assert dims("--row", "reward", "--where", "score=likelihood", "--where", "planner.context=5") == ["128", "32", "64"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "dim"], "is no condition; give KEY=VALUE"),
        (
            ["--where", "backbone.dims=3"],
            "no result has a setting or number 'backbone.dims'. Did you mean 'backbone.dim'?",
        ),
        (["--where", "backbone.dim>1e3"], "none of 1 evaluations is left by --where"),
        (["--where", "backbone.dim>wide"], "which is no number"),
        (["--where", "backbone.dim=7"], "none of 1 evaluations is left by --where"),
        (["--sort", "retrun"], "no result has a setting or number 'retrun'. Did you mean 'return'?"),
        (["--columns", "backbone.dimm"], "--columns names 'backbone.dimm', which no result has. Did you mean"),
        (["--columns", "backbone.dim,return"], "--columns names 'return', a number, and chooses among settings; leave"),
        (["--columns", "ms_per_action"], "--columns names 'ms_per_action', a number"),
        (["--output", "table.xlsx"], "give a name that ends in .csv, .md or .tex"),
        (["--curves", "curves.png"], "no run logged 'val/loss'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    write_run: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    write_run("a", [1.0, 2.0], settings={"backbone": {"name": "gpt", "dim": 32}})
    monkeypatch.chdir(tmp_path)
    assert command.run(words) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_folders_without_evaluations_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"there is no (folder|finished evaluation in)"):
        collect_entries([tmp_path / place])


def test_every_kind_of_folder_and_each_evaluation_once(write_run: Write, tmp_path: Path) -> None:
    run = write_run("team/a", [1.0, 2.0])
    write_run("team/a", [3.0, 4.0], label="imitation")
    place = next(run.glob("evaluations/*"))
    sweep = tmp_path / "runs" / "sweep-1"
    (sweep / "jobs").mkdir(parents=True)
    job = Job(["seed=1"], state="done", folder=str(run), results=[str(place)])
    write_job(locate_record(sweep, job.overrides), job)
    assert len(collect_entries([tmp_path / "runs"])) == 2
    assert len(collect_entries([run])) == 2
    assert len(collect_entries([place])) == len(collect_entries([sweep])) == 1
    assert len(collect_entries([tmp_path / "runs", run, place, sweep])) == 2
    assert {entry.run for entry in collect_entries([place, sweep])} == {run}


def test_damaged_evaluations_do_not_hide_the_others(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run("a", [1.0, 2.0])
    broken = next(write_run("b", [1.0, 2.0], training_seed=1).glob("evaluations/*"))
    (broken / "episodes.npz").write_bytes(b"PK")
    assert command.run([str(tmp_path / "runs")]) == 0
    told = capsys.readouterr()
    assert "is no readable evaluation" in told.err
    assert "1 evaluation, 1 run in 1 row;" in told.out


def test_of_two_evaluations_of_a_seed_the_later_counts(write_run: Write, tmp_path: Path) -> None:
    first = write_run("a", [1.0, 2.0])
    second = write_run("b", [5.0, 6.0])
    for run, when in ((first, 2_000), (second, 1_000)):
        os.utime(next(run.glob("evaluations/*/results.json")), (when, when))
    (result,) = average_seeds(collect_entries([tmp_path / "runs"]))
    assert result.estimates["return"].mean == 1.5


def test_tables_for_papers(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run("a", [1.0, 2.0], label="50 % [a|b] & c_d")
    folder = tmp_path / "new"
    outputs = [f"--output={folder / name}" for name in ("t.csv", "t.md", "t.tex")]
    printed(capsys, tmp_path / "runs", *outputs)
    latex = (folder / "t.tex").read_text()
    assert r"50 \% {[}a|b] \& c\_d & " in latex
    assert latex.count(r"\\") == 2  # the header and a row
    assert latex.index("\\toprule") < latex.index("\\midrule") < latex.index("\\bottomrule")
    lines = (folder / "t.md").read_text().splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}
    assert lines[1].startswith("| --- |")
    assert printed(capsys, tmp_path / "runs", "--format=markdown") == (folder / "t.md").read_text()
    assert next(csv.reader(io.StringIO((folder / "t.csv").read_text())))[0] == "strategy"


def test_learning_curves(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        run = write_run(name, [1.0, 2.0])
        write_metrics(run / "metrics.csv", [Metric(step, "val/loss", 1 / step) for step in (1, 2, 3)])
    picture = tmp_path / "pictures" / "curves.png"
    printed(capsys, tmp_path / "runs", "--curves", picture)
    assert picture.read_bytes()[1:4] == b"PNG"
    assert command.run([str(tmp_path / "runs"), "--curves", str(picture), "--metric", "val/los"]) == 2
    assert "Did you mean 'val/loss'?" in capsys.readouterr().err


def test_sorting_keeps_what_has_no_value_at_the_end(write_run: Write, tmp_path: Path) -> None:
    goals = {"success": np.ones((2, 1), bool), "counted": np.ones((2, 1), bool), "goals": np.zeros((1, 2))}
    write_run("a", [1.0, 2.0], label="plain")
    write_run("b", [1.0, 2.0], label="goal", results=goals)
    results = average_seeds(collect_entries([tmp_path / "runs"]))
    for reverse in (False, True):
        assert [each.row.strategy for each in sort_results(results, "success", reverse=reverse)] == ["goal", "plain"]
    assert keep_where(results, [read_condition("success>0")]) == [results[1]]


@pytest.fixture
def write_sweep(write_run: Write, tmp_path: Path) -> Callable[..., Path]:
    """`write_sweep({words: (run, returns, metrics, row)})`: the folder of a sweep whose jobs are done."""

    def write(jobs: dict[str, tuple[str, list[float], dict[str, float], dict[str, Any]]]) -> Path:
        sweep = tmp_path / "runs" / "sweep-1"
        (sweep / "jobs").mkdir(parents=True)
        for number, (words, (name, returns, metrics, row)) in enumerate(jobs.items()):
            run = write_run(name, returns, **row)
            (entry,) = collect_entries([run])
            job = Job(words.split(), state="done", folder=str(run), number=number)
            job.results, job.metrics = [str(entry.evaluation.folder)], dict(metrics)
            job.add_rows([entry.row])
            write_job(locate_record(sweep, job.overrides), job)
        return sweep

    return write


def test_a_sweep_averages_over_seeds(
    write_sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    returns = {(32, 1): [1.0, 3.0], (32, 2): [5.0, 7.0], (64, 1): [0.0, 0.0], (64, 2): [2.0, 2.0]}
    sweep = write_sweep(
        {
            f"backbone.dim={dim} seed={seed}": (
                f"{dim}-{seed}",
                values,
                {"val/loss": dim / seed},
                {"training_seed": seed, "training": str(dim)},
            )
            for (dim, seed), values in returns.items()
        }
    )
    assert summary.finish(sweep) == 0
    printed = capsys.readouterr().out
    assert "4 jobs" in printed
    assert "means over training seeds, 2 rows" in printed
    rows = list(csv.DictReader((sweep / "summary_seeds.csv").read_text().splitlines()))
    assert [(row["backbone.dim"], row["seeds"]) for row in rows] == [("32", "1 2"), ("64", "1 2")]
    assert [row["eval/reward/return_mean"] for row in rows] == ["4", "1"]
    assert [row["val/loss"] for row in rows] == ["24", "48"]
    runs = [[tmp_path / "runs" / f"{dim}-{seed}" for seed in (1, 2)] for dim in (32, 64)]
    side = compare_runs(runs[0], runs[1]).ci95_a
    assert side is not None
    assert float(rows[0]["eval/reward/return_ci95_low"]) == pytest.approx(side[0], abs=1e-3)
    assert (sweep / "summary_seeds.md").read_text().count("\n") == 4
    assert len((sweep / "summary.csv").read_text().splitlines()) == 5  # every job for itself as well


def test_a_sweep_over_checkpoints_of_several_seeds_averages_too(write_sweep: Callable[..., Path]) -> None:
    sweep = write_sweep(
        {
            f"checkpoint=runs/{name} planner.beam_width={width}": (
                f"{name}-{width}",
                [seed, width],
                {},
                {"training_seed": seed, "training": "x", "planner": {**BEAM, "beam_width": width}},
            )
            for name, seed in (("a", 1), ("b", 2))
            for width in (4, 8)
        }
    )
    assert summary.finish(sweep) == 0
    rows = list(csv.DictReader((sweep / "summary_seeds.csv").read_text().splitlines()))
    assert [(row["planner.beam_width"], row["seeds"]) for row in rows] == [("4", "1 2"), ("8", "1 2")]
    assert [row["eval/reward/return_mean"] for row in rows] == ["2.75", "4.75"]


def test_a_sweep_of_one_seed_has_no_second_table(write_sweep: Callable[..., Path]) -> None:
    jobs = {f"backbone.dim={dim}": (str(dim), [1.0, 2.0], {}, {"training": str(dim)}) for dim in (32, 64)}
    sweep = write_sweep(jobs)
    (sweep / "summary_seeds.csv").write_text("of an earlier sweep")
    assert summary.finish(sweep) == 0
    assert not list(sweep.glob("summary_seeds.*"))


def test_outcomes_are_columns_numbers_and_conditions(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, cost in enumerate((2.0, 4.0)):
        write_run(
            f"a{seed}", [1.0, 2.0], training_seed=seed, outcomes={"cost": cost, "goal_reached": 1.0, "steps": 7.0}
        )
    write_run("b", [1.0, 2.0], label="plain")
    rows = {row["strategy"]: row for row in table(capsys, tmp_path / "runs")}
    assert [float(rows["reward"][name]) for name in ("cost", "goal_reached", "outcome.steps")] == [3.0, 1.0, 7.0]
    assert rows["plain"]["cost"] == ""
    shown = printed(capsys, tmp_path / "runs", "--where", "cost<5", "--format", "markdown").splitlines()
    header, line = ([cell.strip() for cell in shown[place].strip("|").split("|")] for place in (0, 2))
    told = dict(zip(header, line, strict=True))
    assert (told["cost"], told["goal_reached"], len(shown)) == ("3", "1", 3)
    with pytest.raises(ConfigError, match="Did you mean 'cost'"):
        keep_where(results_of(tmp_path), [read_condition("cast<5")])


def test_goals_have_their_numbers(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goals = {"success_rate": 50.0, "success_ci95": None, "counted_episodes": 2, "success_by_goal": []}
    reached = {"steps_to_goal_median": 12.0, "time_at_goal": 0.25, "entered_rate": 40.0}
    write_run("a", [1.0, 2.0], **goals, **reached)
    shown = printed(capsys, tmp_path / "runs")
    for name in ("at goal", "25 %", "entered %", " 40 ", " 12 "):
        assert name in shown
    write_run("b", [1.0, 2.0], label="never", **goals, steps_to_goal_median=None, time_at_goal=None, entered_rate=0.0)
    assert [each.row.strategy for each in sort_results(results_of(tmp_path), "entered")] == ["never", "reward"]


@pytest.mark.parametrize(("name", "shown"), [("a+a+a+a+a", "a x5"), ("b+a+b", "b x2 + a")])
def test_repeated_data_are_counted(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, shown: str
) -> None:
    write_run("a", [1.0, 2.0], dataset=name, training="1")
    write_run("b", [1.0, 2.0], dataset="other", training="2")
    assert f" {shown} " in printed(capsys, tmp_path / "runs")
    assert [row["dataset"] for row in table(capsys, tmp_path / "runs")] == [name, "other"]  # as --where takes it


def results_of(tmp_path: Path) -> list[Any]:
    return average_seeds(collect_entries([tmp_path / "runs"]))


def test_composed_scores_are_told(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 0.5), ("b", 1.0)):
        terms = {"speed": {"name": "target", "dim": 2, "value": value}, "likely": {"name": "likelihood", "weight": 0.2}}
        write_run(name, [1.0, 2.0], label="objective", score={"name": "sum", "terms": terms})
    cells = [row["planner"] for row in table(capsys, tmp_path / "runs")]
    assert [cell.partition("score ")[2] for cell in cells] == [
        f"target + 0.2 likelihood, terms.speed.value {value}" for value in ("0.5", "1")
    ]


def test_a_sweep_tells_outcomes(write_sweep: Callable[..., Path]) -> None:
    outcomes = {1: {"cost": 2.0, "reached": 1.0}, 2: {"cost": 4.0, "reached": 0.5}}
    rows = {seed: {"training_seed": seed, "training": "x", "outcomes": told} for seed, told in outcomes.items()}
    sweep = write_sweep({f"seed={seed}": (f"s{seed}", [1.0, 2.0], {}, row) for seed, row in rows.items()})
    assert summary.finish(sweep) == 0
    each = list(csv.DictReader((sweep / "summary.csv").read_text().splitlines()))
    assert [(row["eval/reward/cost_mean"], row["eval/reward/reached_mean"]) for row in each] == [
        ("2", "1"),
        ("4", "0.5"),
    ]
    (mean,) = csv.DictReader((sweep / "summary_seeds.csv").read_text().splitlines())
    assert (mean["eval/reward/cost_mean"], mean["eval/reward/reached_mean"]) == ("3", "0.75")
