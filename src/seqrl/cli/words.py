"""The words of a command, before Hydra reads them: short forms are written out, and paths are taken as they stand.

This is the only place that changes what a user typed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from seqrl.cli.plugin_words import check_list
from seqrl.errors import ConfigError, did_you_mean
from seqrl.paths import find_path

DECODED = ("planner", "condition", "score")  # groups of a row, whose settings may be given for all rows
OPTIONAL = ("critic", "method", "experiment", "debug")  # groups of which nothing may be chosen
_WITH_VALUE = {"--config-dir": True, "-cd": True, "--config-path": True, "-cp": True, "--config-name": False}
_WITH_VALUE |= {
    "-cn": False,
    "--package": False,
    "-p": False,
    "--cfg": False,
    "-c": False,
    "--info": False,
    "-i": False,
}
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_OURS = {  # settings of Hydra that the commands need for themselves: why, for a training and for an evaluation
    "hydra.run.dir": (
        "a run has a folder of its own: give runs_dir=FOLDER and name=NAME",
        "an evaluation lies in the folder of its run: give output=FOLDER for another place",
    ),
    "hydra.output_subdir": ("a run keeps its configuration in config.yaml", "an evaluation keeps its own"),
    "hydra.job.chdir": ("paths are those of the folder that the command is started in",) * 2,
}
_PATH = re.compile(r"(^|[._])(path|file|dir|checkpoint|output)$")  # keys whose value can only be a path
_PATHS = ("plugins", "data.parts", "data.mix")  # keys whose value is a list of them
_ROW = re.compile(r"evaluation\.rows\.([^.=]+)=['\"]?([\w.+-]+)['\"]?")  # a row that is no tree of settings
_ODD_ROW = re.compile(r"~evaluation\.rows\.(.+)|\+*evaluation\.rows\.(.+?)=(null|\{.*\})", re.DOTALL)
_PLAIN = re.compile(r"[\w.+-]+")  # what a key of Hydra can be
_GRAMMAR = re.compile(r"^(null|\?\?\?|'.*'|\".*\"|.*\$\{.*)$", re.DOTALL)  # what the grammar says on purpose


def spell_words(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra wants them: its switches first, since it takes no settings after them once it took some.

    Args:
        command: `train` or `evaluate`.

    Raises:
        ConfigError: a switch that there is not, a word without a value, or one that would change every row.
    """
    arguments = _complete_info([_complete_switch(argument) for argument in arguments])
    sweeps = is_sweep(arguments)
    switches: list[str] = []
    words: list[str] = []
    before = ""
    for argument in arguments:
        if before in _WITH_VALUE:
            switches.append(str(find_path(argument)) if _WITH_VALUE[before] else argument)
        elif argument.startswith("-"):
            switches.append(_spell_switch(command, argument))
        elif "=" in argument and not argument.partition("=")[0].strip("+~"):
            raise ConfigError(explain_word(argument, ""))
        elif (place := argument.partition("=")[0].lstrip("+~")) in _OURS:
            raise ConfigError(f"{place} is not for users, since {_OURS[place][command == 'evaluate']}")
        else:
            written = _write_out(argument) if command == "train" else [argument]
            words += [quote_paths(word, sweeps=sweeps) for word in written]
        before = argument
    return [*switches, *words]


def _complete_switch(argument: str) -> str:
    """A switch in full, of which a part was written that no other begins with."""
    switch, equals, value = argument.partition("=")
    found = [each for each in _switches() if each.startswith(switch)] if switch.startswith("--") else []
    return f"{found[0]}{equals}{value}" if len(found) == 1 and switch not in _switches() else argument


def _complete_info(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--info=all` for a switch without a value, which Hydra would look for in the next word."""
    return [
        "--info=all" if word in ("--info", "-i") and not set(arguments[place + 1 : place + 2]) & set(_INFO) else word
        for place, word in enumerate(arguments)
    ]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command runs a job for each combination of values."""
    return any(argument in ("-m", "--multirun", "hydra.mode=MULTIRUN") for argument in arguments)


def _spell_switch(command: str, argument: str) -> str:
    switch, equals, value = argument.partition("=")
    known = [*_switches(), "--check"]
    if not any(each.startswith(switch) for each in known):
        raise ConfigError(
            f"seqrl {command} has no switch {argument!r}.{did_you_mean(switch, known)} Settings have none (key=value); "
            f"see seqrl {command} --help"
        )
    return f"{switch}={find_path(value)}" if equals and _WITH_VALUE.get(switch) else argument


@cache
def _switches() -> tuple[str, ...]:
    return tuple(get_args_parser()._option_string_actions)


def _write_out(argument: str) -> list[str]:
    """Words of `seqrl train` that are short for others.

    Settings of decoding belong to the evaluations that follow: `planner.beam_width=64` is short for
    `evaluation.decoding.planner.beam_width=64`, and `strategy=goal` for `evaluation.strategy=goal`. A mix of data has
    one word as well: `data.mix=[a,b]` is short for `data=mix data.parts=[a,b]`. `data.top_fraction=0.1` and
    `data.categories.task=3` are options of every source, those of plugins included. Rows, and settings of decoding, may
    be new or not; rows may have names that are no keys (`~evaluation.rows.reward search`). `critic=null` chooses none,
    as `~critic` does.
    """
    key, equals, value = argument.partition("=")
    typed, key = key, key.lstrip("+~")
    group, dot, option = key.partition(".")
    if argument.startswith("strategy="):
        return [f"evaluation.{argument}"]
    if (odd := _ODD_ROW.fullmatch(argument)) and not is_key((odd[1] or odd[2]).partition("=")[0]):
        name = re.sub(r"([\\()\[\]{}:=, ])", r"\\\1", odd[1] or odd[2])
        return [f"++evaluation.rows={{{name}: {odd[3] or 'null'}}}"]
    if (row := _ROW.fullmatch(f"{key}={value}")) and row[2] != "null":
        raise ConfigError(
            f"row {row[1]!r} of evaluation.rows is {row[2]}; give settings of conf/evaluate.yaml, as in "
            f"'{key}={{strategy: {row[2] if row[2].isidentifier() else 'goal'}}}', or null"
        )
    open_ended = ("evaluation.rows", "evaluation.strategies", "evaluation.decoding.")
    of_sources = key == "data.top_fraction" or (key + ".").startswith("data.categories.")
    if (key.startswith(open_ended) or of_sources) and not argument.startswith("~"):
        return [f"++{argument.lstrip('+')}"]
    if argument.startswith("data.mix="):
        return ["data=mix", f"data.parts={value}"]
    if typed in OPTIONAL and value == "null":
        return [f"~{key}"]
    if group not in DECODED or not equals:
        return [argument]
    if not dot:
        raise ConfigError(
            f"{argument} would turn every row of the results table into the same; choose strategy=..., or write the "
            f"row: 'evaluation.rows.mine={{strategy: goal, {group}: {value}}}'"
        )
    return [f"++evaluation.decoding.{group}.{option}={value}"]


def is_key(name: str) -> bool:
    """Whether a name can be written as a key of Hydra's, without blanks and commas."""
    return _PLAIN.fullmatch(name) is not None


def quote_paths(word: str, *, sweeps: bool = False) -> str:
    """The word, with a path in it in quotes, if its key takes a path and Hydra would read it as something else.

    Args:
        sweeps: whether commas stand between values.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if name == "plugins" and value.strip() == "null":
        return f"{key}=[]"
    if not equals or not value or _GRAMMAR.match(value):
        return word
    if name in _PATHS and not sweeps:
        check_list(word)
    if name in _PATHS and (not sweeps or value.startswith("[")):
        return f"{key}={_quote_list(value)}" if not sweeps or not _parses(word) else word
    if name not in _PATHS and not _PATH.search(name):
        return word
    parsed = _parse(word)
    if parsed == value or (isinstance(parsed, str) and "\\" in value) or isinstance(parsed, list | dict):
        return word
    if sweeps:
        if _parses(word):
            return word
        parts = value.split(",")
        return f"{key}={','.join(part if _GRAMMAR.match(part) else quote_value(part) for part in parts)}"
    if "," in value and not find_path(value).exists():  # perhaps a sweep that lacks its switch
        return word
    return f"{key}={quote_value(value)}"


def _quote_list(value: str) -> str:
    """A list of paths of which those are in quotes that need it; one path is a list of one."""
    whole = re.fullmatch(r"\[(.*)\]", value, re.DOTALL)
    if whole is None:
        return f"[{value if _parse(f'key={value}') == value else quote_value(value)}]"
    if _parses(f"key={value}"):
        return value
    parts = [part.strip() for part in whole[1].split(",")]
    return f"[{','.join(part if _GRAMMAR.match(part) else quote_value(part) for part in parts)}]"


def quote_value(text: str) -> str:
    """The text as a quoted value of Hydra's grammar, which means this text and nothing else."""
    quote = "'" if '"' in text and "'" not in text else '"'
    escaped = re.sub(rf"(\\*)({quote}|$)", lambda match: match[1] * 2 + ("\\" + match[2] if match[2] else ""), text)
    return f"{quote}{escaped}{quote}"


def explain_word(word: str, reason: str) -> str:
    """Why Hydra cannot read a word, and how its value is written if it is meant as a text."""
    word = word.removeprefix("++")  # which may be ours
    key, equals, _ = word.partition("=")
    if not equals:
        return f"{word!r} is no setting; write {word}=VALUE, or ~{word} to take it out"
    if not key.strip("+~") or not _parses(f"{key}=x"):
        return f"{word!r} is no setting; a key has letters, digits, dots and underscores, as in training.max_steps=100"
    return (
        f"{word!r} cannot be read ({_plainly(reason)}); if its value is a text, put it in quotes: {show_quoted(word)}"
    )


def show_quoted(word: str) -> str:
    """The word with its value in quotes, as a shell takes it."""
    key, _, value = word.partition("=")
    return shlex.quote(f"{key}={quote_value(value)}")


def _plainly(reason: str) -> str:
    """ANTLR's words, shorter."""
    match = re.match(r"token recognition error at: '(.*)'|(?:mismatched|extraneous) input '(.*?)' expecting", reason)
    if match is None:
        return "it has a character with another meaning, or none" if "Exception" in reason else reason
    token = match[1] or match[2] or ""
    return "it ends too early" if token == "<EOF>" else f"{token!r} has another meaning there, or none"


def _parses(word: str) -> bool:
    return next(_parsed(word), None) is not None


def _parse(word: str) -> Any:
    """The value of a word; None where it cannot be parsed."""
    return next(_parsed(word), (None,))[0]


def _parsed(word: str) -> Iterator[tuple[Any]]:
    try:
        value = OverridesParser.create().parse_override(word).value()
    except (HydraException, ValueError):
        return
    yield (value,)
