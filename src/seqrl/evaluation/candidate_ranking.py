"""Whether a model orders the first actions of a search as the simulator would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from seqrl.decoding.noise import Noise
from seqrl.evaluation.statistics import Estimate, bootstrap
from seqrl.evaluation.swapped_search import SwappedSearch

MOST_STATES = 12  # of an episode


@dataclass(frozen=True)
class Ranking:
    """How a search's candidates are ordered in the states that it met; means over states, intervals over episodes.

    What a candidate is worth is the discounted return that the search with simulated dynamics promises, by the same
    value, without any cost of leaving the data. A gain is what it is worth more than the mean candidate of its state.

    Attributes:
        states, candidates: how many, in all and in each state.
        correlation, correlation_ci95: of the ranks (Spearman), in [-1, 1]; 0 in a state where all are worth the same.
        promised, promised_ci95: gain that the model says its choice has.
        kept, kept_ci95: gain of that choice.
        best, best_ci95: gain of the best candidate.
    """

    states: int
    candidates: int
    correlation: float
    correlation_ci95: list[float] | None
    promised: float
    promised_ci95: list[float] | None
    kept: float
    kept_ci95: list[float] | None
    best: float
    best_ci95: list[float] | None

    @property
    def sentence(self) -> str:
        """The same in words."""
        told = [
            _tell(*each)
            for each in (
                (self.correlation, self.correlation_ci95, ".2f"),
                (self.kept, self.kept_ci95, "+.2f"),
                (self.best, self.best_ci95, "+.2f"),
                (self.promised, self.promised_ci95, "+.2f"),
            )
        ]
        return (
            f"Of {self.candidates} first actions in {self.states} states of the search, the model's order has a rank "
            f"correlation of {told[0]} with the simulator's; against the mean one its choice is worth {told[1]}, the "
            f"best {told[2]}, and {told[3]} were promised."
        )


@torch.no_grad()
def rank_candidates(
    learnt: SwappedSearch, true: SwappedSearch, states: list[np.ndarray], action_size: int, *, seed: int
) -> Ranking:
    """Compare what a search promises of its first actions with what the same search in the simulator says of them.

    Args:
        learnt, true: the same but for their dynamics.
        states: (n, O) observations of each episode.
        action_size: numbers of a transition's action.
        seed: of the candidates that are drawn.
    """
    rows = torch.from_numpy(np.concatenate(states).astype(np.float32))
    noise = Noise.of(seed, torch.arange(len(rows)), 0)
    promised, worth = (
        search.rate_first_actions(rows, action_size, noise).double().cpu().numpy() for search in (learnt, true)
    )
    episode = np.repeat(np.arange(len(states)), [len(each) for each in states])
    choice, every = promised.argmax(1), np.arange(len(rows))
    correlation, told, kept, best = (
        _average(each, episode)
        for each in (
            np.array([_correlate(*each) for each in zip(promised, worth, strict=True)]),
            promised.max(1) - promised.mean(1),
            worth[every, choice] - worth.mean(1),
            worth.max(1) - worth.mean(1),
        )
    )
    return Ranking(
        len(rows),
        promised.shape[1],
        correlation.mean,
        correlation.interval,
        told.mean,
        told.interval,
        kept.mean,
        kept.interval,
        best.mean,
        best.interval,
    )


def pick_states(observations: np.ndarray, lengths: np.ndarray, stride: int) -> list[np.ndarray]:
    """Up to `MOST_STATES` of each episode, evenly spread over the steps at which it could plan.

    Args:
        observations: (B, T + 1, O).
        lengths: (B,) steps of each episode.
        stride: steps of a transition.
    """
    found = []
    for each, length in zip(observations, lengths, strict=True):
        steps = np.arange(0, length, stride)
        found.append(each[steps[np.unique(np.linspace(0, len(steps) - 1, MOST_STATES).astype(int))]])
    return found


def _average(values: np.ndarray, episode: np.ndarray) -> Estimate:
    """The mean over states, whose interval resamples episodes."""
    width = np.bincount(episode).max()
    table, counted = np.zeros((episode[-1] + 1, width)), np.zeros((episode[-1] + 1, width), bool)
    for number in range(len(table)):
        mine = values[episode == number]
        table[number, : len(mine)], counted[number, : len(mine)] = mine, True
    return bootstrap(table, counted)


def _correlate(promised: np.ndarray, worth: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one of them does not tell the candidates apart."""
    ranks = [rankdata(each) for each in (promised, worth)]
    if any(each.std() == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _tell(mean: float, interval: list[float] | None, form: str) -> str:
    return f"{mean:{form}}" if interval is None else f"{mean:{form}} [{interval[0]:.2f}, {interval[1]:.2f}]"
