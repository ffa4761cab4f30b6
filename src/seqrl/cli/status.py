"""`seqrl status`: what runs, what finished, what failed and why. It reads folders and changes nothing."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seqrl.cli.telling import tell_errors
from seqrl.console import one_line, print_table, say
from seqrl.errors import ConfigError, SeqrlError, sentence
from seqrl.evaluation.jobs import UNREADABLE, list_jobs
from seqrl.files import read_json
from seqrl.paths import find_path
from seqrl.runs.finding import find_runs, is_run
from seqrl.runs.folder import is_held, read_config, read_status
from seqrl.runs.metrics import read_metrics
from seqrl.runs.provenance import read_words
from seqrl.runs.stages import KINDS, MODEL, StageKind
from seqrl.runs.words import show_words

_LONGEST = 48  # letters of a word in the table
KILLED = "stopped (killed?)"  # it says that it runs, and no process holds its folder


@dataclass(frozen=True)
class Status:
    """How far a run came.

    Attributes:
        run: its folder; None for a job of a sweep that has none yet.
        job: overrides of the job that it belongs to, or None.
        state: `waiting`, `not started`, `running`, `evaluating`, `done`, `failed`, `interrupted`, `pruned`, `KILLED`,
            `UNREADABLE`.
        stage: the one that it is in, or ended in.
        step, max_steps: of that stage.
        loss, best_loss: last and lowest held-out loss of that stage.
        updated: seconds since something was last written.
        reason: why it failed or ended early.
        typed: the words of the command that started it last, as they were given.
        returns: mean return of each results row, by label.
    """

    run: str | None
    job: str | None
    state: str
    stage: str | None = None
    step: int | None = None
    max_steps: int | None = None
    loss: float | None = None
    best_loss: float | None = None
    updated: float | None = None
    reason: str | None = None
    typed: str | None = None
    returns: dict[str, float] = field(default_factory=dict)


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("seqrl status", description="What runs, what finished, what failed and why.")
    parser.add_argument("path", type=find_path, metavar="RUN_OR_SWEEP_OR_RUNS_DIR", nargs="?", default=Path("runs"))
    parser.add_argument(
        "--typed", action="store_true", help="show all that was typed, instead of what tells the runs apart"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    options = parser.parse_args(arguments)
    found = statuses(options.path)
    if options.json:
        print(json.dumps([_plain(asdict(each)) for each in found], indent=2))
    else:
        _print(found, whole=options.typed)


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON knows neither NaN nor infinity, which losses may be: null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}


def statuses(path: Path) -> list[Status]:
    """Of a run; of the jobs of a sweep; of all runs in a folder, those of nested names (`team/first`) included.

    Raises:
        ConfigError: it is none of these.
    """
    if (path / "jobs").is_dir():
        return _jobs(path)
    found = [path] if is_run(path) else list(find_runs(path)) if path.is_dir() else []
    if not found:
        raise ConfigError(f"there is no run in {str(path)!r}; give a run folder, the folder of a sweep, or a runs_dir")
    return [_look_at(each) for each in found]


def _look_at(path: Path) -> Status:
    """A run's status; of one whose files are damaged, that they are, so that the others are told all the same."""
    try:
        return of_run(path)
    except (SeqrlError, OSError) as error:
        return Status(str(path), None, UNREADABLE, reason=sentence(error).partition(": ")[2])
    except Exception as error:  # nobody checked what stands in its files
        why = f"{type(error).__name__}: {error}"
        return Status(str(path), None, UNREADABLE, reason=f"the files of {str(path)!r} are of no known form ({why})")


def _jobs(sweep: Path) -> list[Status]:
    found = []
    for job in list_jobs(sweep):
        words = shlex.join(show_words(job.overrides))
        if job.folder is None or not is_run(Path(job.folder)):  # refused before it had a configuration
            found.append(Status(job.folder, words, job.state, reason=job.error))
            continue
        own = asdict(_look_at(Path(job.folder))) | {"job": words}
        if job.state in ("failed", "pruned"):  # the run may be another job's as well
            own |= {"state": job.state, "reason": job.error}
        found.append(Status(**own))
    return found


def of_run(path: Path) -> Status:
    """How far a run came, by its files and by whether a process holds its folder."""
    config = read_config(path / "config.yaml")
    file = path / "status.json"
    reached = read_status(path)
    held = is_held(path)
    # By the file as it is, which may be of another version, or half written.
    asked = [kind for kind in KINDS if kind.asked_by is not None and config.get(kind.asked_by)]
    wanted = [kind for kind in KINDS if kind.name in reached or kind in asked] or [MODEL]
    unfinished = next((kind for kind in wanted if kind.name not in reached or reached[kind.name].state != "done"), None)
    stage = None if unfinished is None else unfinished.name
    entry = reached.get(stage or "evaluation")
    state = entry.state if entry else "done" if stage is None else "running" if reached or held else "not started"
    if held:
        state = "evaluating" if stage is None else "running"
    elif state == "running":
        state = KILLED
    stage = stage or ("evaluation" if entry or held else wanted[-1].name)
    trained = unfinished or wanted[-1]
    metrics = [each for each in read_metrics(path / "metrics.csv") if trained.owns(each.name)]
    losses = [each.value for each in metrics if each.name == f"{trained.prefix}val/loss"]
    logged = max((each.step for each in metrics), default=0)
    written = [each.stat().st_mtime for each in (file, path / "metrics.csv", path / "results.json") if each.exists()]
    return Status(
        run=str(path),
        job=None,
        state=state,
        stage=stage,
        step=max(reached[trained.name].step if trained.name in reached else 0, logged if held else 0),
        max_steps=_max_steps(config, trained),
        loss=losses[-1] if losses else None,
        best_loss=min(filter(math.isfinite, losses), default=None),
        updated=round(time.time() - max(written), 1) if written else None,
        reason=entry.reason if entry and state in ("failed", "interrupted") else None,
        typed=read_words(path),
        returns=_returns(path),
    )


def _returns(run: Path) -> dict[str, float]:
    """The mean return of each finished evaluation of a run, by label; of several with one label the newest."""
    found = {}
    for file in sorted(run.glob("evaluations/*/results.json"), key=lambda each: each.stat().st_mtime):
        with suppress(OSError, ValueError, TypeError, KeyError):  # a damaged one has no number to show
            content = read_json(file)
            (row,) = content if isinstance(content, list) else [content]
            found[str(row["strategy"])] = float(row["return_mean"])
    return found


def _max_steps(config: Mapping[str, Any], kind: StageKind) -> int | None:
    """Those of a stage; None where the configuration does not say."""
    for section in (kind.section, "training"):
        settings = config.get(section) if section else None
        if isinstance(settings, Mapping) and isinstance(settings.get("max_steps"), int):
            return int(settings["max_steps"]) or None
    return None


def tell_apart(commands: Sequence[str | None]) -> list[str]:
    """Of each command the words that not all of them have, long ones cut; of a single one all words."""
    told = [None if command is None else _split(command) for command in commands]
    known = [set(words) for words in told if words is not None]
    shared = set.intersection(*known) if len(known) > 1 else set()
    return [" ".join(_cut(word) for word in words or () if word not in shared) for words in told]


def _split(command: str) -> list[str]:
    try:
        return [shlex.quote(word) for word in shlex.split(command)]
    except ValueError:  # a quote without its other one
        return command.split()


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[:_LONGEST]}..."


def _print(found: Sequence[Status], *, whole: bool) -> None:
    counts: Mapping[str, int] = {
        state: sum(each.state == state for each in found) for state in {s.state for s in found}
    }
    title = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    with_jobs = any(each.job is not None for each in found)
    with_returns = any(each.returns for each in found)
    with_words = with_jobs or any(each.typed for each in found)
    words_of = "job" if with_jobs else "typed"
    header = ["run", *([words_of] if with_words else []), "state", "stage", "step", "val/loss (best)"]
    header += [*(["returns"] if with_returns else []), "updated"]
    commands = [getattr(each, words_of) for each in found]
    told = [command or "" for command in commands] if whole else tell_apart(commands)
    body = []
    for place, each in enumerate(found):
        step = "" if each.step is None else f"{each.step} of {'?' if each.max_steps is None else each.max_steps}"
        loss = "" if each.loss is None else f"{each.loss:.4g}"
        loss += f" ({each.best_loss:.4g})" if each.best_loss is not None else ""
        name = Path(each.run).name if each.run else ""
        words = [told[place]] if with_words else []
        returns = [", ".join(f"{label} {value:.4g}" for label, value in each.returns.items())] if with_returns else []
        body.append([name, *words, each.state, each.stage or "", step, loss, *returns, _ago(each.updated)])
    print_table(header, body, title=title, words=len(header))
    for each in found:
        if each.reason:
            say(f"{one_line(each.job or each.run or '')}: {one_line(each.reason.splitlines()[0])}")


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
