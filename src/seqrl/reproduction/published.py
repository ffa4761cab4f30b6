"""Numbers that the paper prints: what measurements are put beside.

Reference: Janner et al. 2021, https://arxiv.org/abs/2106.02039, Tables 1 and 2; the columns of Table 1 but the uniform
one stand in `plotting/scores.py` of the released code.
"""

from __future__ import annotations

METHODS = ("BC", "MBOP", "BRAC", "CQL", "DT")
UNIFORM, QUANTILE = "TT, uniform", "TT, quantile"

# Normalised score: the methods, then the Trajectory Transformer with its standard error over 15 rollouts of 5 models.
LOCOMOTION: dict[str, tuple[tuple[float, ...], tuple[float, float], tuple[float, float]]] = {
    "halfcheetah-medium-expert": ((59.9, 105.9, 41.9, 91.6, 86.8), (40.8, 2.3), (95.0, 0.2)),
    "hopper-medium-expert": ((79.6, 55.1, 0.9, 105.4, 107.6), (106.0, 0.28), (110.0, 2.7)),
    "walker2d-medium-expert": ((36.6, 70.2, 81.6, 108.8, 108.1), (91.0, 2.8), (101.9, 6.8)),
    "halfcheetah-medium": ((43.1, 44.6, 46.3, 44.0, 42.6), (44.0, 0.31), (46.9, 0.4)),
    "hopper-medium": ((63.9, 48.8, 31.3, 58.5, 67.6), (67.4, 2.9), (61.1, 3.6)),
    "walker2d-medium": ((77.3, 41.0, 81.1, 72.5, 74.0), (81.3, 2.1), (79.0, 2.8)),
    "halfcheetah-medium-replay": ((4.3, 42.3, 47.7, 45.5, 36.6), (44.1, 0.9), (41.9, 2.5)),
    "hopper-medium-replay": ((27.6, 12.4, 0.6, 95.0, 82.7), (99.4, 3.2), (91.5, 3.6)),
    "walker2d-medium-replay": ((36.9, 9.7, 0.9, 77.2, 66.6), (79.4, 3.3), (82.6, 6.9)),
}
"""Table 1, on the v2 data of D4RL."""

AVERAGES = {"BC": 47.7, "MBOP": 47.8, "BRAC": 36.9, "CQL": 77.6, "DT": 74.7, UNIFORM: 72.6, QUANTILE: 78.9}
"""Over the nine data sets, as printed; that of the uniform column is ours, of its nine numbers."""

ANTMAZE_METHODS = ("BC", "CQL", "IQL", "DT", "TT+Q")
ANTMAZE: dict[str, tuple[float, ...]] = {
    "antmaze-umaze": (54.6, 74.0, 87.5, 59.2, 100.0),
    "antmaze-medium-play": (0.0, 61.2, 71.2, 0.0, 93.3),
    "antmaze-medium-diverse": (0.0, 53.7, 70.0, 0.0, 100.0),
    "antmaze-large-play": (0.0, 15.8, 39.6, 0.0, 66.7),
    "antmaze-large-diverse": (0.0, 14.9, 47.5, 0.0, 60.0),
}
"""Table 2, on the v0 data of D4RL: success in per cent."""

PLANNER: dict[str, tuple[str, ...]] = {
    "halfcheetah-medium-expert": ("planner.beam_width=32",),
    "halfcheetah-medium": ("planner.beam_width=32", "planner.horizon=5"),
    "halfcheetah-medium-replay": ("planner.beam_width=32", "planner.horizon=5"),
    "walker2d-medium-expert": ("planner.horizon=5",),
    "walker2d-medium-replay": (
        *("planner.beam_width=32", "planner.horizon=20"), *("planner.k_act=40", "planner.cdf_act=null")
    ),
}  # fmt: skip
"""What the search has otherwise than beam width 128 and horizon 15, by data set (`config/offline.py` of the code)."""


def match_table(name: str) -> str | None:
    """The line of Table 1 that a data set's name resembles: `hopper-medium` of `hopper-medium-v2`, or of a file."""
    fitting = [line for line in LOCOMOTION if name.lower().startswith(line)]
    return max(fitting, key=len, default=None)
