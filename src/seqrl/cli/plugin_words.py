"""`plugins=[a.py,b]` for commands that Hydra does not read: it is `--plugins a.py b` there as well."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from seqrl.errors import ConfigError
from seqrl.paths import find_path

_KEYS = ("plugins", "+plugins", "++plugins")


def take_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without words `plugins=...`, and the plugins that these name.

    Raises:
        ConfigError: a value that is neither a file or module nor a list of such.
    """
    rest, found = [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in _KEYS:
            found += _read_list(argument, value)
        else:
            rest.append(argument)
    return rest, found


def check_list(word: str) -> None:
    """Refuse `key=a,b`, several values where one list is wanted; `a,b` may be one file.

    Raises:
        ConfigError: saying how the list is written.
    """
    key, _, value = word.partition("=")
    text = value.strip()
    if "," in text and text[0] not in "['\"{" and not find_path(text).exists():
        listed = ",".join(part.strip() for part in text.split(","))
        raise ConfigError(f"{word!r} gives several values and no list; write {key}=[{listed}]")


def _read_list(word: str, value: str) -> list[str]:
    check_list(word)
    text = value.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if text == "null":
        return []
    if not text.startswith("["):
        names: object = [text[1:-1] if quoted else text]
    else:
        try:
            names = yaml.safe_load(text)
        except yaml.YAMLError:
            names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{word!r} names no plugins; write plugins=[my_planner.py], a list of files and modules")
    return names
