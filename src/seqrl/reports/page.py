"""The page: everything in one file, no network, and every text of others escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.errors import ConfigError
from seqrl.evaluation.jobs import Job, list_jobs
from seqrl.files import write_text
from seqrl.reports.collecting import RunReport, collect_results, collect_run
from seqrl.reports.figures import Figure, Series, draw_series, select_series
from seqrl.runs.finding import is_run, is_sweep
from seqrl.runs.metrics import read_metrics

if TYPE_CHECKING:
    from jinja2 import Template

REPORT = "report.html"
MOST_RUNS = 16  # of a sweep, told one by one
MOST_BYTES, MOST_BYTES_EACH = 48_000_000, 12_000_000  # of pictures and films
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Medium:
    """A picture or film as a data address, or why it is not on the page."""

    caption: str
    is_film: bool
    address: str
    left_out: str = ""


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run or of a sweep, in its folder or elsewhere, whole or not at all.

    Raises:
        ConfigError: the folder is neither, or the file cannot be written.
    """
    target = output or folder / REPORT
    if is_sweep(folder):
        text = render(folder.name, *_collect_sweep(folder))
    elif folder.is_dir() and (is_run(folder) or (folder / "evaluations").is_dir()):
        text = render(folder.name, [(collect_run(folder), folder)])
    else:
        raise ConfigError(f"there is no run or sweep in {str(folder)!r}; give the folder of one")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    except OSError as error:
        raise ConfigError(f"{str(target)!r} cannot be written ({error.strerror}); give --output FILE") from error
    return target


def render(
    name: str,
    runs: Sequence[tuple[RunReport, Path]],
    jobs: Sequence[Job] = (),
    together: RunReport | None = None,
    curve: Figure | None = None,
) -> str:
    """The text of a page.

    Args:
        runs: what is told of each, and its folder.
        jobs: of a sweep.
        together: the results of all runs of a sweep.
        curve: of all runs of a sweep.
    """
    left = [MOST_BYTES]
    told = [(report, list(_embedded(report, left))) for report, _ in runs]
    return _template().render(
        name=name,
        version=version("seqrl"),
        runs=told,
        job_rows=[[" ".join(job.overrides), job.state, Path(job.folder or "").name, job.error or ""] for job in jobs],
        together=together,
        curve=curve,
        style=_read("style.css"),
        script=_read("steps.js"),
        as_json=_as_json,
    )


def _collect_sweep(folder: Path) -> tuple[list[tuple[RunReport, Path]], list[Job], RunReport, Figure | None]:
    jobs = list_jobs(folder)
    folders = dict.fromkeys(Path(job.folder) for job in jobs if job.folder and is_run(Path(job.folder)))
    together = RunReport(folder.name)
    collect_results(together, [folder])
    curves: list[Series] = []
    for run in list(folders)[:MOST_RUNS]:
        found = select_series(read_metrics(run / "metrics.csv"), "val/loss", run.name)
        curves += [found] if found is not None else []
    runs = [(collect_run(run), run) for run in list(folders)[:MOST_RUNS]]
    if len(folders) > MOST_RUNS:
        together.faults.append(f"{len(folders) - MOST_RUNS} more runs are not told one by one; seqrl report RUN does")
    return runs, jobs, together, draw_series("held-out loss (val/loss) of the runs", curves)


def _embedded(report: RunReport, left: list[int]) -> Iterator[Medium]:
    """Pictures and films, as far as there is room; links are not followed, since they may lead anywhere."""
    for caption, path in report.media:
        if path.is_symlink() or not path.is_file():
            continue
        size = path.stat().st_size
        is_film = path.suffix == ".mp4"
        if size > min(left[0], MOST_BYTES_EACH):
            yield Medium(caption, is_film, "", f"{path.name} has {size / 1e6:.1f} MB, and is left out")
            continue
        left[0] -= size
        content = base64.b64encode(path.read_bytes()).decode()
        yield Medium(caption, is_film, f"data:{_TYPES[path.suffix]};base64,{content}")


def _as_json(value: Any) -> Any:
    """JSON for a script element: no `<` ends it, and no separator of lines."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _read(name: str) -> Any:
    """A file of ours, as it is."""
    from markupsafe import Markup

    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")
