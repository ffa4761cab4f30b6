"""The table of a sweep: in the terminal, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrl.cli.sweep import ROW_KEYS, Job, records
from seqrl.console import say
from seqrl.runs import write_atomically

_SHOWN = {"running": "killed"}  # nothing runs any more when the table is made


def finish(folder: Path) -> int:
    """Write and print the table of a sweep that ended.

    Returns:
        Exit status: 1 if a job failed, and then they are listed; else 0.
    """
    jobs = records(folder)
    if not jobs:  # the sweep was refused; Hydra left its configuration there
        (folder / "multirun.yaml").unlink(missing_ok=True)
        return 0
    header, body = table(jobs)
    varying = header[: header.index("status")]
    _print(header, body)
    for path in _write(folder, header, body):
        say(f"written: {path}")
    failed = [(job, line) for job, line in zip(jobs, body, strict=True) if job.state != "done"]
    if not failed:
        return 0
    say(f"{len(failed)} of {len(jobs)} jobs did not finish; the same command runs what is missing:")
    for job, line in failed:
        chosen = " ".join(f"{key}={value}" for key, value in zip(varying, line, strict=False)) or "the only job"
        say(f"  {chosen}: {(job.error or _SHOWN.get(job.state, job.state)).splitlines()[0]}{_where(job)}")
    return 1


def table(jobs: Sequence[Job]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells: overrides that vary, status, metrics, run folder; a column nobody fills is left out."""
    overrides = [dict(map(_split, job.overrides)) for job in jobs]
    keys = dict.fromkeys(key for each in overrides for key in each)
    varying = [key for key in keys if len({each.get(key) for each in overrides}) > 1]
    objective = jobs[0].objective[0]
    names = dict.fromkeys(["val/loss", *([objective] if objective else [])])
    names |= dict.fromkeys(name for job in jobs for name in job.metrics if _is_of_a_row(name))
    shown = [name for name in names if any(job.metrics.get(name) is not None for job in jobs)]
    body = [
        [
            *(each.get(key, "") for key in varying),
            _SHOWN.get(job.state, job.state),
            *(_number(job.metrics.get(name)) for name in shown),
            job.folder or "",
        ]
        for job, each in zip(jobs, overrides, strict=True)
    ]
    return [*varying, "status", *shown, "run"], body


def _where(job: Job) -> str:
    """Where the traceback is: the run's folder, unless a later job of the same run went well and tidied it up."""
    found = [path for path in job.error_files if Path(path).exists()]
    return f" ({found[0]})" if found else ""


def _split(override: str) -> tuple[str, str]:
    """Key and value of an override; decoding settings as the user wrote them."""
    key, _, value = override.partition("=")
    return re.sub(r"^evaluation\.(decoding\.)?(?=planner|condition|score|strategy$)", "", key.lstrip("+~")), value


def _is_of_a_row(name: str) -> bool:
    return name.startswith("eval/") and name.rpartition("/")[2] in ROW_KEYS


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _write(folder: Path, header: Sequence[str], body: Sequence[Sequence[str]]) -> list[Path]:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *body])
    write_atomically(folder / "summary.csv", text.getvalue())
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in line] for line in body)]
    write_atomically(folder / "summary.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return [folder / "summary.csv", folder / "summary.md"]


def _print(header: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    console = Console(width=None if Console().is_terminal else 160)
    shown = Table(title=f"{len(body)} jobs", title_justify="left")
    for name in header:
        shown.add_column(escape(re.sub(r"^eval/(.*)/([a-z]+)_\w+$", r"\1 \2", name)), overflow="fold")
    for line in body:
        shown.add_row(*map(escape, [*line[:-1], Path(line[-1]).name]))
    console.print(shown)
