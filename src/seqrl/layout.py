"""What a transition is made of: which fields, in which order, who may look at them and how much they weigh.

The layout of the Trajectory Transformer is `[observation.., action.., reward, value]`, every scalar one position.
`value` is the return-to-go after the present step, `sum_k gamma^k r_{t+1+k}`; it tells the future, so it is hidden as
a key from every position (Janner et al. 2021, section 3.1 and their code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqrl.errors import ConfigError, did_you_mean

FIELDS = ("observation", "action", "reward", "value")
GOAL_DRAWS = ("uniform", "last", "geometric")


@dataclass(frozen=True)
class Field:
    """A named part of a transition.

    Attributes:
        name: one of `FIELDS`.
        start, size: which of the S scalars it covers.
        hidden: later positions (and its own) may not attend to it.
        loss_weight: factor on the cross-entropy of its tokens.
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
    """

    dims: tuple[int, ...]
    dropout: float
    draw: str


@dataclass(frozen=True)
class Layout:
    """The order of a transition, for given sizes of observation and action; made by `Layout.from_config`.

    Attributes:
        fields: in sequence order.
        goal: the prefix, or None.
        discount: gamma of the value field, in [0, 1].
        termination_penalty: what replaces the reward at a true end before values are computed; None leaves it.
    """

    fields: tuple[Field, ...]
    goal: Goal | None
    discount: float
    termination_penalty: float | None

    @staticmethod
    def from_config(config: Mapping[str, Any], observation_size: int, action_size: int) -> Layout:
        """Lay the fields of a plain config out over S scalars.

        Args:
            config: `{fields: {observation: {loss_weight: 1.0, hidden: false}, ...}, goal: null or {dims, dropout,
                draw}, discount: 0.99, termination_penalty: -100.0}`; the order of `fields` is the order of the tokens.

        Raises:
            ConfigError: an unknown field, option or goal dimension, or an order that cannot be decoded.
        """
        known = {"fields", "goal", "discount", "termination_penalty"}
        for key in config:
            if key not in known:
                raise ConfigError(f"layout has no setting {key!r}.{did_you_mean(key, known)} Settings: {sorted(known)}")
        sizes = {"observation": observation_size, "action": action_size, "reward": 1, "value": 1}
        fields: list[Field] = []
        start = 0
        for name, options in config["fields"].items():
            if options is None:
                continue
            if name not in sizes:
                raise ConfigError(f"layout has no field {name!r}.{did_you_mean(name, FIELDS)} Fields: {FIELDS}")
            unknown = set(options) - {"hidden", "loss_weight"}
            if unknown:
                raise ConfigError(
                    f"layout.fields.{name} has no option {sorted(unknown)[0]!r}; options: hidden, loss_weight"
                )
            hidden, weight = bool(options.get("hidden", False)), float(options.get("loss_weight", 1.0))
            if weight < 0:
                raise ConfigError(f"layout.fields.{name}.loss_weight={weight} is negative; give 0 or more")
            fields.append(Field(name, start, sizes[name], hidden, weight))
            start += sizes[name]
        names = [f.name for f in fields]
        if names[:2] != ["observation", "action"]:
            raise ConfigError(f"layout.fields begins with {names[:2]}; it must begin with observation, action")
        if fields[0].hidden:
            raise ConfigError("layout.fields.observation is hidden; hide only fields that no decision needs")
        discount = float(config.get("discount", 0.99))
        if not 0.0 <= discount <= 1.0:
            raise ConfigError(f"layout.discount={discount} is outside [0, 1]")
        penalty = config.get("termination_penalty")
        return Layout(
            tuple(fields),
            _goal(config.get("goal"), observation_size),
            discount,
            None if penalty is None else float(penalty),
        )

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
        hint = "{hidden: true}" if name == "value" else "{}"
        raise ConfigError(
            f"the layout has no {name!r} field (it has {', '.join(f.name for f in self.fields)}); train with "
            f"'+layout.fields.{name}={hint}'"
        )

    @property
    def hidden(self) -> list[bool]:
        """(S,) whether a scalar is hidden as a key."""
        return [f.hidden for f in self.fields for _ in range(f.size)]

    @property
    def loss_weights(self) -> list[float]:
        """(S,) factors on the loss."""
        return [f.loss_weight for f in self.fields for _ in range(f.size)]


def _goal(config: Mapping[str, Any] | None, observation_size: int) -> Goal | None:
    if config is None:
        return None
    unknown = set(config) - {"dims", "dropout", "draw"}
    if unknown:
        raise ConfigError(f"layout.goal has no option {sorted(unknown)[0]!r}; options: dims, draw, dropout")
    dims: Sequence[int] = config.get("dims", ())
    bad = [d for d in dims if not 0 <= d < observation_size]
    if bad or not dims:
        raise ConfigError(f"layout.goal.dims={list(dims)} must name observation dimensions 0 to {observation_size - 1}")
    dropout, draw = float(config.get("dropout", 0.1)), str(config.get("draw", "uniform"))
    if not 0.0 <= dropout <= 1.0:
        raise ConfigError(f"layout.goal.dropout={dropout} is outside [0, 1]")
    if draw not in GOAL_DRAWS:
        raise ConfigError(f"layout.goal.draw={draw!r} is unknown.{did_you_mean(draw, GOAL_DRAWS)} Draws: {GOAL_DRAWS}")
    return Goal(tuple(int(d) for d in dims), dropout, draw)
