"""Trains a run from its resolved config: `python -m seqrl.training.worker RUN/config.yaml`.

Runs with several processes start here, without Hydra: Lightning launches further ranks by repeating the command line
of the first, which must therefore mean the same in every rank.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from seqrl.errors import SeqrlError, sentence
from seqrl.plugins import load_plugins
from seqrl.runs import RunFolder
from seqrl.training.stages import train


def main(path: Path) -> int:
    """Exit status: 0 when training finished, 2 for an error of the user, 130 for Ctrl-C."""
    config = yaml.safe_load(path.read_text())
    try:
        load_plugins(config["plugins"])
        train(config, RunFolder(path.parent))
    except (SeqrlError, OSError) as error:
        print(sentence(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
