"""Starting the ranks of a run as processes of their own, and ending them together.

Every rank is `python -m seqrl.training.worker RUN/config.yaml`: the ranks of one node are started here, those of
several by srun inside a SLURM allocation. torchrun and other launchers call the same worker themselves.
What a rank imports, and that it ends with this process, is the business of `seqrl.processes`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from seqrl import errors
from seqrl.config import TrainerConfig
from seqrl.errors import ConfigError, SeqrlError, Stopped
from seqrl.processes import bound_command, safe_environment, usable_cores
from seqrl.runs.folder import RunFolder
from seqrl.signals import own_signals

MAX_RANKS = "SEQRL_MAX_RANKS"  # environment variable of users who insist on more ranks than there are cores
LINE = "SEQRL_LINE"  # set for a process whose standard input is the line to the process that started it
GRACE = 5.0  # seconds that ranks have to end by themselves once one of them has failed
_SAVING = 60.0  # the same once one of them has stopped as it was asked to
STOPPED = 128  # plus the number of a signal: the exit status of a worker that stopped after a whole step


def count_ranks_per_node(trainer: TrainerConfig) -> int:
    """How many ranks `trainer.devices` asks for on each node."""
    devices = trainer.devices
    if isinstance(devices, tuple):
        return len(devices)
    if devices in ("auto", -1):
        import torch

        return 1 if trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    return int(devices)


def count_ranks(trainer: TrainerConfig) -> int:
    """How many ranks a trainer has on all its nodes."""
    return trainer.num_nodes * count_ranks_per_node(trainer)


def check_ranks(trainer: TrainerConfig) -> None:
    """Refuse more ranks on this machine than can be of use.

    Ranks on the CPU share its cores, and each holds torch, the data's windows and the model on its own; two are always
    allowed. Other machines, as of `num_nodes`, judge for themselves.

    Raises:
        ConfigError: more ranks than cores, or than GPUs.
    """
    accelerator = trainer.accelerator
    if trainer.num_nodes > 1:
        return
    gpus = check_gpu(accelerator)
    ranks = count_ranks_per_node(trainer)
    if ranks <= 2 and accelerator not in ("gpu", "cuda"):
        return
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus):
        if ranks > gpus:
            raise ConfigError(f"trainer.devices={ranks} is refused: this machine shows {gpus} GPUs; give as many")
    elif accelerator in ("cpu", "auto"):
        allowed = _given_number(MAX_RANKS) or max(2, usable_cores())
        if ranks > allowed:
            raise ConfigError(
                f"trainer.devices={ranks} is refused: at most {allowed} ranks on this machine, since each takes a core "
                f"and holds a copy of the model; give {allowed} or fewer, or set {MAX_RANKS}={ranks} if you insist"
            )


def check_gpu(accelerator: str) -> int:
    """How many GPUs torch sees here, where a trainer may want one.

    Raises:
        ConfigError: one is asked for and there is none; says why that may be, and what to do.
    """
    if accelerator not in ("gpu", "cuda", "auto"):
        return 0
    import torch

    gpus = torch.cuda.device_count()
    if gpus or accelerator == "auto" or (accelerator == "gpu" and torch.backends.mps.is_available()):
        return gpus
    if torch.version.cuda is None and torch.version.hip is None:
        why = f"torch {torch.__version__} is a build without CUDA; install one with it"
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        why = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides them, or nvidia-smi shows none"
    else:
        why = "see whether nvidia-smi shows one, or ask the cluster for one (hydra/launcher=slurm_gpu)"
    raise ConfigError(f"trainer.accelerator={accelerator} finds no GPU here: {why}; or train with trainer=cpu")


def _given_number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None


def run_ranks(config: Path, trainer: TrainerConfig) -> None:
    """Train a run in as many processes as its trainer asks for, and wait for them.

    When one rank fails, the others have a few seconds to end and are then killed. Signals that stop training are
    passed on to the ranks, which finish their step and save; when this process dies, they die with it, from their
    first instruction on.

    Args:
        config: the run's `config.yaml`.

    Raises:
        ConfigError: there are more ranks than can be of use.
        seqrl.errors.Stopped: the ranks stopped after a whole step, and saved it.
        SeqrlError: what the rank that failed first said, with its traceback as the cause.
    """
    nodes, devices = trainer.num_nodes, count_ranks_per_node(trainer)
    module = "seqrl.training.worker"
    if nodes > 1:
        worker = [sys.executable, "-P", "-m", module, str(config)]
        wait_for_ranks([RankProcess("srun", [*_srun(config, nodes, devices), *worker], {}, worker=False)])
        return
    check_ranks(trainer)
    worker = bound_command(module, str(config))
    # The ranks meet at a store of this process: a port that is merely free now may be taken before rank 0 is there.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    wait_for_ranks(
        [
            RankProcess(f"rank {i}", worker, rank_environment(i, devices, store.port), worker=True)
            for i in range(devices)
        ]
    )


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment variables of a rank on this node; all meet at a store that somebody else holds at a port."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the words for it that torch.distributed knows
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _srun(config: Path, nodes: int, devices: int) -> list[str]:
    """The command that starts all ranks of a SLURM allocation of several nodes."""
    if "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        folder = RunFolder(config.parent)
        if not folder.status():
            folder.set_status("model", "interrupted", 0)  # a folder without any stage would be removed
        raise ConfigError(
            f"trainer.num_nodes={nodes} needs a SLURM allocation; elsewhere, run on every node: torchrun --nnodes "
            f"{nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
            f"-m seqrl.training.worker {config}; then the same command as now evaluates the model"
        )
    # --overlap: the step of this process may hold the cores that the ranks are to run on.
    tasks = [f"--nodes={nodes}", f"--ntasks={nodes * devices}", f"--ntasks-per-node={devices}"]
    return ["srun", *tasks, "--overlap", "--kill-on-bad-exit=1", "--input=none"]


class RankProcess:
    """A process that is watched, interrupted and killed with the others of its run.

    It is in a session of its own, so that a terminal's Ctrl-C reaches it through this process, and once.

    Args:
        worker: it says over a line to this process why it failed; srun does not.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, worker: bool) -> None:
        self.name, self._is_worker = name, worker
        environment = {**safe_environment(), **environment, **({LINE: "1"} if worker else {})}
        self._line, far_end = socket.socketpair()
        with far_end:
            self._process = subprocess.Popen(command, env=environment, stdin=far_end.fileno(), start_new_session=True)

    def status(self) -> int | None:
        return self._process.poll()

    def failure(self) -> Failure:
        """Why a process ended with another status than 0, in its own words where it left any."""
        status = self._process.wait()
        self._line.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            if received := self._line.recv(2**20):
                return Failure(**json.loads(received))
        # Without words of its own it counts as the first.
        if status > STOPPED:
            return Failure("Stopped", "", signal=status - STOPPED)
        if status > 0:
            return Failure("SeqrlError", f"{self.name} ended with status {status}; its messages stand above")
        number = signal.Signals(-status)
        hint = "; often the machine is out of memory then" if number == signal.SIGKILL else ""
        return Failure("SeqrlError", f"{self.name} was ended by {number.name}{hint}")

    def ask(self, number: int) -> None:
        """Pass on a signal that stops training."""
        if not self._is_worker and number in (signal.SIGINT, signal.SIGTERM):
            number = signal.SIGUSR1  # srun answers those two itself, and passes this one on
        if self.status() is None:
            self._process.send_signal(number)

    def close(self) -> None:
        if self.status() is None:
            self._process.kill()
        self._process.wait()
        self._line.close()


@dataclass(frozen=True)
class Failure:
    """Why a rank did not end well.

    Attributes:
        kind: class of its error.
        text: what the error says.
        traceback: of an error that is a fault of ours.
        time: when, as `time.monotonic` of any process.
        signal: that stopped it, or 0.
    """

    kind: str
    text: str
    traceback: str = ""
    time: float = 0.0
    signal: int = 0


def wait_for_ranks(processes: Sequence[RankProcess], grace: float = GRACE) -> None:
    """Wait for all to end well; see `run_ranks`.

    Args:
        grace: seconds that ranks have to end by themselves once one of them has failed.
    """
    asked: list[int] = []

    def pass_on(number: int) -> None:
        asked.append(number)
        for process in processes:
            process.ask(number)

    with own_signals(pass_on):
        try:
            failed = _until_end(processes, grace)
            if failed:
                _raise([process.failure() for process in failed], asked)
        finally:
            for process in processes:
                process.close()


def _until_end(processes: Sequence[RankProcess], grace: float) -> list[RankProcess]:
    """Wait until all have ended, or for a while after the first one did not end well.

    Returns:
        Those that did not end well by themselves.
    """
    deadline = math.inf
    while any(process.status() is None for process in processes) and time.monotonic() < deadline:
        statuses = [status for process in processes if (status := process.status())]
        if statuses:
            left = _SAVING if all(status > STOPPED for status in statuses) else grace
            deadline = min(deadline, time.monotonic() + left)
        time.sleep(0.05)
    return [process for process in processes if process.status()]


def _raise(failures: list[Failure], asked: list[int]) -> None:
    """Raise what failed first: a rank that loses another one fails as well, with words that explain nothing."""
    first = min(failures, key=lambda failure: failure.time)
    if first.signal or (asked and not first.time):  # asked before it could answer, it ended without a word
        raise Stopped(asked[0] if asked else first.signal)
    cause = _RemoteTraceback(first.traceback) if first.traceback else None
    raise getattr(errors, first.kind, SeqrlError)(first.text) from cause


class _RemoteTraceback(Exception):
    """The traceback of another process, to be shown as the cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
