"""Where we change what Hydra, submitit and joblib do, because no option of theirs does.

Nothing else in this package replaces a part of another library; what Lightning and torch say too often is silenced
by `seqrl.training.trainer.quiet_lightning`, since only `seqrl.training` may import them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper

from seqrl.errors import SeqrlError
from seqrl.processes import bound_command

_is_hydras = Plugins.is_in_toplevel_plugins_module


def register_sweeper(sweeper: type[Sweeper]) -> None:
    """Make a sweeper of this package known to Hydra.

    Hydra up to 1.3.8 takes plugins from its own namespace package `hydra_plugins` alone (Hydra's issue 1554), where it
    does not find those of an editable installation (issue 2359). 1.4 reads entry points (issue 3252).
    """

    def is_allowed(name: str) -> bool:
        return name.startswith("seqrl.cli.") or _is_hydras(name)

    Plugins.is_in_toplevel_plugins_module = staticmethod(is_allowed)  # type: ignore[assignment]
    Plugins.instance().register(sweeper)


@contextmanager
def awaited_jobs() -> Iterator[None]:
    """Let submitit's launchers wait for every job of a batch.

    hydra-submitit-launcher 1.2 asks submitit 1.5 for one result after the other, and the first job that died leaves
    the rest of the batch without anybody who waits (Hydra's issue 1377 covers jobs that raise, and these alone). In
    this block such a job returns a `JobReturn` that failed, with submitit's account of it.
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

    with mock.patch.object(Job, "results", survived):
        yield


@contextmanager
def bound_workers() -> Iterator[None]:
    """Let joblib's workers end with this process, from their first instruction.

    joblib 1.5 starts them with `python -m` and has no word for another command. One that is still importing when the
    command is killed would go on, take its job from the pipe, and run it for nobody.
    """
    try:
        from joblib.externals.loky.backend import fork_exec
    except ImportError:
        yield
        return
    start = fork_exec.fork_exec

    def start_bound(command: Sequence[str], keep_fds: Sequence[int], env: Mapping[str, str] | None = None) -> int:
        if command[1:2] == ["-m"]:  # the tracker of its files, which cleans up after this process, is no module
            command = bound_command(*command[2:])
        return int(start(command, keep_fds, env=env))

    with mock.patch.object(fork_exec, "fork_exec", start_bound):
        yield


def end_workers() -> None:
    """End joblib's workers, at the end of a sweep.

    joblib keeps them for whoever wants as many: another sweep of this process would run in the folder and with the
    environment that they were started in (joblib 1.5, which has a word for it in its private parts alone).
    """
    reusable = sys.modules.get("joblib.externals.loky.reusable_executor")
    executor = getattr(reusable, "_executor", None)
    if executor is not None:
        executor.shutdown(wait=True)
