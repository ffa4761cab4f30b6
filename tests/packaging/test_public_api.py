"""What `import seqrl` offers, and what it must not cost."""

from __future__ import annotations

import json
import subprocess
import sys

import seqrl

HEAVY = ["hydra", "omegaconf", "lightning", "pytorch_lightning", "gymnasium", "minari", "mujoco", "h5py"]


def test_importing_seqrl_stays_light() -> None:
    code = f"import json, sys, seqrl; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_resolves() -> None:
    for name in seqrl.__all__:
        assert getattr(seqrl, name) is not None


def test_public_names_are_sorted() -> None:
    assert list(seqrl.__all__) == sorted(set(seqrl.__all__))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(seqrl, "no_such_name")
