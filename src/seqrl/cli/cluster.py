"""What ties a job to a cluster: who answers its signals, and what becomes of jobs that die.

One owner at a time. While a stage trains, that is `seqrl.training.callbacks.StopAtInterrupt`: it ends the training
after the present step and saves. At all other times it is `orderly`, which lets the present work unwind. Either way a
`Stopped` arrives in `run_job`, with everything on disk, and only then submitit is asked to requeue the job. Its own
handler would requeue at once, and SLURM would kill the training while it saves; Lightning's requeueing is off
(`seqrl.training.parallel.cluster_environment`), for two owners would requeue a job twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from seqrl.console import say
from seqrl.errors import SeqrlError, Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # SIGINT is Python's own KeyboardInterrupt


@contextmanager
def orderly() -> Iterator[Callable[[], None]]:
    """Turn the signals that end jobs into `Stopped`, so that locks are released and children told.

    Yields:
        A function that gives a stopped job back to the cluster, if it is one that can run again; it does not return
        then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield lambda: _requeue(before)
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: installed by something that is not Python
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _requeue(handlers: dict[signal.Signals, Any]) -> None:
    """Let submitit put its SLURM job back into the queue; it counts time-outs and knows its limit.

    Without effect elsewhere: in a shell inside an allocation, or in a batch script of the user's own.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or _is_cancelled(os.environ["SLURM_JOB_ID"]):
        return
    import submitit

    number = submitit.JobEnvironment()._usr_sig()  # SIGUSR2 unless SUBMITIT_PREEMPT_SIGNAL names another
    handler = handlers.get(number)
    if callable(handler):
        say("stopped; the job goes back to SLURM")
        handler(number, None)  # saves the call, asks SLURM, exits


def _is_cancelled(job: str) -> bool:
    """Whether somebody took the job back: SLURM then says so before it sends SIGTERM, as it does before a preemption.

    A job that left the queue altogether is not to be put back either.
    """
    state = subprocess.run(
        ["squeue", "--noheader", "--format=%T", "--jobs", job], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() not in ("RUNNING", "SUSPENDED")


@contextmanager
def all_awaited() -> Iterator[None]:
    """Let submitit's launchers wait for every job of a batch, where they would leave the rest at the first dead one.

    What such a job returns then is a `JobReturn` that failed, with submitit's account of it.
    """
    try:
        from submitit.core.core import Job
        from submitit.core.utils import FailedJobError, UncompletedJobError
    except ImportError:
        yield
        return
    results = Job.results

    def survived(job: Job[Any]) -> list[Any]:
        try:
            return results(job)
        except UncompletedJobError as error:
            reason = f"job {job.job_id} ended without a result; its state is {job.state}\n{error}"
        except FailedJobError as error:
            reason = f"job {job.job_id} failed outside of its task\n{error}"
        return [JobReturn(status=JobStatus.FAILED, _return_value=SeqrlError(reason))]

    Job.results = survived  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Job.results = results  # type: ignore[method-assign]
