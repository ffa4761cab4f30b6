"""Episodes as flat arrays plus offsets: the one schema that every source fills."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.data.array_folder import MANIFEST, read_arrays, write_arrays
from seqrl.data.building import boundaries_of, cut_arrays, find_mismatch, join_episodes, measure_sizes
from seqrl.data.checks import DISCRETE, refuse_different
from seqrl.data.contents import hash_content
from seqrl.data.gathered_rows import Rows, chunks_of, join_ranges, join_rows, measure_deviations, select_rows
from seqrl.errors import DataError
from seqrl.files import fingerprint_bytes
from seqrl.paths import find_path

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class EpisodeStore:
    """Logged episodes, one row per transition, episodes one after the other.

    Row t holds the observation *before* action t and the reward that action t earned. An episode ends `terminated` (a
    true end: nothing can be earned afterwards), `truncated` (a time limit) or neither (the recording was cut).

    A saved store is opened with its arrays mapped into memory, so that it may be larger than memory and costs nothing
    until it is read. Subsets and mixes copy no observations or actions either: they hold `Rows`, which know where each
    of their rows lies and gather what is asked for. (A mix written out once would be an ordinary store, at the price
    of its size on disk and of a cache to keep clean; training reads these arrays only once, front to back, to
    tokenize them, which gathering serves as well.) Index such an array, or make one with `np.asarray`.

    Attributes:
        observations: (N, O) float32.
        actions: (N, A) float32.
        rewards: (N,) float32, always an array.
        offsets: (E + 1,) int64; episode e covers rows `offsets[e]` to `offsets[e + 1]`.
        terminated, truncated: (E,) bool.
        segments: (M + 1,) int64, boundaries of behaviour segments (in maze2d: one goal of the controller), at least
            as fine as the episodes; hindsight goals are never drawn across one. The episodes themselves by default.
        attributes: what is known of the origin: `name`, `env_id` and the like. `num_actions` and `num_observations`
            say that actions or observations are discrete, and how many values each column has, a number or a list:
            columns hold whole numbers from 0. `num_task` says so of an extra `task`.
        extras: further arrays of N rows, (N, ...); trained on where the layout has a field of that name.
        identity: hash of the content where it is known without reading it; see `fingerprint`.
    """

    observations: FloatArray | Rows
    actions: FloatArray | Rows
    rewards: FloatArray
    offsets: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    segments: np.ndarray
    attributes: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, np.ndarray | Rows] = field(default_factory=dict)
    identity: str | None = field(default=None, init=False)  # `dataclasses.replace` may change the content: it forgets

    @staticmethod
    def from_arrays(
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        ends: np.ndarray,
        terminals: np.ndarray,
        *,
        segment_ends: np.ndarray | None = None,
        extras: Mapping[str, np.ndarray] | None = None,
        attributes: Mapping[str, Any] | None = None,
        origin: str = "arrays",
    ) -> EpisodeStore:
        """Cut flat arrays into episodes, checking everything that would otherwise fail later and elsewhere.

        Arrays of contiguous float32 are kept as they are, also where they are mapped from a file; others are copied.

        Args:
            observations: (N, O), actions: (N, A), rewards: (N,) numbers. Those that `attributes` declare as discrete
                (see the class) are (N,) or (N, 1) whole numbers, or (N, n) of n counts.
            ends: (N,) bool, the last row of an episode; rows after the last end make one more, cut episode.
            terminals: (N,) bool, which ends are true ends; must not be set elsewhere.
            segment_ends: (N,) bool, the last row of a behaviour segment; episode ends are added.
            extras: further arrays of N rows.
            origin: how to call the data in messages.

        Raises:
            DataError: no rows, disagreeing shapes, discrete actions that nobody declared, NaN or infinity (by place).
        """
        given = observations, actions, rewards, ends, terminals, segment_ends
        return EpisodeStore(**cut_arrays(*given, extras=extras or {}, attributes=attributes or {}, origin=origin))

    @staticmethod
    def from_episodes(
        episodes: Sequence[Mapping[str, Any]],
        *,
        extras: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> EpisodeStore:
        """Make a store from a list of episodes in memory.

        Args:
            episodes: each `{"observations": (n, O), "actions": (n, A), "rewards": (n,), "terminated": bool}`, and
                `"truncated": bool` where an episode that is not terminated was cut by the recording, not by a limit.
                One that is both, as where a task ends in its last step, is terminated.
            extras: further keys of every episode to keep, (n, ...) each.

        Raises:
            DataError: an empty list, a missing array, or whatever `from_arrays` refuses.
        """
        return EpisodeStore(**join_episodes(episodes, extras, attributes or {}))

    @staticmethod
    def open(folder: str | Path, *, by_content: bool = False) -> EpisodeStore:
        """The episodes of a folder that `save` wrote, mapped into memory: they may be larger than it.

        With `by_content` the files are hashed, once while they stay as they are; else the hash of `save` is believed.

        Raises:
            DataError: no such folder, or one that is damaged or of another kind.
        """
        folder = find_path(folder)
        arrays, notes = read_arrays(folder)
        missing = set(_SAVED) - set(arrays)
        if missing:
            raise DataError(f"{str(folder)!r} lists no {', '.join(sorted(missing))}; save the episodes again")
        extras = {key.removeprefix(_EXTRA): array for key, array in arrays.items() if key.startswith(_EXTRA)}
        main = {name: arrays[name] for name in _SAVED}
        attributes, identity = notes.get("attributes"), notes.get("identity")
        store = EpisodeStore(**main, attributes=attributes or {}, extras=extras)._known_by(identity)
        problem = find_mismatch(main, extras) if identity else f"{MANIFEST} lists no identity"
        if problem:
            raise DataError(f"{str(folder)!r} is damaged: {problem}; save the episodes again")
        return store._known_by(hash_content(folder)) if by_content else store

    def save(self, folder: str | Path) -> None:
        """Write the episodes into a new folder, one .npy file per array, whole or not at all; not to be edited later.

        Raises:
            DataError: the folder has something in it or cannot be written, or an attribute is no plain value.
        """
        arrays = {name: getattr(self, name) for name in _SAVED}
        arrays |= {f"{_EXTRA}{name}": array for name, array in self.extras.items()}
        notes = {"attributes": dict(self.attributes), "identity": self.fingerprint()}
        write_arrays(find_path(folder), arrays, notes)

    def subset(self, episodes: Sequence[int] | np.ndarray) -> EpisodeStore:
        """Some of the episodes, in the order given, without copying observations, actions or extras.

        Args:
            episodes: (E',) numbers, or (E,) bool.

        Raises:
            DataError: none, or one that there is not.
        """
        chosen = np.asarray(episodes)
        if chosen.dtype == bool and chosen.shape == (self.num_episodes,):
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen):
            raise DataError(f"a subset needs a list of episode numbers, one at least, or {self.num_episodes} bools")
        if chosen.min() < 0 or chosen.max() >= self.num_episodes:
            raise DataError(f"a subset asks for episodes {chosen.min()} to {chosen.max()} of {self.num_episodes}")
        starts, stops = self.offsets[chosen], self.offsets[chosen + 1]
        # An episode's segments are whole, and their lengths stay what they are.
        pieces = join_ranges(np.searchsorted(self.segments, starts), np.searchsorted(self.segments, stops))
        return EpisodeStore(
            select_rows(self.observations, starts, stops),
            select_rows(self.actions, starts, stops),
            np.asarray(select_rows(self.rewards, starts, stops)),
            boundaries_of(stops - starts),
            self.terminated[chosen],
            self.truncated[chosen],
            boundaries_of(np.diff(self.segments)[pieces]),
            self.attributes,
            {name: select_rows(array, starts, stops) for name, array in self.extras.items()},
        )._known_by(
            None
            if self.identity is None
            else fingerprint_bytes([self.identity.encode(), b"\n", chosen.astype(np.int64).tobytes()])
        )

    def best(self, fraction: float) -> EpisodeStore:
        """The episodes with the largest returns that make up a share of all transitions; the name says so.

        Args:
            fraction: share of the transitions, in (0, 1]; the last episode that is taken may exceed it.

        Raises:
            DataError: a share outside (0, 1].

        Reference: Chen et al. 2021, section 5.1, "Percentile Behavior Cloning".
        """
        if not 0.0 < fraction <= 1.0:
            raise DataError(f"data.top_fraction={fraction} is outside (0, 1]; give 0.1 for the best tenth")
        order = np.argsort(-self.returns(), kind="stable")
        before = np.cumsum(self.lengths[order]) - self.lengths[order]
        chosen = np.sort(order[before < fraction * len(self)])
        name = self.attributes.get("name", "arrays")
        return self.subset(chosen).described(name=f"{name}, best {100 * fraction:g} %")

    @staticmethod
    def mix(stores: Sequence[EpisodeStore], *, attributes: Mapping[str, Any] | None = None) -> EpisodeStore:
        """The episodes of several stores, one store after the other, without copying observations, actions or extras.

        Extras are kept where all stores have them in one shape. What all `attributes` agree on is kept as well; the
        name is those of the stores, joined by `+`.

        Args:
            attributes: win over those of the stores.

        Raises:
            DataError: no store, or observations or actions of different sizes.
        """
        if not stores:
            raise DataError("there is nothing to mix; give one store at least")
        names = [str(store.attributes.get("name", f"store {number}")) for number, store in enumerate(stores)]
        for what, key in DISCRETE.items():
            refuse_different(f"{what} of different sizes", [getattr(store, what).shape[1] for store in stores], names)
            counts = [store.attributes.get(key) for store in stores]
            refuse_different(f"{what} with different numbers of discrete values", counts, names)
        said = stores[0].attributes
        shared = {key: said[key] for key in said if all(store.attributes.get(key) == said[key] for store in stores[1:])}
        shapes = [{name: array.shape[1:] for name, array in store.extras.items()} for store in stores]
        extras = [name for name in shapes[0] if all(each.get(name) == shapes[0][name] for each in shapes)]
        identities = [store.identity.encode() for store in stores if store.identity is not None]
        return EpisodeStore(
            join_rows([store.observations for store in stores]),
            join_rows([store.actions for store in stores]),
            np.concatenate([store.rewards for store in stores]),
            boundaries_of(np.concatenate([store.lengths for store in stores])),
            np.concatenate([store.terminated for store in stores]),
            np.concatenate([store.truncated for store in stores]),
            boundaries_of(np.concatenate([np.diff(store.segments) for store in stores])),
            {**shared, "name": "+".join(names), **(attributes or {})},
            {name: join_rows([store.extras[name] for store in stores]) for name in extras},
        )._known_by(fingerprint_bytes([b"\n".join(identities)]) if len(identities) == len(stores) else None)

    def described(self, **attributes: Any) -> EpisodeStore:
        """The same episodes with more said of their origin, or other things under the same names."""
        return replace(self, attributes={**self.attributes, **attributes})._known_by(self.identity)

    def __len__(self) -> int:
        """N, transitions."""
        return len(self.rewards)

    @property
    def num_episodes(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(E,) transitions per episode."""
        return np.diff(self.offsets)

    @property
    def sizes(self) -> dict[str, Any]:
        """What a layout needs to know: `observation_size`, `action_size`, `categories`, and `extras` if any are."""
        return measure_sizes(vars(self), self.extras, self.attributes)

    def returns(self) -> np.ndarray:
        """(E,) float64 undiscounted return of each episode, as recorded (no termination penalty)."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.offsets[:-1])

    def standard_deviations(self) -> dict[str, list[float]]:
        """Of every dimension of `observation`, `action` and `reward` (a list of one), over all transitions."""
        named = {"observation": self.observations, "action": self.actions, "reward": self.rewards}
        return {name: measure_deviations(array).tolist() for name, array in named.items()}

    def complete(self) -> np.ndarray:
        """(E,) bool; False for an episode that the recording cut short."""
        return self.terminated | self.truncated

    def fingerprint(self, extras: Sequence[str] = ()) -> str:
        """Hash of what a tokenizer may see: observations, actions, rewards, how episodes end, and perhaps extras."""
        known = self.identity if self.identity is not None else fingerprint_bytes(self._content())
        seen = map(self._content_of, sorted(extras))
        return fingerprint_bytes(itertools.chain([known.encode()], *seen)) if extras else known

    def _content_of(self, extra: str) -> Iterator[bytes | memoryview]:
        array = self.extras[extra]
        yield repr((extra, array.shape, str(array.dtype))).encode()
        yield from chunks_of(array)

    def _content(self) -> Iterator[bytes | memoryview]:
        yield repr((self.observations.shape, self.actions.shape)).encode()
        for array in (self.observations, self.actions, self.rewards):
            yield from chunks_of(array)
        for small in (self.offsets, self.terminated, self.truncated, self.segments):
            yield np.ascontiguousarray(small).data

    def _known_by(self, identity: str | None) -> EpisodeStore:
        object.__setattr__(self, "identity", identity)  # of a store that nobody else has yet
        return self


_SAVED = ("observations", "actions", "rewards", "offsets", "terminated", "truncated", "segments")
_EXTRA = "extras."  # before the names of extras, so that one may be called like an array of ours
