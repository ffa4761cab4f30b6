"""Records of a sweep's jobs: one small file for each job in the sweep's folder, the only reader and writer of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from seqrl.errors import DataError, explain_unread, is_damage
from seqrl.evaluation.rows import ResultsRow
from seqrl.files import fingerprint, read_json, reason_of, write_text

UNREADABLE = "unreadable"


@dataclass
class Job:
    """What one job of a sweep is and came to; the task fills in what it knows as soon as it knows it.

    Attributes:
        overrides: of this job, as Hydra hands them out.
        state: `waiting`, `running`, `done`, `pruned`, `failed`, `interrupted`, or `unreadable` where its record is.
        folder: run folder, or None before there is one.
        metrics: last values of what the training logged, and `eval/<row>/<key>` of the evaluations.
        rows: the results rows of the evaluations.
        objective: name and value of what a sweeper optimises; the value is None where nothing of the name is known.
        error: the sentence that ended a failed job.
        error_files: where its traceback lies.
        number: its place in the sweep.
        key: hash of what it computes, by which a later sweep tells that it is finished; empty where nobody asked.
        skipped: why the present sweep did not start it, or None.
        results: the folders of the evaluations.
    """

    overrides: list[str] = field(default_factory=list)
    state: str = "running"
    folder: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    rows: list[ResultsRow] = field(default_factory=list)
    objective: tuple[str, float | None] = ("", None)
    error: str | None = None
    error_files: list[str] = field(default_factory=list)
    number: int = 0
    key: str = ""
    skipped: str | None = None
    results: list[str] = field(default_factory=list)

    def add_rows(self, rows: Sequence[ResultsRow]) -> None:
        """Take over results rows; their numbers are metrics too."""
        for row in rows:
            self.rows.append(row)
            self.metrics |= {f"eval/{row.strategy}/{key}": number for key, number in row.numbers().items()}


def locate_record(sweep: Path, overrides: Sequence[str]) -> Path:
    """The file that a job of a sweep leaves, told by its overrides: launchers number jobs as they please."""
    return sweep / "jobs" / f"{fingerprint(list(overrides))[:16]}.json"


def read_job(record: Path) -> Job:
    """A job as any version of seqrl wrote it; what this one does not know of it is left out.

    A record that is damaged or cannot be read stops nobody: it is that of a job of the state `unreadable`, whose error
    says what to do.
    """
    try:
        return _parse(read_json(record))
    except (OSError, ValueError, DataError) as error:
        advice = "delete it, and the same sweep runs the job again, which keeps what it trained"
        text = f"{str(record)!r} is no readable record of a job ({reason_of(error)}); {advice}"
        if not is_damage(error):
            text = explain_unread(record, error)
        return Job(state=UNREADABLE, error=text)


def write_job(record: Path, job: Job) -> None:
    """Write the record of a job."""
    entry = {**asdict(job), "rows": [row.to_json() for row in job.rows]}
    write_text(record, json.dumps(entry, indent=2) + "\n")


def list_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, in order; those whose records are damaged at the end."""
    found = [read_job(record) for record in sorted((folder / "jobs").glob("*.json"))]
    return sorted(found, key=lambda job: (job.state == UNREADABLE, job.number))


def _parse(entry: object) -> Job:
    """Raises ValueError or DataError where an entry is of another type than those of `Job`."""
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(entry, dict):
        raise ValueError(f"it holds a {type(entry).__name__}, not an object")
    if "state" not in entry:
        raise ValueError("it names no state")
    kept = {each.name: entry[each.name] for each in fields(Job) if each.name in entry}
    rows = kept.pop("rows", [])
    if not isinstance(rows, list):
        raise ValueError("rows: it is no list")
    try:
        job: Job = TypeAdapter(Job).validate_python(kept)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    job.rows = [ResultsRow.from_json(row) for row in rows]
    return job
