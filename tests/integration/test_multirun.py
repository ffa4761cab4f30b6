"""Sweeps: one run folder a job, one table for all, and no job that takes the others down."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import hydra
import pytest
from hydra.core.config_store import ConfigStore

from seqrl.cli import application, evaluate, train
from seqrl.cli.summary import table
from seqrl.cli.sweep import with_folder
from seqrl.evaluation.jobs import Job
from seqrl.paths import config_dir
from seqrl.registry import registries
from seqrl.runs.folder import alone_in

Command = Callable[..., int]
TINY = [
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "debug=fast", "training.progress_bar=false"),
    *("training.loggers=[csv]", "training.max_steps=4", "training.validate_every=2", "training.log_every=1"),
    *("evaluation=none", "evaluation.settings.progress_bar=false"),
]
ROW = 'evaluation.strategies={still:["strategy=zero"]}'
FRAGILE = """
from pathlib import Path
from seqrl import register_tokenizer
from seqrl.tokenizers import Tokenizer


@register_tokenizer("fragile")
class FragileTokenizer(Tokenizer):
    def __init__(self, size: int, *, num_bins: int = 8) -> None:
        super().__init__()
        self.tokens_per_step, self.vocab_size = size, num_bins

    def fit(self, values):
        if self.vocab_size == 9 and not Path("mended").exists():
            raise RuntimeError("nine is too many")

    def encode(self, values):
        return ((values.clamp(-1, 1) + 1) / 2 * self.vocab_size).long().clamp(0, self.vocab_size - 1)

    def decode(self, tokens):
        return ((tokens + 0.5) / self.vocab_size * 2 - 1).float()
"""


@pytest.fixture
def folder(in_folder_with_data: Path) -> Path:
    """A current folder with a small file in D4RL's layout and a plugin."""
    Path("fragile.py").write_text(FRAGILE)
    return in_folder_with_data


@pytest.fixture
def sweep(folder: Path, clean_plugins: None) -> Iterator[Command]:
    yield lambda *arguments: train.run(["-m", *TINY, *arguments])
    for registry in registries():
        ConfigStore.instance().repo.pop(registry.slot, None)


def summary(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("runs/sweep-*/summary.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("run-*"))


def test_four_jobs_leave_four_runs_and_a_table(
    sweep: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    returned: list[float] = []
    run_job = application.run_job
    monkeypatch.setattr(application, "run_job", lambda task, cfg: returned.append(run_job(task, cfg)) or returned[-1])
    arguments = ["tokenizer=uniform,quantile", "seed=1,2", ROW]
    assert sweep(*arguments) == 0
    rows = summary(folder)
    assert [(row["tokenizer"], row["seed"]) for row in rows] == [
        *(("uniform", "1"), ("uniform", "2"), ("quantile", "1"), ("quantile", "2"))
    ]
    means = ["val/loss", "eval/still/return_mean", "eval/still/ms_per_action"]
    ends = ["eval/still/return_ci95_low", "eval/still/return_ci95_high"]
    assert list(rows[0]) == ["tokenizer", "seed", "status", *means[:2], *ends, means[2], "run"]
    for row in rows:
        assert float(row[ends[0]]) <= float(row[means[1]]) <= float(row[ends[1]])
    assert {row["status"] for row in rows} == {"done"}
    assert sorted(Path(row["run"]).name for row in rows) == [run.name for run in runs(folder)]
    assert len(runs(folder)) == 4
    assert [float(row["val/loss"]) for row in rows] == pytest.approx(returned, rel=1e-4), "what sweepers are given"
    assert {path.name for path in folder.iterdir()} == {"runs", "hopper-tiny.hdf5", "fragile.py"}
    markdown = next(folder.glob("runs/sweep-*/summary.md")).read_text()
    assert markdown.splitlines()[0] == f"| tokenizer | seed | status | {' | '.join(means)} | run |"
    assert f"| {rows[0][means[1]]} [{rows[0][ends[0]]}, {rows[0][ends[1]]}] |" in markdown.splitlines()[2]
    assert len(markdown.splitlines()) == 6
    assert not list(folder.glob("runs/sweep-*/*.png")), "nothing of the decoding varies"
    assert "still return" in capsys.readouterr().out.rpartition("4 jobs")[2], "the table is printed at the end"

    changed = [(run / "model" / "last.ckpt").stat().st_mtime_ns for run in runs(folder)]
    (runs(folder)[0] / "status.json").unlink()
    assert sweep(*arguments) == 0
    again = [(run / "model" / "last.ckpt").stat().st_mtime_ns for run in runs(folder)]
    assert again[1:] == changed[1:], "a finished run was trained again"
    now = summary(folder)
    assert sorted(row.pop("skipped") for row in now) == ["", *["finished before"] * 3]
    assert now == rows


def test_a_failed_job_ends_neither_the_sweep_nor_its_own_chance(
    sweep: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception and a user's error, each told in its place; the same command continues after the mend."""
    arguments = ["plugins=[fragile.py]", "tokenizer=fragile", "tokenizer.num_bins=9,0,8"]
    assert sweep(*arguments) == 1
    rows = summary(folder)
    assert [row["status"] for row in rows] == ["failed", "failed", "done"]
    failed = folder / rows[0]["run"]
    assert "RuntimeError: nine is too many" in (failed / "error.txt").read_text().splitlines()[-1]
    assert json.loads((failed / "status.json").read_text())["model"]["state"] == "failed"
    assert not (folder / rows[2]["run"] / "error.txt").exists()
    said = capsys.readouterr().out
    assert "2 of 3 jobs did not finish" in said
    assert f"tokenizer.num_bins=9: RuntimeError: nine is too many ({rows[0]['run']}/error.txt)" in said

    (folder / "mended").touch()
    sweep(*arguments)
    assert summary(folder)[0]["status"] == "done"
    assert not (failed / "error.txt").exists()
    assert json.loads((failed / "status.json").read_text()) == {"model": {"state": "done", "step": 4}}


@pytest.mark.parametrize("launcher", ["basic", "joblib", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_only_what_is_missing_runs_again(
    sweep: Command, folder: Path, launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results that are gone count as missing; a finished sweep launches nothing, whatever launched it before."""
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = ["seed=1,2", ROW, f"hydra/launcher={launcher}"]
    assert sweep(*words) == 0
    first, second = summary(folder)
    shutil.rmtree(folder / second["run"] / "evaluations")
    capsys.readouterr()
    assert sweep(*words) == 0
    assert "1 of 2 jobs are finished or run elsewhere: not started" in capsys.readouterr().out
    assert [row["skipped"] for row in summary(folder)] == ["finished before", ""]
    assert [row["run"] for row in summary(folder)] == [first["run"], second["run"]]
    assert sweep("seed=1,2", ROW, "hydra/launcher=basic") == 0
    assert {row["skipped"] for row in summary(folder)} == {"finished before"}


def test_other_settings_of_the_same_sweep_run_anew(sweep: Command, folder: Path) -> None:
    """The folder is told by the overrides; what is finished, by the whole configuration, files of data included."""
    assert sweep("seed=1,2") == 0
    with h5py.File("hopper-tiny.hdf5", "a") as file:
        file["notes"] = "grown"
    assert sweep("seed=1,2") == 0
    assert all("skipped" not in row for row in summary(folder))
    assert len(runs(folder)) == 4
    assert len(list(folder.glob("runs/sweep-*"))) == 1


def test_a_run_that_another_process_holds_is_not_started(sweep: Command, folder: Path) -> None:
    assert sweep("seed=1,2") == 0
    held = folder / summary(folder)[1]["run"]
    (held / "status.json").unlink()
    with alone_in(held):
        assert sweep("seed=1,2") == 1
    assert [row["skipped"] for row in summary(folder)] == ["finished before", "runs elsewhere"]
    assert not (held / "status.json").exists()
    assert sweep("seed=1,2") == 0
    assert [row["skipped"] for row in summary(folder)] == ["finished before", ""]


def test_sigterm_ends_a_sweep_as_ctrl_c_does(sweep: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_train_and_evaluate", lambda *arguments: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert sweep("seed=1,2") == 128 + signal.SIGTERM
    assert [row["status"] for row in summary(folder)] == ["interrupted", "not started"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_ends_the_sweep_and_tells_what_is_missing(
    sweep: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_train_and_evaluate", interrupt)
    assert sweep("seed=1,2") == 130
    assert [row["status"] for row in summary(folder)] == ["interrupted", "not started"]


def test_jobs_that_differ_in_their_evaluation_share_a_training(sweep: Command, folder: Path) -> None:
    """A row that does not compose fails its own job and leaves Hydra as it was for the next."""
    rows = '{mine:["strategy=imitation","planner.temprature=0"]},{mine:["strategy=zero"]},{mine:["strategy=random"]}'
    assert sweep(f"evaluation.strategies={rows}") == 1
    (run,) = runs(folder)
    table = summary(folder)
    assert [row["status"] for row in table] == ["failed", "done", "done"]
    assert [bool(row["eval/mine/return_mean"]) for row in table] == [False, True, True]
    record = next(
        job for path in folder.glob("runs/sweep-*/jobs/*.json") if (job := json.loads(path.read_text()))["number"] == 0
    )
    assert "Did you mean 'planner.temperature'?" in record["error"]
    assert any("Traceback" in Path(path).read_text() for path in record["error_files"] if Path(path).exists())
    assert len(list((run / "evaluations").glob("mine-*"))) == 2


def test_an_evaluation_sweeps_too(sweep: Command, folder: Path) -> None:
    assert train.run(TINY) == 0
    (run,) = runs(folder)
    assert not list(folder.glob("runs/sweep-*")), "a single run leaves nothing of a sweep"
    words = ["-m", f"checkpoint={run}", "strategy=zero", "num_episodes=1", "max_steps=2", "progress_bar=false"]
    assert evaluate.run([*words, "seed=3,4"]) == 0
    rows = summary(folder)
    assert [(row["seed"], row["status"], row["run"]) for row in rows] == [
        ("3", "done", str(run)),
        ("4", "done", str(run)),
    ]
    assert list(rows[0]) == ["seed", "status", "eval/zero/return_mean", "eval/zero/ms_per_action", "run"]
    assert evaluate.run([*words, "seed=-1"]) == 1
    assert json.loads((run / "status.json").read_text()) == {"model": {"state": "done", "step": 4}}


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("loss", "'loss' is none; give val/loss"),
        ("eval/stil/return_mean", "needs a row 'stil' of the evaluation; rows: still"),
        ("val/accuracy", "is not measured by this training. Did you mean 'val/"),
        ("eval/still/returns", "is no number of a results row. Did you mean 'return_"),
    ],
)
def test_an_objective_that_does_not_exist_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], objective: str, words: str
) -> None:
    assert train.run([*TINY, ROW, f"objective_metric={objective}"]) == 2
    assert words in capsys.readouterr().err


def test_a_row_can_be_the_objective(sweep: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[float] = []
    run_job = application.run_job
    monkeypatch.setattr(application, "run_job", lambda task, cfg: returned.append(run_job(task, cfg)) or returned[-1])
    assert sweep(ROW, "objective_metric=eval/still/return_mean", "tokenizer.num_bins=4,0") == 1
    assert returned[0] == pytest.approx(float(summary(folder)[0]["eval/still/return_mean"]), rel=1e-4)
    assert math.isnan(returned[1])


def test_a_command_that_does_not_compose_starts_no_job(
    sweep: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("tokenizer=uniform,quantle") == 2
    assert "no tokenizer named 'quantle'. Did you mean 'quantile'?" in capsys.readouterr().err
    assert not runs(folder)
    assert sweep("hydra/launcher=jobli") == 2
    assert "no hydra/launcher named 'jobli'" in capsys.readouterr().err


def test_a_sweep_over_decoding_settings_draws_their_tradeoff(sweep: Command, folder: Path) -> None:
    assert train.run(TINY) == 0
    (run,) = runs(folder)
    words = ["-m", f"checkpoint={run}", "num_episodes=2", "max_steps=2", "progress_bar=false", "planner.horizon=2"]
    words += ["planner.beam_width=2,0", "planner.time_budget_ms=1e-6,null"]
    assert evaluate.run(words) == 1
    rows = summary(folder)
    assert [row["status"] for row in rows] == ["done", "done", "failed", "failed"]
    assert [row["eval/reward/horizon_mean"] for row in rows] == ["1", "2", "", ""], "no time for a second transition"
    for row in rows[:2]:
        low, mean, high = (float(row[f"eval/reward/return_{end}"]) for end in ("ci95_low", "mean", "ci95_high"))
        assert low <= mean <= high
        assert float(row["eval/reward/ms_per_action"]) > 0
    found = [json.loads(path.read_text())[0] for path in run.glob("evaluations/*/results.json")]
    assert {(each["time_budget_ms"], each["horizon_mean"]) for each in found} == {(1e-6, 1.0), (None, 2.0)}
    (picture,) = folder.glob("runs/sweep-*/tradeoff.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(picture.parent.glob(".*png*"))


def test_a_killed_job_stands_in_the_table() -> None:
    jobs = [Job(["seed=1"], "running"), Job(["seed=2"], "done", "runs/a", {"val/loss": 1.5})]
    header, body = table(jobs)
    assert header == ["seed", "status", "val/loss", "run"]
    assert body == [["1", "killed", "", ""], ["2", "done", "1.5", "runs/a"]]


def test_overrides_are_shown_as_they_were_typed() -> None:
    overrides = [["++evaluation.decoding.planner.beam_width=4"], ["++evaluation.decoding.planner.beam_width=8"]]
    header, body = table([Job(each, "done") for each in overrides])
    assert (header[0], [line[0] for line in body]) == ("planner.beam_width", ["4", "8"])


def test_a_sweep_keeps_its_place_whatever_launches_it() -> None:
    plain = with_folder("train", ["-m", "seed=1,2", "tokenizer=uniform"])
    other = with_folder("train", ["tokenizer=uniform", "seed=1,2", "hydra/launcher=joblib", "-m"])
    assert plain[1] == other[0]
    assert plain[1].startswith('hydra.sweep.dir="${find_path:${runs_dir}}/sweep-')
    assert with_folder("train", ["-m", "seed=1,3", "tokenizer=uniform"])[1] != plain[1]
    assert with_folder("train", ["seed=1", "hydra.sweep.dir=here"]) == ["seed=1", "hydra.sweep.dir=here"]


def _has_launcher(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("joblib", ["hydra.launcher.n_jobs=2"]),
        ("ray", ["+hydra.launcher.ray.init={num_cpus:2,include_dashboard:false}"]),
    ],
)
def test_the_same_sweep_runs_in_other_processes(folder: Path, launcher: str, words: list[str]) -> None:
    """They load the plugin again, compose rows, share a run folder, and survive a failed job."""
    if not _has_launcher(f"hydra-{launcher}-launcher"):
        pytest.skip(f"needs seqrl[{launcher}]")
    words = [*words, "plugins=[fragile.py]", "tokenizer=fragile,uniform", "tokenizer.num_bins=8,9", ROW]
    done = subprocess.run(
        [sys.executable, "-m", "seqrl", "train", "-m", *TINY, f"hydra/launcher={launcher}", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    rows = summary(folder)
    assert [(row["tokenizer"], row["status"]) for row in rows] == [
        *(("fragile", "done"), ("fragile", "failed"), ("uniform", "done"), ("uniform", "done"))
    ]
    assert len(runs(folder)) == 4
    assert "nine is too many" in (folder / rows[1]["run"] / "error.txt").read_text()
    assert {path.name for path in folder.iterdir()} == {"runs", "hopper-tiny.hdf5", "fragile.py"}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("slurm_cpu", {"gpus_per_node": None, "cpus_per_task": 4}),
        ("slurm_gpu", {"gpus_per_node": 1, "cpus_per_task": 8}),
        ("slurm_gpus", {"gpus_per_node": 4, "cpus_per_task": 32}),
        ("slurm_nodes", {"gpus_per_node": 4, "use_srun": False}),
    ],
)
def test_presets_of_a_cluster_are_requeued_and_may_be_signalled(preset: str, expected: dict[str, object]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = hydra.compose("train", [f"hydra/launcher={preset}"], return_hydra_config=True)
    launcher = composed.hydra.launcher
    assert launcher._target_.endswith(".SlurmLauncher")
    assert launcher.max_num_timeout > 0
    assert launcher.signal_delay_s >= 60
    assert (launcher.nodes, launcher.tasks_per_node) == (1, 1), "submitit waits for a result of every task"
    assert {key: launcher[key] for key in expected} == expected
