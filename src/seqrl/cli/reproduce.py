"""`seqrl reproduce`: figures and tables of the Trajectory Transformer's paper, made again."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqrl.cli.telling import tell_errors
from seqrl.console import say
from seqrl.errors import ConfigError, did_you_mean
from seqrl.paths import find_path

if TYPE_CHECKING:
    from pathlib import Path

    from seqrl.reproduction import Options, Progress, Reproduction, Run

NAMES = ("fig2", "fig3", "fig4", "table1", "fig6", "table2", "ablations")
_COUNTS = {
    "references": (10, "stretches of held-out episodes that fig2 and fig3 foretell"),
    "rollouts": (100, "futures that fig3 imagines of each"),
    "horizon": (100, "steps ahead in fig2 and fig3"),
    "ensemble_steps": (4000, "gradient steps of the ensemble of fig2 and fig3"),
    "models": (3, "training seeds of fig4 and fig6"),
}


@tell_errors("the same command goes on")
def run(arguments: list[str]) -> int:
    """Run the command; returns 1 if a run of the figure failed."""
    return _reproduce(_parser().parse_intermixed_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrl reproduce",
        description="Train what a figure or table of the Trajectory Transformer's paper needs, measure it, and write "
        "its data, picture and page into a folder. What is trained already is not trained again.",
        epilog="Settings of the runs are added as in seqrl train, the data first of all: data.path=FILE, "
        "data.id=hopper-medium-v2. Ablations take checkpoint=RUN.",
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("words", nargs="*", metavar="SETTING", help="key=value, for all runs of the figure")
    parser.add_argument("--scale", choices=("cpu", "published"), default="cpu", help="cpu: an hour at most (default)")
    parser.add_argument("--output", type=find_path, metavar="FOLDER", help="for the results (reproductions/NAME)")
    parser.add_argument("--list", action="store_true", help="print the runs as commands, and do nothing")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is sampled after the training (0)")
    parser.add_argument(
        "--no-masked", action="store_true", help="fig3 without its half-masked observations: two models"
    )
    for name, (default, what) in _COUNTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N",
                            help=f"{what} ({default})")  # fmt: skip
    return parser


def _reproduce(given: argparse.Namespace) -> int:
    if given.name not in NAMES:
        raise ConfigError(f"there is no {given.name!r} here.{did_you_mean(given.name, NAMES)} Give {', '.join(NAMES)}")
    for name in _COUNTS:
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(given, name)} is too small; give 1 or more")
    for word in given.words:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word!r} is no setting; write key=value, as in data.path=FILE")
    from seqrl.reproduction import Options, Progress
    from seqrl.reproduction.catalogue import ALL

    counts = {name: getattr(given, name) for name in _COUNTS}
    folder = given.output or find_path("reproductions") / given.name
    options = Options(given.scale, folder, tuple(given.words), seed=given.seed, masked=not given.no_masked, **counts)
    reproduction = ALL[given.name]()
    if given.list:
        for command in list_commands(reproduction, options):
            say(command)
        return 0
    say(f"{reproduction.title}; {reproduction.time}" if options.scale == "cpu" else reproduction.title)
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(options)
    for each in reproduction.runs(options):
        status = _run(each, progress)
        if status:
            return status
    return _measure(reproduction, options, progress)


def list_commands(reproduction: Reproduction, options: Options) -> list[str]:
    """The runs of a figure as commands for a shell."""
    from seqrl.reproduction import Progress

    progress = Progress(options, only_list=True)
    return [f"seqrl {each.command} -m {shlex.join(_words(each, progress))}" for each in reproduction.runs(options)]


def _words(run: Run, progress: Progress) -> list[str]:
    given = progress.options.words
    if not run.takes_data:
        given = tuple(word for word in given if not word.lstrip("+").startswith(("data=", "data.")))
    return [*run.words(progress), *given]


def _run(run: Run, progress: Progress) -> int:
    """Run the sweep of a run and keep its records; the exit status where it failed."""
    import importlib

    from seqrl.evaluation.jobs import list_jobs

    sweep = progress.options.folder / "jobs" / run.key
    command = importlib.import_module(f"seqrl.cli.{run.command}")
    status = int(command.run(["-m", *_words(run, progress), f"hydra.sweep.dir={sweep}"]))
    progress.jobs[run.key] = list_jobs(sweep)
    return status


def _measure(reproduction: Reproduction, options: Options, progress: Progress) -> int:
    from dataclasses import replace

    from seqrl.reproduction.pages import write_report

    began = time.process_time()
    report = reproduction.report(progress)
    commands = list_commands(reproduction, options)
    published = list_commands(reproduction, replace(options, scale="published"))
    seconds = time.process_time() - began
    _tell(
        write_report(reproduction, options, report, commands=commands, published=published, seconds=seconds),
        [f"{each.verdict}: {each.claim} ({each.measured})" for each in report.findings],
    )
    return 0


def _tell(files: Sequence[Path], findings: Sequence[str]) -> None:
    for line in findings:
        say(line)
    for file in files:
        say(f"written: {file}")
