"""The commands as a user types them: what they leave behind, and what they say to mistakes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import seqrl
from seqrl.checkpoints.loading import load

Command = Callable[..., int]
FAST = ["debug=fast", "training.progress_bar=false", "training.loggers=[csv]"]


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in D4RL's layout with Hopper's sizes: random numbers, four episodes of 30 steps, two of them falls."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "hopper-tiny.hdf5"
    ends = np.zeros((4, 30), bool)
    ends[:, -1] = True
    terminals = ends & (np.arange(4) < 2)[:, None]
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(120, 11)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (120, 3)).astype(np.float32)
        file["rewards"] = rng.normal(size=120).astype(np.float32)
        file["terminals"], file["timeouts"] = terminals.ravel(), (ends & ~terminals).ravel()
    return path


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `seqrl <command> ...` inside this process, in an empty folder, and returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "data"))

    def run(name: str, *arguments: str) -> int:
        from seqrl.cli import evaluate, train

        return {"train": train, "evaluate": evaluate}[name].run(list(arguments))

    return run


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_run_leaves_what_the_docs_say_and_is_not_repeated(
    command: Command, hopper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data=d4rl", f"data.path={hopper}", *FAST]
    assert command("train", *arguments) == 0
    run = only_run(tmp_path)
    assert json.loads((run / "status.json").read_text()) == {"model": {"state": "done", "step": 20}}
    with (run / "metrics.csv").open() as file:
        logged = {(row["name"], int(row["step"])) for row in csv.DictReader(file)}
    assert {("train/loss", 20), ("val/action_accuracy", 20), ("train/tokens_per_second", 20)} <= logged
    assert {path.name for path in (run / "model").iterdir()} == {"last.ckpt", "best.ckpt"}
    table = json.loads((run / "results.json").read_text())
    wanted = {
        *("dataset", "env_id", "strategy", "planner", "cache", "plan_every", "num_episodes", "return_mean"),
        *("return_std", "score_mean", "score_ci95", "ms_per_action", "behaviour_return_mean", "behaviour_score"),
        *("seed", "versions"),
    }
    assert [row["strategy"] for row in table["rows"]] == ["zero", "random", "greedy imitation", "beam H=1", "reward"]
    assert all(wanted <= set(row) for row in table["rows"])
    told = capsys.readouterr().out
    assert "held-out loss" in told
    assert f"report: {run.relative_to(tmp_path) / 'report.html'}" in told

    changed = (run / "model" / "last.ckpt").stat().st_mtime_ns
    assert command("train", *arguments) == 0
    assert only_run(tmp_path) == run
    assert (run / "model" / "last.ckpt").stat().st_mtime_ns == changed

    assert command("evaluate", f"checkpoint={run}", "strategy=reward", "planner.beam_width=2", "planner.horizon=2",
                   "num_episodes=2", "max_steps=3", "label=mine", "progress_bar=false") == 0  # fmt: skip
    (folder,) = (run / "evaluations").glob("mine-*")
    (row,) = json.loads((folder / "results.json").read_text())
    assert (row["planner"]["horizon"], row["num_episodes"], row["length_mean"]) == (2, 2, 3)


def test_strategies_reach_the_same_starts(command: Command, hopper: Path, tmp_path: Path) -> None:
    """Zero action gives the same returns whatever else is evaluated, and differs between evaluation seeds."""
    assert command("train", "data=d4rl", f"data.path={hopper}", *FAST, "evaluation=none") == 0
    returns = []
    for seed, label in ((0, "a"), (0, "b"), (1, "c")):
        assert command("evaluate", f"checkpoint={only_run(tmp_path)}", "strategy=zero", "num_episodes=3",
                       f"seed={seed}", f"label={label}", "progress_bar=false") == 0  # fmt: skip
        (folder,) = (only_run(tmp_path) / "evaluations").glob(f"{label}-*")
        with np.load(folder / "episodes.npz") as file:
            returns.append(file["returns"])
    np.testing.assert_array_equal(returns[0], returns[1])
    assert not np.array_equal(returns[0], returns[2])


def test_goals_in_the_maze(command: Command, tmp_path: Path) -> None:
    assert command("train", "experiment=maze2d_umaze", *FAST, "data.num_transitions=900") == 0
    run = only_run(tmp_path)
    assert (run / "paths.png").stat().st_size > 10_000
    table = json.loads((run / "results.json").read_text())
    goal = next(row for row in table["rows"] if row["strategy"] == "goal")
    assert goal["num_episodes"] == 2 * 3 * 3  # two starts in each of three cells, toward three goals
    assert goal["counted_episodes"] == 2 * 3 * 2  # the goal's own cell does not count
    assert {c["other"] for c in table["comparisons"]} == {r["strategy"] for r in table["rows"]} - {"goal"}
    video = next((run / "evaluations").glob("goal-*"))
    assert any(path.suffix in (".mp4", ".gif") for path in video.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trainign.max_steps=3"], ["no setting 'trainign.max_steps'", "training.max_steps"]),
        (
            ["training.max_step=3"],
            ["no setting 'training.max_step'", "Did you mean 'training.max_steps'", "batch_size"],
        ),
        (["tokenizer=unifrom"], ["no tokenizer named 'unifrom'", "Did you mean 'uniform'", "quantile"]),
        (["tokeniser=uniform"], ["no setting 'tokeniser'", "Did you mean 'tokenizer'"]),
        (["backbone.dim=10", "backbone.num_heads=3"], ["backbone.dim=10", "num_heads=3"]),
        (["window.length=1"], ["window.length=1", "2 or more"]),
        (["training.batch_size=0"], ["batch_size=0", "from 1 to"]),
        (["planner.beam_width=0"], ["planner.beam_width=0", "from 1 to"]),
        (["planner.bream_width=4"], ["planner.bream_width", "beam_width"]),
        (["trainer.accelerator=tpu9"], ["tpu9"]),
        (["scheduler.name=cosinus"], ["no scheduler named 'cosinus'", "Did you mean 'cosine'"]),
        (["runs_dir=/proc/nothing"], ["/proc/nothing", "runs_dir"]),
        (["plugins=[nowhere.py]"], ["nowhere.py", "does not exist"]),
        (["layout.goal={dims:[99]}"], ["layout.goal.dims=[99]", "0 to 10"]),
        (["data.path=/nowhere.hdf5"], ["/nowhere.hdf5"]),
        (["=="], ["=="]),
        (["seed=-1"], ["seed=-1", "from 0 to"]),
        (["tokenizer.num_bins=abc"], ["tokenizer.num_bins='abc'", "whole number"]),
        (["planner.k_act=0"], ["planner.k_act=0", "1 or more"]),
        (["planner.cdf_act=1.0"], ["planner.cdf_act=1.0", "less than 1"]),
        (["planner=beam"], ["planner=beam would turn every row", "strategy="]),
        (["strategy=goal"], ["row 'goal'", "layout has no goal", "layout.goal="]),
        (["window.length=4", "planner.context=5"], ["planner.context=5", "[2, 4]"]),
        (["~layout.fields.value"], ["row 'beam H=1'", "+layout.fields.value={hidden: true}"]),
        (["evaluation.settings.env_id=Walker2d-v4"], ["11 observation dimensions", "17"]),
    ],
)
def test_mistakes_get_one_sentence(
    command: Command,
    hopper: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: list[str],
) -> None:
    assert command("train", "data=d4rl", f"data.path={hopper}", *FAST, *arguments) == 2
    assert not list(tmp_path.glob("runs/*"))  # nothing is begun
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["checkpoint is not set"]),
        (["checkpoint=/nowhere"], ["no checkpoint at '/nowhere'"]),
        (["checkpoint={run}", "env_id=Hopper-v44"], ["Hopper-v44", "Hopper-v4"]),
        (["checkpoint={run}", "env_id=Walker2d-v4"], ["11 observation dimensions", "17"]),
        (["checkpoint={run}", "env_id=CartPole-v1"], ["CartPole-v1", "11 observation dimensions"]),
        (["checkpoint={run}", "strategy=goal"], ["layout has no goal", "layout.goal="]),
        (["checkpoint={run}", "num_episodes=0"], ["num_episodes=0"]),
        (["checkpoint={run}", "device=cuda99x"], ["cuda99x"]),
        (["checkpoint={run}", "goals=[[1,1]]"], ["Hopper-v4", "Maze2d"]),
        (["checkpoint={run}", "planner.context=11"], ["planner.context=11", "[2, 10]"]),
    ],
)
def test_mistakes_of_evaluation_get_one_sentence(
    command: Command, trained: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    filled = [a.format(run=trained) for a in arguments]
    assert command("evaluate", *filled, "max_steps=2", "progress_bar=false") == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for word in words:
        assert word in message


@pytest.fixture(scope="module")
def trained(hopper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seqrl.cli import train

    folder = tmp_path_factory.mktemp("trained")
    assert train.run(["data=d4rl", f"data.path={hopper}", *FAST, "evaluation=none", f"runs_dir={folder}"]) == 0
    (run,) = folder.iterdir()
    return run


def seqrl_process(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "seqrl", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "trainer", [[], pytest.param(["trainer=ddp", "trainer.accelerator=cpu"], marks=pytest.mark.slow)]
)
def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_continues(
    hopper: Path, tmp_path: Path, trainer: list[str]
) -> None:
    """As a terminal does it: every process of the command is interrupted, ranks included."""
    arguments = ["data=d4rl", f"data.path={hopper}", *FAST, *trainer, "evaluation=none", "training.max_steps=100000"]
    process = seqrl_process("train", *arguments, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/model/last.ckpt")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "the same command continues the run" in output
    assert "Traceback" not in output
    run = only_run(tmp_path)
    status = json.loads((run / "status.json").read_text())["model"]
    assert status["state"] == "interrupted"
    assert load(run / "model" / "last.ckpt").step == status["step"] >= 10


@pytest.mark.slow
def test_two_processes_train_and_evaluate(hopper: Path, tmp_path: Path) -> None:
    process = seqrl_process(
        *("train", "data=d4rl", f"data.path={hopper}", *FAST, "trainer=ddp", "trainer.accelerator=cpu"), cwd=tmp_path
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert json.loads((only_run(tmp_path) / "status.json").read_text())["model"]["state"] == "done"
    assert (only_run(tmp_path) / "results.md").exists()


def test_help_and_cfg_need_neither_torch_nor_lightning(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['seqrl', 'train', '--cfg', 'job', 'experiment=maze2d_umaze']\n"
        "from seqrl.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'lightning', 'gymnasium', 'mujoco'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "maze: umaze" in done.stdout


def test_version() -> None:
    assert subprocess.run([sys.executable, "-m", "seqrl", "--version"], capture_output=True, check=True).stdout
    assert seqrl.__doc__
