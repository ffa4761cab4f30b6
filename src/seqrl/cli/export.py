"""`seqrl export`: a trained model as a folder for others."""

from __future__ import annotations

import argparse

from seqrl.console import say, say_error
from seqrl.errors import SeqrlError, sentence
from seqrl.paths import find_path


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 2 for an error of the user, told in one sentence on stderr; 130 for Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        "seqrl export",
        description="Write a model in the layout of the Hugging Face hub: safetensors, config.json, a card with its "
        "rows of results, digests. `checkpoint=FOLDER` and seqrl.load(FOLDER) read it.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run, a .ckpt file, latest, or an exported folder")
    parser.add_argument("folder", type=find_path, metavar="FOLDER", help="a new folder")
    parser.add_argument("--half", action="store_true", help="keep weights as float16, half the size")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has something in it")
    parser.add_argument(
        "--use", nargs="+", default=(), metavar="WORD", help="words of seqrl evaluate that the card shows"
    )
    options = parser.parse_args(arguments)
    from seqrl.publishing.export import export_model

    wishes = {"half": options.half, "overwrite": options.overwrite, "use": options.use}
    try:
        for told in export_model(options.checkpoint, options.folder, **wishes):
            say(told)
    except KeyboardInterrupt:
        say_error("interrupted; nothing was written")
        return 130
    except (SeqrlError, OSError) as error:
        say_error(sentence(error))
        return 2
    return 0
