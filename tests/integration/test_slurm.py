"""Jobs of a real SLURM: those of SLURM_CONF, or of one that tools/slurm_local.sh starts on this machine.

Their times stand in docs/guides/lab/cluster.md; a job is a Python that imports torch, which takes most of them.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="seqrl[submitit] is not installed")

SCRIPT = Path(__file__).parents[2] / "tools" / "slurm_local.sh"
PATIENCE = 600  # seconds, on a machine that does other things as well
TINY = [
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "debug=fast", "training.progress_bar=false", "evaluation=none"),
    *("training.loggers=[csv]", "training.max_steps=4", "training.validate_every=2", "training.log_every=1"),
]
# A process of this run waits for a signal in its third step if the file `hold` is there.
HELD = [
    *TINY,
    *("plugins=[plugin.py]", "objective=held", "training.max_steps=12", "training.validate_every=6"),
    *("training.checkpoint_every=2", "training.log_every=1"),
]
TWO_RANKS = ["trainer=ddp", "trainer.accelerator=cpu"]
SMALL = ["hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=5"]
PLUGIN = """
import os, signal
from pathlib import Path
from seqrl import register_objective, register_tokenizer
from seqrl.objectives.next_token import NextTokenObjective
from seqrl.tokenizers.uniform import UniformTokenizer


@register_tokenizer("doomed")
class DoomedTokenizer(UniformTokenizer):
    def fit(self, *arguments, **options):
        os.kill(os.getpid(), signal.SIGKILL)


@register_objective("held")
class HeldObjective(NextTokenObjective):
    def __init__(self, *, average: str = "valid") -> None:
        super().__init__(average=average)
        self.steps = 0

    def __call__(self, model, batch):
        self.steps += model.training
        first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
        if self.steps == 3 and model.training and first and Path("hold").exists():
            with open("holding", "a") as file:
                file.write("x")
            signal.pause()
        return super().__call__(model, batch)
"""


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SLURM of two nodes with two cores each, both on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        if "SLURM_CONF" in os.environ:
            yield
            return
        folder = tmp_path_factory.mktemp("slurm")
        patch.setenv("SLURM_NODES", "2")
        started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, check=False)
        if started.returncode:
            subprocess.run([SCRIPT, "stop", folder], check=False)
            pytest.skip(f"no SLURM: {started.stderr.strip()}")
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
        subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a small file in D4RL's layout and a plugin that can kill its own process, or hold it."""
    monkeypatch.chdir(tmp_path)
    write_inputs()
    return tmp_path


def write_inputs() -> None:
    rng = np.random.default_rng(0)
    with h5py.File("hopper-tiny.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(60, 11)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (60, 3)).astype(np.float32)
        file["rewards"] = rng.normal(size=60).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(60, bool), np.arange(60) % 20 == 19
    Path("plugin.py").write_text(PLUGIN)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[list[str]]]:
    """The metrics of a run in so many ranks, trained here in one go; once for all tests."""

    @cache
    def trained(ranks: int) -> list[list[str]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("alone"))
            write_inputs()
            result = run(seqrl("train", *HELD, *([*TWO_RANKS, f"trainer.devices={ranks}"] if ranks > 1 else [])))
            assert result.returncode == 0, result.stderr
            (found,) = Path("runs").glob("run-*")
            return metrics(found)

    return trained


def seqrl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "seqrl", *arguments]


def sweep(*arguments: str, preset: str = "slurm_cpu", small: list[str] = SMALL) -> list[str]:
    return seqrl("train", "-m", f"hydra/launcher={preset}", *small, *arguments)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def summary(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("runs/sweep-*/summary.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def states() -> list[str]:
    """Of all jobs that this SLURM has ever had, requeued ones once for each start."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--name=seqrl"]
    return run([*words, "--format=JobID,State"]).stdout.splitlines()


def await_(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, run(["squeue"]).stdout
        time.sleep(0.2)


def held(folder: Path, times: int = 1) -> bool:
    """Whether so many processes came to their third step, one after the other; the last of them waits there."""
    return (folder / "holding").exists() and len((folder / "holding").read_text()) == times


def job_id() -> str:
    return run(["squeue", "--noheader", "--name=seqrl", "--states=RUNNING", "--format=%A"]).stdout.split()[0]


def metrics(run_folder: Path) -> list[list[str]]:
    with (run_folder / "metrics.csv").open() as file:
        return [row for row in csv.reader(file) if "per_second" not in row[1]]


def test_four_jobs_are_four_jobs_of_slurm_and_only_what_is_missing_runs_again(folder: Path) -> None:
    before = len(states())
    command = sweep(*TINY, "tokenizer=uniform,quantile", "seed=1,2")
    assert run(command).returncode == 0
    rows = summary(folder)
    assert [(row["tokenizer"], row["seed"], row["status"]) for row in rows] == [
        *(("uniform", "1", "done"), ("uniform", "2", "done"), ("quantile", "1", "done"), ("quantile", "2", "done"))
    ]
    await_(lambda: all(line.endswith("COMPLETED") for line in states()[before:]))
    assert len(states()) == before + 4

    assert run(command).returncode == 0
    assert {row["skipped"] for row in summary(folder)} == {"finished before"}
    assert len(states()) == before + 4
    shutil.rmtree(rows[2]["run"])
    assert run(command).returncode == 0
    assert [row["skipped"] for row in summary(folder)] == [*["finished before"] * 2, "", "finished before"]
    assert len(states()) == before + 5


def test_a_preempted_job_ends_as_if_nothing_had_happened(
    folder: Path, undisturbed: Callable[[int], list[list[str]]]
) -> None:
    """First a job of a partition with priority takes its place, then somebody requeues it by hand."""
    before = len(states())
    (folder / "hold").touch()
    with subprocess.Popen(sweep(*HELD)) as parent:
        await_(lambda: held(folder))
        urgent = run(["sbatch", "--partition=urgent", "--nodes=2", "--ntasks-per-node=2", "--wrap=true"])
        assert urgent.returncode == 0, urgent.stderr
        await_(lambda: held(folder, times=2))
        (folder / "hold").unlink()
        run(["scontrol", "requeue", job_id()])  # without a signal: back to the last checkpoint
        assert parent.wait(PATIENCE) == 0
    assert [state.partition("|")[2] for state in states()[before:]].count("REQUEUED") == 2
    (row,) = summary(folder)
    assert metrics(folder / row["run"]) == undisturbed(1)


def test_a_job_that_times_out_too_often_is_told_of_and_continued_by_the_same_command(
    folder: Path, undisturbed: Callable[[int], list[list[str]]]
) -> None:
    command = sweep(*HELD, "hydra.launcher.max_num_timeout=0")
    (folder / "hold").touch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        await_(lambda: held(folder))
        (folder / "hold").unlink()
        run(["scancel", "--signal=USR2", job_id()])  # what SLURM sends before the end
        said = parent.communicate(timeout=PATIENCE)[0]
    assert parent.returncode == 1
    assert "timed-out too many times" in said
    (row,) = summary(folder)
    status = json.loads((folder / row["run"] / "status.json").read_text())
    assert status["model"] == {"state": "interrupted", "step": 3}
    assert run(command).returncode == 0
    assert metrics(folder / row["run"]) == undisturbed(1)


def test_a_job_that_dies_is_told_of_and_the_others_finish(folder: Path) -> None:
    result = run(sweep(*TINY, "plugins=[plugin.py]", "tokenizer=doomed,uniform"))
    assert result.returncode == 1, result.stderr
    died, well = summary(folder)
    assert (died["status"], well["status"]) == ("failed", "done")
    assert "tokenizer=doomed: " in result.stdout
    assert "ended without a result; its state is FAILED" in result.stdout.rpartition("tokenizer=doomed: ")[2]


def test_a_cancelled_job_stays_cancelled(folder: Path) -> None:
    before = len(states())
    (folder / "hold").touch()
    with subprocess.Popen(sweep(*HELD), stdout=subprocess.PIPE, text=True) as parent:
        await_(lambda: held(folder))
        run(["scancel", job_id()])
        said = parent.communicate(timeout=PATIENCE)[0]
    assert parent.returncode == 1
    assert len(states()) == before + 1
    assert "CANCELLED" in states()[-1]
    assert "CANCELLED" in said


def test_a_run_that_another_process_works_on_is_not_started_again(folder: Path) -> None:
    before = len(states())
    (folder / "hold").touch()
    with subprocess.Popen(seqrl("train", *HELD)) as elsewhere:
        await_(lambda: held(folder))
        assert run(sweep(*HELD)).returncode == 1
        assert summary(folder)[0]["skipped"] == "runs elsewhere"
        assert len(states()) == before
        elsewhere.terminate()
        assert elsewhere.wait(PATIENCE) == 128 + 15, "SIGTERM: after a whole step"


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("slurm_cpu", ["hydra.launcher.cpus_per_task=2", "trainer.devices=2"]),
        (
            "slurm_nodes",
            [
                *("hydra.launcher.gpus_per_node=null", "hydra.launcher.additional_parameters.nodes=2"),
                *("hydra.launcher.additional_parameters.ntasks_per_node=1", "trainer.num_nodes=2", "trainer.devices=1"),
                'hydra.launcher.setup=["export MASTER_ADDR=127.0.0.1"]',  # the nodes have no names in any DNS
            ],
        ),
    ],
)
def test_two_ranks_are_preempted_and_go_on(
    folder: Path, preset: str, words: list[str], undisturbed: Callable[[int], list[list[str]]]
) -> None:
    """On one node and on two; the end is that of an undisturbed run with two ranks."""
    before = len(states())
    (folder / "hold").touch()
    with subprocess.Popen(sweep(*HELD, *TWO_RANKS, *words, preset=preset)) as parent:
        await_(lambda: held(folder))
        (folder / "hold").unlink()
        run(["scancel", "--signal=USR2", job_id()])
        assert parent.wait(PATIENCE) == 0
    assert "REQUEUED" in states()[before]
    (row,) = summary(folder)
    assert metrics(folder / row["run"]) == undisturbed(2)


@pytest.mark.parametrize("shell", [["srun", "--ntasks=1"], ["salloc", "--ntasks=2"]])
def test_a_shell_inside_an_allocation_is_no_batch_job(folder: Path, shell: list[str]) -> None:
    """Neither takes the run for one of several tasks, which would wait for each other."""
    inner = " ".join(seqrl("train", *TINY))
    result = run([*shell, "--mem=1000", "bash", "-c", inner])
    assert result.returncode == 0, result.stderr
    assert "run folder" in result.stdout
