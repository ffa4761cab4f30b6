"""Where the numbers of a run come from: what was typed, on which machine, and which code ran."""

from __future__ import annotations

import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import yaml

from seqrl.config import TrainerConfig
from seqrl.files import write_file
from seqrl.runs.words import show_words
from seqrl.runs.yaml_files import read_yaml

PROVENANCE = "provenance.yaml"


def note_invocation(folder: Path, overrides: Sequence[str], trainer: TrainerConfig) -> None:
    """Append to a run's `provenance.yaml` how it was started this time.

    An entry holds no environment variables, and of the machine no more than its name and what computes there.

    Args:
        overrides: of the command.
        trainer: of the run.
    """
    import torch

    entry = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"seqrl train {shlex.join(show_words(overrides))}".rstrip(),
        "overrides": list(overrides),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "accelerator": trainer.accelerator,
        "cores": os.cpu_count(),
        "threads": trainer.num_threads or torch.get_num_threads(),
        "git": {"seqrl": _git_state(Path(__file__).parents[1]), "working_folder": _git_state(Path.cwd())},
        "versions": {"python": platform.python_version(), **_versions()},
    }
    path = folder / PROVENANCE
    before = path.read_bytes() if path.is_file() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"  # it was damaged, and the new entry can be read all the same
    text = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=sys.maxsize)
    with write_file(path) as file:
        file.write(before + text.encode())


def read_words(folder: Path) -> str | None:
    """The words of the command that started a run last, as a shell takes them; None where nobody noted them.

    Short forms that the command wrote out are shown short again.
    """
    try:
        entries = read_yaml(folder / PROVENANCE)
        words = [str(word) for word in entries[-1]["overrides"]]
    except (OSError, ValueError, TypeError, LookupError):
        return None  # a run of before, or a damaged file
    return shlex.join(show_words(words))


def _versions() -> dict[str, str]:
    """Of seqrl and of the packages that it needs, as far as they are installed."""
    names = [match.group() for line in requires("seqrl") or () if (match := re.match(r"[\w.-]+", line))]
    found = {}
    for name in dict.fromkeys(["seqrl", *sorted(names)]):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # of an extra
    return found


def _git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a checkout and whether anything tracked was changed; None outside of one, or without git."""
    if folder.name == "seqrl" and _run_git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed into an environment that lies inside somebody's checkout
    commit = _run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)}


def _run_git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
