"""The evaluations that follow a training: rows of its results table, composed like `seqrl evaluate` commands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import hydra
from hydra.errors import ConfigCompositionException, HydraException

from seqrl.cli.application import composing, plain, translate
from seqrl.errors import ConfigError, did_you_mean

_DECODED = ("planner", "condition", "score")  # whose settings may be given for all rows


@dataclass(frozen=True)
class Rows:
    """The rows of a results table.

    Attributes:
        configs: a resolved `conf/evaluate.yaml` each, with its `label`.
        baseline: label of the row that the others are compared with, or None.
        figure: whether to draw paths toward goals.
    """

    configs: list[dict[str, Any]]
    baseline: str | None
    figure: bool


def compose_rows(evaluation: Mapping[str, Any], typed: Sequence[str]) -> Rows:
    """Compose the `evaluation` section of a training (see `conf/evaluation/default.yaml`).

    Args:
        typed: the overrides on the command line; a decoding setting among them must fit a row at least, while one of
            a config file (`debug=fast`) may fit none.

    Raises:
        ConfigError: a row that does not compose, or a setting that fits no row.
    """
    chosen = evaluation["strategy"]
    strategies = {chosen: [f"strategy={chosen}"]} if chosen else dict(evaluation["strategies"] or {})
    settings = [f"{key}={json.dumps(value)}" for key, value in evaluation["settings"].items()]
    decoding = [f"{key}={json.dumps(value)}" for key, value in _leaves(evaluation["decoding"])]
    used: set[str] = set()
    configs = []
    for label, own in strategies.items():
        if own is None:
            continue  # a row of a shared file, taken out
        words = ["checkpoint=none", *settings, *own]
        own_keys = {word.lstrip("+~").partition("=")[0] for word in own}
        for override in decoding:
            if override.partition("=")[0] in own_keys:
                continue  # the row would no longer be what its label says
            try:
                composing(partial(hydra.compose, "evaluate", [*words, override]))
            except ConfigCompositionException:
                continue  # another kind of planner, condition or score, or a row that `_compose` will refuse
            words.append(override)
            used.add(override)
        configs.append({**_compose(label, words), "label": label})
    labels = [row["label"] for row in configs]
    for override in decoding:
        key = override.partition("=")[0]
        if configs and override not in used and any(f"decoding.{key}=" in word for word in typed):
            known = {name for row in configs for name, _ in _leaves({k: row[k] for k in _DECODED})}
            listed = ", ".join(repr(label) for label in labels)
            raise ConfigError(f"{key} fits none of the rows {listed}.{did_you_mean(key, known)}")
    return Rows(configs, evaluation["baseline"] if evaluation["baseline"] in labels else None, evaluation["figure"])


def _compose(label: str, words: list[str]) -> dict[str, Any]:
    try:
        return plain(composing(lambda: hydra.compose("evaluate", words)))
    except HydraException as error:
        problem = translate(error, "evaluate", words)
        raise ConfigError(f"row {label!r} of evaluation.strategies: {problem}") from error


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
