"""A results row: what one evaluation measured under which settings. Files, tables and comparisons are made of it.

Nothing here needs torch: the parent process of a sweep reads rows without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from seqrl.errors import DataError

ROW_FORMAT = 3  # raised when rows say more than before: an evaluation that was finished earlier is then run again
KEY_NUMBERS = ("return_mean", "score_mean", "success_rate")  # which every table of a sweep has columns for
ENDS = ("low", "high")  # of an interval


@dataclass(frozen=True)
class Component:
    """A component of the decoding strategy as it was configured.

    Attributes:
        name: under which it is registered.
        options: its settings; those of a plugin may be anything that JSON holds.
    """

    name: str
    options: dict[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Component:
        """Of a component's configuration, `{"name": ..., **options}`."""
        return cls(config["name"], {key: value for key, value in config.items() if key != "name"})

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class Starts:
    """The settings that decide in which states episodes begin; equal starts of two evaluations are paired.

    Attributes:
        env_id: as it was set; None stands for the environment of the data.
        seed: of the evaluation.
        num_episodes: starts of the environment's own, or starts in each cell.
        max_steps: after which episodes were cut; None leaves the environment's own limit.
        start_cells: [row, column] each, or None.
        goals: [x, y] each, or None.
        tasks: [start cell, goal cell] each, or None.
        near: least and most steps of the data between a start and its goal, or None.
    """

    env_id: str | None
    seed: int
    num_episodes: int
    max_steps: int | None
    start_cells: list[Any] | None
    goals: list[Any] | None
    tasks: list[Any] | None = None
    near: list[int] | None = None


@dataclass(frozen=True)
class GoalShare:
    """One goal of an evaluation: its position, how many starts count for it, and the percentage that reached it.

    The interval is Wilson's; None where no start counts, and in rows before it was told.
    """

    goal: list[float]
    starts: int
    success_rate: float
    success_ci95: list[float] | None = None


@dataclass(frozen=True)
class GoalResults:
    """What an evaluation toward goals, or of a task that tells success, measured beside the return.

    In JSON its keys stand among those of the row.

    Attributes:
        success_rate: percentage of the counted episodes that reached their goal.
        success_ci95: Wilson's interval of it, in rows of before the bootstrap's; None where there is none.
        success_by_goal: the same, goal by goal; empty where every episode has its own.
        counted_episodes: from starts that are far enough away.
        steps_to_goal_median: environment steps; None where no episode got there.
        time_at_goal: share of the steps after the arrival that were spent there, 0 to 1; None likewise.
        regions: `[x_low, y_low, x_high, y_high]` each, or None.
        clear_success_rate: percentage of the counted episodes that reached their goal and were inside no region before;
            None without regions.
        clear_success_ci95: the interval of that; None where there is none.
        entered_rate: percentage of the counted episodes that were inside a region before they reached their goal.
        radius: within which a goal is reached; None in rows before it was told, when it was 0.5, and where
            environments tell success.
        told: whether the environment told success; then there is no radius.
        map_landmarks: whether the landmarks were those of the maze's map.
    """

    success_rate: float
    success_ci95: list[float] | None
    success_by_goal: list[GoalShare]
    counted_episodes: int
    steps_to_goal_median: float | None
    time_at_goal: float | None
    regions: list[list[float]] | None = None
    clear_success_rate: float | None = None
    clear_success_ci95: list[float] | None = None
    entered_rate: float | None = None
    radius: float | None = None
    map_landmarks: bool = False
    told: bool = False


@dataclass(frozen=True)
class ResultsRow:
    """One evaluation of a trained model. Intervals are 95 %, [low, high], or None where there is none: over starts, and
    of success rates Wilson's.

    Attributes:
        strategy: name of the row.
        dataset: name of the data.
        env_id: environment of the episodes.
        planner, condition, score: the strategy's parts.
        model: what the model reads: `tokens`, `vectors` or `codes`; None in rows before it was told.
        discrete_actions: whether actions are categories.
        cache: the planner's option, None where it has none.
        plan_every: environment steps between two plans.
        time_budget_ms: the planner's option, None where it has none.
        horizon_mean: mean transitions of a plan; None in rows before it was told.
        num_episodes: that were run.
        return_mean, return_std, return_ci95: undiscounted return of an episode.
        length_mean: steps of an episode.
        score_mean, score_ci95: the return between 0 (random) and 100 (expert); None without a reference.
        score_note: what must stand beside the score; empty or None where it needs no words.
        ms_per_action: wall time of the policy.
        environments_per_batch: planned for together.
        device, precision, threads: where the model ran; `threads` is None in rows before it was told.
        behaviour_return_mean, behaviour_score: of the episodes in the data; None where they are not comparable.
        seed: of the evaluation.
        starts: where episodes began.
        shuffle_goals: whether the policy was told another goal than it was judged by.
        min_cells: from which on a start counts for a goal.
        training: hash of what was trained how, the training seed aside.
        training_seed, training_steps: of the model.
        versions: of packages.
        goals: of an evaluation toward goals; None of others.
        outcomes: of each extra of one number that an action brings about, such as a cost: its sum over an episode, on
            average; None where the layout has none or the environment did not tell them.
        outcome_intervals: of these means, over starts; None likewise, and in rows before they were told.
        end_at_goal: whether episodes ended with their arrival; None in rows before it was told.
    """

    strategy: str
    dataset: str
    env_id: str
    planner: Component
    condition: Component
    score: Component
    model: str | None
    discrete_actions: bool | None
    cache: Any
    plan_every: int
    time_budget_ms: Any
    horizon_mean: float | None
    num_episodes: int
    return_mean: float
    return_std: float
    return_ci95: list[float] | None
    length_mean: float
    score_mean: float | None
    score_ci95: list[float] | None
    score_note: str | None
    ms_per_action: float
    environments_per_batch: int
    device: str
    precision: str
    threads: int | None
    behaviour_return_mean: float | None
    behaviour_score: float | None
    seed: int
    starts: Starts
    shuffle_goals: bool | None
    min_cells: int | float | None
    training: str | None
    training_seed: int
    training_steps: int
    versions: dict[str, str]
    goals: GoalResults | None = None
    outcomes: dict[str, float] | None = None
    outcome_intervals: dict[str, list[float]] | None = None
    end_at_goal: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as results.json holds it; `from_json` gives an equal row."""
        tree = {field.name: getattr(self, field.name) for field in fields(self)}
        for slot in ("planner", "condition", "score"):
            tree[slot] = tree[slot].to_json()
        tree["starts"] = asdict(self.starts)
        goals = tree.pop("goals")
        for key in ("outcomes", "outcome_intervals"):
            if tree[key] is None:
                del tree[key]
        return tree | (asdict(goals) if goals is not None else {})

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> ResultsRow:
        """A row as any version of seqrl wrote it.

        Raises:
            DataError: a key is missing, or its value is of another type; the message has no full stop.
        """
        from pydantic import TypeAdapter, ValidationError

        if not isinstance(tree, Mapping):
            raise DataError(f"a results row is an object, and {type(tree).__name__} was given")
        try:
            # As JSON, of which pydantic makes dataclasses even where it is strict.
            text = json.dumps(_nested(_migrated(tree)))
            row: ResultsRow = TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
        return row

    def numbers(self) -> dict[str, float | None]:
        """The measured numbers by key, as sweeps list them; intervals as `<key>_low` and `<key>_high`."""
        found: dict[str, float | None] = {}
        for key, value in self.to_json().items():
            if key in KEY_NUMBERS or isinstance(value, float):
                found[key] = value
            elif key == "outcomes":
                found |= {f"{name}_mean": mean for name, mean in (value or {}).items()}
            elif key == "outcome_intervals":
                found |= {
                    f"{name}_ci95_{end}": bound
                    for name, bounds in (value or {}).items()
                    for end, bound in zip(ENDS, bounds, strict=True)
                }
            elif key.endswith("_ci95") and value is not None:
                found |= {f"{key}_{end}": bound for end, bound in zip(ENDS, value, strict=True)}
        return found


def _migrated(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the present format.

    Format 2 named condition and score without their options, and formats grew: what an older row does not say is None,
    and precision is that of the time before there was a choice.
    """
    now = dict(tree)
    if isinstance(now.get("condition"), str):
        now["condition"] = {"name": now["condition"]}
    if "score" not in now and "score_name" in now:
        now["score"] = {"name": now["score_name"]}
    later = ("model", "discrete_actions", "time_budget_ms", "horizon_mean", "threads")
    unknown = dict.fromkeys((*later, "shuffle_goals", "min_cells", "training"))
    return {**unknown, "precision": "float32", **now}


def _nested(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The flat keys of results.json as the fields of `ResultsRow`; keys that it does not have are left out."""
    nested = {field.name: tree[field.name] for field in fields(ResultsRow) if field.name in tree}
    for slot in ("planner", "condition", "score"):
        if isinstance(nested.get(slot), Mapping) and "name" in nested[slot]:
            nested[slot] = asdict(Component.from_config(nested[slot]))
    own = {field.name: tree[field.name] for field in fields(GoalResults) if field.name in tree}
    return {**nested, "goals": own or None}


def measured_names() -> list[str]:
    """The numbers that a results row may have, by which a search can choose."""
    found = [each for cls in (ResultsRow, GoalResults) for each in fields(cls)]
    numbers = [each.name for each in found if str(each.type).startswith("float") or each.name in KEY_NUMBERS]
    return numbers + [f"{each.name}_{end}" for each in found if each.name.endswith("_ci95") for end in ENDS]
