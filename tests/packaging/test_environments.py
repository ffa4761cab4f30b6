"""Gymnasium makes the environments of seqrl by their names, in whatever order the two are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

MADE = "env = gymnasium.make('{}'); env.reset(seed=0); print(env.spec.id)"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("first", ["import seqrl, gymnasium", "import gymnasium, seqrl", "import gymnasium"])
def test_an_environment_is_made_by_its_name(first: str) -> None:
    env_id = "seqrl/FourRooms-v0"
    name = env_id if "seqrl" in first else f"seqrl.envs:{env_id}"
    assert run(f"{first}; {MADE.format(name)}") == env_id


def test_registering_imports_no_simulator_and_happens_once() -> None:
    code = (
        "import sys, seqrl, gymnasium; ids = [i for i in gymnasium.registry if i.startswith('seqrl/')]; "
        "print(len(ids), 'mujoco' in sys.modules, 'torch' in sys.modules, gymnasium.__spec__.loader is not None, "
        "any(type(f).__name__ == '_Watch' for f in sys.meta_path))"
    )
    assert run(code) == "8 False False True False"


def test_all_names_are_made() -> None:
    code = (
        "import seqrl, gymnasium\n"
        "for name in ['Maze2d-Umaze-v1', 'Maze2d-Large-v1', 'PointMaze-Medium-v0', 'D4rlAnt-v2']:\n"
        "    env = gymnasium.make(f'seqrl/{name}'); env.reset(seed=0); print(env.spec.max_episode_steps)"
    )
    assert run(code).split() == ["300", "800", "1000", "1000"]


def test_a_package_that_is_missing_stays_missing() -> None:
    code = (
        "import sys, types\nfrom seqrl.after_import import call_after_import\n"
        "called = []; call_after_import('no_such_package', lambda: called.append(1))\n"
        "try:\n    import no_such_package\nexcept ModuleNotFoundError as error:\n    print(error, called)"
    )
    assert run(code) == "No module named 'no_such_package' []"
