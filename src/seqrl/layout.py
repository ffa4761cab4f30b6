"""What a transition is made of: which fields, in which order, who may look at them and how much they weigh.

The layout of the Trajectory Transformer is `[observation.., action.., reward, value]`, every scalar one position.
`value` is the return-to-go after the present step, `sum_k gamma^k r_{t+1+k}`; it tells the future, so it is hidden as
a key from every position (Janner et al. 2021, section 3.1 and their code). That of the Decision Transformer is
`[return, observation.., action..]`, every field one vector; `return` is what is earned from the present step on, its
reward included, and is known before the action because the user asks for it (Chen et al. 2021, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Interval, Len

from seqrl.errors import ConfigError
from seqrl.schema import check_value

FieldName = Literal["observation", "action", "reward", "value", "return"]
FIELDS: tuple[FieldName, ...] = get_args(FieldName)


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
        fields: their order is the order of the tokens; null leaves one out.
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

    fields: Mapping[FieldName, FieldConfig | None]
    goal: GoalConfig | None = None
    discount: Annotated[float, Interval(ge=0, le=1)] = 0.99
    termination_penalty: float | None = None
    stride: Annotated[int, Ge(1)] = 1
    chunk: Annotated[int, Ge(1)] = 1
    vectors: tuple[tuple[str, ...], ...] | None = None
    termination: Literal["shared"] | None = None

    def __post_init__(self) -> None:
        _check_order(self.present)
        _check_vectors(self.vectors, list(self.present), with_goal=self.goal is not None)
        if self.chunk not in (1, self.stride):
            what = f"layout.chunk={self.chunk} keeps neither one action of a transition nor all {self.stride}"
            raise ConfigError(f"{what}; use layout.chunk=1, or layout.stride={self.chunk} as well")

    @property
    def present(self) -> dict[FieldName, FieldConfig]:
        """The fields that are not left out, in order."""
        return {name: options for name, options in self.fields.items() if options is not None}


@dataclass(frozen=True)
class Field:
    """A named part of a transition.

    Attributes:
        name: one of `FIELDS`.
        start, size: which of the S scalars it covers.
        hidden: later positions (and its own) may not attend to it.
        loss_weight: factor on the loss of its tokens.
    """

    name: str
    start: int
    size: int
    hidden: bool
    loss_weight: float

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Goal:
    """A goal before the sequence: some observation dimensions that the episode reaches later.

    Attributes:
        dims: observation dimensions that make the goal.
        dropout: share of training windows whose goal is replaced by the null goal, in [0, 1].
        draw: how the goal is drawn from the states at or after the window's end: `uniform` over them, the `last` one,
            or `geometric`, `discount / (1 - discount)` steps after the first of them on average.
        discount: of geometric draws, in [0, 1], which need not be that of the returns.
    """

    dims: tuple[int, ...]
    dropout: float
    draw: str
    discount: float


@dataclass(frozen=True)
class Layout:
    """The order of a transition, for given sizes of observation and action; made by `Layout.from_config`.

    Attributes:
        fields: in sequence order.
        goal: the prefix, or None.
        discount: gamma of the fields value and return, per step of the environment, in [0, 1].
        termination_penalty: what replaces the reward at a true end before values are computed; None leaves it.
        stride: steps of the environment between two transitions, 1 or more. The reward of a transition is then the
            discounted sum over its steps, and its value what follows them.
        chunk: actions of a transition that its action field holds, one after the other: 1, or `stride`.
        vectors: for models of vectors, which fields (and perhaps `goal`) make one vector together, in sequence order.
        categories: number of values of fields that are discrete: one scalar that holds 0, 1, ...
        shares_termination: whether the termination token has one row of the embedding for all places.
    """

    fields: tuple[Field, ...]
    goal: Goal | None
    discount: float
    termination_penalty: float | None
    stride: int = 1
    chunk: int = 1
    vectors: tuple[tuple[str, ...], ...] = ()
    categories: Mapping[str, int] = field(default_factory=dict)
    shares_termination: bool = False

    @staticmethod
    def from_config(
        config: Mapping[str, Any] | LayoutConfig,
        observation_size: int,
        action_size: int,
        categories: Mapping[str, int] | None = None,
    ) -> Layout:
        """Lay the fields of a section `layout` out over S scalars.

        Args:
            config: the section, or a plain mapping that is checked as one.
            categories: of discrete observations or actions; see the class.

        Raises:
            ConfigError: see `LayoutConfig`; a goal dimension that observations lack; or discrete actions in chunks.
        """
        section: LayoutConfig = (
            config if isinstance(config, LayoutConfig) else check_value("layout", config, LayoutConfig)
        )
        if section.chunk > 1 and "action" in (categories or {}):
            raise ConfigError(f"layout.chunk={section.chunk} is for vectors, and these actions are discrete; give 1")
        sizes = {"observation": observation_size, "action": action_size * section.chunk}
        sizes |= {"reward": 1, "value": 1, "return": 1}
        fields: list[Field] = []
        start = 0
        for name, options in section.present.items():
            fields.append(Field(name, start, sizes[name], options.hidden, options.loss_weight))
            start += sizes[name]
        goal = None
        if section.goal is not None:
            if max(section.goal.dims) >= observation_size:
                raise ConfigError(
                    f"layout.goal.dims={list(section.goal.dims)} must name observation dimensions 0 to "
                    f"{observation_size - 1}"
                )
            discount = section.discount if section.goal.discount is None else section.goal.discount
            goal = Goal(section.goal.dims, section.goal.dropout, section.goal.draw, discount)
        vectors = tuple((name,) for name in section.present) if section.vectors is None else section.vectors
        return Layout(
            tuple(fields),
            goal,
            section.discount,
            section.termination_penalty,
            section.stride,
            section.chunk,
            vectors,
            dict(categories or {}),
            section.termination == "shared",
        )

    @property
    def step_discount(self) -> float:
        """Gamma between two transitions, which are `stride` steps apart."""
        return float(self.discount**self.stride)

    @property
    def action_size(self) -> int:
        """Numbers that the environment takes in one step: those of the action field, divided by the chunk."""
        return self.field("action").size // self.chunk

    @property
    def size(self) -> int:
        """S, scalars per transition."""
        return sum(f.size for f in self.fields)

    @property
    def prefix_size(self) -> int:
        """P, prefix tokens."""
        return len(self.goal.dims) if self.goal else 0

    def has(self, name: str) -> bool:
        return any(f.name == name for f in self.fields)

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            ConfigError: the layout lacks it; the message names the override that adds it.
        """
        for f in self.fields:
            if f.name == name:
                return f
        present = ", ".join(f.name for f in self.fields)
        if name == "return":  # stands before the action, and a new key would stand last
            raise ConfigError(f"the layout has no 'return' field (it has {present}); train with method=dt or layout=dt")
        hint = "{hidden: true}" if name == "value" else "{}"
        raise ConfigError(
            f"the layout has no {name!r} field (it has {present}); train with '+layout.fields.{name}={hint}'"
        )

    @property
    def hidden(self) -> list[bool]:
        """(S,) whether a scalar is hidden as a key."""
        return [f.hidden for f in self.fields for _ in range(f.size)]

    @property
    def loss_weights(self) -> list[float]:
        """(S,) factors on the loss."""
        return [f.loss_weight for f in self.fields for _ in range(f.size)]


def _check_order(fields: Mapping[FieldName, FieldConfig]) -> None:
    """Refuse an order of fields in which no action can be decided."""
    names = list(fields)
    known_before = names[: names.index("action")] if "action" in names else names
    if "action" not in names or "observation" not in known_before:
        raise ConfigError(f"layout.fields has the order {names}; it needs an observation and, after it, an action")
    if not set(known_before) <= {"observation", "return"} or ("return" in names and "return" not in known_before):
        raise ConfigError(
            f"layout.fields has the order {names}; what is known before the action, observation and return, must "
            "stand before it, and everything else after it"
        )
    for name in known_before:
        if fields[name].hidden:
            raise ConfigError(f"layout.fields.{name} is hidden; hide only fields that no decision needs")
    if fields["action"].loss_weight == 0:
        raise ConfigError("layout.fields.action.loss_weight=0 leaves actions unlearnt; give more than 0")


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
    if {"observation", "return", "goal"} & set(together):
        raise ConfigError("layout.vectors puts the action into a vector with what it is decided by; give it its own")
