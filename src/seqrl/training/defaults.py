"""The published settings, for scripts that are not composed by Hydra: read from the same yaml files in `conf/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from seqrl.config import SequenceConfig
from seqrl.errors import ConfigError, did_you_mean
from seqrl.paths import config_dir

GROUPS = ("layout", "tokenizer", "backbone", "objective", "optimizer", "scheduler")


Setting = str | Mapping[str, Any] | None
"""A name, the options that differ from the defaults (perhaps with a `name`), or None for the defaults."""


def compose_sequence(
    groups: Mapping[str, Setting], *, window: int | None = None, seed: int | None = None
) -> SequenceConfig:
    """What a `SequenceModule` is made of, from what differs from the defaults.

    Args:
        groups: settings by group: `layout`, `tokenizer`, `backbone`, `objective`, `optimizer`, `scheduler`.
        window: T, transitions.

    Returns:
        What `seqrl train` would compose of the same words.

    Raises:
        ConfigError: a name that has no yaml file (components of plugins need none), or what `SequenceConfig` refuses.
    """
    train = _read("train")
    defaults = {group: name for entry in train["defaults"] if isinstance(entry, dict) for group, name in entry.items()}
    config: dict[str, Any] = {group: _group(group, defaults[group], groups.get(group)) for group in GROUPS}
    config["window"] = {**train["window"], **({} if window is None else {"length": window})}
    config["seed"] = train["seed"] if seed is None else seed
    return SequenceConfig.from_saved(config)


def _group(group: str, default: str, setting: Setting) -> dict[str, Any]:
    """The yaml of a group's name, with the options that differ."""
    options = dict(setting) if isinstance(setting, Mapping) else {}
    named = options.pop("name", default) if setting is None or isinstance(setting, Mapping) else setting
    return {**_read(f"{group}/{named}", component=str(named)), **options}


def _read(file: str, *, component: str | None = None) -> dict[str, Any]:
    """A yaml file below the configuration folder, on top of the files of its group that its defaults list names.

    Args:
        component: what stands in for a file that does not exist: a plugin's component, with its own defaults.
    """
    path = config_dir() / f"{file}.yaml"
    if not path.is_file():
        group = path.parent.name
        names = sorted(p.stem for p in path.parent.glob("*.yaml"))
        if component is None or group in ("layout", "optimizer", "scheduler"):
            raise ConfigError(
                f"no {group} named {path.stem!r}.{did_you_mean(path.stem, names)} Available: {', '.join(names)}"
            )
        return {"name": component}
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if "/" not in file:
        return content
    merged: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if entry != "_self_":
            merged.update(_read(f"{path.parent.name}/{entry}"))
    return {**merged, **content}
