"""What a way of acting earns from recorded states, such as those of a gait: `python -m benchmarks.recorded_starts`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np
import torch

from seqrl.acting.policy import Policy
from seqrl.checkpoints.loading import checkpoint_file, load, load_critic
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.evaluation.simulators import simulator_of
from seqrl.evaluation.statistics import bootstrap
from seqrl.evaluation.training_data import load_training_data
from seqrl.paths import find_path


def pick_rows(store: EpisodeStore, step: int, length: int, count: int) -> np.ndarray:
    """(N,) rows of the data, each `step` steps into one of up to `count` episodes, with `length` recorded steps behind.

    Raises:
        ConfigError: no episode is as long.
    """
    starts, lengths = store.offsets[:-1], np.diff(store.offsets)
    long = np.flatnonzero(lengths >= step + length)
    if not len(long):
        raise ConfigError(f"no episode has {step + length} steps; give a smaller --step or --length")
    chosen = long[np.unique(np.linspace(0, len(long) - 1, count).astype(int))]
    rows: np.ndarray = starts[chosen] + step
    return rows


def follow(policy: Policy, env_id: str, states: np.ndarray, length: int) -> np.ndarray:
    """(N, length) rewards from (N, O) observations on; 0 after a true end."""
    simulator = simulator_of(env_id)
    rewards = np.zeros((len(states), length))
    alive, earned = np.ones(len(states), bool), None
    policy.reset(len(states))
    for step in range(length):
        actions = np.asarray(policy.act(states) if earned is None else policy.act(states, rewards=earned))
        states, earned, over = simulator.step(states, actions, 1.0)
        rewards[:, step] = np.where(alive, earned, 0.0)
        alive &= ~over
    simulator.close()
    return rewards


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m benchmarks.recorded_starts", description=__doc__)
    parser.add_argument("run", type=find_path, metavar="RUN")
    parser.add_argument("--planner", type=json.loads, default={"name": "sample", "temperature": 0}, metavar="JSON")
    parser.add_argument("--score", type=json.loads, default={"name": "reward"}, metavar="JSON")
    parser.add_argument("--plan-every", type=int, default=1, metavar="N")
    parser.add_argument("--step", type=int, default=300, metavar="N", help="of the recorded episodes (300)")
    parser.add_argument("--length", type=int, default=200, metavar="N", help="steps to act (200)")
    parser.add_argument("--episodes", type=int, default=10, metavar="N")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    file = checkpoint_file(options.run)
    loaded = load(file)
    store = load_training_data(loaded, "episodes begin in states of the data")
    if loaded.dataset.env_id is None:
        raise ConfigError("the data of this checkpoint name no environment")
    rows = pick_rows(store, options.step, options.length, options.episodes)
    policy = Policy(
        loaded.model,
        planner=options.planner,
        score=options.score,
        critic=load_critic(file),
        plan_every=options.plan_every,
    )
    earned = follow(policy, loaded.dataset.env_id, np.asarray(store.observations[rows]), options.length)
    recorded = np.array([store.rewards[row : row + options.length].sum() for row in rows])
    for name, each in (("return", earned.sum(1)), ("recorded from there", recorded)):
        found = bootstrap(each)
        say(f"{name}: {found.mean:.1f} [{found.low:.1f}, {found.high:.1f}] over {len(each)} starts")


if __name__ == "__main__":
    main(sys.argv[1:])
