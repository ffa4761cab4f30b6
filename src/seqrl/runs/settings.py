"""The settings of a run as one flat table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seqrl.runs.identity import IRRELEVANT


def flatten_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a training by dotted key, its seed included; a component's own key has its name.

    Args:
        config: resolved, of the run.
    """
    found: dict[str, Any] = {}
    for section, value in config.items():
        if section not in IRRELEVANT[""]:
            found |= dict(_leaves(section, value))
    return found


def _leaves(section: str, value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a section, without those that decide nothing."""
    if not isinstance(value, Mapping) or not value:
        yield f"{prefix}{section}", value
        return
    hidden = IRRELEVANT.get(section, ()) if not prefix else ()
    for key, each in value.items():
        if key == "name":
            yield f"{prefix}{section}", each
        elif key not in hidden:
            yield from _leaves(str(key), each, f"{prefix}{section}.")
