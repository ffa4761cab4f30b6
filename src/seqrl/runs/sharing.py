"""Stages that another run has trained already: taken over instead of trained again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from seqrl.config import RunConfig
from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.files import copy_file, write_text
from seqrl.runs.folder import RunFolder, read_status
from seqrl.runs.identity import RunIdentity, StageIdentity, identify
from seqrl.runs.metrics import read_metrics, write_metrics
from seqrl.runs.naming import IDENTITY
from seqrl.runs.stages import KINDS, StageKind


def begin(folder: RunFolder, identity: RunIdentity) -> bool:
    """Note what a run computes, and say where it does so only because data or plugins were changed.

    Args:
        folder: held by this process.

    Returns:
        Whether what the run has trained so far certainly saw the data that are there now. If not, its checkpoints are
        to be compared with the data, and what is found is to be noted by `note_files`.
    """
    certain = is_certain(folder, identity)
    path = folder.path / IDENTITY
    if RunIdentity.read(path) != identity:
        write_text(path, identity.to_json())
    if not folder.status():
        for neighbour, other in _neighbours(folder):
            if what := identity.difference(other):
                say(f"{what} is not what {neighbour} was trained with: this is a run of its own")
                break
    return certain


def is_certain(folder: RunFolder, identity: RunIdentity) -> bool:
    """See `begin`; nothing is written."""
    known = RunIdentity.read(folder.path / IDENTITY)
    return not folder.status() or (known == identity and not identity.changed_files(known))


def note_files(folder: RunFolder, identity: RunIdentity) -> None:
    """Note the content of the files of a run, which its data were read from or compared with."""
    path = folder.path / IDENTITY
    known = RunIdentity.read(path)
    if known is None or known.files != identity.files:
        write_text(path, identity.to_json())


def share_stages(folder: RunFolder, identity: RunIdentity, saw_the_same: Callable[[Path, StageKind], bool]) -> None:
    """Take over from the neighbours of a run what they have trained already.

    Two runs that differ in the critic alone share the model this way, and two of other names everything.

    Args:
        folder: held by this process.
        saw_the_same: whether the checkpoint of a stage was trained on the data of this run.
    """
    missing = [kind for kind in KINDS if kind.name in identity.stages and kind.name not in folder.status()]
    neighbours = _neighbours(folder) if missing else []
    for kind in missing:
        if found := _find_trained(kind, identity.stages[kind.name], neighbours, saw_the_same):
            _take_over(kind, folder, *found)


def check_content(folder: RunFolder, run: RunConfig) -> None:
    """Refuse to go on with a run whose data or plugins were changed since it began.

    Raises:
        ConfigError: says which.
    """
    begun = RunIdentity.read(folder.path / IDENTITY)
    if begun is None:
        return
    identity = identify(run)
    files = identity.changed_files(begun)
    if begun != identity or files:
        what = begun.difference(identity) or (
            f"the content of {' and '.join(map(repr, files))}" if files else "a setting"
        )
        raise ConfigError(
            f"{what} has changed since the run {str(folder.path)!r} began; `seqrl train` with the same words says what "
            "can be done"
        )


def _neighbours(folder: RunFolder) -> list[tuple[Path, RunIdentity]]:
    """The other runs beside a run, with what they compute."""
    found = [(path.parent, RunIdentity.read(path)) for path in sorted(folder.path.parent.glob(f"*/{IDENTITY}"))]
    return [(path, known) for path, known in found if known is not None and path != folder.path]


def _find_trained(
    kind: StageKind,
    identity: StageIdentity,
    neighbours: Sequence[tuple[Path, RunIdentity]],
    saw_the_same: Callable[[Path, StageKind], bool],
) -> tuple[Path, int] | None:
    """The run that has finished such a stage on these data, and its last step."""
    for path, known in neighbours:
        if known.stages.get(kind.name) != identity:
            continue
        try:
            done = read_status(path).get(kind.name)
        except ConfigError:
            continue  # damaged, which is its own run's business
        if done is not None and done.state == "done" and saw_the_same(path / kind.name / "last.ckpt", kind):
            return path, done.step
    return None


def _take_over(kind: StageKind, folder: RunFolder, trained: Path, step: int) -> None:
    """Have what another run has of a finished stage: checkpoints, metrics, the report of its tokenizer."""
    _link_files(trained / kind.name, folder.path / kind.name)
    _copy_metrics(kind, trained / "metrics.csv", folder.path / "metrics.csv")
    if (trained / "tokenizer.csv").exists():
        copy_file(trained / "tokenizer.csv", folder.path / "tokenizer.csv")
    folder.set_status(kind.name, "done", step)
    say(f"the {kind.name} is trained already: taken over from {trained}")


def _link_files(source: Path, target: Path) -> None:
    """The checkpoints of a stage under a second name, which stays when the first one goes."""
    target.mkdir(exist_ok=True)
    for file in source.glob("*.ckpt"):
        place = target / file.name
        place.unlink(missing_ok=True)
        try:
            os.link(file, place)
        except OSError:  # a file system without links
            copy_file(file, place)


def _copy_metrics(kind: StageKind, source: Path, target: Path) -> None:
    """Append what a stage logged."""
    if not source.exists():
        return
    own = [metric for metric in read_metrics(source) if kind.owns(metric.name)]
    write_metrics(target, [*read_metrics(target), *own])
