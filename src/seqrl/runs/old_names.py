"""The names that runs had up to version 0.1: a hash of their settings, with the name and size of data files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.files import fingerprint
from seqrl.paths import find_path
from seqrl.plugins import identities

_NOT_HASHED = {
    "": {"runs_dir", "trial", "evaluation", "objective_metric", "name", "landmarks", "check_plugins"},
    "trainer": {"accelerator", "compile", "devices", "max_time", "num_nodes", "num_threads", "strategy"},
    "data": {"cache_dir", "url"},
    "training": {"checkpoint_every", "keep_last", "log_every", "loggers", "progress_bar"},
}
_STAGE: dict[str, Any] = dict.fromkeys(
    [
        *("batch_size", "validation_fraction", "validation_batches", "validate_every", "checkpoint_every", "keep_last"),
        *("log_every", "loggers", "callbacks", "progress_bar", "clip_norm"),
    ]
)
_NEWER: dict[str, dict[str, Any]] = {  # settings that no file had, with what was meant
    "optimizer": {"name": "adamw"},
    "tokenizer": {"edges": None, "decode_to": None, "statistics": None, "published": None}
    | {"embed_numbers": False, "uniform_fields": []},
    "backbone": {"activation": None, "norm": None},
    "objective": {"mask": None, "ordinal": None},
    "critic": {"n_step": 1},
    "layout": {"termination": None, "chunk": 1},
    "trainer": {"max_time": None, "accumulate_grad_batches": 1, "deterministic": None, "benchmark": None}
    | {"detect_anomaly": False, "sync_batchnorm": False, "profiler": None, "overfit_batches": 0.0, "fast_cpu": False},
    "training": {"callbacks": []},
    "tokenizer_training": _STAGE,
    "critic_training": {key: value for key, value in _STAGE.items() if key not in ("batch_size", "clip_norm")},
}
_NEWER_OF_SOURCES: dict[str, dict[str, Any]] = {"maze2d": {"time_limit": None}}
# What decides the model, the seed aside.
_TRAINED = (
    *("data", "window", "layout", "tokenizer", "backbone", "objective", "optimizer", "scheduler", "critic", "plugins"),
    *("training", "tokenizer_training", "critic_training", "init_from", "warm_start", "landmarks"),
)
# Of the trainer, what says how to compute; left out where it is as ever, since rows of before did not tell it.
_AS_EVER = {"precision": "32-true", **_NEWER["trainer"]}


def old_run_name(config: Mapping[str, Any]) -> str:
    """`<experiment_name>-<8 hex digits>`: the folder that the same run would have had by the rule of before.

    Args:
        config: of the run, word for word, see `seqrl.config.Checked.given`.
    """
    return f"{config.get('experiment_name') or 'run'}-{_digest(config, _NOT_HASHED[''])}"


def training_digest(config: Mapping[str, Any]) -> str:
    """8 hex digits of what was trained how, which runs that differ in the training seed alone have in common.

    Args:
        config: as a checkpoint keeps it, word for word.
    """
    trained = {key: config[key] for key in _TRAINED if key in config}
    if trained.get("landmarks") is None:
        trained.pop("landmarks", None)
    given = config.get("trainer")
    if isinstance(given, Mapping):
        odd = {key: value for key, value in given.items() if key not in _AS_EVER or value != _AS_EVER[key]}
        if odd.keys() - _NOT_HASHED["trainer"]:
            trained["trainer"] = odd
    return _digest(trained, ())


def _digest(config: Mapping[str, Any], left_out: Collection[str]) -> str:
    kept = {key: value for key, value in config.items() if key not in left_out}
    for section in ("trainer", "training"):
        if isinstance(kept.get(section), Mapping):
            kept[section] = {k: v for k, v in kept[section].items() if k not in _NOT_HASHED[section]}
    if kept.get("init_from") is None:
        kept = {key: value for key, value in kept.items() if key not in ("init_from", "warm_start")}
    for section, newer in _NEWER.items():
        if isinstance(kept.get(section), Mapping):
            kept[section] = {k: v for k, v in kept[section].items() if k not in newer or v != newer[k]}
    layout = kept.get("layout")
    if isinstance(layout, Mapping) and isinstance(layout.get("goal"), Mapping):
        goal = {k: v for k, v in layout["goal"].items() if k != "discount" or v is not None}
        kept["layout"] = {**layout, "goal": goal}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = _data_identity(kept["data"])
    kept["plugins"] = identities(config.get("plugins", []))
    return fingerprint(kept)[:8]


def _data_identity(source: Mapping[str, Any]) -> dict[str, Any]:
    """What a source is to the hash of a run, and each part of a mix; a part may be a mere path or id."""
    newer = _NEWER_OF_SOURCES.get(str(source.get("name")), {})
    kept = {k: v for k, v in source.items() if k not in _NOT_HASHED["data"] and (k not in newer or v != newer[k])}
    if kept.get("path"):
        kept["path"] = _name_and_size(find_path(kept["path"]))
    if isinstance(kept.get("parts"), Sequence):
        kept["parts"] = [
            _data_identity(part)
            if isinstance(part, Mapping)
            else _name_and_size(path)
            if (path := find_path(str(part))).exists()
            else part
            for part in kept["parts"]
        ]
    return kept


def _name_and_size(path: Path) -> list[str | int | None]:
    """Of a file, or of a folder with the files in it; None as the size of what is not there."""
    files = [path] if path.is_file() else list(path.iterdir()) if path.is_dir() else None
    return [path.name, None if files is None else sum(file.stat().st_size for file in files)]
