"""Completion: which words may come, and that shells offer them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seqrl.cli import COMMANDS
from seqrl.cli.completion import complete, run


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("seqrl ", COMMANDS),
        ("seqrl tr", ["train"]),
        ("seqrl train tok", ["tokenizer.", "tokenizer=", "tokenizer_training."]),
        ("seqrl train tokenizer=q", ["tokenizer=quantile"]),
        ("seqrl train tokenizer=quantile tokenizer.num", ["tokenizer.num_bins="]),
        ("seqrl train training.max", ["training.max_steps="]),
        ("seqrl train trainer.strategy=dd", ["trainer.strategy=ddp"]),
        ("seqrl train window.terminate_truncated=", ["window.terminate_truncated=false"]),
        ("seqrl train experiment=maze2d_l", ["experiment=maze2d_large"]),
        ("seqrl train ~crit", ["~critic=", "~critic."]),
        ("seqrl train evaluation.settings.num", ["evaluation.settings.num_episodes="]),
        ("seqrl train planner.beam", ["planner.beam_width="]),
        ("seqrl train --ch", ["--check"]),
        ("seqrl evaluate checkpoint=x strat", ["strategy="]),
        ("seqrl evaluate planner=b", ["planner=beam"]),
        ("seqrl evaluate num", ["num_episodes="]),
        ("seqrl compare --fail", ["--fail-if-worse"]),
        ("seqrl results --", ["--where", "--sort", "--output"]),
        ("seqrl data in", ["inspect"]),
        ("seqrl completion f", ["fish"]),
    ],
)
def test_what_may_come_next(line: str, some: list[str]) -> None:
    found = complete(line)
    assert set(some) <= set(found)
    last = line.rpartition(" ")[2]
    assert all(word.startswith(last) for word in found)


@pytest.mark.parametrize(
    ("line", "none"),
    [
        ("seqrl evaluate ", ["tokenizer=", "experiment=", "trainer="]),
        ("seqrl train ", ["planner="]),  # which would make all rows the same
        ("seqrl compare runs/", []),  # a file
        ("seqrl nothing x", []),
    ],
)
def test_what_may_not_come(line: str, none: list[str]) -> None:
    found = complete(line)
    assert not set(none) & set(found)
    assert found or not none


@pytest.fixture
def seqrl_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a command `seqrl`, first in the path."""
    command = tmp_path / "bin" / "seqrl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m seqrl "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


BASH = """
source {script}
offer() {{ COMP_LINE="$1" COMP_POINT=${{#1}}; _seqrl 2>/dev/null; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
offer '{line}'
complete -p seqrl >&2
"""
ZSH = """
compadd() {{ local name=${{@[-1]}}; print -l -- ${{(P)name}} }}
_files() {{ print files }}
source {script}
words=({line}); CURRENT=$#words
_seqrl
"""
FISH = "source {script}; complete -C '{line}'"
OFFERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "bash": (BASH, lambda word: word.rpartition("=")[2]),  # readline replaces what stands behind the =
    "zsh": (ZSH, lambda word: word),
    "fish": (FISH, lambda word: word),
}


@pytest.mark.parametrize("shell", list(OFFERS))
@pytest.mark.parametrize(
    ("line", "word"), [("seqrl trai", "train"), ("seqrl train tokenizer=quan", "tokenizer=quantile")]
)
def test_a_shell_offers_them(
    seqrl_on_path: Path, capsys: pytest.CaptureFixture[str], shell: str, line: str, word: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert run([shell]) == 0
    script = seqrl_on_path / f"seqrl.{shell}"
    script.write_text(capsys.readouterr().out)
    text, shown = OFFERS[shell]
    options = ["--norc"] if shell == "bash" else ["-f"] if shell == "zsh" else ["--no-config"]
    done = subprocess.run(
        [shell, *options, "-c", text.format(script=script, line=line)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "HOME": str(seqrl_on_path)},
        check=False,
    )
    assert shown(word) in done.stdout.split(), done.stderr
    assert shell != "bash" or "_seqrl seqrl" in done.stderr
