"""Small YAML files of a run, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from seqrl.files import read_text

_MOST_VALUES = 10**6


def read_yaml(path: Path) -> Any:
    """The content of a small YAML file, of whatever type.

    Raises:
        OSError: as `seqrl.files.read_text`.
        ValueError: it is no YAML, or its aliases stand for more than anybody writes out, or for themselves; says so.
    """
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
        count = _count_values(content, {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {error}") from error
    if count > _MOST_VALUES:
        raise ValueError(f"its aliases stand for {count:.3g} values")
    return content


def _count_values(value: Any, known: dict[int, int]) -> int:
    """How many values there are in lists and mappings, those that stand in several places counted in each.

    Raises:
        ValueError: something is part of itself.
    """
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
    if parts is None:
        return 1
    if known.setdefault(id(value), 0) == 0:
        known[id(value)] = -1
        known[id(value)] = 1 + sum(_count_values(part, known) for part in parts)
    elif known[id(value)] < 0:
        raise ValueError("it holds something that is part of itself")
    return known[id(value)]
