"""Choosing among results: conditions on settings and numbers, and an order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from seqrl.errors import ConfigError, did_you_mean
from seqrl.evaluation.results import ESTIMATES, SEED, Result, estimate_result, list_numbers

_ALIASES = {"return_mean": "return", "score_mean": "score", "success_rate": "success", "clear_success_rate": "clear"}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """What is asked of a result, as `backbone.dim>=64`.

    Attributes:
        key: a setting, `seed`, or a number.
        sign: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        value: that it is compared with.
    """

    key: str
    sign: str
    value: Any

    def fits(self, found: Any) -> bool:
        if self.sign in ("=", "!="):
            return (_plain(found) == _plain(self.value)) == (self.sign == "=")
        numbers = isinstance(found, int | float) and isinstance(self.value, int | float)
        return numbers and _ORDERS[self.sign](found, self.value)


def read_condition(text: str) -> Condition:
    """The condition that a user wrote.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"\s*([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text, re.DOTALL)
    if match is None:
        raise ConfigError(f"--where {text!r} is no condition; give KEY=VALUE, as in seed=1 or 'return>50'")
    key, sign, written = match.groups()
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError:
        value = written
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value):
        value = float(value)  # 1e-4 is a text in YAML 1.1
    if sign in _ORDERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"--where {text!r} compares with {written!r}, which is no number; give one, or use = or !=")
    return Condition(_ALIASES.get(key, key), sign, value)


def keep_where(results: Sequence[Result], conditions: Iterable[Condition]) -> list[Result]:
    """The results that fit all conditions; of a result over several seeds, those seeds are kept that fit.

    Raises:
        ConfigError: a key that no result has.
    """
    kept = list(results)
    for condition in conditions:
        _check_key(condition.key, results)
        if condition.key == SEED:
            chosen = [[e for e in each.entries if condition.fits(e.row.training_seed)] for each in kept]
            kept = [
                each if len(entries) == len(each.entries) else estimate_result(entries)
                for each, entries in zip(kept, chosen, strict=True)
                if entries
            ]
        else:
            is_name = condition.key == "score" and isinstance(condition.value, str)  # of a component, no number
            values = [each.settings.get("score") if is_name else find_value(each, condition.key) for each in kept]
            kept = [each for each, value in zip(kept, values, strict=True) if condition.fits(value)]
    return kept


def sort_results(results: Sequence[Result], key: str | None, *, reverse: bool = False) -> list[Result]:
    """The results in the order of a setting or number, numbers before texts, and those without a value at the end.

    Raises:
        ConfigError: a key that no result has.
    """
    if key is None:
        return list(results)[:: -1 if reverse else 1]
    key = _ALIASES.get(key, key)
    if results:
        _check_key(key, results)
    values = [(find_value(each, key), each) for each in results]
    known = [(value, each) for value, each in values if value is not None and value == value]  # noqa: PLR0124 (NaN)
    known.sort(key=lambda pair: _order(pair[0]), reverse=reverse)
    rest = [each for value, each in values if not any(each is other for _, other in known)]
    return [each for _, each in known] + rest


def find_value(result: Result, key: str) -> Any:
    """A setting or a number of a result by its name."""
    if key in ESTIMATES or key in result.numbers:
        return result.value(key)
    if key == SEED:
        return result.seeds[0]
    return result.settings.get(key)


def _check_key(key: str, results: Sequence[Result]) -> None:
    numbers = (*ESTIMATES, *list_numbers(results))
    known = {SEED, *numbers, *(key for result in results for key in result.settings)}
    if key not in known:
        below = sorted(each for each in known if each.startswith(f"{key}."))
        listed = f" Settings in {key!r}: {', '.join(each[len(key) + 1 :] for each in below)}" if below else ""
        raise ConfigError(
            f"no result has a setting or number {key!r}.{did_you_mean(key, known)}{listed} Numbers: "
            f"{', '.join(numbers)}"
        )


def _order(value: Any) -> tuple[bool, Any]:
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else str(value)


def _plain(value: Any) -> Any:
    """As values are compared: texts of lists and the like; 1 and 1.0 are one, true and 1 are not."""
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, int | float):
        return float(value)
    return str([_plain(each) for each in value]) if isinstance(value, list | tuple) else str(value)
