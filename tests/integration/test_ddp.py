"""Several ranks train what one trains, in one folder; and end together, however they end."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from benchmarks import ranks

from seqrl.benchmarks.workload import TrainSettings
from seqrl.checkpoints.loading import load
from seqrl.cli import train
from seqrl.errors import ConfigError

Command = Callable[..., int]
WORDS = [
    *("data=d4rl", "data.path=tiny.hdf5", "debug=fast", "training.progress_bar=false", "training.loggers=[csv]"),
    *("evaluation=none", "backbone.embedding_dropout=0", "backbone.residual_dropout=0", "backbone.attention_dropout=0"),
    *("training.max_steps=6", "training.validate_every=3", "training.log_every=1", "training.checkpoint_every=3"),
]
RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
# An objective whose second rank is killed, as for want of memory, in its third step; or fails in words; or
# waits for a signal.
DOOMED = """
import os, signal
from pathlib import Path
from seqrl import register_objective
from seqrl.errors import DataError
from seqrl.objectives.next_token import NextTokenObjective

@register_objective("doomed")
class Doomed(NextTokenObjective):
    def __init__(self, *, how: str = "killed") -> None:
        super().__init__()
        self.how, self.calls = how, 0

    def __call__(self, model, batch):
        self.calls += 1
        if self.calls == 3 and os.environ["RANK"] == "1":
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "refused":
                raise DataError("the third batch is odd")
            if self.how == "fault":
                raise RuntimeError("a fault of ours")
            if self.how == "held" and not Path("held").exists():
                Path("held").touch()
                signal.pause()
        return super().__call__(model, batch)
"""
ONE_FAILS = """
import threading
from seqrl.errors import ConfigError

def process(settings, rank, ranks, port, together):
    if rank == 1:
        raise ConfigError("no core is left")
    threading.Event().wait(300)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file in D4RL's layout: eight episodes of 20 steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_episodes([20] * 8)
    Path("doomed.py").write_text(DOOMED)
    return tmp_path


def write_episodes(lengths: Sequence[int]) -> None:
    rng = np.random.default_rng(0)
    count = sum(lengths)
    ends = np.zeros(count, bool)
    ends[np.cumsum(lengths) - 1] = True
    with h5py.File("tiny.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(count, 4)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
        file["rewards"] = rng.normal(size=count).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(count, bool), ends


def only_run(runs: str) -> Path:
    (run,) = Path(runs).glob("run-*")
    return run


def metrics(run: Path) -> dict[tuple[int, str], float]:
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] != "train/tokens_per_second"]
    found = {(int(row["step"]), row["name"]): float(row["value"]) for row in rows}
    assert len(found) == len(rows), "a row is there twice"
    return found


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*")}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load(run / "model" / "last.ckpt").model.state_dict()


@pytest.fixture
def like_one_rank(folder: Path) -> Callable[..., None]:
    """Checks that a run with some words is the run of a single process, up to float noise."""

    def check(*words: str, common: Sequence[str] = (), tolerance: float = 2e-6) -> None:
        assert train.run([*WORDS, *common, "runs_dir=one"]) == 0
        assert train.run([*WORDS, *common, "runs_dir=many", *words]) == 0
        one, many = only_run("one"), only_run("many")
        assert files(one) == files(many), "the first rank alone writes the run folder"
        assert json.loads((many / "status.json").read_text()) == json.loads((one / "status.json").read_text())
        assert metrics(many) == pytest.approx(metrics(one), rel=tolerance, abs=tolerance)
        for name, value in weights(one).items():
            torch.testing.assert_close(weights(many)[name], value, rtol=0, atol=10 * tolerance)

    return check


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [[20] * 8, [3, 20, 4, 20, 3, 20, 5, 20], [4] * 20 + [20]])
def test_the_published_schedule_counts_the_targets_of_all_ranks(
    like_one_rank: Callable[..., None], lengths: list[int]
) -> None:
    """Short episodes fill windows with termination tokens, so that the ranks' shares count differently."""
    write_episodes(lengths)
    schedule = ["scheduler=tt_reference", "scheduler.warmup_epochs=0.3", "scheduler.cosine_epochs=1"]
    like_one_rank(*RANKS, common=["training.batch_size=8", *schedule])
    rates = {value for (_, name), value in metrics(only_run("many")).items() if name == "train/learning_rate"}
    assert len(rates) > 3, "the rate moves with what is counted"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_trains(like_one_rank: Callable[..., None], strategy: str) -> None:
    """The held-out episode has 19 windows and the batch 32, so that validation cannot be shared evenly."""
    like_one_rank(*RANKS, f"trainer.strategy={strategy}", common=["training.batch_size=32"])


@pytest.mark.slow
def test_sharded_weights_of_llama_are_whole_in_validation(like_one_rank: Callable[..., None]) -> None:
    like_one_rank(*RANKS, "trainer.strategy=fsdp", common=["training.batch_size=32", "backbone=llama"])


@pytest.mark.slow
def test_a_rank_may_have_nothing_to_validate(folder: Path, like_one_rank: Callable[..., None]) -> None:
    write_episodes([2] * 12)
    like_one_rank(*RANKS, common=["training.batch_size=4"])


@pytest.mark.slow
def test_checkpoints_go_from_one_strategy_to_another(folder: Path) -> None:
    """Interrupted under FSDP, continued in one process, and the other way round: optimiser states included."""
    fsdp = [*RANKS, "trainer.strategy=fsdp"]
    assert train.run([*WORDS, "training.keep_last=2", "runs_dir=whole"]) == 0
    expected = metrics(only_run("whole"))
    for runs, first, second in (("there", fsdp, []), ("back", [], fsdp)):
        assert train.run([*WORDS, *first, "training.keep_last=2", f"runs_dir={runs}"]) == 0
        run = only_run(runs)
        (run / "model" / "step-3.ckpt").replace(run / "model" / "last.ckpt")
        (run / "status.json").write_text('{"model": {"state": "interrupted", "step": 3}}')
        assert train.run([*WORDS, *second, "training.keep_last=2", f"runs_dir={runs}"]) == 0
        assert metrics(run) == pytest.approx(expected, rel=2e-6, abs=2e-6)


@pytest.mark.slow
def test_compiling_changes_neither_names_nor_losses(like_one_rank: Callable[..., None]) -> None:
    like_one_rank(*RANKS, "trainer.compile=true", tolerance=2e-5)


@pytest.mark.slow
def test_fast_ranks_train_what_one_trains_and_repeat_themselves(
    folder: Path, like_one_rank: Callable[..., None]
) -> None:
    like_one_rank(*RANKS, common=["trainer.fast_cpu=true"])
    dropout = [f"backbone.{part}_dropout=0.3" for part in ("embedding", "residual", "attention")]
    for runs in ("first", "second"):  # each rank draws masks of its own, and draws them again
        assert train.run([*WORDS, *RANKS, *dropout, "trainer.fast_cpu=true", f"runs_dir={runs}"]) == 0
    assert metrics(only_run("first")) == metrics(only_run("second"))


def test_bf16_computes_in_bf16_and_keeps_float32_weights(folder: Path) -> None:
    words = [*WORDS, "backbone.num_heads=2"]  # with four, losses of an untrained model agree in all printed digits
    assert train.run([*words, "runs_dir=one"]) == 0
    assert train.run([*words, "runs_dir=bf16", "trainer.precision=bf16-mixed"]) == 0
    exact, rounded = metrics(only_run("one")), metrics(only_run("bf16"))
    assert rounded[1, "train/loss"] == pytest.approx(exact[1, "train/loss"], rel=1e-2)
    assert rounded[1, "train/loss"] != exact[1, "train/loss"]
    assert {value.dtype for value in weights(only_run("bf16")).values() if value.is_floating_point()} == {torch.float32}


LAUNCHERS = [
    pytest.param([], id="one after the other"),
    pytest.param(
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        marks=pytest.mark.skipif(not find_spec("joblib"), reason="needs seqrl[joblib]"),
        id="joblib",
    ),
    pytest.param(
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
        marks=pytest.mark.skipif(not find_spec("submitit"), reason="needs seqrl[submitit]"),
        id="submitit",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_runs_all_jobs_in_two_ranks_each(folder: Path, launcher: list[str]) -> None:
    """A rank of the first job is killed; the other one is ended, the job has failed, and the next one runs."""
    words = ["plugins=[doomed.py]", "objective=doomed", "objective.how=killed,not_at_all"]
    done = seqrl("train", "-m", *WORDS, *RANKS, *words, *launcher, limit=240)
    assert done.returncode == 1, done.stderr
    (table,) = folder.glob("runs/sweep-*/summary.csv")
    with table.open() as file:
        killed, whole = csv.DictReader(file)
    assert (killed["objective.how"], killed["status"]) == ("killed", "failed")
    assert (whole["objective.how"], whole["status"]) == ("not_at_all", "done")
    assert "rank 1 was ended by SIGKILL" in (folder / killed["run"] / "error.txt").read_text()
    assert float(whole["val/loss"]) == pytest.approx(metrics(folder / whole["run"])[6, "val/loss"], rel=1e-3)
    assert killed["run"] != whole["run"]
    assert not ranks_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"), [("refused", "DataError: the third batch is odd"), ("fault", "RuntimeError: a fault of ours")]
)
def test_what_a_rank_says_reaches_the_user(folder: Path, how: str, said: str) -> None:
    words = ["plugins=[doomed.py]", "objective=doomed", f"objective.how={how}"]
    done = seqrl("train", *WORDS, *RANKS, *words, limit=120)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert not ranks_of(folder)


@pytest.mark.slow
def test_ranks_do_not_outlive_the_command(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "seqrl", "train", *WORDS, *RANKS, "training.max_steps=1000000"])
    try:
        deadline = time.monotonic() + 120
        while not list(folder.glob("runs/*/model/last.ckpt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(ranks_of(folder)) == 2
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while ranks_of(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_command_stops_all_ranks_after_a_whole_step(folder: Path, number: signal.Signals) -> None:
    """The command alone is told, as by a cluster; it ends with the signal's number, and continues the run."""
    words = [*WORDS, *RANKS, "plugins=[doomed.py]", "objective=doomed", "objective.how=held"]
    process = subprocess.Popen([sys.executable, "-m", "seqrl", "train", *words])
    try:
        deadline = time.monotonic() + 120
        while not (folder / "held").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    finally:
        process.kill()
    assert not ranks_of(folder)
    status = only_run("runs") / "status.json"
    assert json.loads(status.read_text())["model"] == {"state": "interrupted", "step": 3}
    assert seqrl("train", *words, limit=120).returncode == 0
    assert json.loads(status.read_text())["model"] == {"state": "done", "step": 6}
    assert {step for step, name in metrics(only_run("runs")) if name == "train/loss"} == set(range(1, 7))


@pytest.mark.slow
def test_two_nodes_under_torchrun(folder: Path) -> None:
    """Two node ranks on one machine meet over loopback, each with one rank."""
    assert train.run([*WORDS, "runs_dir=one"]) == 0
    nodes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2", "runs_dir=many"]
    refused = seqrl("train", *WORDS, *nodes, limit=60)
    assert "torchrun --nnodes 2 --nproc-per-node 1" in refused.stderr
    config = only_run("many") / "config.yaml"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
                *("--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port)),
                *("-m", "seqrl.training.worker", str(config)),
            ]
        )
        for node in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    assert train.run([*WORDS, *nodes]) == 0, "the command evaluates what torchrun trained"
    assert files(only_run("many")) == files(only_run("one"))
    assert metrics(only_run("many")) == pytest.approx(metrics(only_run("one")), rel=2e-6, abs=2e-6)


@pytest.mark.slow
def test_bench_compares_ranks_with_trainings_apart(folder: Path) -> None:
    words = ["--threads", "2", "--observation", "2", "--action", "1", "--layers", "1", "--heads", "2", "--width", "8"]
    words += ["--batch-size", "4", "--window", "3", "--steps", "2", "--transitions", "60", "--repeats", "1"]
    assert ranks.main(["--ranks", "2", *words, "--output", "numbers.json"]) == 0
    numbers = json.loads(Path("numbers.json").read_text())
    together, apart = (numbers[name]["tokens_per_second"]["median"] for name in ("together", "apart"))
    assert numbers["ratio"] == numbers["ratios"][0] == pytest.approx(together / apart)
    assert numbers["settings"]["threads"] == 1


@pytest.mark.slow
def test_a_bench_process_that_fails_ends_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("one_fails.py").write_text(ONE_FAILS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(ranks, "_process", import_module("one_fails").process)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="no core is left"):
        ranks.bench_ranks(TrainSettings(threads=2, batch_size=4, repeats=1), 2)
    assert time.monotonic() - started < 200


def seqrl(*arguments: str, limit: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seqrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)


def ranks_of(folder: Path) -> list[int]:
    """Processes that work on a run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
            where = (path / "cwd").readlink()
        except OSError:
            continue
        if b"seqrl.training.worker" in words and where == folder:
            found.append(int(path.name))
    return found
