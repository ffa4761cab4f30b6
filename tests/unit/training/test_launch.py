"""Starting ranks and ending them together, with small processes in their place; and which rank a process is."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed
from torch.distributed import HashStore  # type: ignore[attr-defined]

from seqrl.config import RunConfig, TrainerConfig
from seqrl.errors import ConfigError, DataError, SeqrlError, Stopped
from seqrl.runs.folder import is_held
from seqrl.training import launch, worker
from seqrl.training.callbacks import StopAtInterrupt
from seqrl.training.launch import RankProcess, count_ranks, count_ranks_per_node, wait_for_ranks
from seqrl.training.parallel import cluster_environment, over_ranks

SAY = """
import json, os, socket, sys, time
def say(kind, text, traceback="", time=1.0):
    failure = json.dumps(dict(kind=kind, text=text, traceback=traceback, time=time))
    socket.socket(fileno=os.dup(0)).sendall(failure.encode())
"""


def process(code: str, name: str = "rank 0") -> RankProcess:
    return RankProcess(name, [sys.executable, "-S", "-c", SAY + textwrap.dedent(code)], {}, worker=True)


@pytest.mark.parametrize(("rank", "torchrun", "holds"), [("0", True, True), ("1", True, False), ("0", False, False)])
def test_the_first_rank_of_torchrun_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, torchrun: bool, holds: bool
) -> None:
    """Elsewhere the command that started the ranks does."""
    (tmp_path / "config.yaml").write_text("plugins: []")
    held: list[bool] = []
    monkeypatch.setattr(worker, "train", lambda config, folder: held.append(is_held(folder.path)))
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert worker.main(tmp_path / "config.yaml") == 0
    assert held == [holds]


def test_ranks_agree_without_a_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """At which a rank would wait in every step for all that its GPU has to do."""

    def wait(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        monkeypatch.setattr(distributed, "barrier", wait)
        count = torch.tensor(3.0)
        total = over_ranks(count)
        assert total == 3
        assert total is not count  # which is added to metrics as it is
        interrupt = StopAtInterrupt()
        assert interrupt.agree(torch.device("cpu")) is None
        interrupt.number = signal.SIGUSR1
        assert interrupt.agree(torch.device("cpu")) == signal.SIGUSR1
    finally:
        distributed.destroy_process_group()


def test_ranks_that_end_well_are_waited_for() -> None:
    processes = [process("time.sleep(0.2)"), process("")]
    wait_for_ranks(processes)
    assert [each.status() for each in processes] == [0, 0]


def test_the_first_failure_is_told_in_its_own_words() -> None:
    """The rank that lost another one fails as well, earlier in the list and later in time."""
    lost = process("say('SeqrlError', 'connection closed', 'Traceback', time=9.0); sys.exit(1)")
    cause = process("say('DataError', 'no episodes', time=3.0); sys.exit(2)", "rank 1")
    with pytest.raises(DataError, match=r"^no episodes$"):
        wait_for_ranks([lost, cause])


def test_the_traceback_of_a_rank_is_the_cause() -> None:
    with pytest.raises(SeqrlError, match="rank 1 failed") as raised:
        wait_for_ranks([process("say('SeqrlError', 'rank 1 failed', 'Traceback: here'); sys.exit(1)")])
    assert "Traceback: here" in str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), 9)", "rank 1 was ended by SIGKILL; often the machine is out of memory"),
        ("sys.exit(3)", "rank 1 ended with status 3"),
    ],
)
def test_a_rank_that_dies_takes_the_others_with_it(code: str, message: str) -> None:
    waiting = process("time.sleep(600)")
    begin = time.monotonic()
    with pytest.raises(SeqrlError, match=message):
        wait_for_ranks([waiting, process(code, "rank 1")], grace=0.2)
    assert time.monotonic() - begin < 10
    assert waiting.status() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_are_passed_on_and_ranks_may_save(tmp_path: Path, number: signal.Signals) -> None:
    """A rank that has saved ends the waiting for the others less soon than one that failed."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    code = f"""
        import signal
        # Held back until it is waited for: a handler's sleep may begin just after the signal came.
        signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
        with open({str(ready)!r}, "w") as file:
            file.write("x")
        number = signal.sigwait([{int(number)}])
        time.sleep({{seconds}})
        os._exit(128 + number)
    """
    processes = [process(code.format(seconds=seconds)) for seconds in (0.0, 0.5)]
    before = signal.getsignal(number)

    def ask() -> None:
        said = ""
        while len(said) < len(processes):
            with ready.open() as file:
                said += file.read()
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(Stopped) as raised:
        wait_for_ranks(processes, grace=0.0)
    thread.join()
    assert raised.value.number == number
    assert [each.status() for each in processes] == [128 + number] * 2
    assert signal.getsignal(number) == before


def test_several_nodes_need_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match=r"torchrun --nnodes 2 --nproc-per-node 3 .*config.yaml; then the same"):
        launch.run_ranks(tmp_path / "config.yaml", TrainerConfig(num_nodes=2, devices=3))


def test_several_nodes_start_by_srun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its tasks are workers; a stand-in keeps the words."""
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/sh\necho "$@ $SEQRL_LINE" > {tmp_path}/words\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    launch.run_ranks(tmp_path / "config.yaml", TrainerConfig(num_nodes=2, devices=3))
    words = (tmp_path / "words").read_text().split()
    assert {"--nodes=2", "--ntasks=6", "--ntasks-per-node=3"} < set(words)
    assert words[-3:] == ["-m", "seqrl.training.worker", str(tmp_path / "config.yaml")], "and no line to this process"


@pytest.mark.parametrize(
    ("devices", "count"),
    [(3, 3), ([0, 2], 2), ("auto", 1), (-1, 1), (0, None), ("two", None), ([], None), (True, None), (None, None)],
)
def test_devices_are_ranks(devices: Any, count: int | None) -> None:
    if count is None:
        with pytest.raises(ConfigError, match=r"trainer\.devices=.* give 1 or more, auto or -1 or a list of 1 or more"):
            RunConfig.from_dict({"trainer": {"devices": devices}})
    else:
        trainer = RunConfig.from_dict({"trainer": {"devices": devices}}).trainer
        assert count_ranks_per_node(trainer) == count
        assert count_ranks(replace(trainer, num_nodes=2)) == 2 * count


TRAINER = TrainerConfig(devices=2, num_nodes=2)
BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "sweep", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
SHELL = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}
TASK = {**BATCH, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_NODEID": "1"}
RANK = {"LOCAL_RANK": "1", "RANK": "1"}
TORCHRUN = {**RANK, "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"}


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, LightningEnvironment),
        pytest.param(BATCH, LightningEnvironment, id="the script of a batch job"),
        pytest.param(SHELL, LightningEnvironment, id="a shell in an allocation"),
        pytest.param({**TASK, **RANK}, LightningEnvironment, id="a rank that we started in a task"),
        pytest.param(TASK, SLURMEnvironment, id="a task"),
        pytest.param({**TASK, "SLURM_JOB_NAME": "interactive"}, SLURMEnvironment, id="srun by hand in an allocation"),
        pytest.param({**TASK, **TORCHRUN}, TorchElasticEnvironment, id="torchrun in a task"),
    ],
)
def test_which_rank_a_process_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], kind: type) -> None:
    clear(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = cluster_environment(TRAINER)
    assert type(found) is kind
    if isinstance(found, SLURMEnvironment):
        assert not found.auto_requeue, "signals have one owner"
        assert (found.global_rank(), found.world_size(), found.main_address) == (3, 4, "node3")
        found.validate_settings(num_devices=2, num_nodes=2)


def test_srun_with_another_number_of_tasks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    with pytest.raises(ConfigError, match=r"started 3 tasks, .* are 4 ranks; give --nodes=2 --ntasks-per-node=2"):
        cluster_environment(TRAINER)


def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_")) or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASTER_ADDR", "")  # so that what is set is undone
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
@pytest.mark.parametrize("devices", [1, 2, 4, (0, 1)])
def test_a_gpu_that_is_not_there_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, accelerator: Any, devices: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"finds no GPU here: .*; or train with trainer=cpu"):
        launch.check_ranks(TrainerConfig(accelerator=accelerator, devices=devices))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    launch.check_ranks(TrainerConfig(accelerator=accelerator, devices=devices))


@pytest.mark.parametrize(
    ("cuda", "visible", "advice"),
    [(None, None, "is a build without CUDA"), ("12.4", "", "CUDA_VISIBLE_DEVICES="), ("12.4", None, "nvidia-smi")],
)
def test_why_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, visible: str | None, advice: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ConfigError, match=advice):
        launch.check_gpu("gpu")
    assert launch.check_gpu("auto") == launch.check_gpu("cpu") == 0
