"""What results say of the data that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Self

from annotated_types import Ge, Interval

from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.layout_config import LayoutConfig
from seqrl.schema import check_value

_MOST_SCALARS = 2**16  # of a transition; what builds a model takes time for each
# What tells data apart of which an older checkpoint holds no fingerprint.
_COUNTED = ("num_transitions", "num_episodes")  # 0: unknown
_MEASURED = ("behaviour_return_mean", "behaviour_return_max", "standard_deviations")


@dataclass(frozen=True)
class DataSummary:
    """Name, size and behaviour of a data set; a checkpoint keeps it under `dataset` in its configuration.

    Attributes:
        name: of the data.
        d4rl_id: in D4RL's catalogue, or None.
        minari_id: of Minari, or None.
        env_id: Gymnasium id of the environment it was recorded in, or None.
        num_transitions, num_episodes: sizes; 0 where nothing is known of the data.
        behaviour_return_mean, behaviour_return_max: undiscounted return of an episode in the data, or None.
        behaviour_episodes: how many these are of: those that the data hold to their end, or all where none is; None in
            summaries of before it was told.
        behaviour_score: the mean between 0 (random) and 100 (expert), or None.
        behaviour_outcomes: of each extra of one number its sum over an episode of the data, on average; without those
            that some episodes do not tell; None in summaries of before they were told.
        standard_deviations: of each field's scalars, or None.
        fingerprint: of the episodes' content, see `EpisodeStore.fingerprint`, or None.
    """

    name: str
    d4rl_id: str | None = None
    env_id: str | None = None
    num_transitions: int = 0
    num_episodes: int = 0
    behaviour_return_mean: float | None = None
    behaviour_return_max: float | None = None
    behaviour_score: float | None = None
    standard_deviations: dict[str, list[float]] | None = None
    fingerprint: str | None = None
    minari_id: str | None = None
    behaviour_outcomes: dict[str, float] | None = None
    behaviour_episodes: int | None = None

    @classmethod
    def from_saved(cls, config: Mapping[str, Any]) -> DataSummary:
        """Of a checkpoint's configuration; what an older one, or somebody else's script, does not say is None."""
        known, said = {field.name for field in fields(cls)}, config.get("dataset")
        said = said if isinstance(said, Mapping) else {}
        return cls(**{"name": "arrays"} | {key: value for key, value in said.items() if key in known})


@dataclass(frozen=True)
class DataSizes:
    """What models and critics must know of the data; a checkpoint keeps it in its configuration.

    Attributes:
        observation_size, action_size: O and A, at most 65,536.
        longest_episode: in transitions, which models of vectors tell times up to; None where nobody said.
        categories: see `seqrl.layout.Layout`.
        extras: numbers in a row of each array that the data record beside their steps; None where they record none.
    """

    observation_size: Annotated[int, Interval(ge=1, le=_MOST_SCALARS)]
    action_size: Annotated[int, Interval(ge=1, le=_MOST_SCALARS)]
    longest_episode: Annotated[int, Ge(1)] | None = None
    categories: Mapping[str, int | tuple[int, ...]] | None = None
    extras: Mapping[str, Annotated[int, Interval(ge=0, le=_MOST_SCALARS)]] | None = None

    @classmethod
    def of(cls, store: EpisodeStore) -> Self:
        return cls(**store.sizes, longest_episode=int(store.lengths.max()))

    @classmethod
    def from_saved(cls, config: Mapping[str, Any]) -> Self:
        """Of a checkpoint's configuration.

        Raises:
            ConfigError: a size is missing, or is none.
        """
        known = {field.name for field in fields(cls)}
        sizes: Self = check_value("", {key: value for key, value in config.items() if key in known}, cls)
        return sizes

    def lay_out(self, layout: LayoutConfig) -> Layout:
        """The fields of a layout over the scalars of these data.

        Raises:
            ConfigError: a goal dimension or an extra that the data lack, or more scalars than a transition may have.
        """
        laid = Layout.from_config(layout, self.observation_size, self.action_size, self.categories, self.extras)
        if laid.size > _MOST_SCALARS:
            raise ConfigError(
                f"a transition of this layout has {laid.size:,} scalars, {self.observation_size:,} of an observation "
                f"and {self.action_size:,} of an action; {_MOST_SCALARS:,} is the most, so leave some out"
            )
        return laid


def same_episodes(saved: DataSummary, now: DataSummary) -> bool:
    """Whether two summaries are of the same episodes; by what was measured where one lacks a fingerprint."""
    if saved.fingerprint and now.fingerprint:
        return saved.fingerprint == now.fingerprint
    counted = all(_close(getattr(saved, key) or None, getattr(now, key) or None) for key in _COUNTED)
    return counted and all(_close(getattr(saved, key), getattr(now, key)) for key in _MEASURED)


def _close(one: Any, other: Any) -> bool:
    """Whether numbers, in lists and dicts, are equal but for rounding; what is not known agrees with everything."""
    if one is None or other is None:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_close(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-8)
