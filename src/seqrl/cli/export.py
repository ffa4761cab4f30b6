"""`seqrl export`: a trained model as a folder for others."""

from __future__ import annotations

import argparse

from seqrl.cli.telling import tell_errors
from seqrl.console import say, tell_import
from seqrl.paths import find_path


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "seqrl export",
        description="Write a model in the layout of the Hugging Face hub: safetensors, config.json, a card with its "
        "rows of results, digests. `checkpoint=FOLDER` and seqrl.load(FOLDER) read it.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run, a .ckpt file, latest, or an exported folder")
    parser.add_argument("folder", type=find_path, metavar="FOLDER", help="a new folder")
    parser.add_argument("--half", action="store_true", help="keep weights as float16, half the size")
    parser.add_argument(
        "--onnx", action="store_true", help="write policies of one pass (dt, bc, rvs, a critic's actor) as ONNX, too"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has something in it")
    parser.add_argument(
        "--use", nargs="+", default=(), metavar="WORD", help="words of seqrl evaluate that the card shows"
    )
    options = parser.parse_args(arguments)
    tell_import("torch", "PyTorch")
    from seqrl.publishing.export import export_model

    wishes = {"half": options.half, "overwrite": options.overwrite, "use": options.use, "onnx": options.onnx}
    for told in export_model(options.checkpoint, options.folder, **wishes):
        say(told)
