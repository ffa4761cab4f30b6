"""joblib's workers of a sweep: they belong to it alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seqrl.cli.patches import bound_workers, end_workers

joblib = pytest.importorskip("joblib", reason="seqrl[joblib] is not installed")


def look() -> tuple[int, str, str | None]:
    return os.getpid(), str(Path.cwd()), os.environ.get("SEQRL_DATA")


def test_another_sweep_of_a_process_has_workers_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an earlier one would look for files, and write runs, where that one was started."""
    seen = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SEQRL_DATA", str(folder / "data"))
        with bound_workers():
            found = joblib.Parallel(n_jobs=2)(joblib.delayed(look)() for _ in range(4))
        end_workers()
        assert {each[1:] for each in found} == {(str(folder), str(folder / "data"))}
        seen.append({each[0] for each in found})
    assert not seen[0] & seen[1]
    for number in seen[0] | seen[1]:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_nothing_is_ended_where_nothing_was_started() -> None:
    end_workers()
    end_workers()
