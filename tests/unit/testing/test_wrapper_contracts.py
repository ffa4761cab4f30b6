"""The contracts of wrappers: tried on every kind of spaces that their constructors take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from seqrl import testing
from seqrl.errors import ConfigError
from seqrl.registry import WRAPPER
from seqrl.testing.wrappers import BARE

Env = gymnasium.Env[Any, Any]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with WRAPPER.set_aside():
        yield


def violations(cls: type[Any]) -> dict[str, str | None]:
    name = cls.__name__.lower()
    WRAPPER.register(name)(cls)
    return dict(testing.check("wrapper", name))


class OnlyFor(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Refuses environments without certain spaces."""

    seen: type = gymnasium.Space
    chosen: type = gymnasium.Space

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        if not isinstance(env.observation_space, self.seen) or not isinstance(env.action_space, self.chosen):
            raise ConfigError(f"not for {env.observation_space} and {env.action_space}")


KINDS = [(Box, Box), (Box, Discrete), (Discrete, Discrete), (MultiBinary, MultiDiscrete), (Dict, MultiDiscrete)]


@pytest.mark.parametrize(("seen", "chosen"), KINDS)
def test_a_wrapper_for_one_kind_of_spaces_is_tried_on_it(seen: type, chosen: type) -> None:
    kind = {"seen": seen, "chosen": chosen}
    assert set(violations(type("Sound", (OnlyFor,), kind)).values()) == {None}

    def reset(self: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.shown = np.random.default_rng().random()
        return self.env.reset(**options)

    def step(self: Any, action: Any) -> tuple[Any, ...]:
        observation, _, *rest = self.env.step(action)
        return observation, self.shown, *rest

    found = violations(type("Drawn", (OnlyFor,), {**kind, "reset": reset, "step": step}))
    assert [name for name, violation in found.items() if violation] == ["the same seed gives the same episode"]

    def fail(self: Any, action: Any) -> tuple[Any, ...]:
        raise KeyError("nothing")

    found = violations(type("Failing", (OnlyFor,), {**kind, "step": fail}))
    told = found["observations lie in their space"]
    assert told is not None
    assert "it fails with KeyError: 'nothing'" in told


class Moved(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Shows other numbers than its space has, wherever they are choices."""

    def observation(self, observation: Any) -> Any:
        return observation + 2 if np.asarray(observation).dtype.kind in "iu" else observation


def test_a_fault_with_one_kind_is_told_with_its_environment() -> None:
    told = violations(Moved)["observations lie in their space"]
    assert told is not None
    assert told.startswith(("of FrozenLake-v1, after ", "of seqrl-check/Lamps-v0, after "))
    assert "let the constructor refuse such spaces" in told


def test_constructors_may_refuse_in_words_of_their_own() -> None:
    class Asserting(Moved):
        def __init__(self, env: Env) -> None:
            assert isinstance(env.observation_space, Box)
            super().__init__(env)

    assert set(violations(Asserting).values()) == {None}


def test_who_takes_nothing_is_told_why() -> None:
    (told,) = violations(type("Picky", (OnlyFor,), {"seen": gymnasium.spaces.Text})).values()
    assert told is not None
    assert all(env_id in told for env_id in BARE)
    assert "ConfigError: not for Box" in told
    assert not [name for name in gymnasium.registry if name.startswith("seqrl-check/")]


def test_options_that_there_are_not_are_the_users_fault() -> None:
    WRAPPER.register("tried")(OnlyFor)
    with pytest.raises(ConfigError, match="wide"):
        testing.check("wrapper", "tried", wide=3)
