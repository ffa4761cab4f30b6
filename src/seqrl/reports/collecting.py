"""What a report tells of a run, read from its folder alone."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from seqrl.errors import ConfigError, SeqrlError, sentence, show_value
from seqrl.evaluation.archive import Evaluation
from seqrl.evaluation.results import ESTIMATES, Result, average_seeds, collect_entries
from seqrl.evaluation.results_table import Table, lay_out, tell_results
from seqrl.files import read_json, read_text
from seqrl.reports.figures import Bar, Figure, draw_intervals, draw_series, select_series
from seqrl.reports.plans import collect_plans
from seqrl.runs.folder import StageStatus, read_config, read_status
from seqrl.runs.metrics import Metric, read_metrics
from seqrl.runs.naming import IDENTITY
from seqrl.runs.provenance import PROVENANCE, read_words
from seqrl.runs.stages import KINDS
from seqrl.runs.yaml_files import read_yaml

T = TypeVar("T")
_PRIVATE = ("host", "platform")  # of a machine; a page may be handed on
_BEST = ("success", "clear", "score", "return")  # what intervals are drawn of, the first that was measured
_NAMES = {"score": "normalised score", "success": "success rate in %", "clear": "clear success rate in %"}


@dataclass
class RunReport:
    """What is told of a run; empty where the folder does not say.

    Attributes:
        name: of the folder.
        words: what was typed.
        stages: how far they came.
        facts: (what, value) of the training.
        data: (what, value) of the data.
        resolution: header and rows of `tokenizer.csv`.
        config, provenance: as YAML.
        identity: digests of each stage.
        curves: losses, then everything else that was logged.
        results: its table, or None.
        bars: intervals, by the name of the number that they are of.
        media: pictures and films, with their captions.
        plans: see `seqrl.reports.plans`.
        faults: what could not be read, a sentence each.
    """

    name: str
    words: str | None = None
    stages: dict[str, StageStatus] = field(default_factory=dict)
    facts: list[tuple[str, str]] = field(default_factory=list)
    data: list[tuple[str, str]] = field(default_factory=list)
    resolution: list[list[str]] = field(default_factory=list)
    config: str = ""
    provenance: str = ""
    identity: dict[str, Any] = field(default_factory=dict)
    curves: list[Figure] = field(default_factory=list)
    details: list[Figure] = field(default_factory=list)
    results: Table | None = None
    title: str = ""
    bars: tuple[str, list[Bar]] = ("", [])
    media: list[tuple[str, Path]] = field(default_factory=list)
    plans: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def stage_rows(self) -> list[list[str]]:
        """Name, state, step and reason of each stage."""
        return [[name, each.state, str(each.step), each.reason or ""] for name, each in self.stages.items()]


def collect_run(folder: Path) -> RunReport:
    """What the folder of a run holds; what is damaged in it is told among the faults."""
    found = RunReport(folder.name, read_words(folder))

    def attempt(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (SeqrlError, OSError, ValueError) as error:
            told = sentence(error) if isinstance(error, SeqrlError | OSError) else str(error)
            found.faults.append(told.replace(f"{folder}/", ""))  # which is a folder of this machine
            return otherwise

    config: dict[str, Any] = attempt(lambda: _config(folder), {})
    found.stages = attempt(lambda: read_status(folder), {})
    found.config = yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else ""
    found.facts = list(_facts(config))
    found.provenance = attempt(lambda: _provenance(folder), "")
    found.identity = attempt(lambda: _identity(folder), {})
    found.data = attempt(lambda: list(_data(folder, config)), [])
    found.resolution = attempt(lambda: _resolution(folder), [])
    logged: list[Metric] = attempt(lambda: read_metrics(folder / "metrics.csv"), [])
    found.curves, found.details = _losses(logged), _further(logged)
    evaluations: list[Evaluation] = attempt(lambda: collect_results(found, [folder]), [])
    found.media = _media(folder, evaluations)
    layout = config.get("layout")
    for each in evaluations:
        told = attempt(lambda each=each: _plans(each, layout), None)  # type: ignore[misc]
        found.plans += [told] if told else []
    return found


def _plans(evaluation: Evaluation, layout: Any) -> dict[str, Any] | None:
    row = evaluation.row
    return collect_plans(evaluation.folder, row.strategy, row.env_id, layout if isinstance(layout, Mapping) else {})


def _config(folder: Path) -> dict[str, Any]:
    return read_config(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}


def _facts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The parts of a run by name, and how long it was trained."""
    for slot in ("data", "tokenizer", "backbone", "objective", "critic", "optimizer", "scheduler"):
        part = config.get(slot)
        if isinstance(part, Mapping) and "name" in part:
            options = ", ".join(
                f"{key} {_show(value)}" for key, value in part.items() if key != "name" and value is not None
            )
            yield slot, f"{part['name']} ({options})" if options else str(part["name"])
    for section, keys in (("window", ("length",)), ("training", ("max_steps", "batch_size"))):
        part = config.get(section)
        for key in keys:
            if isinstance(part, Mapping) and key in part:
                yield f"{section}.{key}", _show(part[key])
    if "seed" in config:
        yield "seed", _show(config["seed"])


def _show(value: Any) -> str:
    """A value as text, numbers with five digits."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_show, value))}]"
    return value if isinstance(value, str) else show_value(value)


def _provenance(folder: Path) -> str:
    if not (folder / PROVENANCE).is_file():
        return ""
    entries = read_yaml(folder / PROVENANCE)
    if not isinstance(entries, list):
        raise ConfigError(f"{str(folder / PROVENANCE)!r} holds no list; what made the run is not told")
    kept = [
        {k: v for k, v in each.items() if k not in _PRIVATE} if isinstance(each, dict) else each for each in entries
    ]
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _identity(folder: Path) -> dict[str, Any]:
    if not (folder / IDENTITY).is_file():
        return {}
    found = read_json(folder / IDENTITY)
    return (
        {str(stage): each for stage, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}
    )


def _data(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the run's results say of its data, else its configuration."""
    summary: Any = config.get("dataset")
    if (folder / "results.json").is_file():
        found = read_json(folder / "results.json")
        summary = found.get("dataset") if isinstance(found, dict) else summary
    for key, value in (summary if isinstance(summary, Mapping) else {}).items():
        if isinstance(value, Mapping):
            yield from ((f"{key.replace('_', ' ')}, {name}", _show(each)) for name, each in value.items())
        elif value is not None:
            yield str(key).replace("_", " "), _show(value)


def _resolution(folder: Path) -> list[list[str]]:
    path = folder / "tokenizer.csv"
    return list(csv.reader(read_text(path).splitlines()))[:200] if path.is_file() else []


def _losses(logged: Sequence[Metric]) -> list[Figure]:
    """A figure for each stage that logged a loss."""
    figures = []
    for kind in KINDS:
        names = {"train/loss": True, "val/loss": False}
        series = [select_series(logged, f"{kind.prefix}{name}", name, dashed=dashed) for name, dashed in names.items()]
        if (figure := draw_series(f"{kind.name}: loss", [each for each in series if each])) is not None:
            figures.append(figure)
    return figures


def _further(logged: Sequence[Metric]) -> list[Figure]:
    """A figure for each other number, in training and on held-out episodes together."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(each.name for each in logged):
        stage, _, number = name.rpartition("/")
        stage = stage.removesuffix("train").removesuffix("val")
        if number != "loss":
            groups.setdefault(f"{stage}{number}", []).append(name)
    figures = []
    for title, names in list(groups.items())[:24]:
        series = [select_series(logged, name, name, dashed="train/" in name and len(names) > 1) for name in names]
        if (figure := draw_series(title, [each for each in series if each])) is not None:
            figures.append(figure)
    return figures


def collect_results(report: RunReport, folders: Sequence[Path]) -> list[Evaluation]:
    """Fill in the table and the intervals; returns the evaluations."""
    try:
        entries = collect_entries(folders)
    except ConfigError:  # there is none
        return []
    results = average_seeds(entries)
    report.results, report.title = lay_out(results), tell_results(results, len(entries))
    report.bars = bars_of(results, report.results)
    return [entry.evaluation for entry in entries]


def bars_of(results: Sequence[Result], table: Table) -> tuple[str, list[Bar]]:
    """The intervals of the number that says most, and its name."""
    for name in _BEST:
        own = [(each, line) for each, line in zip(results, table.body, strict=True) if name in each.estimates]
        if own and name in ESTIMATES:
            rows = []
            for result, line in own:
                found = result.estimates[name]
                told = ", ".join(filter(None, [line[0], *line[2 : table.words - 1]]))
                text = f"{found.mean:.1f}" + (
                    "" if found.interval is None else " [{:.1f}, {:.1f}]".format(*found.interval)
                )
                rows.append((told, text, found.mean, found.interval))
            return _NAMES.get(name, name), draw_intervals(rows)
    return "", []


def _media(folder: Path, evaluations: Sequence[Evaluation]) -> list[tuple[str, Path]]:
    """Pictures of the run, then pictures and films of its rows; curves are drawn on the page."""
    found = [(path.stem, path) for path in sorted(folder.glob("*.png")) if path.name != "curves.png"]
    for each in evaluations:
        for pattern in ("*.png", "*.mp4", "*.gif"):
            found += [(f"{each.row.strategy}: {path.stem}", path) for path in sorted(each.folder.glob(pattern))]
    return found
