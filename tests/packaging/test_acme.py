"""A plugin package as other people write it: installed as a wheel and as editable, and seen by the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ACME = Path(__file__).resolve().parents[1] / "plugins" / "acme_seqrl"

pytestmark = pytest.mark.slow

BROKEN_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "broken-seqrl"
version = "3"

[project.entry-points."seqrl.plugins"]
broken = "broken_seqrl"
"""


def environment(folder: Path) -> Path:
    """An environment of its own, without pip, that sees the packages of this one; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, capture_output=True)
    python = folder / "bin" / "python"
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    paths = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    # addsitedir, because seqrl itself may be installed by a .pth file there
    (own / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))
    return python


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def seqrl(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "seqrl", *words]
    env = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=env)


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with acme-seqrl."""
    folder = tmp_path_factory.mktemp(request.param)
    source = folder / "acme"
    shutil.copytree(ACME, source, ignore=shutil.ignore_patterns("__pycache__"))
    python = environment(folder / "venv")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    if request.param == "wheel":
        pip("wheel", *offline, "-w", folder / "dist", source)
        (wheel,) = (folder / "dist").glob("acme_seqrl-0.2-*.whl")
        pip("--python", python, "install", *offline, wheel)
        shutil.rmtree(source)
    else:
        pip("--python", python, "install", *offline, "-e", source)
    return python


def test_the_list_names_it_with_its_distribution(installed: Path, tmp_path: Path) -> None:
    done = seqrl(installed, "plugins", "list", "tokenizer", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "log_bins acme-seqrl 0.2 Bins of equal width on a signed-log scale: fine near zero" in " ".join(
        done.stdout.split()
    )
    assert "num_bins=100" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize(
    ("name", "slot"), [("log_bins", "tokenizer"), ("parallel", "backbone"), ("shooting", "planner")]
)
def test_its_components_keep_their_contracts(installed: Path, tmp_path: Path, name: str, slot: str) -> None:
    done = seqrl(installed, "plugins", "check", name, "--slot", slot, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_command_takes_its_yaml(installed: Path, tmp_path: Path) -> None:
    done = seqrl(installed, "train", "debug=fast", "tokenizer=log_bins", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tokenizer:\n  name: log_bins\n  num_bins: 128\n" in done.stdout


def test_a_broken_package_beside_it_is_reported_and_breaks_nothing(installed: Path, tmp_path: Path) -> None:
    package = tmp_path / "broken" / "src" / "broken_seqrl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "broken" / "pyproject.toml").write_text(BROKEN_PROJECT)
    target = tmp_path / "target"
    pip("install", "--no-deps", "--no-build-isolation", "--no-index", "--target", target, tmp_path / "broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(target))
        listed = seqrl(installed, "plugins", "list", cwd=tmp_path)
        verbose = seqrl(installed, "plugins", "list", "score", "--verbose", cwd=tmp_path)
        composed = seqrl(installed, "train", "debug=fast", "tokenizer=log_bins", "--cfg", "job", cwd=tmp_path)
        unknown = seqrl(installed, "plugins", "check", "log_bin", "--slot", "tokenizer", cwd=tmp_path)
    assert listed.returncode == 0
    assert "log_bins" in listed.stdout
    reason = "broken-seqrl: ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
    assert listed.stdout.rstrip().endswith(reason)
    assert "Traceback" in verbose.stdout
    assert composed.returncode == 0, composed.stderr
    assert unknown.returncode == 2
    assert "(seqrl); log_bins (acme-seqrl 0.2)" in unknown.stderr
    assert "plugin 'broken-seqrl' failed to import: ModuleNotFoundError" in unknown.stderr


def test_a_checkpoint_that_needs_it_says_so_elsewhere(installed: Path, tmp_path: Path) -> None:
    data = ("data.num_transitions=600", f"data.cache_dir={tmp_path}")
    words = ("debug=fast", "tokenizer=log_bins", "evaluation=none", "training.progress_bar=false", *data)
    trained = seqrl(installed, "train", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = tmp_path.glob("runs/*/model/last.ckpt")
    evaluate = ("evaluate", f"checkpoint={checkpoint}", "strategy=imitation", "num_episodes=1", "max_steps=2")
    here = seqrl(Path(sys.executable), *evaluate, cwd=tmp_path)
    assert here.returncode == 2
    assert "no tokenizer named 'log_bins'" in here.stderr
    assert "(trained with tokenizer of acme-seqrl 0.2; install or load the same)" in here.stderr
    there = seqrl(installed, *evaluate, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
