"""What a training says of itself before its first step, and what it does not say of a folder that is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seqrl.cli import train
from seqrl.console import tell_import

TINY = (
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "evaluation=none", "training.max_steps=1", "training.batch_size=4"),
    *("window.length=3", "backbone.num_layers=1", "backbone.num_heads=1", "backbone.dim=8", "training.log_every=1"),
)
SHORT = ("evaluation=none", "training.max_steps=1")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_every_part_of_the_way_to_the_first_step_is_told(
    in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.run(list(TINY)) == 0
    told = lines(capsys)
    wanted = (
        "reading the episodes of data=d4rl data.path=hopper-tiny.hdf5",
        r"run folder: runs/run-\S+",
        r"fitting tokenizer=\w+, then encoding 60 transitions",
        r"model: step 1 of 1, loss .*",
    )
    places = [next(place for place, line in enumerate(told) if re.fullmatch(each, line)) for each in wanted]
    assert places == sorted(places)
    assert train.run(list(TINY)) == 0
    again = lines(capsys)
    assert again[0].startswith("run folder: ")
    assert again[1].startswith("the model is trained already: ")
    assert not any(line.startswith(("reading", "fitting")) for line in again)


def test_a_warm_start_fits_nothing(in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.run([*TINY, "name=first"]) == 0
    (first,) = Path("runs").glob("first-*")
    capsys.readouterr()
    assert train.run([*TINY, "name=on", f"init_from={first}", "seed=1"]) == 0
    assert "encoding 60 transitions" in lines(capsys)


def test_nothing_is_told_where_nobody_wants_progress(
    in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.run([*TINY, "training.progress_bar=false"]) == 0
    assert lines(capsys)[0].startswith("run folder: ")


def test_compiling_is_told(in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from seqrl.training.parallel import CompileModel

    class Module:
        class model:
            compile = staticmethod(lambda: None)

        get_submodule = staticmethod(lambda name: Module.model)

    class Trainer:
        is_global_zero = True

    CompileModel().setup(Trainer(), Module(), "fit")  # type: ignore[arg-type]
    assert "compiling the model" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["data=arrays", "data.path=nothing.npz", *SHORT],
        ["data=d4rl", "data.path=nothing.hdf5", *SHORT],
        ["data=store", "data.path=nothing", *SHORT],
        ["data=arrays", "data.path=empty.npz", *SHORT],
        [*TINY, "data.categories.task=3"],
        ["data=arrays", "data.path=whole.npz", "training.max_steps=1", "evaluation=default"],  # of no environment
    ],
)
def test_no_run_folder_is_named_before_anything_is_made(
    in_folder_with_data: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    np.savez("empty.npz", observations=np.zeros((0, 3)))
    ends = np.arange(40) % 10 == 9
    whole = {"observations": np.zeros((40, 3)), "actions": np.zeros((40, 2)), "rewards": np.ones(40)}
    np.savez("whole.npz", **whole, terminals=ends & False, timeouts=ends)
    assert train.run(words) == 2
    told = capsys.readouterr()
    assert "run folder" not in told.out
    assert "Error" in told.err
    assert not list(Path().glob("runs/*"))


def test_a_large_import_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    tell_import("a_package_that_is_not_here", "A")
    tell_import("pytest", "Pytest")
    tell_import("another_that_is_not_here", "B", wanted=False)
    assert lines(capsys) == ["loading A"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--check"], []])
def test_a_command_begins_by_saying_what_it_loads(in_folder_with_data: Path, words: list[str]) -> None:
    """Of a process of its own, whose standard output is no terminal."""
    ran = subprocess.run(
        [sys.executable, "-m", "seqrl", "train", *TINY, *words], capture_output=True, text=True, check=True
    )
    told = ran.stdout.splitlines()
    assert told[0] == "loading PyTorch"
    assert ("loading Lightning" in told[:2]) == (not words)


@pytest.mark.slow
def test_a_sweep_begins_by_saying_what_it_loads(in_folder_with_data: Path) -> None:
    words = ["-m", *TINY, "seed=0,1"]
    ran = subprocess.run([sys.executable, "-m", "seqrl", "train", *words], capture_output=True, text=True, check=True)
    told = ran.stdout.splitlines()
    assert told[0] == "loading PyTorch"
    assert told[1].startswith("job 0: ")
    assert ran.stdout.count("loading") == 2
    assert ran.stdout.count("run folder: ") == 2
