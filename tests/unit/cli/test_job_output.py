"""The output of jobs that run at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seqrl.cli.job_output import whole_output

JOB = """
import sys
from pathlib import Path
from seqrl.cli.job_output import whole_output
from seqrl.console import say, say_error
sys.stdin.readline()
with whole_output(Path(sys.argv[1]), alone=False):
    for number in range(300):
        (say if number % 2 else say_error)(f"{sys.argv[2]} {number}")
    if sys.argv[2] == "b":
        raise SystemExit(3)
"""


def test_lines_of_one_job_stand_together(tmp_path: Path) -> None:
    """Three processes that write to one pipe, and one of them fails."""
    jobs = []
    read = subprocess.PIPE
    first = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=read)
    for name in "abc":
        command = [sys.executable, "-c", JOB, str(tmp_path), name]
        jobs.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=first.stdin, stderr=first.stdin))
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write(b"\n")
        job.stdin.close()
    assert [job.wait() for job in jobs] == [0, 3, 0]
    assert first.stdin is not None
    first.stdin.close()
    assert first.stdout is not None
    lines = first.stdout.read().decode().splitlines()
    first.stdout.close()
    first.wait()
    order = list(dict.fromkeys(line.split()[0] for line in lines))
    assert lines == [f"{name} {number}" for name in order for number in range(300)]
    assert sorted(order) == ["a", "b", "c"]


@pytest.mark.parametrize("own", ["alone", "submitit"])
def test_output_that_nobody_shares_comes_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    if own == "submitit":
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    with whole_output(tmp_path, alone=own == "alone"):
        print("now")
        assert capsys.readouterr().out == "now\n"
    assert not list(tmp_path.iterdir())
