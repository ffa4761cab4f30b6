"""Trains a run from its resolved config: `python -m seqrl.training.worker RUN/config.yaml`.

Runs with several processes start here, without Hydra, once per rank: started by `seqrl.training.launch`, by torchrun
or by srun. See `seqrl.training.parallel` for how a rank knows which one it is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from seqrl.config import RunConfig
from seqrl.console import open_streams, say_error
from seqrl.errors import SeqrlError, Stopped, sentence
from seqrl.plugins import load_plugins
from seqrl.runs.console_log import keep_console
from seqrl.runs.folder import RunFolder, read_config
from seqrl.runs.sharing import check_content
from seqrl.training.launch import LINE, STOPPED, Failure
from seqrl.training.run import train


def main(path: Path) -> int:
    """Exit status: 0 when training finished, 2 for an error of the user, 1 for any other, 128 + n for signal n.

    The first rank alone tells of a signal: srun would end the others while they save.
    """
    line = _line()
    open_streams()
    try:
        config = read_config(path)
        load_plugins(config.get("plugins", []))
        run, folder = RunConfig.from_saved(config), RunFolder(path.parent)
        check_content(folder, run)
        first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
        with (
            folder.held() if _is_first_of_torchrun(line) else nullcontext(),
            keep_console(folder.path) if first else nullcontext(),
        ):
            train(run, folder)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        return STOPPED + number if getattr(rank_zero_only, "rank", 0) == 0 else 0
    except Exception as error:
        known = isinstance(error, (SeqrlError, OSError))
        if line is None:
            say_error(sentence(error) if known else traceback.format_exc())
        else:
            line.sendall(json.dumps(asdict(_failure(error, known))).encode())
        return 2 if known else 1
    return 0


def _line() -> socket.socket | None:
    """The line to the process that started this one; None where that was torchrun, srun or a person."""
    if os.environ.pop(LINE, None) is None:
        return None
    return socket.socket(fileno=os.dup(0))


def _is_first_of_torchrun(line: socket.socket | None) -> bool:
    """Whether this process holds the run folder for all ranks, which else the command does that started them."""
    return line is None and "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") == "0"


def _failure(error: Exception, known: bool) -> Failure:
    """What the parent is told: an error of the user as it is, any other with its traceback."""
    kind, _, text = sentence(error).partition(": ")
    if known:
        return Failure(kind, text, time=time.monotonic())
    text = f"rank {os.environ['RANK']} failed: {sentence(error)}"
    return Failure("SeqrlError", text, traceback.format_exc(), time.monotonic())


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)  # tearing down a process group may wait for ranks that wait for this one
