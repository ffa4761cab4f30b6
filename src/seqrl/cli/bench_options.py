"""What every benchmark's command line has in common: options, numbers in the terminal and as JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from seqrl.benchmarks.idle import IdleWatch
from seqrl.cli.telling import tell_errors
from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.files import write_text
from seqrl.paths import find_path

PUBLISHED = {"observation": 11, "action": 3, "layers": 4, "heads": 4, "width": 128}
TRAINING = {"window": 10, "batch-size": 256, "steps": 20, "log-every": 20, "transitions": 100_000}
_LEAST = {"window": 2, "transitions": 2, "bins": 2, "context": 2, "codes": 2}  # of options that cannot be 1


@tell_errors()
def run_benchmark(parser: argparse.ArgumentParser, arguments: list[str] | None, *, measures: bool = True) -> None:
    """Run the `task` of parsed options, and write what it returns to `--output`; warn where the machine is not idle.

    Args:
        measures: the task measures this machine, which its result describes; False where it only computes.
    """
    options = parser.parse_args(arguments)
    if options.output is not None and not options.output.parent.is_dir():
        raise ConfigError(f"--output {str(options.output)!r}: there is no folder {str(options.output.parent)!r}")
    watch = IdleWatch(say) if measures else None
    result = options.task(options)
    if watch is not None:
        result["machine"]["cores_of_others"] = watch.end()
    if options.output is not None:
        write_text(options.output, json.dumps(result, indent=2) + "\n")
        say(f"written: {options.output}")


def add_counts(parser: argparse.ArgumentParser, defaults: Mapping[str, int]) -> None:
    """Options that are whole numbers."""
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=count(_LEAST.get(name, 1)), default=default, help=f"default {default}")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """`--threads`, `--device` and `--output`."""
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=count(), default=cores, help=f"CPU threads of torch; default {cores}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=find_path, metavar="FILE", help="write the numbers as JSON")


def count(least: int = 1) -> Callable[[str], int]:
    """The reader of a whole number of an option."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return read


def counts(names: str, example: str) -> Callable[[str], tuple[int, ...]]:
    """The reader of whole numbers with commas between them.

    Args:
        names: what they are, in words with commas.
    """

    def read(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        if len(parts) != len(names.split(",")):
            raise argparse.ArgumentTypeError(f"{text!r} is not {names}; give numbers as in {example}")
        return tuple(count()(part) for part in parts)

    return read


def count_or_all(text: str) -> int | None:
    return None if text == "all" else count()(text)


def settings_of(kind: Any, options: argparse.Namespace) -> Any:
    """An object of a dataclass, from the options that it has fields for."""
    given = vars(options)
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})


def format_range(values: Mapping[str, float]) -> str:
    return f"{format_number(values['median'])} [{format_number(values['min'])}, {format_number(values['max'])}]"


def format_number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def say_machine(machine: Mapping[str, Any]) -> None:
    rates = ""
    if "copy_gb_per_second" in machine:
        rates = (
            f"; matrix product {machine['matrix_product_gflops']:.0f} GFLOP/s, "
            f"copy {machine['copy_gb_per_second']:.1f} GB/s"
        )
    if machine["products"] is not None:
        rates = f"; products by {machine['products']}{rates}"
    say(f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, torch {machine['torch']}{rates}")
