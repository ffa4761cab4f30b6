"""What the numbers of a run depend on beside its settings: threads, torch, the instructions of the processor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from seqrl.checkpoints.reading import find_newest, read_checkpoint
from seqrl.config import TrainerConfig
from seqrl.console import say
from seqrl.errors import CheckpointError
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import KINDS

_MOST = 4096  # threads that a checkpoint may ask for


def describe_machine(trainer: TrainerConfig) -> dict[str, Any]:
    """What a checkpoint says of where it was computed: plain values.

    Args:
        trainer: tells whether a GPU computed.
    """
    gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
    }


def keep_threads(folder: RunFolder, trainer: TrainerConfig) -> None:
    """Compute with the threads that a run began with, or with those that the user asks for; tell what else differs.

    Sums are split among threads, so that their rounding depends on the number: a run that goes on ends bit for bit as
    one that was never interrupted only with the same number, the same torch and the same instructions.

    Args:
        trainer: its `num_threads` is the user's word.
    """
    default, asked = _default_threads(), trainer.num_threads
    note = _newest_note(folder)
    before = _mapping(note.get("machine"))
    begun = before.get("threads")
    if not isinstance(begun, int) or not 1 <= begun <= _MOST:
        begun = None
    torch.set_num_threads(asked or begun or default)
    if begun is not None and asked is None and begun != default:
        say(f"the run goes on with the {begun} threads that it began with; trainer.num_threads gives another number")
    changed = {
        "threads": (begun, torch.get_num_threads()),
        "torch": (_mapping(note.get("versions")).get("torch"), version("torch")),
        "instructions": (before.get("instructions"), describe_machine(trainer)["instructions"]),
        "GPU": (before.get("gpu"), describe_machine(trainer)["gpu"]),
    }
    told = [f"{what} {then}, now {now}" for what, (then, now) in changed.items() if then is not None and then != now]
    if told:
        say(f"the run began with {'; '.join(told)}: it will not end bit for bit as if it had not been interrupted")


@cache
def _default_threads() -> int:
    """The number that torch had before any run changed it."""
    return torch.get_num_threads()


def _newest_note(folder: RunFolder) -> Mapping[str, Any]:
    """What the newest checkpoint of a run says of itself; nothing where there is none that can be read."""
    for kind in reversed(KINDS):
        if kind.name in folder.status():
            with suppress(CheckpointError):  # which is told where the stage goes on
                found = find_newest(folder.path / kind.name, kind.name)
                if found is not None:
                    return _mapping(read_checkpoint(found.path, kind.name).get("seqrl"))
    return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
