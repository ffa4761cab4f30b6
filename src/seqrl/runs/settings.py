"""The settings of a run as one flat table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqrl.runs.identity import IRRELEVANT
from seqrl.schema import flatten_tree


def flatten_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a training by dotted key, its seed included; a component's own key has its name.

    Args:
        config: resolved, of the run.
    """
    found = {}
    for key, value in flatten_tree({name: each for name, each in config.items() if name not in IRRELEVANT[""]}).items():
        section, *options = key.split(".")
        if not options or options[0] not in IRRELEVANT.get(section, ()):
            found[key.removesuffix(".name")] = value
    return found
