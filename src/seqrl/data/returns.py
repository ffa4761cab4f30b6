"""Rewards and returns-to-go as the Trajectory Transformer sees them, and whole transitions, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.signal import lfilter

from seqrl.data.episodes import EpisodeStore
from seqrl.data.extras import read_extra
from seqrl.data.gathered_rows import CHUNK_ROWS
from seqrl.layout import Layout

SAMPLE_SCALARS = 2**26  # of a sample of transitions: 256 MiB


def penalised_rewards(
    store: EpisodeStore, penalty: float | None, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """(n,) float64 rewards of rows `start` to `stop`, replaced by `penalty` in the last step of terminated episodes.

    Time limits are no ends and stay as they are. None leaves all rewards.
    """
    rewards = store.rewards[start:stop].astype(np.float64)
    if penalty is not None:
        lasts = store.offsets[1:][store.terminated] - 1 - start
        rewards[lasts[(lasts >= 0) & (lasts < len(rewards))]] = penalty
    return rewards


def returns_to_go(rewards: np.ndarray, offsets: np.ndarray, discount: float, *, following: float = 0.0) -> np.ndarray:
    """(N,) float64 `sum_{k>=0} gamma^k r_{t+1+k}` within the episode: what follows step t, without `r_t` itself.

    A linear recurrence run backwards, exact to float64 rounding, over all episodes of one length at a time.

    Args:
        following: the return that follows the last row, where the last episode goes on beyond the rewards given.
    """
    inputs = np.append(rewards[1:], 0.0)
    inputs[offsets[1:] - 1] = 0.0
    inputs[-1:] = following
    values, lengths = np.empty(len(rewards)), np.diff(offsets)
    for length in np.unique(lengths):
        rows = offsets[1:][lengths == length, None] - 1 - np.arange(length)  # (episodes, steps), last step first
        values[rows] = lfilter([1.0], [1.0, -discount], inputs[rows])
    return values


def transition_chunks(store: EpisodeStore, layout: Layout, rows: int = CHUNK_ROWS) -> Iterator[tuple[int, np.ndarray]]:
    """All transitions as `(first row, (n, S) float32)`, the last ones first: a return-to-go needs what follows.

    Only one chunk is in memory at a time, whatever the size of the store and the length of its episodes. With a stride
    a transition starts at every row all the same: windows then take every `stride`-th.
    """
    following = 0.0
    values_after = np.zeros(0)  # of the first rows of the chunk that was yielded before
    for first in reversed(range(0, len(store), rows)):
        stop = min(first + rows, len(store))
        rewards = penalised_rewards(store, layout.termination_penalty, first, stop)
        columns = {"observation": store.observations[first:stop], "action": store.actions[first:stop]}
        if layout.chunk > 1:
            columns["action"] = join_actions(store, np.arange(first, stop), layout.chunk)
        if layout.has("difference"):
            columns["difference"] = _differences(store, first, stop, layout.stride)
        if layout.has("value") or layout.has("return"):
            low, high = np.searchsorted(store.offsets, [first, stop], side="right")
            ends_here = store.offsets[high - 1] == stop
            pieces = np.unique([0, *(store.offsets[low:high] - first), stop - first])
            values = returns_to_go(rewards, pieces, layout.discount, following=0.0 if ends_here else following)
            following = rewards[0] + layout.discount * values[0]
            columns["return"] = (rewards + layout.discount * values)[:, None]
            extended = np.concatenate([values, values_after])
            columns["value"] = _ahead(extended, store, first, stop, layout.stride - 1)[:, None]
            values_after = extended[: layout.stride - 1]
        if layout.stride > 1:
            further = penalised_rewards(store, layout.termination_penalty, first, stop + layout.stride - 1)
            powers = layout.discount ** np.arange(layout.stride)
            rewards = sum(power * _ahead(further, store, first, stop, k) for k, power in enumerate(powers))
        columns["reward"] = rewards[:, None]
        columns |= {f.name: read_extra(store, layout, f, first, stop) for f in (*layout.contexts, *layout.outcomes)}
        yield first, np.concatenate([columns[f.name] for f in layout.fields], axis=1, dtype=np.float32)


def join_actions(store: EpisodeStore, rows: np.ndarray, chunk: int) -> np.ndarray:
    """(n, chunk * A) the actions of rows and of those after them; past the end of an episode, its last one again."""
    steps = np.minimum(rows[:, None] + np.arange(chunk), _last_rows(store, rows)[:, None])
    return np.asarray(store.actions[steps.ravel()]).reshape(len(rows), -1)


def _differences(store: EpisodeStore, first: int, stop: int, stride: int) -> np.ndarray:
    """(n, O) observations of the transitions after rows `first` to `stop`, less theirs; past the end of an episode that
    of its last step stands for the next."""
    rows = np.arange(first, stop)
    following = np.minimum(rows + stride, _last_rows(store, rows))
    found: np.ndarray = store.observations[following] - store.observations[first:stop]
    return found


def _last_rows(store: EpisodeStore, rows: np.ndarray) -> np.ndarray:
    """(n,) the last rows of the episodes that (n,) rows lie in."""
    found: np.ndarray = store.offsets[np.searchsorted(store.offsets, rows, side="right")] - 1
    return found


def _ahead(array: np.ndarray, store: EpisodeStore, first: int, stop: int, steps: int) -> np.ndarray:
    """(stop - first,) what stands `steps` rows ahead of rows `first` to `stop`; 0 past the end of an episode.

    Args:
        array: of the rows from `first` on.
    """
    rows = np.arange(first, stop) + steps
    inside = rows <= _last_rows(store, np.arange(first, stop))
    return np.where(inside, array[np.where(inside, rows - first, 0)], 0.0)


def transitions(store: EpisodeStore, layout: Layout) -> np.ndarray:
    """(N, S) float32: every field of the layout, in its order; all in memory."""
    values = np.empty((len(store), layout.size), np.float32)
    for first, chunk in transition_chunks(store, layout):
        values[first : first + len(chunk)] = chunk
    return values


def sample_transitions(
    store: EpisodeStore,
    layout: Layout,
    episodes: np.ndarray | None = None,
    *,
    scalars: int = SAMPLE_SCALARS,
    seed: int = 0,
) -> np.ndarray:
    """(n, S) float32 for statistics: the transitions of some episodes, in the order of the store, where they fit.

    More than `scalars` numbers are sampled instead: rows drawn evenly, one out of each of as many stretches of equal
    length, and then, for every scalar, the row with its smallest and the row with its largest value, so that ranges
    stay exact.

    Args:
        episodes: (E',) numbers in rising order; all by default.
        seed: of the draws; the same seed gives the same sample.
    """
    chosen = np.ones(store.num_episodes, bool) if episodes is None else np.isin(np.arange(store.num_episodes), episodes)
    count = int(store.lengths[chosen].sum())
    size = max(1, scalars // layout.size)
    if count <= size:
        picks = np.arange(count)
    else:
        picks = np.floor((np.arange(size) + np.random.default_rng([seed, 5]).random(size)) * (count / size)).astype(int)
    every = count <= size
    sample = np.empty((len(picks) + (0 if every else 2 * layout.size), layout.size), np.float32)
    lows = np.full((layout.size, layout.size), np.inf, np.float32)  # row i holds the smallest scalar i
    highs, each = -lows, np.arange(layout.size)
    stop = count
    for first, chunk in transition_chunks(store, layout):
        episode = np.searchsorted(store.offsets, np.arange(first, first + len(chunk)), side="right") - 1
        values = chunk[chosen[episode]]
        start = stop - len(values)
        low, high = np.searchsorted(picks, [start, stop])
        sample[low:high] = values[picks[low:high] - start]
        if len(values) and not every:
            smallest, largest = values[values.argmin(0)], values[values.argmax(0)]
            lows = np.where((smallest[each, each] < lows[each, each])[:, None], smallest, lows)
            highs = np.where((largest[each, each] > highs[each, each])[:, None], largest, highs)
        stop = start
    if not every:
        sample[len(picks) : len(picks) + layout.size], sample[len(picks) + layout.size :] = lows, highs
    return sample
