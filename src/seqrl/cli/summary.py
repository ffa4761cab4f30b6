"""The table of a sweep: in the terminal, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from seqrl.cli.optuna_report import report
from seqrl.cli.pictures import draw_sweep
from seqrl.console import one_line, print_table, say
from seqrl.evaluation.jobs import Job, list_jobs
from seqrl.evaluation.rows import ENDS, KEY_NUMBERS
from seqrl.files import write_text
from seqrl.runs.words import show_words

PICTURE = "tradeoff.png"
_SHOWN = {"running": "killed", "waiting": "not started"}  # nothing runs any more when the table is made
_ENDED = ("done", "pruned")


def finish(folder: Path) -> int:
    """Write and print the table of a sweep that ended.

    Returns:
        Exit status: 1 if a job failed, and then they are listed; else 0.
    """
    jobs = list_jobs(folder)
    if not jobs:  # the sweep was refused; Hydra left its configuration there
        (folder / "multirun.yaml").unlink(missing_ok=True)
        return 0
    header, body = table(jobs)
    varying = header[: header.index("status")]
    _print(*_folded(header, body))
    for path in _write(folder, header, body):
        say(f"written: {path}")
    _average(folder, jobs)
    (folder / PICTURE).unlink(missing_ok=True)  # an earlier sweep may have had more to show
    picture = draw_sweep(folder / PICTURE, jobs, [dict(zip(varying, line, strict=False)) for line in body])
    if picture is not None:
        say(f"picture: {picture}")
    report(folder, jobs)
    failed = [(job, line) for job, line in zip(jobs, body, strict=True) if job.state not in _ENDED]
    if not failed:
        return 0
    say(f"{len(failed)} of {len(jobs)} jobs did not finish; the same command runs what is missing:")
    for job, line in failed:
        chosen = " ".join(f"{key}={value}" for key, value in zip(varying, line, strict=False)) or "the only job"
        say(f"  {one_line(chosen)}: {one_line((job.error or _state(job)).splitlines()[0])}{_where(job)}")
    return 1


def _state(job: Job) -> str:
    return job.skipped if job.skipped and job.state == "running" else _SHOWN.get(job.state, job.state)


def table(jobs: Sequence[Job]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells: overrides that vary, status, metrics, run folder; a column nobody fills is left out.

    Where jobs were not started because they were finished before or run elsewhere, the column `skipped` says so.

    Where no job has more than one results row, there is room for its intervals and its time.
    """
    overrides = [_settings_of(job) for job in jobs]
    skipped = any(job.skipped for job in jobs)
    keys = dict.fromkeys(key for each in overrides for key in each)
    varying = [key for key in keys if len({each.get(key) for each in overrides}) > 1]
    objective = next((job.objective[0] for job in jobs if job.objective[0]), "")
    names = dict.fromkeys(["val/loss", *([objective] if objective else [])])
    names |= dict.fromkeys(_names_of_rows(jobs))
    shown = [name for name in names if any(job.metrics.get(name) is not None for job in jobs)]
    body = [
        [
            *(each.get(key, "") for key in varying),
            _state(job),
            *([job.skipped or ""] if skipped else []),
            *(_number(job.metrics.get(name)) for name in shown),
            job.folder or "",
        ]
        for job, each in zip(jobs, overrides, strict=True)
    ]
    return [*varying, "status", *(["skipped"] if skipped else []), *shown, "run"], body


def _where(job: Job) -> str:
    """Where the traceback is: the run's folder, unless a later job of the same run went well and tidied it up."""
    found = [path for path in job.error_files if Path(path).exists()]
    return f" ({found[0]})" if found else ""


def _settings_of(job: Job) -> dict[str, str]:
    """The overrides of a job by key, as one types them, less the one by which it finds its study."""
    words = (word.partition("=") for word in show_words(job.overrides))
    return {key.lstrip("+~"): value for key, _, value in words if key.lstrip("+") != "trial"}


def _names_of_rows(jobs: Sequence[Job]) -> list[str]:
    rows = [row for job in jobs for row in job.rows]
    keys = list(KEY_NUMBERS)
    if all(len(job.rows) <= 1 for job in jobs):
        keys = [name for key in KEY_NUMBERS for name in (key, *(f"{_quantity(key)}_ci95_{end}" for end in ENDS))]
        keys.append("ms_per_action")
        if any(row.time_budget_ms is not None for row in rows):
            keys.append("horizon_mean")
    keys += [f"{name}_mean" for name in dict.fromkeys(name for row in rows for name in row.outcomes or {})]
    return [f"eval/{label}/{key}" for label in dict.fromkeys(row.strategy for row in rows) for key in keys]


def _quantity(key: str) -> str:
    """What a number is of: `return` of `return_mean`."""
    return "ms/action" if key == "ms_per_action" else re.sub("_(mean|rate)$", "", key)


def _folded(header: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The table for readers: the ends of an interval stand beside its mean."""
    header, lines = list(header), [list(line) for line in body]
    for low in reversed([place for place, name in enumerate(header) if name.endswith(f"_ci95_{ENDS[0]}")]):
        for line in lines:
            line[low - 1] += f" [{line[low]}, {line[low + 1]}]" if line[low] else ""
        for cells in (header, *lines):
            del cells[low : low + len(ENDS)]
    return header, lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _write(folder: Path, header: Sequence[str], body: Sequence[Sequence[str]], *, name: str = "summary") -> list[Path]:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *body])
    write_text(folder / f"{name}.csv", text.getvalue())
    header, body = _folded(header, body)
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in line] for line in body)]
    write_text(folder / f"{name}.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return [folder / f"{name}.csv", folder / f"{name}.md"]


def _average(folder: Path, jobs: Sequence[Job]) -> None:
    """Write and print the table of means over training seeds, where jobs differ in those."""
    for name in ("summary_seeds.csv", "summary_seeds.md"):
        (folder / name).unlink(missing_ok=True)  # an earlier sweep may have had more seeds
    done = [job for job in jobs if job.state == "done"]
    overrides = [_settings_of(job) for job in done]
    if not any("seed" in each or "checkpoint" in each for each in overrides):
        return
    from seqrl.cli.averages import average_jobs

    found = average_jobs(done, overrides)
    if found is not None:
        header, body = found
        paths = _write(folder, header, body, name="summary_seeds")
        header, body = _folded(header, body)
        short = [re.sub("^eval/(.*)/(.*)$", lambda found: f"{found[1]} {_quantity(found[2])}", name) for name in header]
        print_table(short, body, title=f"means over training seeds, {len(body)} rows", words=len(header))
        for path in paths:
            say(f"written: {path}")


def _print(header: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    short = [re.sub("^eval/(.*)/(.*)$", lambda found: f"{found[1]} {_quantity(found[2])}", name) for name in header]
    lines = [[*line[:-1], Path(line[-1]).name] for line in body]
    print_table(short, lines, title=f"{len(body)} jobs", words=len(header))
