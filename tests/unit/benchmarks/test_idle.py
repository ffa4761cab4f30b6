"""What a benchmark says of the machine and of who else used it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from seqrl.benchmarks.idle import CoreSeconds, IdleWatch
from seqrl.benchmarks.timing import describe_machine
from seqrl.cli.bench import run

STAT = """cpu  {user} 100 50 9000 400 10 20 30 5 0
cpu0 1 1 1 1 1 1 1 1 0 0
cpu1 1 1 1 1 1 1 1 1 0 0
cpu2 1 1 1 1 1 1 1 1 0 0
intr 12345
"""


def watch(*samples: CoreSeconds | None) -> tuple[float | None, list[str]]:
    told: list[str] = []
    rest = iter(samples)
    return IdleWatch(told.append, lambda: next(rest)).end(), told


def test_busy_seconds_are_those_of_all_columns_but_waiting(tmp_path: Path) -> None:
    """user, nice, system, irq, softirq and steal count; idle, waiting for disks and guests (in user already) do not."""
    (tmp_path / "stat").write_text(STAT.format(user=1000))
    found = CoreSeconds.now(tmp_path / "stat")
    assert found is not None
    assert found.busy * os.sysconf("SC_CLK_TCK") == pytest.approx(1000 + 100 + 50 + 10 + 20 + 30)
    assert found.cores == 3
    assert CoreSeconds.now(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("before", "meanwhile", "words"),
    [
        ((0.0, 0.0), (0.0, 20.0), []),  # all of it is ours
        ((0.0, 0.0), (1.0, 0.0), []),  # an idle system's own
        ((0.25, 0.0), (0.0, 0.0), ["keep 1.0 of 2 cores busy; let nothing else run"]),
        ((0.0, 0.0), (15.0, 10.0), ["kept 1.5 of 2 cores busy"]),
        ((0.5, 0.0), (5.0, 10.0), ["keep 2.0 of 2", "kept 0.5 of 2"]),
    ],
)
def test_work_of_others_is_told_and_own_work_is_not(
    before: tuple[float, float], meanwhile: tuple[float, float], words: list[str]
) -> None:
    """(seconds of others, own) while the machine is looked at for 0.25 s, and in the 10 s that follow."""
    first = CoreSeconds(100.0, 1000.0, 50.0, 2)
    second = CoreSeconds(100.25, 1000.0 + sum(before), 50.0 + before[1], 2)
    third = CoreSeconds(110.25, second.busy + sum(meanwhile), second.own + meanwhile[1], 2)
    others, told = watch(first, second, third)
    assert others == pytest.approx(meanwhile[0] / 10)
    assert len(told) == len(words)
    for sentence, part in zip(told, words, strict=True):
        assert part in sentence


def test_where_nobody_tells_nothing_is_said() -> None:
    assert watch(None, None, None) == (None, [])


def test_the_machine_is_named_with_its_instructions_and_library_of_products() -> None:
    machine = describe_machine(torch.device("cpu"), torch.float32)
    assert machine["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert machine["instructions"] in machine["device"]
    assert machine["processor"] in machine["device"]
    assert machine["products"] is None or machine["products"].lower() in torch.__config__.show().lower()


def test_bench_keeps_what_others_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--threads", "1", "--observation", "2", "--action", "1", "--layers", "1", "--heads", "1", "--width", "8"]
    shapes = ["--batch-size", "4", "--window", "3", "--steps", "1", "--transitions", "60", "--repeats", "1"]
    assert run(["data", *model, *shapes, "--batches", "2", "--output", str(tmp_path / "numbers.json")]) == 0
    machine = json.loads((tmp_path / "numbers.json").read_text())["machine"]
    assert machine["cores_of_others"] is None or machine["cores_of_others"] >= 0
    assert machine["instructions"] in capsys.readouterr().out
