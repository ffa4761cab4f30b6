"""Words that stand over the files of experiments, methods and strategies, and defaults that nobody typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from seqrl.console import say
from seqrl.errors import ConfigError, SeqrlError, show_value
from seqrl.registry import registries

_PRESETS = ("experiment", "method", "debug", "strategy")  # groups whose files set options of other groups


def leave_out_foreign(config: Mapping[str, Any], words: Sequence[str], *, quiet: bool = False) -> dict[str, Any]:
    """The configuration without options that a file set for another component than the one that a word chooses.

    `experiment=maze2d_large data=d4rl`: `data.maze` is of the experiment, and D4RL's data have none. That is said.
    What is typed stays, and is refused if nothing has it.

    Args:
        config: composed, of a run or an evaluation.
        words: overrides of the command.
        quiet: say nothing, as of jobs that are only looked at.
    """
    found = dict(config)
    parsed = OverridesParser.create().parse_overrides(list(words))
    typed = {each.key_or_group for each in parsed}
    presets = [str(each.input_line) for each in parsed if each.key_or_group in _PRESETS]
    for registry in registries():
        part = found.get(registry.slot)
        if registry.slot not in typed or not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
            continue
        try:
            known = {option.name for option in [*registry.options(part["name"]), *registry.shared]}
        except SeqrlError:
            continue  # an unknown name, which is refused with the settings
        foreign = [key for key in part if key not in ("name", *known) and f"{registry.slot}.{key}" not in typed]
        if foreign:
            found[registry.slot] = {key: value for key, value in part.items() if key not in foreign}
        for key in foreign if not quiet else ():
            say(
                f"{registry.slot}.{key}={show_value(part[key])} of {' or '.join(presets) or 'a file'} is left out: "
                f"{registry.slot}={part['name']} has no such option"
            )
    return found


def check_context(words: Sequence[str], window: int) -> None:
    """Refuse a context that a user typed and that is longer than a window; a default is cut by the planner itself.

    Args:
        words: overrides of the command.
        window: transitions of the trained window.
    """
    for each in OverridesParser.create().parse_overrides(list(words)):
        typed = each.key_or_group.endswith("planner.context") and not each.is_delete() and not each.is_sweep_override()
        value = each.value() if typed else None
        if isinstance(value, int) and value > window:
            raise ConfigError(
                f"planner.context={value} is beyond the trained window of {window} transitions; give {window} or less, "
                "or planner.context=null for all of it"
            )
