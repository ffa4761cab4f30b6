"""Sweeps: every job leaves a record in the sweep's folder, the parent makes one table of them.

Jobs may run in other processes or on other machines, one after the other or at once; all that connects them to the
parent is the folder `<runs_dir>/sweep-<hash>/jobs` with one small file per job, named after the job's overrides.
"""

from __future__ import annotations

import math
import shlex
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from seqrl.cli.job_output import whole_output
from seqrl.console import say, say_error
from seqrl.errors import ConfigError, PrunedError, UnfinishedError
from seqrl.evaluation.jobs import UNREADABLE, Job, locate_record, read_job, write_job
from seqrl.files import fingerprint, write_text
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import KINDS
from seqrl.runs.words import show_words

Task = Callable[[DictConfig, Job], None]


@dataclass(frozen=True)
class Identity:
    """What a job would compute, told before it runs.

    Attributes:
        key: hash of its configuration.
        folder: run folder; it may not exist yet.
        complete: whether everything that the job would train is trained.
    """

    key: str
    folder: Path
    complete: bool

    @classmethod
    def of(cls, parts: Sequence[Any], folder: Path, *, complete: bool) -> Identity:
        """The identity of a job that is described by `parts`, plain data."""
        return cls(fingerprint(parts)[:16], folder, complete)


class SweepFolder(Callback):
    """Tells the parent process where the sweep's records are (see conf/app.yaml)."""

    _current: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepFolder._current = Path(config.hydra.sweep.dir).absolute()

    @classmethod
    def is_begun(cls) -> bool:
        """Whether this process has begun a sweep that nobody has taken yet."""
        return cls._current is not None

    @classmethod
    def take(cls) -> Path | None:
        """The folder of the sweep that this process started last, once; None after single runs."""
        folder, cls._current = cls._current, None
        return folder


def with_folder(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments, and where a sweep of them keeps its table: one place for the same overrides and any launcher."""
    if any(argument.lstrip("+").startswith("hydra.sweep.dir=") for argument in arguments):
        return list(arguments)
    kept = sorted(a for a in arguments if not a.startswith(("-", "hydra", "+hydra", "runs_dir=")))
    digest = fingerprint([command, kept])[:8]
    parent = "${find_path:${runs_dir}}" if command == "train" else "runs"
    overrides = [place for place, a in enumerate(arguments) if "=" in a and not a.startswith("-")]
    place = overrides[0] if overrides else 0  # argparse wants all overrides in a row
    return [*arguments[:place], f'hydra.sweep.dir="{parent}/sweep-{digest}"', *arguments[place:]]


def run_job(task: Task, cfg: DictConfig) -> float:
    """Run one job of a sweep; what goes wrong ends this job only.

    Returns:
        The objective, NaN where there is none.
    """
    settings = HydraConfig.get()
    overrides = list(settings.overrides.task)
    record = locate_record(Path(settings.runtime.output_dir), overrides)
    record.parent.mkdir(parents=True, exist_ok=True)
    planned = read_job(record) if record.exists() else Job(state=UNREADABLE)
    number = settings.job.num if planned.state == UNREADABLE else planned.number
    job = Job(overrides, number=number, key=planned.key)
    write_job(record, job)  # a job that is killed keeps this record
    say(f"job {job.number}: {shlex.join(show_words(job.overrides))}")
    with whole_output(record.parent, alone=SweepFolder.is_begun()):
        return _run_noted(task, cfg, job, record)


def _run_noted(task: Task, cfg: DictConfig, job: Job, record: Path) -> float:
    """Run a job that is noted as running, and note how it ended."""
    try:
        task(cfg, job)
        job.state = "done"
    except PrunedError as error:
        job.state, job.error = "pruned", str(error)
    except UnfinishedError as error:
        job.state, job.error = "interrupted", str(error)
        say_error(job.error)
    except Exception as error:
        _fail(job, error, record)
    except BaseException:
        job.state = "interrupted"
        raise
    finally:
        write_job(record, job)
    value = job.objective[1]
    return math.nan if value is None else value


def lost(record: Path, reason: str) -> None:
    """Note why a job ended that could not say so itself: its process or its machine is gone."""
    job = read_job(record)
    first, *rest = reason.strip().splitlines() or ["no reason given"]
    if job.state in ("waiting", "running", UNREADABLE):
        job.state = "failed"
    job.error = first
    if rest:
        target = record.with_suffix(".error.txt")
        write_text(target, reason)
        job.error_files = [str(target)]
    write_job(record, job)
    say_error(first)


def _fail(job: Job, error: Exception, record: Path) -> None:
    """Keep the traceback in the run's folder, if the job came that far, and beside the record."""
    job.state = "failed"
    job.error = f"{type(error).__name__}: {error}"
    targets = [record.with_suffix(".error.txt")]
    if job.folder is not None:
        folder = RunFolder(Path(job.folder))
        with suppress(ConfigError):  # a damaged status.json, which then is the error or will be the next one
            _note_failure(folder, job.error)
        targets.insert(0, folder.path / "error.txt")
    for target in targets:
        write_text(target, traceback.format_exc())
    job.error_files = [str(target) for target in targets]
    say_error(job.error)


def _note_failure(folder: RunFolder, reason: str) -> None:
    status = folder.status()
    after = "evaluation" if status else "model"
    begun = (kind.name for kind in KINDS if kind.name in status)
    stage = next((name for name in begun if status[name].state != "done"), after)
    folder.set_status(stage, "failed", status[stage].step if stage in status else 0, reason)


def forget_failure(folder: RunFolder) -> None:
    """Remove what an earlier, failed job left in a run folder."""
    (folder.path / "error.txt").unlink(missing_ok=True)
    folder.forget_status("evaluation")


def forget(folder: Path, number: int) -> None:
    """Remove the record of a job that another one stands in for."""
    for record in (folder / "jobs").glob("*.json"):
        job = read_job(record)
        if job.state != UNREADABLE and job.number == number:
            record.with_suffix(".error.txt").unlink(missing_ok=True)
            record.unlink()
