"""Short words for what a row of results was made with: settings, scores composed of terms, names of mixed data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from seqrl.evaluation.rows import Component
from seqrl.schema import flatten_tree

LETTERS = {"beam_width": "W", "horizon": "H", "n_expand": "E", "temperature": "T"}
_PHRASES = {"plan_every": "every {}", "time_budget_ms": "{} ms", "cache": "cache {}", "guidance": "guidance {}"}


def abbreviate(setting: str, value: str) -> str:
    """A decoding setting, short enough for a table or a picture: W64, every 4, cache exact, cdf_act 0.6, no k_act."""
    if value == "null":
        return f"no {setting}"
    if setting in LETTERS:
        return f"{LETTERS[setting]}{value}"
    if setting in _PHRASES:
        return _PHRASES[setting].format(value)
    return f"{setting} {value}"


def write_setting(value: Any) -> str:
    """A setting's value in few letters; those of plugins may be anything."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(write_setting, value))}]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def join_names(names: Iterable[str]) -> str:
    """Names as a sum, each once: `a x2 + b` of a, b, a."""
    told = list(names)
    counted = {name: told.count(name) for name in dict.fromkeys(told)}
    return " + ".join(name if count == 1 else f"{name} x{count}" for name, count in counted.items())


def shorten_data_name(name: str) -> str:
    """The name of mixed data, `a+a+b`, as `a x2 + b`; other names as they are."""
    parts = name.split("+")
    return name if len(set(parts)) == len(parts) else join_names(parts)


def name_terms(score: Component) -> str | None:
    """The scores that a sum is made of, with their weights: `avoid + 0.2 likelihood`; None of other scores."""
    terms = _terms_of(score)
    return None if terms is None else join_names([_weighted(term, str(term["name"])) for term in terms])


def spell_score(score: Component) -> str | None:
    """A composed score with the options of its terms: `avoid (margin 0.3) + 0.2 likelihood`; None of other scores."""
    terms = _terms_of(score)
    return None if terms is None else " + ".join(_weighted(term, _spell(term)) for term in terms)


def _spell(term: Mapping[str, Any]) -> str:
    options = flatten_tree({key: value for key, value in term.items() if key not in ("name", "weight")})
    told = ", ".join(f"{key} {write_setting(value)}" for key, value in options.items())
    return f"{term['name']} ({told})" if told else str(term["name"])


def _weighted(term: Mapping[str, Any], text: str) -> str:
    weight = term.get("weight", 1)
    return text if weight == 1 else f"{write_setting(weight)} {text}"


def _terms_of(score: Component) -> list[Mapping[str, Any]] | None:
    """The terms of a score that is composed of others, of plugins too; None of one that is not."""
    terms = score.options.get("terms")
    if not isinstance(terms, Mapping):
        return None
    return [term for term in terms.values() if isinstance(term, Mapping) and "name" in term] or None


def list_differences(own: Component, others: Iterable[Component]) -> Iterator[tuple[str, str]]:
    """(option, value) of each option in which a component differs from others of its name.

    Names and weights of a score's terms are left out, which `name_terms` tells.
    """
    settings = [flatten_tree(other.options) for other in others if other.name == own.name]
    for option, value in flatten_tree(own.options).items():
        is_told = option.startswith("terms.") and option.endswith((".name", ".weight"))
        if not is_told and any(other.get(option) != value for other in settings):
            yield option, write_setting(value)


def show_estimate(mean: float, bounds: Sequence[float] | None) -> str:
    """A mean with its interval, of numbers whose size nobody knows: `12.35 [10, 14.8]`."""
    return f"{mean:.4g}" if bounds is None else f"{mean:.4g} [{bounds[0]:.3g}, {bounds[1]:.3g}]"
