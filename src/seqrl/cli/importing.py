"""`seqrl import`: checkpoints of other programs as run folders of this one."""

from __future__ import annotations

import argparse

from seqrl.cli.telling import tell_errors
from seqrl.console import say
from seqrl.errors import ConfigError
from seqrl.paths import find_path

_FORMATS = {
    "tt": "a folder of jannerm's trajectory-transformer (state_N.pt, *_config.pkl)",
    "hf-tt": "a folder of transformers' TrajectoryTransformerModel (config.json and weights)",
    "dt": "weights of kzl's or CORL's Decision Transformer",
    "hf-dt": "a folder of transformers' DecisionTransformerModel",
    "tap": "a folder of latentplan (state_N.pt, prior_state_N.pt, *_config.pkl)",
}


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    listed = "; ".join(f"{name}: {what}" for name, what in _FORMATS.items())
    parser = argparse.ArgumentParser("seqrl import", description=f"Checkpoints of other programs. {listed}.")
    parser.add_argument("format", choices=list(_FORMATS), metavar="FORMAT", help=", ".join(_FORMATS))
    parser.add_argument("source", metavar="SOURCE", help="the folder, or the file of the weights")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new run folder")
    parser.add_argument(
        "--data", metavar="NAME", help="what it was trained on, for what it lacks: a file, a D4RL id, minari:ID"
    )
    parser.add_argument("--epoch", type=int, metavar="N", help="of several state files; the last one by default")
    parser.add_argument("--heads", type=int, metavar="N", help="of attention, where the source does not say")
    parser.add_argument("--window", type=int, metavar="N", help="transitions of context, likewise")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has something in it")
    _import(parser.parse_args(arguments))


def _import(options: argparse.Namespace) -> None:
    from seqrl.importing import Wishes
    from seqrl.importing.writing import import_checkpoint
    from seqrl.training.trainer import quiet_lightning

    source, output = find_path(options.source), find_path(options.output)
    if not source.exists():
        raise ConfigError(f"there is no {str(source)!r}; give the folder, or the file of the weights")
    if output.exists() and not options.overwrite and (output.is_file() or any(output.iterdir())):
        raise ConfigError(f"{str(output)!r} exists already; choose another name, or --overwrite it")
    quiet_lightning()
    wishes = Wishes(epoch=options.epoch, heads=options.heads, window=options.window)
    for told in import_checkpoint(
        options.format, source, output, data=options.data, wishes=wishes, overwrite=options.overwrite
    ):
        say(told)
