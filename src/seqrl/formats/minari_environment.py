"""Which environment a Minari data set was recorded in, as far as data may say: an id that is registered here, and plain
settings. The code that runs is the registration's, never what the metadata name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

from seqrl.errors import ConfigError
from seqrl.formats.minari_metadata import read_spec

_WORD = re.compile(r"[A-Za-z0-9_+ -]*")  # a text that can name neither a module nor a file
_OF_MAKE = ("id", "max_episode_steps", "disable_env_checker")  # arguments of gymnasium.make
NO_LIMIT = -1  # what gymnasium.make takes for it


@dataclass(frozen=True)
class RecordedEnvironment:
    """What data may say of an environment.

    Attributes:
        id: registered with Gymnasium.
        max_episode_steps: the time limit, or `NO_LIMIT`.
        settings: of its constructor: numbers, words, and lists and mappings of them.
    """

    id: str
    max_episode_steps: int
    settings: dict[str, Any]


def find_env_id(metadata: Mapping[str, Any], dataset_id: str, keys: Sequence[str]) -> str | None:
    """The registered environment where it is the recorded one, else `minari:<id>`; with the keys of observations.

    Args:
        metadata: as `seqrl.formats.minari_metadata.read_metadata` returns them.
    """
    spec = _chosen(metadata, dataset_id)
    if spec is None:
        return None
    import gymnasium

    if spec["id"] in gymnasium.registry:
        plain = _is_registration(spec, gymnasium.registry[spec["id"]])
    else:  # of a package that is not imported yet
        plain = not _settings(spec) and not spec.get("additional_wrappers")
    env_id = spec["id"] if plain else f"minari:{dataset_id}"
    return f"{env_id}@{'+'.join(keys)}" if keys else env_id


def find_environment(metadata: Mapping[str, Any], dataset_id: str) -> RecordedEnvironment:
    """The environment that a data set is to be evaluated in; whatever may provide it is registered already.

    Raises:
        ConfigError: there is none, its id is not registered here, its code or wrappers are others than those of the
            registration, or a setting may name code or a file.
    """
    spec = _chosen(metadata, dataset_id)
    if spec is None:
        raise ConfigError("its metadata name none")
    import gymnasium

    env_id = spec["id"]
    registered = gymnasium.registry.get(env_id)
    if registered is None or ":" in env_id:
        raise ConfigError(f"{env_id!r} is not registered here, and data import nothing")
    if other := _other_code(spec, registered):
        raise ConfigError(f"{other} of the registered {env_id!r}")
    settings = _settings(spec)
    for key, value in settings.items():
        if key in _OF_MAKE or not (_is_plain(value) or value == registered.kwargs.get(key)):
            raise ConfigError(f"its setting {key}={value!r} is none that data may make, for it may name code or a file")
        named = next((word for word in _words(value) if _names_something(word)), None)
        if named is not None and value not in (registered.kwargs.get(key), _default(registered, key)):
            raise ConfigError(
                f"its setting {key}={value!r} is none that data may make: {named!r} is a module or file here"
            )
    return RecordedEnvironment(env_id, _limit(spec), settings)


def _chosen(metadata: Mapping[str, Any], dataset_id: str) -> dict[str, Any] | None:
    """The environment meant for evaluation, or else the recorded one."""
    return read_spec(metadata, "eval_env_spec", dataset_id) or read_spec(metadata, "env_spec", dataset_id)


def _is_registration(spec: Mapping[str, Any], registered: Any) -> bool:
    same_limit = spec.get("max_episode_steps") == registered.max_episode_steps
    same_settings = _settings(spec) == _jsonlike(registered.kwargs)
    return same_limit and same_settings and _other_code(spec, registered) is None


def _other_code(spec: Mapping[str, Any], registered: Any) -> str | None:
    """What names other code than a registration, or None. A specification may leave the vectorized code out."""
    vectorized = _place(registered.vector_entry_point)
    for key, known in (
        ("entry_point", _place(registered.entry_point)),
        ("vector_entry_point", vectorized),
        ("additional_wrappers", _wrappers(registered)),
    ):
        recorded = spec.get(key) or (vectorized if key == "vector_entry_point" else [] if known == [] else None)
        if recorded != known:
            return f"its {key} {recorded!r} is not that ({known!r})"
    return None


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the environment; how the recording drew it is no part of them."""
    given = spec.get("kwargs") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"its settings {given!r} are no mapping")
    return {str(key): value for key, value in given.items() if key != "render_mode"}


def _limit(spec: Mapping[str, Any]) -> int:
    limit = spec.get("max_episode_steps")
    if limit is None:
        return NO_LIMIT
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigError(f"its time limit {limit!r} is no number of steps")
    return limit


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float)


def _words(value: Any) -> Iterator[str]:
    """Every text in a setting."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (*_words(key), *_words(each))
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)


def _names_something(word: str) -> bool:
    """Whether a constructor that imports or opens what it is told would find something by this word; nothing is run."""
    try:
        return bool(word.strip()) and (Path(word).exists() or find_spec(word) is not None)
    except (ValueError, ImportError, OSError):  # no name of a module, or too long for one of a file
        return False


def _default(registered: Any, key: str) -> Any:
    """What the registered constructor takes for a setting where nobody gives one; None where that cannot be told."""
    from gymnasium.envs.registration import load_env_creator

    code = registered.entry_point
    try:
        parameters = signature(load_env_creator(code) if isinstance(code, str) else code).parameters
    except Exception:  # which is told where it is made
        return None
    return parameters[key].default if key in parameters else None


def _place(code: Any) -> str | None:
    """`module:name`, as a specification names code."""
    return code if code is None or isinstance(code, str) else f"{code.__module__}:{getattr(code, '__qualname__', '')}"


def _wrappers(registered: Any) -> list[dict[str, Any]]:
    return [_jsonlike(asdict(wrapper)) for wrapper in registered.additional_wrappers]


def _jsonlike(value: Any) -> Any:
    """A value as it comes back from JSON: tuples are lists there."""
    if isinstance(value, Mapping):
        return {str(key): _jsonlike(each) for key, each in value.items()}
    return [_jsonlike(each) for each in value] if isinstance(value, list | tuple) else value
