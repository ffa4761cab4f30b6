"""`seqrl completion`: scripts for shells, and the words that may stand next."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from seqrl.cli import COMMANDS, module_of
from seqrl.cli.help import OF_EVALUATIONS
from seqrl.config import EvaluationConfig, RunConfig
from seqrl.console import say
from seqrl.paths import config_dir
from seqrl.registry import registries
from seqrl.schema import options_of

_SCRIPTS = {
    "bash": """_seqrl() {
    local line="${COMP_LINE:0:COMP_POINT}" word candidates
    word="${line##*[[:space:]]}"
    mapfile -t candidates < <(seqrl completion --line "$line" 2>/dev/null)
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        candidates=("${candidates[@]#"${word%%=*}="}")
    fi
    COMPREPLY=("${candidates[@]}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=.] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _seqrl seqrl""",
    "zsh": """#compdef seqrl
_seqrl() {
    local -a candidates open
    candidates=("${(@f)$(seqrl completion --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    candidates=(${candidates:#})
    open=(${(M)candidates:#*[=.]})
    candidates=(${candidates:#*[=.]})
    (( ${#open} )) && compadd -Q -S "" -a open
    (( ${#candidates} )) && compadd -Q -a candidates
    (( ${#open} + ${#candidates} )) || _files
}
(( $+functions[compdef] )) && compdef _seqrl seqrl""",
    "fish": """function __seqrl_complete
    seqrl completion --line (commandline -cp) 2>/dev/null
end
complete -c seqrl -f -a '(__seqrl_complete)'
complete -c seqrl -n 'test (count (__seqrl_complete)) -eq 0' -F""",
}


def run(arguments: list[str]) -> int:
    """Run the command; returns 0."""
    parser = argparse.ArgumentParser(
        "seqrl completion",
        description="Print the script that lets a shell complete commands, switches, groups and settings.",
        epilog='bash: eval "$(seqrl completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit; fish: '
        "seqrl completion fish > ~/.config/fish/completions/seqrl.fish",
    )
    parser.add_argument("shell", nargs="?", choices=sorted(_SCRIPTS))
    parser.add_argument("--line", metavar="TEXT", help="what was typed; prints the words that may come of its end")
    options = parser.parse_args(arguments)
    if options.line is not None:
        for word in complete(options.line):
            say(word)
        return 0
    if options.shell is None:
        parser.error("name a shell: bash, zsh or fish")
    say(_SCRIPTS[options.shell])
    return 0


def complete(line: str) -> list[str]:
    """The words that the last, perhaps empty word of a line may become; none where it may be a file."""
    _, *words = line.split()
    if not words or line[-1].isspace():
        words.append("")
    command, *rest = words
    if not rest:
        return _starting(command, [*COMMANDS, "--help", "--version"])
    if command not in COMMANDS:
        return []
    last = rest[-1]
    if last.startswith("-") and "=" not in last:
        return _starting(last, _switches(command))
    if command in ("train", "evaluate"):
        return _overrides(command, last, rest[:-1])
    first = {"data": ("inspect", "generate", "collect", "convert", "list"), "plugins": ("list", "check")}
    first |= {"bench": ("plan", "train", "data"), "completion": tuple(sorted(_SCRIPTS))}
    return _starting(last, first.get(command, ())) if len(rest) == 1 else []


def _starting(beginning: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(beginning)})


def _switches(command: str) -> list[str]:
    """The switches that the help of a command names."""
    if command in ("train", "evaluate"):
        return ["--help", "--check", "--cfg", "--config-dir", "--info", "--multirun", "-m"]
    text = io.StringIO()
    with suppress(SystemExit), redirect_stdout(text), redirect_stderr(text):
        module_of(command).run(["--help"])
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", text.getvalue())


def _overrides(command: str, word: str, before: Iterable[str]) -> list[str]:
    """Groups with their options, and settings with a dot, as far as the word says which."""
    prefix = re.match(r"[+~]*", word)
    assert prefix is not None
    sign, typed = prefix[0], word[prefix.end() :]
    key, equals, value = typed.partition("=")
    groups = _groups(command)
    if equals and key in groups:
        return [f"{sign}{key}={each}" for each in _starting(value, groups[key])]
    keys = _keys(command, key, dict(each.split("=", 1) for each in before if "=" in each))
    if equals:
        return [f"{sign}{key}={each}" for each in _starting(value, keys.get(key, []))]
    known = [*(f"{group}=" for group in groups), *(each if each[-1] == "." else f"{each}=" for each in keys)]
    depth = typed.count(".")
    shortened = {_cut(each, depth) for each in known if each.startswith(typed)}
    return [f"{sign}{each}" for each in sorted(shortened)]


def _cut(key: str, depth: int) -> str:
    """A key up to the dot after so many others: sections are completed one by one."""
    parts = key.split(".")
    return key if len(parts) <= depth + 1 else ".".join(parts[: depth + 1]) + "."


def _groups(command: str) -> dict[str, list[str]]:
    """The groups of a command, and what may be chosen in each."""
    components = {registry.slot: registry.builtin_names() for registry in registries()}
    found = {}
    for folder in sorted(config_dir().iterdir()):
        names = [path.stem for path in folder.glob("*.yaml")] if folder.is_dir() else []
        if names and folder.name != "schema":
            found[folder.name] = sorted({*names, *components.get(folder.name, ())})
    own = set(OF_EVALUATIONS) if command == "evaluate" else set(found) - set(OF_EVALUATIONS[1:])
    return {name: options for name, options in found.items() if name in own}


def _keys(command: str, typed: str, chosen: Mapping[str, str]) -> dict[str, list[str]]:
    """The settings of a command by dotted key, with their words where they have some.

    Components are asked for their options, and imported, only in the slot that the typed key names with a dot; of the
    other slots stands `slot.` alone. The shell waits.
    """
    slots = {
        registry.slot: registry for registry in registries() if command == "train" or registry.slot in OF_EVALUATIONS
    }
    found: dict[str, list[str]] = {}
    for option in options_of(RunConfig if command == "train" else EvaluationConfig):
        if option.name not in slots:
            found |= _settings(option.name, option.annotation, option.default)
    for slot, registry in slots.items():
        if not typed.startswith(f"{slot}."):
            found[f"{slot}."] = []
            continue
        names = [chosen[slot]] if chosen.get(slot) in registry.builtin_names() else registry.builtin_names()
        for name in names:
            found |= {f"{slot}.{option.name}": _words(option.annotation) for option in registry.options(name)}
    return found


def _settings(key: str, annotation: Any, default: Any) -> dict[str, list[str]]:
    section = annotation if is_dataclass(annotation) else type(default)
    if not (isinstance(section, type) and is_dataclass(section)):
        return {key: _words(annotation)}
    found: dict[str, list[str]] = {}
    inner = {option.name: option for option in options_of(section)}
    for each in fields(section):
        found |= _settings(f"{key}.{each.name}", inner[each.name].annotation, inner[each.name].default)
    return found


def _words(annotation: Any) -> list[str]:
    """The words that a setting may be, where it is one of some."""
    members = [annotation, *get_args(annotation)]
    words = [str(word) for each in members if get_origin(each) is Literal for word in get_args(each)]
    return words + (["true", "false"] if bool in members else [])
