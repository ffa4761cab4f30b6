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
from typing import Any

from seqrl.errors import ConfigError, did_you_mean

FIELDS = ("observation", "action", "reward", "value", "return")
GOAL_DRAWS = ("uniform", "last", "geometric")


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
        discount: gamma of the fields value and return, per step of the environment, in [0, 1].
        termination_penalty: what replaces the reward at a true end before values are computed; None leaves it.
        stride: steps of the environment between two transitions, 1 or more. The reward of a transition is then the
            discounted sum over its steps, and its value what follows them.
        vectors: for models of vectors, which fields (and perhaps `goal`) make one vector together, in sequence order.
        categories: number of values of fields that are discrete: one scalar that holds 0, 1, ...
    """

    fields: tuple[Field, ...]
    goal: Goal | None
    discount: float
    termination_penalty: float | None
    stride: int = 1
    vectors: tuple[tuple[str, ...], ...] = ()
    categories: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def from_config(
        config: Mapping[str, Any],
        observation_size: int,
        action_size: int,
        categories: Mapping[str, int] | None = None,
    ) -> Layout:
        """Lay the fields of a plain config out over S scalars.

        Args:
            config: `{fields: {observation: {loss_weight: 1.0, hidden: false}, ...}, goal: null or {dims, dropout,
                draw}, discount: 0.99, termination_penalty: -100.0, stride: 1, vectors: null}`; the order of `fields`
                is the order of the tokens, `vectors` may group them: `[[goal, observation], [action]]`.
            categories: of discrete observations or actions; see the class.

        Raises:
            ConfigError: an unknown field, option or goal dimension, or an order that cannot be decoded.
        """
        known = {"fields", "goal", "discount", "termination_penalty", "stride", "vectors"}
        for key in config:
            if key not in known:
                raise ConfigError(f"layout has no setting {key!r}.{did_you_mean(key, known)} Settings: {sorted(known)}")
        sizes = {"observation": observation_size, "action": action_size, "reward": 1, "value": 1, "return": 1}
        fields: list[Field] = []
        start = 0
        for name, options in config["fields"].items():
            if options is None:
                continue
            if name not in sizes:
                raise ConfigError(f"layout has no field {name!r}.{did_you_mean(name, FIELDS)} Fields: {FIELDS}")
            if not isinstance(options, Mapping):
                raise ConfigError(
                    f"layout.fields.{name}={options!r} is no set of options; give {{}}, or null to leave out"
                )
            unknown = set(options) - {"hidden", "loss_weight"}
            if unknown:
                raise ConfigError(
                    f"layout.fields.{name} has no option {sorted(unknown)[0]!r}; options: hidden, loss_weight"
                )
            hidden, weight = bool(options.get("hidden", False)), float(options.get("loss_weight", 1.0))
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"layout.fields.{name}.loss_weight={weight} is no weight; give 0 or more")
            fields.append(Field(name, start, sizes[name], hidden, weight))
            start += sizes[name]
        names = [f.name for f in fields]
        known_before = names[: names.index("action")] if "action" in names else names
        if "action" not in names or "observation" not in known_before:
            raise ConfigError(f"layout.fields has the order {names}; it needs an observation and, after it, an action")
        if not set(known_before) <= {"observation", "return"} or ("return" in names and "return" not in known_before):
            raise ConfigError(
                f"layout.fields has the order {names}; what is known before the action, observation and return, must "
                "stand before it, and everything else after it"
            )
        for hidden_field in fields:
            if hidden_field.hidden and hidden_field.name in known_before:
                raise ConfigError(
                    f"layout.fields.{hidden_field.name} is hidden; hide only fields that no decision needs"
                )
        if fields[names.index("action")].loss_weight == 0:
            raise ConfigError("layout.fields.action.loss_weight=0 leaves actions unlearnt; give more than 0")
        discount = float(config.get("discount", 0.99))
        if not 0.0 <= discount <= 1.0:
            raise ConfigError(f"layout.discount={discount} is outside [0, 1]")
        stride = config.get("stride", 1)
        if not isinstance(stride, int) or stride < 1:
            raise ConfigError(f"layout.stride={stride!r} is no number of steps; give 1 or more")
        penalty = config.get("termination_penalty")
        goal = _goal(config.get("goal"), observation_size)
        return Layout(
            tuple(fields),
            goal,
            discount,
            None if penalty is None else float(penalty),
            stride,
            _vectors(config.get("vectors"), names, with_goal=goal is not None),
            dict(categories or {}),
        )

    @property
    def step_discount(self) -> float:
        """Gamma between two transitions, which are `stride` steps apart."""
        return float(self.discount**self.stride)

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


def _vectors(
    config: Sequence[Sequence[str]] | None, names: Sequence[str], *, with_goal: bool
) -> tuple[tuple[str, ...], ...]:
    """The groups of fields that make one vector each; a field each by default, and the goal before all of them."""
    if config is None:
        return tuple((name,) for name in names)
    groups = tuple(tuple(group) for group in config)
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
    return groups


def _goal(config: Mapping[str, Any] | None, observation_size: int) -> Goal | None:
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise ConfigError(f"layout.goal={config!r} is no set of options; give {{dims: [0, 1]}}, or null for no goal")
    unknown = set(config) - {"dims", "dropout", "draw"}
    if unknown:
        raise ConfigError(f"layout.goal has no option {sorted(unknown)[0]!r}; options: dims, draw, dropout")
    dims: Sequence[int] = config.get("dims", ())
    given = list(dims) if isinstance(dims, Sequence) else dims
    if not isinstance(given, list) or not dims or not all(d in range(observation_size) for d in dims):
        raise ConfigError(f"layout.goal.dims={given} must name observation dimensions 0 to {observation_size - 1}")
    dropout, draw = float(config.get("dropout", 0.1)), str(config.get("draw", "uniform"))
    if not 0.0 <= dropout <= 1.0:
        raise ConfigError(f"layout.goal.dropout={dropout} is outside [0, 1]")
    if draw not in GOAL_DRAWS:
        raise ConfigError(f"layout.goal.draw={draw!r} is unknown.{did_you_mean(draw, GOAL_DRAWS)} Draws: {GOAL_DRAWS}")
    return Goal(tuple(int(d) for d in dims), dropout, draw)
