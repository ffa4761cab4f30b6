"""The wheel carries what the checkout has: the code, and the configs that `seqrl` cannot run without."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_every_config(wheel_names: list[str]) -> None:
    configs = {f"seqrl/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in ROOT.glob("conf/**/*.yaml")}
    assert "seqrl/conf/train.yaml" in configs
    assert configs <= set(wheel_names)


def test_wheel_holds_the_catalogue(wheel_names: list[str]) -> None:
    assert "seqrl/d4rl/catalogue.csv" in wheel_names


def test_wheel_holds_the_package_and_nothing_else(wheel_names: list[str]) -> None:
    code = {f"seqrl/{p.relative_to(ROOT / 'src' / 'seqrl').as_posix()}" for p in ROOT.glob("src/seqrl/**/*.py")}
    assert code <= set(wheel_names)
    assert {name.partition("/")[0] for name in wheel_names} == {"seqrl", "seqrl-0.1.0.dist-info"}


def test_wheel_installs_the_command(wheel_names: list[str]) -> None:
    assert "seqrl-0.1.0.dist-info/entry_points.txt" in wheel_names
