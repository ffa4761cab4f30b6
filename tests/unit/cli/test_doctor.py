"""What `seqrl doctor` finds, and when it fails."""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path

import pytest

import seqrl
from seqrl.cli import doctor


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_sound_installation_has_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run([]) == 0
    told = capsys.readouterr().out
    for what in ("seqrl", "torch", "processor", "data ($SEQRL_DATA)", "locks", "MuJoCo", "OpenGL", "ffmpeg", "SLURM"):
        assert what in told
    assert seqrl.__version__ in told
    assert told.rstrip().endswith("nothing is wrong that seqrl needs")


def test_what_is_needed_and_what_is_optional(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [*(requires("seqrl") or []), "nobody-wrote-this>=3", "nor-this; extra == 'minari'", "numpy>=999"]
    monkeypatch.setattr(doctor, "requires", lambda name: listed)
    assert doctor.report([doctor.find_versions]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "wrong: nobody-wrote-this: not installed; pip install 'nobody-wrote-this>=3'" in told
    assert "wrong: numpy: " in told
    assert ">=999 is needed" in told
    assert "for data=minari; pip install 'seqrl[minari]'" in told
    assert "wrong: nor-this" not in told


def test_a_cluster_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [each.verdict for each in doctor.find_cluster()] == ["missing"]
    executable(tmp_path / "sbatch", "true")
    executable(tmp_path / "sinfo", "echo 'gpu* 4 idle'")
    assert [(each.verdict, each.found) for each in doctor.find_cluster()] == [("ok", "gpu* 4 idle")]
    executable(tmp_path / "sinfo", "echo 'slurm_load_partitions: unable to contact' >&2; exit 1")
    assert [(each.verdict, "unable to contact" in each.found) for each in doctor.find_cluster()] == [("missing", True)]


def test_a_failing_library_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def find_trouble() -> list[doctor.Finding]:
        raise RuntimeError("libtrouble.so is gone")

    assert doctor.report([find_trouble, doctor.find_locks]) == 1
    told = capsys.readouterr().out
    assert "wrong: trouble: RuntimeError: libtrouble.so is gone" in told
    assert "locks" in told


@pytest.mark.parametrize(
    ("asked", "there", "told"),
    [
        (None, {"EGL", "OSMesa"}, ["egl: no display", "osmesa: no display", "libegl1", "libosmesa6"]),
        (None, {"OSMesa"}, ["egl: there is no libEGL;", "osmesa: no display", "libgl1-mesa-dri for MUJOCO_GL=egl"]),
        ("osmesa", set(), ["osmesa: there is no libOSMesa;", "install libosmesa6"]),
        ("glfw", set(), ["glfw: no display", "install libegl1"]),
    ],
)
def test_a_missing_opengl_is_told_with_what_it_is_for_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, there: set[str], told: list[str]
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if asked:
        monkeypatch.setenv("MUJOCO_GL", asked)
    monkeypatch.setattr(doctor, "_try_python", lambda line, gl=None: "no display" if gl else None)
    monkeypatch.setattr(doctor, "find_library", lambda name: name if name in there else None)
    simulates, draws = doctor.find_mujoco()
    assert (simulates.verdict, draws.verdict) == ("ok", "missing")
    for words in ("for video=true of MuJoCo environments", *told):
        assert words in draws.found
    assert ("egl" in draws.found.partition("; install")[0]) == (asked is None)


def test_every_optional_part_says_what_it_is_for() -> None:
    extras = {text.partition("extra == ")[2].strip("'\" ") for text in requires("seqrl") or () if "extra == " in text}
    assert extras - {"all"} <= set(doctor._USES)
