"""`seqrl status`: what runs, what is done, what failed and why, told from the files of runs and their locks."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqrl.cli import status
from seqrl.cli.status import KILLED, Status, of_run, statuses
from seqrl.errors import ConfigError
from seqrl.runs.folder import alone_in

CONFIG: dict[str, Any] = {"training": {"max_steps": 100}, "critic_training": {"max_steps": 50}, "critic": None}
DONE = {"state": "done", "step": 100}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make(name, {stage: entry}, losses={name: [(step, loss)]}, **config)`: a run folder."""

    def run(
        name: str,
        stages: Mapping[str, Any],
        losses: Mapping[str, list[tuple[int, float]]] | None = None,
        **config: Any,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **config}))
        if stages:
            (folder / "status.json").write_text(json.dumps(stages))
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "name", "value"])
            for key, entries in (losses or {}).items():
                writer.writerows((step, key, loss) for step, loss in entries)
            file.write("77,val/lo")  # the process was killed here
        return folder

    return run


def test_states_of_runs_that_nobody_works_on(make: Callable[..., Path]) -> None:
    losses = {"val/loss": [(10, 3.0), (20, 1.5), (30, 2.0)], "critic/val/loss": [(5, 0.25)]}
    done = of_run(make("done", {"model": DONE}, losses))
    assert (done.state, done.stage, done.step, done.max_steps) == ("done", "model", 100, 100)
    assert (done.loss, done.best_loss) == (2.0, 1.5)
    killed = of_run(make("killed", {"model": {"state": "running", "step": 20}}, losses))
    assert (killed.state, killed.step) == (KILLED, 20)
    failed = of_run(make("failed", {"model": {"state": "failed", "step": 20, "reason": "DivergedError: nan"}}))
    assert (failed.state, failed.reason, failed.loss) == ("failed", "DivergedError: nan", None)
    assert of_run(make("stopped", {"model": {"state": "interrupted", "step": 7}})).state == "interrupted"
    assert of_run(make("new", {})).state == "not started"
    torn = make("torn", {"model": {"state": "running", "step": 20}}, losses)
    (torn / "metrics.csv").write_text((torn / "metrics.csv").read_text().replace("77,val/lo", "77,val/loss,"))
    assert of_run(torn).loss == 2.0
    evaluated = of_run(make("evaluated", {"model": DONE, "evaluation": {"state": "failed", "step": 0, "reason": "x"}}))
    assert (evaluated.state, evaluated.stage, evaluated.reason, evaluated.step) == ("failed", "evaluation", "x", 100)


def test_stages_of_a_run(make: Callable[..., Path]) -> None:
    losses = {"val/loss": [(10, 3.0)], "critic/val/loss": [(5, 0.25)], "critic/train/loss": [(8, 0.5)]}
    critic = {"critic": {"name": "iql"}}
    between = of_run(make("between", {"model": DONE}, losses, **critic))
    assert (between.state, between.stage, between.step) == (KILLED, "critic", 0)
    second = of_run(make("second", {"model": DONE, "critic": {"state": "interrupted", "step": 5}}, losses, **critic))
    assert (second.state, second.stage, second.step, second.max_steps) == ("interrupted", "critic", 5, 50)
    assert second.loss == 0.25
    assert of_run(make("all", {"model": DONE, "critic": {"state": "done", "step": 50}}, **critic)).state == "done"


def test_a_run_whose_folder_is_held_runs(make: Callable[..., Path]) -> None:
    """The step is that of the newest metrics, not of the last checkpoint; a run is held for its evaluations as well."""
    losses = {"train/loss": [(20, 1.0), (35, 0.5)]}
    running = make("running", {"model": {"state": "running", "step": 20}}, losses)
    evaluating = make("evaluating", {"model": DONE})
    starting = make("starting", {})
    with alone_in(running), alone_in(evaluating), alone_in(starting):
        assert (of_run(running).state, of_run(running).step) == ("running", 35)
        assert (of_run(evaluating).state, of_run(evaluating).stage) == ("evaluating", "evaluation")
        assert of_run(starting).state == "running"
    assert (of_run(running).state, of_run(running).step) == (KILLED, 20)


def test_a_folder_of_runs(make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("a", {"model": DONE}, {"val/loss": [(100, 1.25)]})
    make("b", {"model": {"state": "failed", "step": 3, "reason": "DivergedError: it is nan\nmore"}})
    (tmp_path / "runs" / "notes").mkdir()
    assert [each.state for each in statuses(tmp_path / "runs")] == ["done", "failed"]
    before = sorted(tmp_path.rglob("*"))
    assert status.run([str(tmp_path / "runs")]) == 0
    table = capsys.readouterr().out
    for words in ("1 done, 1 failed", "100 of 100", "1.25 (1.25)", "s ago", "DivergedError: it is nan"):
        assert words in table
    assert "more" not in table
    assert status.run([str(tmp_path / "runs"), "--json"]) == 0
    assert [Status(**entry).state for entry in json.loads(capsys.readouterr().out)] == ["done", "failed"]
    assert sorted(tmp_path.rglob("*")) == before  # it reads only


def test_jobs_of_a_sweep(make: Callable[..., Path], tmp_path: Path) -> None:
    from seqrl.evaluation.jobs import Job, locate_record, write_job

    sweep = tmp_path / "runs" / "sweep-1"
    (sweep / "jobs").mkdir(parents=True)
    jobs = [
        Job(["seed=1"], number=0, state="done", folder=str(make("one", {"model": DONE}))),
        Job(["seed=2"], number=1, state="failed", folder=str(make("two", {"model": DONE})), error="DataError: no goal"),
        Job(["seed=3"], number=2, folder=str(make("three", {"model": {"state": "running", "step": 4}}))),
        Job(["seed=4"], number=3, state="waiting"),
        Job(["seed=5"], number=4, state="failed", folder=str(tmp_path / "runs" / "refused"), error="ConfigError: no"),
    ]
    (tmp_path / "runs" / "refused").mkdir()
    (tmp_path / "runs" / "refused" / "status.json").write_text("{}")  # before there was a configuration
    for job in jobs:
        write_job(locate_record(sweep, job.overrides), job)
    found = statuses(sweep)
    assert [(each.job, each.state) for each in found] == [
        ("seed=1", "done"),
        ("seed=2", "failed"),
        ("seed=3", KILLED),
        ("seed=4", "waiting"),
        ("seed=5", "failed"),
    ]
    assert found[4].reason == "ConfigError: no"
    assert found[1].reason == "DataError: no goal"


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="there is no run in"):
        statuses(tmp_path)
    assert status.run([str(tmp_path / "nowhere")]) == 2
    assert "give a run folder, the folder of a sweep, or a runs_dir" in capsys.readouterr().err


def test_it_needs_no_torch_and_sees_another_process(make: Callable[..., Path], tmp_path: Path) -> None:
    run = make("run", {"model": {"state": "running", "step": 4}})
    hold = (
        "import sys, time; from pathlib import Path; from seqrl.runs.folder import alone_in\n"
        f"with alone_in(Path({str(run)!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    code = (
        "import sys; from seqrl.cli import status\n"
        f"assert status.run([{str(run)!r}, '--json']) == 0\n"
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    )

    def state() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)[0]["state"])

    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert state() == "running"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert state() == KILLED
    assert time.time() - run.stat().st_mtime < 600


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("status.json", "{", r"status.json' is damaged; delete it, and the run goes on from its checkpoints"),
        ("status.json", "[1]", r"status.json' is damaged"),
        ("status.json", '{"model": {"state": "done"}}', r"status.json' is damaged"),
        ("config.yaml", "a: [", r"config.yaml' is damaged; the same command writes it anew"),
        ("config.yaml", "3", r"config.yaml' is damaged"),
    ],
)
def test_one_damaged_run_does_not_hide_the_others(
    make: Callable[..., Path], tmp_path: Path, file: str, content: str, reason: str
) -> None:
    make("a", {"model": DONE})
    (make("b", {"model": DONE}) / file).write_text(content)
    make("c", {"model": DONE})
    found = statuses(tmp_path / "runs")
    assert [each.state for each in found] == ["done", "unreadable", "done"]
    assert reason in str(found[1].reason)


def test_what_was_typed_and_what_it_returned(
    make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make("a", {"model": DONE})
    words = ["++evaluation.decoding.planner.beam_width=8", "evaluation.strategy=goal", "~critic", "name=a b", "seed=2"]
    (run / "provenance.yaml").write_text(yaml.safe_dump([{"overrides": ["seed=1"]}, {"overrides": words}]))
    for number, (label, mean) in enumerate([("reward", 1.5), ("goal", 48.51)]):
        place = run / "evaluations" / f"{label}-{number}"
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps([{"strategy": label, "return_mean": mean}]))
    damaged = run / "evaluations" / "zero-3"
    damaged.mkdir()
    (damaged / "results.json").write_text("[{")
    found = of_run(run)
    assert found.typed == "planner.beam_width=8 strategy=goal critic=null 'name=a b' seed=2"
    assert found.returns == {"reward": 1.5, "goal": 48.51}
    assert status.run([str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    for text in ("typed", "planner.beam_width=8", "reward 1.5", "goal 48.51"):
        assert text in printed


@pytest.mark.parametrize("content", ["", "a: [", "[]", "- 3", "- {overrides: null}"])
def test_a_run_whose_words_nobody_noted(make: Callable[..., Path], content: str) -> None:
    run = make("a", {"model": DONE})
    (run / "provenance.yaml").write_text(content)
    assert of_run(run).typed is None


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        (["experiment=a seed=1", "experiment=a seed=2"], ["seed=1", "seed=2"]),
        (["experiment=a", "experiment=a seed=2"], ["", "seed=2"]),
        (["experiment=a seed=1"], ["experiment=a seed=1"]),  # alone it is told from nothing
        (["'name=a b' x=1", "'name=a b' x=2", None], ["x=1", "x=2", ""]),
        (["x=1 y='", "x=1 y=2"], ["y='", "y=2"]),
        ([f"row={'a' * 100}", "row=b"], [f"row={'a' * 44}...", "row=b"]),
    ],
)
def test_words_that_tell_runs_apart(commands: list[str | None], told: list[str]) -> None:
    assert status.tell_apart(commands) == told


def test_all_words_are_shown_to_those_who_ask(
    make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        words = [
            "experiment=four_rooms_detour",
            f"seed={seed}",
            "evaluation.rows.mine={strategy: goal, num_episodes: 9}",
        ]
        (make(str(seed), {"model": DONE}) / "provenance.yaml").write_text(yaml.safe_dump([{"overrides": words}]))
    assert status.run([str(tmp_path / "runs")]) == 0
    short = capsys.readouterr().out
    assert "seed=1" in short
    assert "four_rooms_detour" not in short
    assert status.run([str(tmp_path / "runs"), "--typed"]) == 0
    assert "four_rooms_detour" in capsys.readouterr().out
    assert status.run([str(tmp_path / "runs"), "--json"]) == 0
    assert "num_episodes: 9" in capsys.readouterr().out
