"""Results for the loggers of a run: rows, pictures and videos of its evaluations, each once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.console import say_error
from seqrl.errors import SeqrlError
from seqrl.evaluation.archive import PLAN_QUALITY, Evaluation
from seqrl.evaluation.video import VIDEO
from seqrl.files import read_json, write_text
from seqrl.loggers import LoggedRun, Logger, logger_config, open_loggers

_NOTE = "logged.json"  # which evaluations which logger has


def publish_results(
    choices: Sequence[str | Mapping[str, Any]],
    folder: Path,
    evaluations: Sequence[Evaluation],
    pictures: Sequence[Path],
) -> None:
    """Hand the evaluations that a logger does not have yet to it; where it fails, that is told and nothing else lost.

    Args:
        choices: the setting `training.loggers`.
        folder: of the run.
        pictures: of the run, for loggers that get an evaluation.
    """
    known = _read_note(folder)
    for choice in choices:
        name = logger_config(choice)["name"]
        new = [each for each in evaluations if each.folder.name not in known.get(name, [])]
        if not new:
            continue
        try:
            (logger,) = open_loggers([choice], LoggedRun(folder, resumed_step=max(e.row.training_steps for e in new)))
            try:
                _publish(logger, new, [path for path in pictures if path.exists()])
            finally:
                logger.close()
        except Exception as error:  # a server that is away, say; whatever a plugin raises
            what = error if isinstance(error, SeqrlError) else f"{type(error).__name__}: {error}"
            say_error(f"the results did not reach training.loggers={name} ({what}); the same command sends them again")
            continue
        known[name] = [*known.get(name, []), *(each.folder.name for each in new)]
        write_text(folder / _NOTE, json.dumps(known, indent=2) + "\n")


def _publish(logger: Logger, evaluations: Sequence[Evaluation], pictures: Sequence[Path]) -> None:
    for each in evaluations:
        label, step = each.row.strategy, each.row.training_steps
        numbers = {name: value for name, value in each.row.numbers().items() if value is not None}
        logger.log_row(label, {name: value for name, value in numbers.items() if math.isfinite(value)}, step)
        diagnostics, video = (each.folder / PLAN_QUALITY).with_suffix(".png"), each.folder / VIDEO
        if diagnostics.exists():
            logger.log_picture(f"eval/{label}/{diagnostics.stem}", diagnostics, step)
        if video.exists():
            logger.log_video(f"eval/{label}/{video.stem}", video, step)
    for path in pictures:
        logger.log_picture(path.stem, path, evaluations[0].row.training_steps)


def _read_note(folder: Path) -> dict[str, list[str]]:
    try:
        content = read_json(folder / _NOTE)
        return {str(name): [str(each) for each in found] for name, found in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # nothing was logged yet, or nobody can tell
