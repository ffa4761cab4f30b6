"""`seqrl plugins`: what there is to choose from, and whether a component keeps its slot's contracts. Without Hydra."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from seqrl import plugins
from seqrl.cli.components import Description, describe
from seqrl.cli.plugin_words import take_plugins
from seqrl.cli.telling import tell_errors
from seqrl.console import say
from seqrl.errors import ConfigError, PluginError
from seqrl.registry import all_registries, registry_of

if TYPE_CHECKING:
    from seqrl.testing.failures import Outcome


@tell_errors()
def run(arguments: list[str]) -> int:
    """Run the command; returns 1 where a contract is violated."""
    arguments, named = take_plugins(arguments)
    options = _parser().parse_args(arguments)
    options.plugins = [*options.plugins, *named]
    return int(options.task(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("seqrl plugins", description="Components to choose from, and their contracts.")
    commands = parser.add_subparsers(required=True, metavar="list | check")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE_OR_MODULE", help="loaded before; also plugins=[FILE]"
    )
    shared.add_argument("--verbose", action="store_true", help="full tracebacks of plugins and contracts that fail")

    listing = commands.add_parser("list", parents=[shared], help="names, origins, options and defaults")
    listing.add_argument("slot", nargs="?", help="one slot only, such as tokenizer")
    listing.set_defaults(task=_list)

    checking = commands.add_parser("check", parents=[shared], help="run the contracts of a slot on a component")
    checking.add_argument("name", help="registered name")
    checking.add_argument("--slot", required=True, help="such as tokenizer")
    checking.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="options of the component")
    checking.set_defaults(task=_check)
    return parser


def _list(options: argparse.Namespace) -> int:
    chosen = [registry_of(options.slot)] if options.slot else list(all_registries())
    failed = _load(options.plugins)
    plugins.load_entry_points()
    for number, registry in enumerate(chosen):
        say(("\n" if number else "") + registry.slot)
        _print_table(describe(registry))
    broken = plugins.tracebacks() if options.verbose else plugins.failures()
    for name, error in failed.items():
        cause = error.__cause__ or error
        broken[name] = "".join(traceback.format_exception(cause)) if options.verbose else str(error)
    if broken:
        say("\nplugins that failed to load" + ("" if options.verbose else " (--verbose shows the tracebacks)"))
    for name, reason in broken.items():
        say(textwrap.indent(f"{name}: {reason.strip()}", "  "))
    return 2 if failed else 0  # who asks for a file expects it in the list


def _load(specs: Iterable[str]) -> dict[str, PluginError]:
    """Load plugins that were asked for, and tell of those that fail."""
    failed = {}
    for spec in specs:
        try:
            plugins.load_plugins([spec])
        except PluginError as error:
            failed[spec] = error
    return failed


def _print_table(components: list[Description]) -> None:
    names = max((len(c.name) for c in components), default=0)
    origins = max((len(c.origin) for c in components), default=0)
    indent = " " * (names + origins + 6)
    width = max(shutil.get_terminal_size((120, 20)).columns, len(indent) + 40)
    for component in components:
        start = f"  {component.name:<{names}}  {component.origin:<{origins}}  "
        summary = component.summary or "(no docstring)"
        say(textwrap.fill(summary, width, initial_indent=start, subsequent_indent=indent))
        if component.options:
            listed = ", ".join(component.options)
            say(textwrap.fill(listed, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False))


def _check(options: argparse.Namespace) -> int:
    registry = registry_of(options.slot)
    plugins.load_plugins(options.plugins)
    registry.get(options.name)
    from seqrl.testing import Component, run_contracts

    outcomes = run_contracts(Component(options.slot, options.name, _values(options.options)))
    _tell_outcomes(outcomes, verbose=options.verbose)
    violated = sum(outcome.violation is not None for outcome in outcomes)
    say(f"{options.slot} {options.name!r}: {len(outcomes) - violated} of {len(outcomes)} contracts kept")
    return 1 if violated else 0


def _tell_outcomes(outcomes: Sequence[Outcome], *, verbose: bool) -> None:
    """A line for each contract; what several break in the same words is told at the first of them.

    Args:
        verbose: with the traceback of an exception.
    """
    width = max(len(outcome.contract) for outcome in outcomes)
    told: dict[str, str] = {}
    for outcome in outcomes:
        word = "ok"
        if outcome.violation is not None:
            first = told.setdefault(outcome.violation, outcome.contract)
            word = f"violated: {outcome.violation if first == outcome.contract else f'as {first!r}'}"
        say(f"{outcome.contract:<{width}}  {word}")
        if verbose and outcome.error is not None and told[outcome.violation or ""] == outcome.contract:
            say(textwrap.indent("".join(traceback.format_exception(outcome.error)).rstrip(), "  "))


def _values(words: Iterable[str]) -> dict[str, Any]:
    """`key=value` words, values as in yaml.

    Raises:
        ConfigError: a word without `=`, or a value that yaml cannot read.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"--options {word!r} is no setting; write KEY=VALUE")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--options {word!r} has a value that cannot be read: {error}") from error
        if isinstance(values[key], str):
            with contextlib.suppress(ValueError):  # yaml wants a dot in 1e-3
                values[key] = float(values[key])
    return values
