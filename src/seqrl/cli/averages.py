"""Jobs of a sweep that differ in the training seed alone, as one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seqrl.errors import SeqrlError
from seqrl.evaluation.archive import read_evaluation
from seqrl.evaluation.jobs import Job
from seqrl.evaluation.results import Entry, estimate_result
from seqrl.evaluation.rows import ENDS
from seqrl.evaluation.statistics import Estimate, bootstrap

_KEYS = {"return": "return_mean", "score": "score_mean", "success": "success_rate"}


def average_jobs(
    jobs: Sequence[Job], overrides: Sequence[Mapping[str, str]]
) -> tuple[list[str], list[list[str]]] | None:
    """Column names and cells of the means over training seeds, as `seqrl results` takes them.

    Args:
        jobs: that are done.
        overrides: of each, by key. `seed` is the training seed of a run; jobs that evaluate checkpoints are told
            apart by what their models were trained with.

    Returns:
        None where no two jobs differ in the training seed alone.
    """
    groups: dict[str, list[int]] = {}
    for place, (job, own) in enumerate(zip(jobs, overrides, strict=True)):
        groups.setdefault(_key(job, own), []).append(place)
    if all(len(places) < 2 for places in groups.values()):
        return None
    kept = [{key: value for key, value in own.items() if key not in _seed_keys(own)} for own in overrides]
    keys = dict.fromkeys(key for own in kept for key in own)
    varying = [key for key in keys if len({own.get(key) for own in kept}) > 1]
    rows = []
    for places in groups.values():
        members = [jobs[place] for place in places]
        own = overrides[places[0]]
        seeds = [
            str(job.rows[0].training_seed) if job.rows else overrides[place].get("seed", "")
            for place, job in zip(places, members, strict=True)
        ]
        rows.append(([own.get(key, "") for key in varying], seeds, _estimates(members)))
    names = list(dict.fromkeys(name for _, _, found in rows for name in found))
    header = [*varying, "seeds", *(column for name in names for column in _columns(name))]
    body = [
        [*cells, " ".join(seeds), *(text for name in names for text in _texts(found.get(name)))]
        for cells, seeds, found in rows
    ]
    return header, body


def _seed_keys(own: Mapping[str, str]) -> tuple[str, ...]:
    return ("checkpoint",) if "checkpoint" in own else ("seed",)


def _key(job: Job, own: Mapping[str, str]) -> str:
    parts = [f"{key}={value}" for key, value in sorted(own.items()) if key not in _seed_keys(own)]
    if "checkpoint" in own:
        trained = {f"{row.training}-{row.training_steps}" if row.training else own["checkpoint"] for row in job.rows}
        parts += sorted(trained or {own["checkpoint"]})
    return "\n".join(parts)


def _estimates(jobs: Sequence[Job]) -> dict[str, Estimate]:
    """The mean of each number that all jobs of a group have, with its interval."""
    found: dict[str, Estimate] = {}
    losses = _estimate_metric(jobs, "val/loss")
    if losses is not None:
        found["val/loss"] = losses
    for label in dict.fromkeys(row.strategy for job in jobs for row in job.rows):
        entries = _entries(jobs, label)
        if entries is not None:
            estimates = estimate_result(entries).estimates
            found |= {f"eval/{label}/{_KEYS[name]}": estimates[name] for name in _KEYS if name in estimates}
            for name in entries[0].row.outcomes or {}:
                if (outcome := _estimate_metric(jobs, key := f"eval/{label}/{name}_mean")) is not None:
                    found[key] = outcome
    return found


def _estimate_metric(jobs: Sequence[Job], name: str) -> Estimate | None:
    """The mean of a number over jobs, with its interval; None where a job lacks it."""
    known = [value for job in jobs if (value := job.metrics.get(name)) is not None]
    return bootstrap(np.array(known)) if len(known) == len(jobs) else None


def _entries(jobs: Sequence[Job], label: str) -> list[Entry] | None:
    """The evaluations of a row, one of each job by training seed; None where one is missing or not like the others."""
    entries: dict[int, Entry] = {}
    for job in jobs:
        for row, folder in zip(job.rows, job.results, strict=False):
            if row.strategy == label:
                try:
                    evaluation = read_evaluation(Path(folder))
                except SeqrlError:
                    return None
                entries[row.training_seed] = Entry(Path(job.folder or folder), evaluation, {})
    found = [entries[seed] for seed in sorted(entries)]
    shapes = {entry.evaluation.results["returns"].shape for entry in found}
    return found if len(found) == len(jobs) and len(shapes) == 1 else None


def _columns(name: str) -> list[str]:
    quantity = name.removesuffix("_mean").removesuffix("_rate")
    return [name, *(f"{quantity}_ci95_{end}" for end in ENDS)]


def _texts(found: Estimate | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    return [
        f"{found.mean:.5g}",
        *(["", ""] if found.interval is None else [f"{bound:.5g}" for bound in found.interval]),
    ]
