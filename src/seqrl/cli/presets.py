"""Words that stand over the files of experiments, methods and strategies, and defaults that nobody typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from seqrl.console import say
from seqrl.errors import ConfigError, SeqrlError, show_value
from seqrl.registry import Registry, registries
from seqrl.schema import flatten_tree

_PRESETS = ("experiment", "method", "debug", "strategy")  # groups whose files set options of other groups


def leave_out_foreign(config: Mapping[str, Any], words: Sequence[str], *, quiet: bool = False) -> dict[str, Any]:
    """The configuration without options that a file set for another component than the one that a word chooses.

    `experiment=maze2d_large data=d4rl`: `data.maze` is of the experiment, and D4RL's data have none. `critic=null`
    takes away the critic of an experiment, with what its file set of it. Both are said. What is typed stays, and is
    refused if nothing has it, as is an option that no component of the slot has.

    Args:
        config: composed, of a run or an evaluation.
        words: overrides of the command.
        quiet: say nothing, as of jobs that are only looked at.
    """
    parsed = OverridesParser.create().parse_overrides(list(words))
    typed = {each.key_or_group for each in parsed}
    emptied = {each.key_or_group for each in parsed if each.is_delete() or each.value() is None}
    files = " or ".join(str(each.input_line) for each in parsed if each.key_or_group in _PRESETS)
    if not files:
        return dict(config)
    found, told = dict(config), []
    for registry in registries():
        part = found.get(registry.slot)
        if registry.slot not in typed or not isinstance(part, Mapping):
            continue
        kept = any(f"{registry.slot}.{key}" in typed for key in part)
        if registry.slot in emptied and "name" not in part and not kept:
            found[registry.slot] = None
            told.append(f"{registry.slot} of {files} is left out, with its settings: {', '.join(part)}")
            continue
        foreign = [key for key in _foreign(registry, part) if f"{registry.slot}.{key}" not in typed]
        found[registry.slot] = {key: value for key, value in part.items() if key not in foreign}
        told += [
            f"{registry.slot}.{key}={show_value(part[key])} of {files} is left out: {registry.slot}={part['name']} has "
            "no such option"
            for key in foreign
        ]
    layout = found.get("layout")
    goal = layout.get("goal") if isinstance(layout, Mapping) and "layout" in typed else None
    if isinstance(goal, Mapping) and "dims" not in goal and not any(key.startswith("layout.goal") for key in typed):
        found["layout"] = {**layout, "goal": None}  # type: ignore[dict-item]
        told.append(f"layout.goal of {files} is left out: the layout that was typed has none")
    for line in () if quiet else told:
        say(line)
    return found


def _foreign(registry: Registry, part: Mapping[str, Any]) -> list[str]:
    """The options in a component's configuration that it has not, and that another component of its slot has."""
    try:
        known = {option.name for option in [*registry.options(str(part.get("name"))), *registry.shared]}
    except SeqrlError:
        return []  # an unknown name, which is refused with the settings
    odd = [key for key in part if key != "name" and key not in known]
    others = {option.name for name in registry.names() if odd for option in registry.options(name)}
    return [key for key in odd if key in others]


def check_context(words: Sequence[str], window: Callable[[], int]) -> None:
    """Refuse a context that a user typed and that is longer than a window; a default is cut by the planner itself.

    Args:
        words: overrides of the command.
        window: says how many transitions the trained window has; asked only where a context was typed.
    """
    for each in OverridesParser.create().parse_overrides(list(words)):
        given = {} if each.is_delete() else flatten_tree({each.key_or_group: each.value()})
        for key, value in given.items():
            if not key.endswith("planner.context") or not isinstance(value, int) or value <= (length := window()):
                continue
            raise ConfigError(
                f"planner.context={value} is outside [2, {length}], the trained window; use planner.context=null for "
                "all of it"
            )
