"""The section `layout` of a run: what a user says of the fields of a transition, and how wrong orders are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Interval, Len

from seqrl.errors import ConfigError

FieldName = Literal["observation", "action", "difference", "reward", "value", "return"]
FIELDS: tuple[FieldName, ...] = get_args(FieldName)
"""Fields that all data have; those of other names are extras."""


@dataclass(frozen=True)
class FieldConfig:
    """What a user says of a field.

    Attributes:
        loss_weight: factor on the loss of its tokens.
        hidden: later positions (and its own) may not attend to it.
    """

    loss_weight: Annotated[float, Ge(0)] = 1.0
    hidden: bool = False


@dataclass(frozen=True)
class GoalConfig:
    """What a user says of a goal; see `Goal`.

    Attributes:
        discount: of geometric draws; null: that of the returns.
    """

    dims: Annotated[tuple[Annotated[int, Ge(0)], ...], Len(1)]
    dropout: Annotated[float, Interval(ge=0, le=1)] = 0.1
    draw: Literal["uniform", "last", "geometric"] = "uniform"
    discount: Annotated[float, Interval(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if self.discount is not None and self.draw != "geometric":
            raise ConfigError(
                f"layout.goal.discount={self.discount:g} is of geometric draws, and layout.goal.draw={self.draw}; add "
                "layout.goal.draw=geometric, or leave it out"
            )


@dataclass(frozen=True)
class LayoutConfig:
    """The section `layout` of a run.

    Attributes:
        fields: their order is the order of the tokens; null leaves one out. A name that is not in `FIELDS` is that of
            an array which the data record beside each step.
        goal: what stands before the sequence; null for nothing.
        discount: gamma of the fields value and return, per step of the environment.
        termination_penalty: what replaces the reward at a true end; null leaves it.
        stride: steps of the environment between two transitions of a window.
        chunk: how many of its actions a transition keeps: 1, the first; or as many as the stride, all of them.
        vectors: of models of vectors, the fields that make one together: `[[goal, observation], [action]]`; null for a
            vector per field.
        termination: of models of tokens: `shared` gives the termination token one row of the embedding for all places
            of a transition, as published; null one for each place.

    Raises:
        ConfigError: an order that cannot be decoded, or a chunk that is neither 1 nor the stride.
    """

    fields: Mapping[str, FieldConfig | None]
    goal: GoalConfig | None = None
    discount: Annotated[float, Interval(ge=0, le=1)] = 0.99
    termination_penalty: float | None = None
    stride: Annotated[int, Ge(1)] = 1
    chunk: Annotated[int, Ge(1)] = 1
    vectors: tuple[tuple[str, ...], ...] | None = None
    termination: Literal["shared"] | None = None

    def __post_init__(self) -> None:
        _check_names(self.fields)
        _check_order(self.present)
        _check_extras(self)
        _check_vectors(self.vectors, list(self.present), with_goal=self.goal is not None)
        if self.chunk not in (1, self.stride):
            what = f"layout.chunk={self.chunk} keeps neither one action of a transition nor all {self.stride}"
            raise ConfigError(f"{what}; use layout.chunk=1, or layout.stride={self.chunk} as well")

    @property
    def present(self) -> dict[str, FieldConfig]:
        """The fields that are not left out, in order."""
        return {name: options for name, options in self.fields.items() if options is not None}

    @property
    def extras(self) -> tuple[str, ...]:
        """The fields whose names are those of arrays beside the steps, in order."""
        return tuple(name for name in self.present if name not in FIELDS)


def close_field(name: str) -> str | None:
    """The field of every layout that a name is, or that was perhaps meant by it."""
    if name == "difference":
        return name
    # Arrays called much like `difference` are what people record; the data say whether they have one.
    return next(iter(get_close_matches(name, [each for each in FIELDS if each != "difference"], 1, 0.8)), None)


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that are misspelt, or mean something else."""
    for name in names:
        if name in FIELDS:
            continue
        if name == "goal":
            raise ConfigError("layout.fields.goal is no field; layout.goal puts a goal before the sequence")
        if close := close_field(name):
            raise ConfigError(
                f"there is no setting 'layout.fields.{name}'. Did you mean 'layout.fields.{close}'? Settings in "
                f"'layout.fields': {', '.join(FIELDS)}, and arrays of the data whose names are less like these"
            )
        if not name.isidentifier():
            raise ConfigError(
                f"layout.fields has {name!r}, which is no name of letters, digits and underscores; rename the array"
            )


def _check_extras(section: LayoutConfig) -> None:
    """Refuse extras that a transition of several steps cannot hold."""
    names = list(section.present)
    outcomes = [name for name in section.extras if names.index(name) > names.index("action")]
    if section.stride > 1 and outcomes:
        raise ConfigError(
            f"layout.stride={section.stride} joins several steps to a transition, and nobody says what becomes of "
            f"their {outcomes[0]!r}; use layout.stride=1, or leave layout.fields.{outcomes[0]} out"
        )


def _check_order(fields: Mapping[str, FieldConfig]) -> None:
    """Refuse an order of fields in which no action can be decided."""
    names = list(fields)
    known_before = names[: names.index("action")] if "action" in names else names
    if "action" not in names or "observation" not in known_before:
        raise ConfigError(f"layout.fields has the order {names}; it needs an observation and, after it, an action")
    if {"difference", "reward", "value"} & set(known_before) or ("return" in names and "return" not in known_before):
        raise ConfigError(
            f"layout.fields has the order {names}; what is known before the action, observation and return, must "
            "stand before it, and difference, reward and value after it"
        )
    for name in known_before:
        if fields[name].hidden:
            raise ConfigError(f"layout.fields.{name} is hidden; hide only fields that no decision needs")
    if fields["action"].loss_weight == 0:
        raise ConfigError("layout.fields.action.loss_weight=0 leaves actions unlearnt; give more than 0")
    if "difference" in names and fields["difference"].loss_weight == 0:
        raise ConfigError(
            "layout.fields.difference.loss_weight=0 leaves it unlearnt; give more than 0, or leave it out"
        )


def _check_vectors(groups: Sequence[Sequence[str]] | None, names: Sequence[str], *, with_goal: bool) -> None:
    """Refuse groups that are not the fields in their order, or that put an action beside what it is decided by."""
    if groups is None:
        return
    flat = [name for group in groups for name in group]
    if [name for name in flat if name != "goal"] != list(names) or not all(groups):
        raise ConfigError(
            f"layout.vectors={[list(g) for g in groups]} must hold the fields {list(names)} in this order"
        )
    if flat.count("goal") > int(with_goal):
        raise ConfigError("layout.vectors names a goal once at most, and only where layout.goal is set")
    together = next(group for group in groups if "action" in group)
    known = {*names[: names.index("action")], "goal"}
    if known & set(together):
        raise ConfigError("layout.vectors puts the action into a vector with what it is decided by; give it its own")
