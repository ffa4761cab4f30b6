"""What ties a job to a cluster: how it ends at a signal, and how it goes back into the queue.

While a stage trains, a signal ends it after the present step, which is saved (see `seqrl.signals`). At all other times
`stop_at_signals` lets the present work unwind. Either way a `Stopped` arrives in `run_job`, with everything on disk,
and only then submitit is asked to requeue the job. Its own handler would requeue at once, and SLURM would kill the
training while it saves; Lightning's requeueing is off (`seqrl.training.parallel.cluster_environment`), for two owners
would requeue a job twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seqrl.console import say
from seqrl.errors import Stopped
from seqrl.signals import STOPPING, Handlers, own_signals


@contextmanager
def stop_at_signals() -> Iterator[Callable[[], None]]:
    """Turn the signals that end jobs into `Stopped`, so that locks are released and children told.

    Yields:
        A function that gives a stopped job back to the cluster, if it is one that can run again; it does not return
        then.
    """

    def stop(number: int) -> None:
        raise Stopped(number)

    others = [number for number in STOPPING if number != signal.SIGINT]  # which is Python's own KeyboardInterrupt
    with own_signals(stop, others) as former:
        yield lambda: _requeue(former)


def _requeue(handlers: Handlers) -> None:
    """Let submitit put its SLURM job back into the queue; it counts time-outs and knows its limit.

    Without effect elsewhere: in a shell inside an allocation, or in a batch script of the user's own.
    """
    if not handlers or os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or _is_cancelled(os.environ["SLURM_JOB_ID"]):
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
        ["squeue", "--noheader", "--format=%T", "--jobs", job],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return state.stdout.strip() not in ("RUNNING", "SUSPENDED")
