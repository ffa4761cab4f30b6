"""Windows, their loss masks and their goals, against loops over episodes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrl.config import WindowConfig
from seqrl.data.batches import TokenWindows
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError, DataError
from seqrl.layout import Layout
from seqrl.testing import samples
from seqrl.types import TokenBatch

END = 1000  # termination token, larger than any row number
FIELDS = {"observation": {}, "action": {}}


def layout(goal: dict[str, object] | None = None, discount: float = 0.9) -> Layout:
    return Layout.from_config({"fields": FIELDS, "goal": goal, "discount": discount}, 2, 1)


def row_tokens(store: EpisodeStore) -> np.ndarray:
    """(N, 3) tokens of which the first tells the row."""
    rows = np.arange(len(store))
    return np.stack([rows, rows % 7, rows % 5], axis=1).astype(np.int32)


def make_windows(
    store: EpisodeStore, length: int, goal: dict[str, object] | None = None, **options: object
) -> TokenWindows:
    settings = WindowConfig(length, terminate_truncated=bool(options.pop("terminate_truncated", True)))
    discount = float(options.pop("discount", 0.9))  # type: ignore[arg-type]
    return TokenWindows(
        store,
        row_tokens(store),
        layout(goal, discount),
        settings,
        termination_token=END,
        **options,  # type: ignore[arg-type]
    )


def every(windows: TokenWindows, seed: int = 0) -> TokenBatch:
    return windows.batch(np.arange(len(windows)), np.random.default_rng(seed))


def goal_rows(windows: TokenWindows, seed: int = 0) -> np.ndarray:
    """The row from which each window's goal was taken, END for the null goal."""
    prefix = every(windows, seed).goal
    assert prefix is not None
    return prefix[:, 0].numpy()


@st.composite
def stores(draw: st.DrawFn) -> EpisodeStore:
    """Episodes of 1 to 15 steps, at least one of two or more, with random ends and behaviour segments."""
    lengths = draw(st.lists(st.integers(1, 15), min_size=1, max_size=6).filter(lambda found: max(found) > 1))
    count = sum(lengths)
    ends, terminals = np.zeros(count, bool), np.zeros(count, bool)
    stops = np.cumsum(lengths) - 1
    ends[stops] = True
    ends[-1] = draw(st.booleans())  # the last episode may be cut
    terminals[stops] = [draw(st.booleans()) for _ in stops]
    one_in = draw(st.sampled_from([2, 5, 50]))
    segment_ends = np.array(draw(st.lists(st.integers(1, one_in), min_size=count, max_size=count))) == one_in
    zeros = np.zeros((count, 2))
    return EpisodeStore.from_arrays(
        zeros, zeros[:, :1], zeros[:, 0], ends, terminals & ends, segment_ends=segment_ends, origin="example"
    )


def spans(boundaries: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(boundaries)]


@given(stores(), st.integers(2, 12), st.booleans(), st.booleans())
def test_windows_and_masks_against_a_loop(
    store: EpisodeStore, length: int, terminate_truncated: bool, with_goal: bool
) -> None:
    goal: dict[str, object] | None = {"dims": [0], "dropout": 0.0} if with_goal else None
    windows = make_windows(store, length, goal, terminate_truncated=terminate_truncated)
    tokens = row_tokens(store)
    longest = max(b - a for a, b in spans(store.offsets))
    wanted_tokens, wanted_mask = [], []
    for number, (first, stop) in enumerate(spans(store.offsets)):
        for start in range(first, stop - 1):
            segment_stop = next(b for a, b in spans(store.segments) if a <= start < b)
            real_stop = segment_stop if with_goal else stop
            window, mask = [], []
            for row in range(start, start + length):
                inside = row < real_stop
                window.append(tokens[row] if inside else [END] * 3)
                ends_here = real_stop == stop and (bool(store.terminated[number]) or terminate_truncated)
                mask.append(inside or (ends_here and row - first < longest))
            wanted_tokens.append(window)
            wanted_mask.append(mask)
    batch = every(windows)
    np.testing.assert_array_equal(batch.tokens.numpy(), np.array(wanted_tokens))
    np.testing.assert_array_equal(batch.mask.numpy(), np.array(wanted_mask)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["uniform", "last", "geometric"])
@given(store=stores(), length=st.integers(2, 12), seed=st.integers(0, 5))
def test_goals_lie_at_or_after_the_end_of_the_window_inside_the_segment(
    kind: str, store: EpisodeStore, length: int, seed: int
) -> None:
    windows = make_windows(store, length, {"dims": [0, 1], "dropout": 0.0, "draw": kind})
    starts = every(windows).tokens[:, 0, 0].numpy()
    rows = goal_rows(windows, seed)
    tokens = row_tokens(store)
    np.testing.assert_array_equal(every(windows, seed).goal, tokens[rows][:, :2])
    for start, row in zip(starts, rows, strict=True):
        stop = next(b for a, b in spans(store.segments) if a <= start < b)
        episode_stop = next(b for a, b in spans(store.offsets) if a <= start < b)
        # The state that the segment's last action reached, where the recording still has it.
        last = stop if stop < episode_stop else stop - 1
        assert row <= last
        assert row >= min(start + length, last)
        if kind == "last":
            assert row == last


def one_episode(count: int = 40) -> EpisodeStore:
    ends = np.zeros(count, bool)
    ends[-1] = True
    zeros = np.zeros((count, 2))
    return EpisodeStore.from_arrays(zeros, zeros[:, :1], zeros[:, 0], ends, ends & False)


def many_goals(kind: str, discount: float = 0.9, own: float | None = None) -> np.ndarray:
    """20 000 goals of the window at row 5, three long: how many steps after row 8, the first that may be one."""
    goal = {"dims": [0], "dropout": 0.0, "draw": kind, "discount": own}
    windows = make_windows(one_episode(), 3, goal, discount=discount)
    indices = np.full(20_000, 5)
    prefix = windows.batch(indices, np.random.default_rng(0)).goal
    assert prefix is not None
    return prefix[:, 0].numpy() - 8


def test_uniform_goals_are_uniform_over_what_comes_after() -> None:
    counts = np.bincount(many_goals("uniform"))
    assert len(counts) == 32  # rows 8 to 39
    assert np.abs(counts - 625).max() < 5 * np.sqrt(625)


def test_geometric_goals_decay_with_the_discount() -> None:
    counts = np.bincount(many_goals("geometric"))
    wanted = 20_000 * 0.1 * 0.9 ** np.arange(32)
    wanted[-1] = 20_000 * 0.9**31  # everything beyond the last state is that state
    assert (np.abs(counts - wanted) < 5 * np.sqrt(wanted)).all()


@pytest.mark.parametrize("own", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("of_returns", [0.3, 0.99, 1.0])
def test_geometric_goals_may_have_a_discount_of_their_own(own: float, of_returns: float) -> None:
    np.testing.assert_array_equal(many_goals("geometric", of_returns, own), many_goals("geometric", own))


@pytest.mark.parametrize(("discount", "steps"), [(0.0, 0), (1.0, 31)])
def test_geometric_goals_at_the_ends_of_the_discount(discount: float, steps: int) -> None:
    assert set(many_goals("geometric", discount)) == {steps}


def test_dropout_gives_its_share_of_windows_the_null_goal() -> None:
    store = one_episode()
    windows = make_windows(store, 3, {"dims": [0, 1], "dropout": 0.3, "draw": "uniform"})
    batch = windows.batch(np.full(10_000, 5), np.random.default_rng(0))
    assert batch.goal is not None
    null = (batch.goal == END).numpy()
    assert (null[:, 0] == null[:, 1]).all()  # the whole goal or nothing
    assert abs(null[:, 0].mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 10_000)
    kept = np.bincount(batch.goal[:, 0].numpy()[~null[:, 0]], minlength=40)[8:]
    assert np.abs(kept - kept.mean()).max() < 5 * np.sqrt(kept.mean())  # whichever goal it would have been
    assert (goal_rows(make_windows(store, 3, {"dims": [0], "dropout": 1.0})) == END).all()
    assert (goal_rows(make_windows(store, 3, {"dims": [0], "dropout": 0.0})) != END).all()


def test_goals_depend_on_the_generator_alone() -> None:
    windows = make_windows(one_episode(), 3, {"dims": [0], "dropout": 0.2})
    assert goal_rows(windows, 1).tolist() == goal_rows(windows, 1).tolist()
    assert goal_rows(windows, 1).tolist() != goal_rows(windows, 2).tolist()


def test_without_a_goal_there_is_no_prefix(tiny_store: EpisodeStore) -> None:
    assert every(make_windows(tiny_store, 4)).goal is None


def test_only_the_chosen_episodes_are_cut_but_the_longest_of_all_counts(tiny_store: EpisodeStore) -> None:
    windows = make_windows(tiny_store, 12, episodes=np.array([0, 3]))
    batch = every(windows)
    assert batch.tokens[:, 0, 0].tolist() == [*range(5), *range(16, 20)]
    assert batch.mask[0, :, 0].sum() == 9  # six steps and three ends: the longest episode of the store has nine
    assert batch.tokens[0, 6:].unique().tolist() == [END]


def test_small_integers_are_widened_before_the_termination_token_is_written() -> None:
    store = one_episode(5)
    tokens = np.full((5, 3), 7, np.uint8)
    windows = TokenWindows(store, tokens, layout(), WindowConfig(9), termination_token=300)
    assert every(windows).tokens.max() == 300


def test_single_steps_make_no_window(tiny_store: EpisodeStore) -> None:
    with pytest.raises(DataError, match="no window fits: every episode has a single step"):
        make_windows(tiny_store, 4, episodes=np.array([2]))
    with pytest.raises(DataError, match="no window fits"):
        make_windows(tiny_store, 4, episodes=np.zeros(0, np.int64))


def test_windows_with_the_null_goal_are_those_of_a_layout_without_goals() -> None:
    store = samples.store()
    store = replace(store, segments=np.unique(np.concatenate([store.offsets, np.arange(0, len(store), 3)])))
    plain = every(make_windows(store, 4))
    without = every(make_windows(store, 4, {"dims": [0], "dropout": 1.0}))
    some = every(make_windows(store, 4, {"dims": [0], "dropout": 0.5}))
    assert torch.equal(without.tokens, plain.tokens)
    assert torch.equal(without.mask, plain.mask)
    assert some.goal is not None
    null = some.goal[:, 0] == END
    assert 0 < null.sum() < len(null)
    assert torch.equal(some.tokens[null], plain.tokens[null])
    assert not torch.equal(some.mask[~null], plain.mask[~null]), "with a goal, a segment's end ends the loss"


def test_a_stride_past_every_end_is_refused() -> None:
    ends = np.array([0, 0, 0, 0, 1, 1])
    store = EpisodeStore.from_arrays(np.zeros((6, 1)), np.zeros((6, 1)), np.zeros(6), ends, np.zeros(6))
    config = {"fields": {"observation": {}, "action": {}}}
    for stride, fits in ((4, True), (5, False)):
        made = Layout.from_config({**config, "stride": stride}, 1, 1)
        if fits:
            TokenWindows(store, np.zeros((6, 2)), made, WindowConfig(2), termination_token=1)
            continue
        with pytest.raises(ConfigError, match=r"layout\.stride=5 passes the end of every episode \(the longest has 5"):
            TokenWindows(store, np.zeros((6, 2)), made, WindowConfig(2), termination_token=1)
        TokenWindows(store, np.zeros((6, 2)), made, WindowConfig(1), termination_token=1)
