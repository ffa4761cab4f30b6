"""Search spaces of Optuna from overrides of Hydra, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from seqrl.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_TAGS = {"log"}


class Space:
    """What a search varies and what it keeps.

    Args:
        arguments: overrides; those that Hydra would sweep over are searched.
        parser: of overrides.

    Attributes:
        distributions: by key, without a leading `+`.

    Raises:
        ConfigError: nothing varies, or a tag or an interval has no meaning.
    """

    def __init__(self, arguments: Sequence[str], parser: OverridesParser) -> None:
        self.fixed: list[str] = []
        self.distributions: dict[str, BaseDistribution] = {}
        self._keys: dict[str, str] = {}
        for override in parser.parse_overrides(list(arguments)):
            key = override.get_key_element()
            if override.is_sweep_override():
                name = key.lstrip("+")
                self._keys[name] = key
                self.distributions[name] = _distribution(override)
            else:
                self.fixed.append(f"{key}={override.get_value_element_as_str()}")
        if not self.distributions:
            raise ConfigError(
                "nothing is searched; give a key several values, such as "
                "'optimizer.learning_rate=tag(log,interval(1e-4,1e-2))' or tokenizer=uniform,quantile"
            )

    def overrides(self, params: dict[str, Any]) -> list[str]:
        """The overrides of one job. Floats are given in 6 digits: more would not be told apart by a reader."""
        return [*self.fixed, *(f"{self._keys[name]}={as_text(value)}" for name, value in params.items())]


def as_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    tags: set[str] = getattr(value, "tags", set())
    if tags - _TAGS:
        raise _refused(override, f"tags are {', '.join(sorted(_TAGS))}")
    log = "log" in tags
    try:
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            assert low is not None
            assert high is not None
            if isinstance(low, int) and isinstance(high, int):  # int(interval(1,8))
                return IntDistribution(int(low), int(high), log=log)
            return FloatDistribution(low, high, log=log)
        if isinstance(value, RangeSweep):
            steps = list(value.range())
            if not steps:
                raise ValueError("it is empty")
            if all(isinstance(step, int) for step in steps):
                return IntDistribution(steps[0], steps[-1], log=log, step=1 if log else int(value.step))
            return FloatDistribution(steps[0], steps[-1], step=None if log else float(value.step), log=log)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise _refused(override, str(error)) from error


def _refused(override: Override, why: str) -> ConfigError:
    return ConfigError(f"{override.input_line} is no search space: {why}")
