"""The command line: the only package that imports Hydra."""

from __future__ import annotations

import sys
from importlib.metadata import version

USAGE = """seqrl: offline reinforcement learning as sequence modelling

  seqrl train [overrides]                        train a model, then evaluate the strategies of the configuration
  seqrl evaluate checkpoint=PATH [overrides]     act with a trained model
  seqrl plugins list [SLOT]                      components to choose from, with their options
  seqrl plugins check NAME --slot SLOT           run the contracts of a slot on a component

  seqrl train --help       lists the configuration groups and their options
  seqrl train --cfg job    prints the configuration that the overrides compose
"""


def main() -> None:
    """Entry point of the `seqrl` command; exits with 2 for a user's error and 130 for Ctrl-C."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print(USAGE)
    elif command == "--version":
        print(version("seqrl"))
    elif command == "train":
        from seqrl.cli.train import run

        sys.exit(run(arguments))
    elif command == "evaluate":
        from seqrl.cli.evaluate import run

        sys.exit(run(arguments))
    elif command == "plugins":
        from seqrl.cli.plugins import run

        sys.exit(run(arguments))
    else:
        from seqrl.errors import did_you_mean

        hint = did_you_mean(command, ["train", "evaluate", "plugins"])
        print(f"seqrl has no command {command!r}.{hint}\n\n{USAGE}", file=sys.stderr)
        sys.exit(2)
