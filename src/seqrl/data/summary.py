"""What results say of the data that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

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
        behaviour_score: the mean between 0 (random) and 100 (expert), or None.
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DataSummary:
        """Of a checkpoint's configuration; what an older one does not say is None."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in config["dataset"].items() if key in known})


def same_episodes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two summaries are of the same episodes; by what was measured where one lacks a fingerprint."""
    if saved.get("fingerprint") and now.get("fingerprint"):
        return bool(saved["fingerprint"] == now["fingerprint"])
    counted = all(_close(saved.get(key) or None, now.get(key) or None) for key in _COUNTED)
    return counted and all(_close(saved.get(key), now.get(key)) for key in _MEASURED)


def _close(one: Any, other: Any) -> bool:
    """Whether numbers, in lists and dicts, are equal but for rounding; what is not known agrees with everything."""
    if one is None or other is None:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_close(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-8)
