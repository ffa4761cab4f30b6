"""The yaml files of a user that a command chooses, judged before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqrl.errors import ConfigError, show_value
from seqrl.files import read_text
from seqrl.paths import find_path
from seqrl.runs.yaml_files import read_yaml

_FOLDERS = ("--config-dir", "-cd")
_GLOBAL = ("debug", "experiment", "method", "strategy")  # groups whose files set what belongs to other groups


def check_config_files(arguments: Sequence[str]) -> None:
    """Look at the files in folders of the user's that the words of a command choose.

    Hydra tells of a damaged one in words about groups and containers, which name no file.

    Args:
        arguments: as `seqrl.cli.words.spell_words` left them.

    Raises:
        ConfigError: a file that cannot be read, holds no settings or names one by what is no text, or a file of a
            group such as `experiment` without the line that lets it set other groups.
    """
    for folder in _folders(arguments):
        for group, name in _choices(arguments):
            file = folder / group / f"{name.removesuffix('.yaml')}.yaml"
            if file.is_file():
                _check(file, group)


def _folders(arguments: Sequence[str]) -> Iterator[Path]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        switch, equals, value = argument.partition("=")
        if switch in _FOLDERS:
            yield find_path(value if equals else following)
        elif switch.lstrip("+") == "hydra.searchpath":
            for place in re.findall(r"file://([^,\]'\"]+)", value):
                yield find_path(place)


def _choices(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(group, name) of `group=name`, `group@package=name` and `group=a,b`."""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if not equals or argument.startswith(("-", "~")) or "." in group:
            continue
        for name in value.strip("[]").split(","):
            if re.fullmatch(r"[^\s{}'\"$]+", name.strip()):
                yield group, name.strip()


def _check(file: Path, group: str) -> None:
    try:
        content, text = read_yaml(file), read_text(file)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"the configuration file {str(file)!r} cannot be read ({why}); mend it there") from error
    if content is None:
        return
    if not isinstance(content, dict):
        raise ConfigError(f"{str(file)!r} holds {show_value(content)}, no settings; write lines of 'setting: value'")
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(f"{str(file)!r} names a setting {show_value(key)}, which is no text; leave it out")
    if group in _GLOBAL and not _is_global(text):
        raise ConfigError(
            f"{str(file)!r} would set {group!r} alone; begin it with the line '# @package _global_', before any other"
        )


def _is_global(text: str) -> bool:
    """Whether the file says so where Hydra looks for it: in lines like `# @package` before all others."""
    for line in filter(None, map(str.strip, text.splitlines())):
        if re.fullmatch(r"#\s*@package\s+_global_", line):
            return True
        if not re.match(r"#\s*@", line):
            break
    return False
