"""The graph of landmarks: its nodes, its edges, the ways in it, its file."""

from __future__ import annotations

import math
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from seqrl.config import LandmarksConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.landmarks import LandmarkGraph, fit_landmarks
from seqrl.errors import CheckpointError, DataError


def store_of(*walks: np.ndarray) -> EpisodeStore:
    """One episode for each walk (T, 2) of positions, with a velocity that no goal is made of."""
    episodes = [
        {
            "observations": np.concatenate([walk, 100.0 * np.ones((len(walk), 1))], 1).astype(np.float32),
            "actions": np.zeros((len(walk), 1)),
            "rewards": np.zeros(len(walk)),
            "terminated": False,
        }
        for walk in walks
    ]
    return EpisodeStore.from_episodes(episodes, attributes={"name": "walks"})


def wanderings(count: int = 12, steps: int = 40) -> EpisodeStore:
    rng = np.random.default_rng(0)
    return store_of(*(np.cumsum(rng.normal(size=(steps, 2)) * 0.3, 0) for _ in range(count)))


def test_landmarks_are_states_of_the_data_that_cover_them_and_keep_their_distance() -> None:
    store, config = wanderings(), LandmarksConfig(spacing=0.8, support=1)
    graph = fit_landmarks(store, [0, 1], config)
    positions = np.asarray(store.observations)[:, :2]
    distances = np.linalg.norm(graph.nodes[:, None] - graph.nodes[None], axis=-1) + 9 * np.eye(len(graph.nodes))
    assert distances.min() > 0.8
    to_nodes = np.linalg.norm(positions[:, None] - graph.nodes[None], axis=-1)
    assert to_nodes.min(1).max() <= 0.8
    assert (to_nodes.min(0) == 0).all()


@pytest.mark.parametrize(("support", "quantile"), [(1, 0.2), (3, 0.2), (2, 0.5), (4, 1.0)])
def test_an_edge_takes_the_quantile_of_the_steps_between_its_ends(support: int, quantile: float) -> None:
    """Against a dictionary of lists, one pair of states after the other."""
    store = wanderings()
    config = LandmarksConfig(spacing=0.8, horizon=7, support=support, quantile=quantile)
    graph = fit_landmarks(store, [0, 1], config)
    positions = np.asarray(store.observations)[:, :2]
    nearest = np.linalg.norm(positions[:, None] - graph.nodes[None], axis=-1).argmin(1)
    taken: dict[tuple[int, int], list[int]] = {}
    for start, stop in pairwise(store.offsets):
        for first in range(start, stop):
            for second in range(first + 1, min(first + 7, stop - 1) + 1):
                taken.setdefault((int(nearest[first]), int(nearest[second])), []).append(second - first)
    wanted = {
        pair: sorted(steps)[math.ceil(quantile * len(steps)) - 1]
        for pair, steps in taken.items()
        if len(steps) >= support and pair[0] != pair[1]
    }
    found = dict(zip(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True), graph.steps, strict=True))
    assert found == wanted
    assert (np.diff(graph.sources) >= 0).all()


def test_ways_are_shortest_and_directed() -> None:
    """Against relaxing every edge as often as there are nodes."""
    graph = fit_landmarks(wanderings(), [0, 1], LandmarksConfig(spacing=0.8, horizon=7, support=1))
    for node in range(0, len(graph.nodes), 5):
        left = np.full(len(graph.nodes), np.inf)
        left[node] = 0
        for _ in graph.nodes:
            for source, target, steps in zip(graph.sources, graph.targets, graph.steps, strict=True):
                left[source] = min(left[source], steps + left[target])
        np.testing.assert_allclose(graph.count_steps_to(node), left)
    line = np.stack([np.arange(8.0), np.zeros(8)], 1)
    graph = fit_landmarks(store_of(line, line, line), [0, 1], LandmarksConfig(spacing=0.5, horizon=2))
    start, end = graph.find_nearest(np.array([[0.0, 0.0], [7.0, 0.0]]))
    assert graph.count_steps_to(int(end))[start] == 7
    assert np.isinf(graph.count_steps_to(int(start))[end])  # nobody ever went back


def test_a_graph_without_ways_or_with_too_many_landmarks_is_refused() -> None:
    with pytest.raises(DataError, match=r"linked by 500 pieces .* landmarks\.support to less"):
        fit_landmarks(wanderings(), [0, 1], LandmarksConfig(spacing=0.8, support=500))
    with pytest.raises(DataError, match=r"more than 4; set landmarks\.spacing to more"):
        fit_landmarks(wanderings(), [0, 1], LandmarksConfig(spacing=0.1, max_nodes=4))


def test_a_graph_is_read_as_it_was_written_and_never_damaged(tmp_path: Path) -> None:
    graph = fit_landmarks(wanderings(), [0, 1], LandmarksConfig(spacing=0.8, support=1))
    path = tmp_path / "landmarks" / "graph.npz"
    graph.save(path)
    read = LandmarkGraph.read(path)
    for name in ("nodes", "sources", "targets", "steps"):
        np.testing.assert_array_equal(getattr(read, name), getattr(graph, name))
    assert read.settings == {"spacing": 0.8, "horizon": 25, "support": 1, "quantile": 0.2, "max_nodes": 3000}
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            again = LandmarkGraph.read(path)
        except CheckpointError as error:
            assert "remove it and train again" in str(error)  # noqa: PT017 (most flips must end here, not all)
        else:
            for name in ("nodes", "sources", "targets", "steps"):
                np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))
    for content in (b"", b"no archive", whole[:-20]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="no readable graph"):
            LandmarkGraph.read(path)
    np.savez(path, settings=np.array("{}"), nodes=np.array([{}], object), sources=1, targets=1, steps=1)
    with pytest.raises(CheckpointError, match="no readable graph"):
        LandmarkGraph.read(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("targets", np.array([0, 7])),
        ("sources", np.array([-1, 0])),
        ("sources", np.array([0.0, 1.0])),
        ("steps", np.array([1.0, np.nan], np.float32)),
        ("steps", np.array([1.0], np.float32)),
        ("nodes", np.full((2, 2), np.inf, np.float32)),
        ("nodes", np.array(["a", "b"])),
    ],
)
def test_a_whole_file_that_is_no_graph_is_refused(tmp_path: Path, name: str, array: np.ndarray) -> None:
    """Its checksums are right: somebody else's program wrote it."""
    path = tmp_path / "graph.npz"
    arrays = {
        "nodes": np.zeros((2, 2), np.float32),
        "sources": np.array([0, 1]),
        "targets": np.array([1, 0]),
        "steps": np.ones(2, np.float32),
    }
    np.savez(path, settings=np.array("{}"), **arrays)
    assert len(LandmarkGraph.read(path).nodes) == 2
    np.savez(path, settings=np.array("{}"), **{**arrays, name: array})
    with pytest.raises(CheckpointError, match="remove it and train again"):
        LandmarkGraph.read(path)


@pytest.mark.parametrize(
    "header", [b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 4)}", b"{", b"[" * 60]
)
def test_a_graph_with_a_header_of_somebody_s_own_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "graph.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("settings.npy", b"")
        for name in ("nodes", "sources", "targets", "steps"):
            header += b" " * (-len(header) % 64)
            content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(CheckpointError, match="remove it and train again"):
        LandmarkGraph.read(path)
