"""Fixtures that several test files share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from seqrl import plugins
from seqrl.data.episodes import EpisodeStore
from seqrl.evaluation.rows import ResultsRow
from seqrl.layout import Layout
from seqrl.registry import all_registries

torch.set_num_threads(1)

# The same examples in every run; no deadline, because the machines that run this are shared.
settings.register_profile("seqrl", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("seqrl")


@pytest.fixture(autouse=True, scope="session")
def _data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests record and tokenize is kept among them, and not in the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQRL_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def _no_hydra_left() -> Iterator[None]:
    """Hydra keeps its configuration in a global; a test must not find what another one left."""
    _clear_hydra()
    yield
    _clear_hydra()


def _clear_hydra() -> None:
    module = sys.modules.get("hydra.core.global_hydra")
    if module is not None:
        module.GlobalHydra.instance().clear()


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Inside `with interrupted_at(step):` trainings are interrupted (SIGINT) at the end of that step."""

    @contextmanager
    def interrupting(step: int) -> Iterator[None]:
        from seqrl.training.callbacks import StopAtInterrupt

        class InterruptAtStep(StopAtInterrupt):
            def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
                self.number = signal.SIGINT if trainer.global_step == step else None
                super().on_train_batch_end(trainer, *rest)

        with monkeypatch.context() as patched:
            patched.setattr("seqrl.training.fit.StopAtInterrupt", InterruptAtStep)
            yield

    return interrupting


STARTS = {"env_id": None, "seed": 0, "num_episodes": 10, "max_steps": None, "start_cells": None, "goals": None}
ROW: dict[str, Any] = {
    "strategy": "imitation",
    "dataset": "tiny",
    "env_id": "Hopper-v5",
    "planner": {"name": "sample", "temperature": 0, "cache": "exact"},
    "condition": {"name": "none"},
    "score": {"name": "likelihood"},
    "model": "tokens",
    "discrete_actions": False,
    "cache": "exact",
    "plan_every": 1,
    "time_budget_ms": None,
    "horizon_mean": 1.0,
    "num_episodes": 10,
    "return_mean": 3.14159,
    "return_std": 2.0,
    "return_ci95": [1.0, 5.26],
    "length_mean": 100.5,
    "score_mean": 50.06,
    "score_ci95": [40.0, 60.0],
    "score_note": "",
    "ms_per_action": 1.2345,
    "environments_per_batch": 10,
    "device": "cpu",
    "precision": "float32",
    "threads": 2,
    "behaviour_return_mean": 7.25,
    "behaviour_score": 12.34,
    "seed": 0,
    "starts": STARTS,
    "shuffle_goals": False,
    "min_cells": 2,
    "training": "1f4aa5f5",
    "training_seed": 3,
    "training_steps": 500,
    "versions": {"seqrl": "0.1", "torch": "2.6.0", "gymnasium": "1.1.0", "mujoco": "3.3.0"},
}
GOALS: dict[str, Any] = {
    "success_rate": 87.5,
    "success_ci95": [80.0, 95.04],
    "counted_episodes": 8,
    "success_by_goal": [{"goal": [1.0, 3.5], "starts": 8, "success_rate": 75.0}],
    "steps_to_goal_median": 42.0,
    "time_at_goal": 0.625,
}


@pytest.fixture(scope="session")
def make_row() -> Callable[..., ResultsRow]:
    """`make_row(toward_goals=True, **changes)`: a results row; changes are keys of results.json, starts are merged."""

    def make(*, toward_goals: bool = False, **changes: Any) -> ResultsRow:
        starts = {**STARTS, **changes.pop("starts", {})}
        return ResultsRow.from_json({**ROW, **(GOALS if toward_goals else {}), **changes, "starts": starts})

    return make


@pytest.fixture
def clean_plugins() -> Iterator[None]:
    """Forgets afterwards what a test registered, loaded or failed to load."""
    before = set(sys.modules)
    with ExitStack() as stack:
        stack.enter_context(plugins.set_aside())
        for registry in all_registries():
            stack.enter_context(registry.set_aside())
        yield
    for name in set(sys.modules) - before:
        if name.startswith("seqrl_user"):
            del sys.modules[name]


@pytest.fixture
def plain_layout_config() -> Callable[..., dict[str, Any]]:
    """`plain_layout_config(goal=..., discount=...)`: the layout of the Trajectory Transformer as a plain config."""

    def config(**changes: Any) -> dict[str, Any]:
        fields = {
            "observation": {"loss_weight": 1.0},
            "action": {"loss_weight": 5.0},
            "reward": {"loss_weight": 1.0},
            "value": {"loss_weight": 1.0, "hidden": True},
        }
        return {"fields": fields, "goal": None, "discount": 0.99, "termination_penalty": -100.0, **changes}

    return config


@pytest.fixture
def tiny_layout(plain_layout_config: Callable[..., dict[str, Any]]) -> Layout:
    """Three observation dimensions, two of action, reward and hidden value: S = 7."""
    return Layout.from_config(plain_layout_config(), 3, 2)


@pytest.fixture
def tiny_store() -> EpisodeStore:
    """Five episodes: a true end after 6 steps, a time limit after 9, true ends after 1 and 5, a cut after 4.

    The first observation dimension counts the rows, so that a row can be told by its observation.
    """
    lengths = [6, 9, 1, 5, 4]
    count = sum(lengths)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(count, 3))
    observations[:, 0] = np.arange(count)
    stops = np.cumsum(lengths) - 1
    ends, terminals = np.zeros(count, bool), np.zeros(count, bool)
    ends[stops[:4]] = True
    terminals[stops[[0, 2, 3]]] = True
    return EpisodeStore.from_arrays(
        observations,
        rng.uniform(-1, 1, size=(count, 2)),
        rng.normal(size=count),
        ends,
        terminals,
        attributes={"name": "tiny"},
    )


@pytest.fixture
def in_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with `hopper-tiny.hdf5`: D4RL's layout, Hopper's sizes, three time-limited episodes."""
    import h5py

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with h5py.File("hopper-tiny.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(60, 11)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (60, 3)).astype(np.float32)
        file["rewards"] = rng.normal(size=60).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(60, bool), np.arange(60) % 20 == 19
    return tmp_path
