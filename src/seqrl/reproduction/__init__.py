"""The figures and tables of the Trajectory Transformer's paper, made again: what to run, and what to make of it.

A figure names its runs, as words of `seqrl train` and `seqrl evaluate`; the command runs them and hands back their
records; the figure then measures, draws and writes. Nothing here trains a sequence model by itself.

Reference: Janner et al. 2021, https://arxiv.org/abs/2106.02039
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from seqrl.errors import SeqrlError
from seqrl.evaluation.jobs import Job

Scale = Literal["cpu", "published"]
AGREES, DISAGREES, OPEN, OTHER = "agrees", "does not agree", "not told apart", "of other data"


@dataclass(frozen=True)
class Options:
    """What a user chose.

    Attributes:
        scale: `cpu` for at most an hour on one core, `published` for GPUs.
        folder: where results go.
        words: settings that are added to every run of the figure, `data.path=FILE` for one.
        references, rollouts, horizon: stretches of held-out episodes, futures imagined of each, and their length.
        ensemble_steps: gradient steps of the ensemble.
        models: training seeds, for figures that need several.
        seed: of what is sampled after the training.
        masked: whether fig3 has its second half, with half of the numbers hidden.
    """

    scale: Scale
    folder: Path
    words: tuple[str, ...] = ()
    references: int = 10
    rollouts: int = 100
    horizon: int = 100
    ensemble_steps: int = 4000
    models: int = 3
    seed: int = 0
    masked: bool = True


@dataclass
class Progress:
    """What a reproduction has come to.

    Attributes:
        options: of the user.
        jobs: of the runs that are done, by the run's key.
        only_list: nothing is run or written, and what only results could tell is spelt as a placeholder.
    """

    options: Options
    jobs: dict[str, list[Job]] = field(default_factory=dict)
    only_list: bool = False

    def folders(self, key: str) -> list[Path]:
        """The run folders of a run's jobs, in order.

        Raises:
            SeqrlError: a job that did not finish.
        """
        for job in self.jobs[key]:
            if job.state != "done" or job.folder is None:
                raise SeqrlError(f"a run of this figure did not finish: {job.error or job.state}; the command goes on")
        return [Path(str(job.folder)) for job in self.jobs[key]]


@dataclass(frozen=True)
class Run:
    """A sweep of `seqrl train` or `seqrl evaluate` that a figure needs.

    Attributes:
        key: by which the figure finds its jobs.
        words: the settings; made when the runs before are done, of which they may tell.
        takes_data: whether the data that the user names are its data, too.
    """

    key: str
    command: Literal["train", "evaluate"]
    words: Callable[[Progress], Sequence[str]]
    takes_data: bool = True


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, and what was measured of it.

    Attributes:
        verdict: `agrees`, `does not agree`, `not told apart` where an interval leaves it open, or `of other data` where
            a published number was measured on data that are not ours.
    """

    claim: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Report:
    """What a figure came to.

    Attributes:
        data: plain values, the content of `NAME.json`.
        findings: claim by claim.
        lines: Markdown, what else the page says.
    """

    data: Mapping[str, Any]
    findings: Sequence[Finding]
    lines: Sequence[str]


class Reproduction(ABC):
    """A figure or table of the paper.

    Attributes:
        name: of the command.
        title: what it is.
        deviations: what is other than in the paper, at both scales.
        time: how long the CPU scale takes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    deviations: ClassVar[Sequence[str]]
    time: ClassVar[str]

    @abstractmethod
    def runs(self, options: Options) -> Sequence[Run]:
        """What is to be run, in order."""

    @abstractmethod
    def report(self, progress: Progress) -> Report:
        """Measure, and draw `NAME.png` in the folder; all runs are done."""


def judge(low: float, high: float) -> str:
    """The verdict on a claim that a difference is positive, by the ends of its interval."""
    return AGREES if low > 0 else DISAGREES if high < 0 else OPEN
