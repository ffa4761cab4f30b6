"""What a transition is made of: which fields, in which order, who may look at them and how much they weigh.

The layout of the Trajectory Transformer is `[observation.., action.., reward, value]`, every scalar one position.
`value` is the return-to-go after the present step, `sum_k gamma^k r_{t+1+k}`; it tells the future, so it is hidden as
a key from every position (Janner et al. 2021, section 3.1 and their code). That of the Decision Transformer is
`[return, observation.., action..]`, every field one vector; `return` is what is earned from the present step on, its
reward included, and is known before the action because the user asks for it (Chen et al. 2021, section 3).

`difference` is the next observation less the present one. A model that has it predicts how a state changes, and what it
imagines is the sum: an action changes a state by little, and next to that the whole state is coarse.

Every other name is an *extra*: an array that the data record beside each step. Before the action it is a context, which
is known when an action is chosen (a task, a price); after it an outcome, which the step brings about (a cost).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqrl.errors import ConfigError, did_you_mean
from seqrl.layout_config import FIELDS, LayoutConfig
from seqrl.schema import check_value


@dataclass(frozen=True)
class Field:
    """A named part of a transition.

    Attributes:
        name: one of `FIELDS`, or that of an extra.
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


Choices = int | tuple[int, ...]
"""How many values a discrete field has: one count, or one for each of its scalars."""


def as_counts(choices: Choices) -> tuple[int, ...]:
    """How many values each scalar has."""
    return choices if isinstance(choices, tuple) else (choices,)


def as_choices(counts: Sequence[int]) -> Choices:
    """The counts of a field's scalars as they are written: one alone is a number."""
    return int(counts[0]) if len(counts) == 1 else tuple(map(int, counts))


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
        categories: number of values of fields that are discrete, whose scalars hold 0, 1, ...: a number for a field of
            one scalar, a tuple of one for each scalar where it has several; see `choices`.
        shares_termination: whether the termination token has one row of the embedding for all places.
    """

    fields: tuple[Field, ...]
    goal: Goal | None
    discount: float
    termination_penalty: float | None
    stride: int = 1
    chunk: int = 1
    vectors: tuple[tuple[str, ...], ...] = ()
    categories: Mapping[str, Choices] = field(default_factory=dict)
    shares_termination: bool = False

    @staticmethod
    def from_config(
        config: Mapping[str, Any] | LayoutConfig,
        observation_size: int,
        action_size: int,
        categories: Mapping[str, Choices] | None = None,
        extras: Mapping[str, int] | None = None,
    ) -> Layout:
        """Lay the fields of a section `layout` out over S scalars.

        Args:
            config: the section, or a plain mapping that is checked as one.
            categories: of discrete observations, actions or extras; see the class.
            extras: numbers in a row of each array that the data record beside their steps.

        Raises:
            ConfigError: see `LayoutConfig`; a goal dimension that observations lack; discrete actions in chunks;
                differences of discrete observations; or an extra that the data lack, or that is called like one of
                `FIELDS`.
        """
        section: LayoutConfig = (
            config if isinstance(config, LayoutConfig) else check_value("layout", config, LayoutConfig)
        )
        _check_discrete(section, categories or {})
        sizes = {"observation": observation_size, "action": action_size * section.chunk, "difference": observation_size}
        sizes |= {"reward": 1, "value": 1, "return": 1} | _sizes_of_extras(section, extras or {})
        fields: list[Field] = []
        start = 0
        for name, options in section.present.items():
            counts = as_counts(categories[name]) if categories and name in categories else None
            if counts is not None and len(counts) != sizes[name]:
                raise ConfigError(
                    f"{name} has {sizes[name]} numbers in a row, and choices were counted for {len(counts)} of them; "
                    "give a count for each"
                )
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
            {name: count for name, count in (categories or {}).items() if name in (*FIELDS, *section.extras)},
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

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the fields that are known when an action is chosen, in order."""
        names = [f.name for f in self.fields]
        return tuple(names[: names.index("action")])

    @property
    def contexts(self) -> tuple[Field, ...]:
        """The extras that are known before the action, in order."""
        return tuple(f for f in self.fields if f.name not in FIELDS and f.name in self.known)

    @property
    def outcomes(self) -> tuple[Field, ...]:
        """The extras that an action brings about, in order."""
        return tuple(f for f in self.fields if f.name not in FIELDS and f.name not in self.known)

    def choices(self, name: str) -> tuple[int, ...]:
        """(size,) how many values each scalar of a discrete field has; empty for numbers."""
        return as_counts(self.categories[name]) if name in self.categories else ()

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
        if name not in FIELDS:
            raise ConfigError(
                f"the layout has no {name!r} field (it has {present}); train with '+layout.fields.{name}={{}}' on data "
                "that record it beside each step"
            )
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


def _check_discrete(section: LayoutConfig, categories: Mapping[str, Choices]) -> None:
    """Refuse what needs numbers where there are choices."""
    if section.chunk > 1 and "action" in categories:
        raise ConfigError(f"layout.chunk={section.chunk} is for vectors, and these actions are discrete; give 1")
    if "difference" in section.present and "observation" in categories:
        raise ConfigError(
            "layout.fields.difference subtracts observations, and these are discrete; leave it out (layout=tt)"
        )


def _sizes_of_extras(section: LayoutConfig, extras: Mapping[str, int]) -> dict[str, int]:
    """How many scalars each extra of the layout has."""
    for name in section.present:
        if name in FIELDS and name in extras:
            raise ConfigError(
                f"the data record an array {name!r} beside their steps, and layout.fields.{name} is what seqrl makes "
                "of them; rename the array, or leave the field out"
            )
    for name in section.extras:
        if name not in extras:
            recorded = f"they record {', '.join(sorted(extras))}" if extras else "they record none"
            raise ConfigError(
                f"layout.fields.{name} is an array that the data should record beside their steps, and {recorded}."
                f"{did_you_mean(name, [*FIELDS, *extras])} Give the data such an array, or leave the field out"
            )
        if extras[name] == 0:
            raise ConfigError(f"the data's {name!r} has no numbers in a row; leave layout.fields.{name} out")
    return {name: extras[name] for name in section.extras}
