"""What a run is: everything that decides what its stages compute, each stage for itself.

A stage is known by three hashes: of its settings, of the content of its data and of the source of its plugins. Where
and how it runs (folders, devices, threads, loggers, checkpoints) is no part of them, nor is what follows it: another
evaluation or another critic leaves the model's stage what it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from seqrl.config import RunConfig
from seqrl.d4rl import catalogue
from seqrl.data.contents import hash_content
from seqrl.files import fingerprint, read_json
from seqrl.paths import find_path
from seqrl.registry import DATA
from seqrl.runs.code import hash_plugins, names_in
from seqrl.runs.stages import KINDS

# Settings by section that say where and how to run, how to call the run, or what follows the training.
IRRELEVANT = {
    "": {"runs_dir", "trial", "name", "experiment_name", "plugins", "evaluation", "objective_metric", "landmarks"}
    | {"check_plugins", "init_from"},
    "trainer": {"accelerator", "compile", "devices", "max_time", "num_nodes", "num_threads", "strategy"},
    "data": {"cache_dir", "url", "sha256"},
    "training": {"checkpoint_every", "keep_last", "log_every", "loggers", "progress_bar"},
}
# Options of a plugin's source that name no file, whatever lies in the present folder under the same name.
_NO_PATHS = {"name", "path", "parts", "dataset_name", "env_id", "id", "url", "cache_dir"}
# Settings that came after runs had names, and the values that mean what was done before: runs from before there were
# such settings stay what they were.
_LATER: Mapping[str, Any] = {
    "layout": {"goal": {"discount": None}, "chunk": 1},
    "tokenizer": {"uniform_fields": []},
    "trainer": {"fast_cpu": False},
}
# Components that compute something else than before under the same settings, and how often that happened: their runs
# from before are other runs.
_REVISIONS: Mapping[str, Mapping[str, int]] = {"backbone": {"s6": 1}}
# What a stage does not depend on. The critic is built after the model, from the same random numbers, so that what
# builds the model counts for the critic as well.
_OTHERS = {
    "tokenizer": {"objective", "critic", "critic_training", "tokenizer_training"},
    "model": {"critic", "critic_training"},
    "critic": {"optimizer", "scheduler", "tokenizer_training", "critic_training"},
}


@dataclass(frozen=True)
class StageIdentity:
    """What decides what a stage computes.

    Attributes:
        settings, data, code: hashes of its settings, of the content of its data and of its plugins' source.
    """

    settings: str
    data: str
    code: str


@dataclass(frozen=True)
class RunIdentity:
    """What decides what a run computes.

    Attributes:
        stages: by name; a tokenizer that is fitted and not trained has an identity too, and no stage.
        files: the files and folders that its data are read from, and the hashes of their content, None where nothing is
            there yet. Of data that an id names they are no part of what the run is called: the catalogue's words are.
    """

    stages: Mapping[str, StageIdentity]
    files: tuple[tuple[str, str | None], ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """8 hex digits, the end of the run folder's name."""
        return _hash({stage: asdict(each) for stage, each in self.stages.items()})[:8]

    def to_json(self) -> str:
        """The content of `identity.json`."""
        stages = {stage: asdict(each) for stage, each in self.stages.items()}
        return json.dumps({**stages, "files": [list(each) for each in self.files]}, indent=2) + "\n"

    @staticmethod
    def read(path: Path) -> RunIdentity | None:
        """What `identity.json` of a run folder says; None where there is none that can be read."""
        try:
            stages = read_json(path)
            files = tuple(
                (str(name), None if content is None else str(content)) for name, content in stages.pop("files", [])
            )
            return RunIdentity({stage: StageIdentity(**each) for stage, each in stages.items()}, files)
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def changed_files(self, other: RunIdentity) -> list[str]:
        """The files that had another content when the other identity of the same settings was noted."""
        if len(self.files) != len(other.files):
            return []
        pairs = zip(self.files, other.files, strict=True)
        return [name for (name, now), (_, then) in pairs if None not in (now, then) and now != then]

    def difference(self, other: RunIdentity) -> str | None:
        """What of the content another run has otherwise that has the same settings; None where settings differ."""
        shared = [(ours, other.stages[stage]) for stage, ours in self.stages.items() if stage in other.stages]
        if len(shared) < len(self.stages) or any(ours.settings != theirs.settings for ours, theirs in shared):
            return None
        files = " and ".join(map(repr, self.changed_files(other))) or "the data"
        parts = {"data": f"the content of {files}", "code": "the code of a plugin"}
        changed = [text for part, text in parts.items() if any(getattr(a, part) != getattr(b, part) for a, b in shared)]
        return " and ".join(changed) or None


def identify(run: RunConfig) -> RunIdentity:
    """What a run computes. Its plugins are loaded already.

    Raises:
        ConfigError: a setting that is not allowed.
        DataError: data that cannot be read.
    """
    hashed = cache(hash_content)
    whole = run.to_dict()
    kept = {section: _relevant(section, value) for section, value in whole.items() if section not in IRRELEVANT[""]}
    kept = _without_later(kept, _LATER)
    for section, revisions in _REVISIONS.items():
        if revision := revisions.get(str((whole[section] or {}).get("name"))):
            kept[section] = {**kept[section], "revision": revision}
    start = [] if whole["init_from"] is None else [find_path(whole["init_from"])]
    if not start:
        kept.pop("warm_start")
    content = _hash([hashed(path) for path in [*_named_paths(whole["data"]), *start]])
    names = ["tokenizer", "model", *(["critic"] if whole["critic"] else [])]
    stages = {stage: _identify_stage(stage, kept, content, whole["plugins"]) for stage in names}
    return RunIdentity(stages, tuple((str(path), hashed(path)) for path in [*_source_files(whole["data"]), *start]))


def _without_later(settings: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that are as if there were no such setting."""
    kept = {}
    for key, value in settings.items():
        if key in later and isinstance(value, Mapping):
            kept[key] = _without_later(value, later[key])
        elif key not in later or value != later[key]:
            kept[key] = value
    return kept


def has_plugin_source(source: Any) -> bool:
    """Whether data come from a source of a plugin, in a mix perhaps, which may read what its settings do not name."""
    return any(name not in DATA.builtin_names() for name in names_in(source))


def _identify_stage(stage: str, kept: Mapping[str, Any], content: str, specs: Sequence[str]) -> StageIdentity:
    settings = {section: value for section, value in kept.items() if section not in _OTHERS[stage]}
    section = next(kind.section for kind in KINDS if kind.name == stage)
    if section is not None:
        given = {key: value for key, value in kept[section].items() if value is not None}
        settings["training"] = _relevant("training", {**settings["training"], **given})
    settings["training"] = _with_callbacks(settings["training"])
    code = _hash(hash_plugins(settings, specs))
    return StageIdentity(_hash({**settings, "data": _recipe(settings["data"])}), content, code)


def _with_callbacks(training: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training whose callbacks are written out; without any they are as before there were some."""
    kept = {key: value for key, value in training.items() if key != "callbacks"}
    chosen = [{"name": each} if isinstance(each, str) else each for each in training.get("callbacks") or ()]
    return {**kept, "callbacks": chosen} if chosen else kept


def _relevant(section: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: each for key, each in value.items() if key not in IRRELEVANT.get(section, ())}


def _recipe(source: Any) -> Any:
    """The settings of a source, and of each part of a mix: of files the name, which may tell their kind; no folder."""
    if not isinstance(source, Mapping):
        return source
    kept = {key: value for key, value in source.items() if key not in IRRELEVANT["data"]}
    if kept.get("path"):
        kept["path"] = Path(str(kept["path"])).name
    if kept.get("name") == "d4rl" and kept.get("id"):
        kept["entry"] = _entry(kept["id"])
    if isinstance(kept.get("parts"), Sequence):
        kept["parts"] = [_recipe(part) if isinstance(part, Mapping) else _part(str(part)) for part in kept["parts"]]
    return kept


def _part(text: str) -> Any:
    """A part of a mix that is a mere text: the name of a file or folder, or an id."""
    path = find_path(text)
    return path.name if path.exists() else [text, _entry(text)]


def _entry(dataset_id: str) -> Any:
    """What D4RL's catalogue says of the file and the episodes of an id."""
    found = [each for each in catalogue.entries() if each.id == dataset_id]
    return [[each.file_name, each.family, each.max_episode_steps, each.env_id] for each in found]


def _named_paths(source: Any) -> Iterator[Path]:
    """The files and folders that the settings of a source name, there or not."""
    if not isinstance(source, Mapping):
        return
    if source.get("path"):
        yield find_path(str(source["path"]))
    if isinstance(source.get("parts"), Sequence):
        for part in source["parts"]:
            if isinstance(part, Mapping):
                yield from _named_paths(part)
            else:
                yield find_path(str(part))
    if source.get("name") not in DATA.builtin_names():
        others = {key: value for key, value in source.items() if key not in _NO_PATHS}
        yield from (path for text in _texts(others) if (path := find_path(text)).exists())


def _texts(value: Any) -> Iterator[str]:
    """The texts in a tree of settings, but for names."""
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if key not in _NO_PATHS:
                yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _source_files(source: Mapping[str, Any]) -> list[Path]:
    """The files and folders that a source reads, as it says itself; of a plugin's, those that its settings name too."""
    shared = {option.name for option in DATA.shared}
    built = DATA.build({key: value for key, value in source.items() if key not in shared})
    return list(dict.fromkeys([*built.local_files(), *_named_paths(source)]))


def _hash(content: Any) -> str:
    """16 hex digits of plain data, which do not depend on the order of keys, 1 or 1.0, and keys that are null."""
    return fingerprint(_canonical(content))[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(each) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
