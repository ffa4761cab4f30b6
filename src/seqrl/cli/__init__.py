"""The command line: the only package that imports Hydra."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from importlib.metadata import version
from types import ModuleType

from seqrl.console import open_streams
from seqrl.errors import did_you_mean
from seqrl.paths import complete_user

COMMANDS = (
    "train",
    "evaluate",
    "compare",
    "results",
    "report",
    "diagnose",
    "estimate",
    "reproduce",
    "status",
    "import",
    "export",
    "zoo",
    "data",
    "plugins",
    "schema",
    "doctor",
    "bench",
    "completion",
)
_FILES = {"import": "importing"}  # of commands whose names are no names of modules

USAGE = """seqrl: offline reinforcement learning as sequence modelling

  seqrl train [overrides]                        train a model, then evaluate the strategies of the configuration
  seqrl evaluate checkpoint=PATH [overrides]     act with a trained model
  seqrl compare RUN_A RUN_B                      paired difference of two models, with its interval
  seqrl results RUNS...                          one table of many runs, averaged over seeds; CSV, Markdown, LaTeX
  seqrl report RUN_OR_SWEEP                      one page of HTML: curves, results, films, plans to step through
  seqrl diagnose CHECKPOINT                      which part of a search fails: dynamics, value or candidates
  seqrl estimate CHECKPOINT [overrides]          what a policy would earn, from its data, without an environment
  seqrl reproduce NAME data.path=FILE            figures and tables of the Trajectory Transformer's paper, made again
  seqrl status [RUN_OR_SWEEP_OR_RUNS_DIR]        what runs, what finished, what failed and why
  seqrl import FORMAT SOURCE --output FOLDER     a published checkpoint as a run: tt, hf-tt, dt, hf-dt, tap
  seqrl export CHECKPOINT FOLDER                 a model for others: safetensors, a card, digests
  seqrl zoo [NAME]                               models that come with seqrl: checkpoint=zoo:NAME
  seqrl data inspect SOURCE                      what a data set holds, and what is odd in it
  seqrl data generate|collect|convert|list       make, record and convert data; D4RL's catalogue
  seqrl plugins list [SLOT]                      components to choose from, with their options
  seqrl plugins check NAME --slot SLOT           run the contracts of a slot on a component
  seqrl schema [--write]                         what may be set, as JSON schema for editors
  seqrl doctor                                   what this machine has, and what is missing for what
  seqrl bench plan|train|data --threads N        how fast planning, training and loading are on this machine
  seqrl completion bash|zsh|fish                 the script that lets a shell complete all this

  seqrl train --help       lists the configuration groups and their options
  seqrl train --cfg job    prints the configuration that the overrides compose
"""


def main() -> None:
    """Entry point of the `seqrl` command; exits with 2 for a user's error and 130 for Ctrl-C."""
    open_streams()
    with suppress(OSError):  # not even a folder for temporary files: what needs one says so
        complete_user()
    try:
        status = _run(*(sys.argv[1:] or ["--help"]))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away, as `| head` does; nothing is left to tell it
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        status = 141  # what a shell reports for SIGPIPE
    sys.exit(status)


def _run(command: str, *arguments: str) -> int:
    if command in ("--help", "-h"):
        print(USAGE)
        return 0
    if command == "--version":
        print(version("seqrl"))
        return 0
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        print(f"seqrl has no command {command!r}.{hint}\n\n{USAGE}", file=sys.stderr)
        return 2
    return int(module_of(command).run(list(arguments)))


def module_of(command: str) -> ModuleType:
    """The module of a command, imported now: one command does not wait for another's imports."""
    return importlib.import_module(f"seqrl.cli.{_FILES.get(command, command)}")
