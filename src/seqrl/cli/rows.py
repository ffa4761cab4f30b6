"""The evaluations that follow a training: rows of its results table, trees of settings of `conf/evaluate.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from seqrl.cli.application import composing, plain
from seqrl.cli.explaining import translate
from seqrl.cli.presets import leave_out_foreign
from seqrl.cli.words import DECODED, is_key
from seqrl.config import EvaluationConfig
from seqrl.console import say
from seqrl.errors import ConfigError, did_you_mean, show_value, write_flow
from seqrl.evaluation.hints import name_for_training
from seqrl.registry import registry_of
from seqrl.schema import flatten_tree, is_mapping

Tree = dict[str, Any]

_OF_THE_RUN = ("checkpoint", "label", "output", "plugins")  # keys of conf/evaluate.yaml that no row decides


@dataclass(frozen=True)
class Rows:
    """The rows of a results table.

    Attributes:
        configs: with a `label` each.
        baseline: label of the row that the others are compared with, or None.
        figure: whether to draw paths toward goals.
    """

    configs: list[EvaluationConfig]
    baseline: str | None
    figure: bool


def compose_rows(evaluation: Mapping[str, Any], typed: Sequence[str]) -> Rows:
    """Compose the `evaluation` section of a training (see `conf/evaluation/none.yaml`).

    Args:
        typed: the overrides on the command line; a decoding setting among them must fit a row at least, while one of
            a config file (`debug=fast`) may fit none.

    Raises:
        ConfigError: a row that does not compose or has a value that is not allowed, a setting that fits no row, or a
            baseline typed that is none.
    """
    _tell_merged(evaluation, typed)
    trees = choose_rows(evaluation)
    decoding = _settings(evaluation["decoding"])
    used: set[str] = set()
    composer = _Composer()
    configs = []
    for label, tree in trees.items():
        config = composer.compose(label, tree)
        own = _settings(tree)
        fitting = {key: value for key, value in decoding.items() if key not in own and _has(config, key)}
        used.update(key for key in decoding if key in fitting)
        settings = {**evaluation["settings"], **fitting, **own}
        configs.append(_check_row({**_fill(label, config, settings), "label": label}))
    labels = list(trees)
    for key in decoding:
        if key not in used and any(f"decoding.{key}=" in word for word in typed):
            if not configs:
                raise ConfigError(f"{key} has no effect, since no row is evaluated; leave it out, or evaluation=none")
            known = {name for row in configs for name in _settings({k: getattr(row, k) for k in DECODED})}
            if key in known:
                raise ConfigError(f"{key} is set by every row that has it; give evaluation.rows.LABEL.{key}=...")
            listed = ", ".join(repr(label) for label in labels)
            raise ConfigError(f"{key} fits none of the rows {listed}.{did_you_mean(key, known)}")
    return Rows(configs, _find_baseline(evaluation, labels, typed), evaluation["figure"])


def _check_row(config: Mapping[str, Any]) -> EvaluationConfig:
    """A composed `conf/evaluate.yaml` with the row's `label`, typed; a refusal names the row."""
    try:
        return EvaluationConfig.from_dict(config)
    except ConfigError as error:
        raise ConfigError(f"row {config['label']!r} of the evaluation: {name_for_training(str(error))}") from error


def _tell_merged(evaluation: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Say what stays of the rows of a file beside rows that are typed, or in a row that is typed."""
    rows = {label: tree for label, tree in (evaluation["rows"] or {}).items() if tree is not None}
    for word in typed:
        key, _, text = word.lstrip("+").partition("=")
        if not key.startswith("evaluation.rows") or not text.startswith("{") or word in _told:
            continue
        _told.add(word)
        label = key.removeprefix("evaluation.rows").lstrip(".")
        value = _unquoted(OverridesParser.create().parse_override(f"x={text}").value())
        given = {label: value} if label else value
        others = ", ".join(repr(each) for each in rows if each not in given)
        if others and not label and any(value is not None or is_key(name) for name, value in given.items()):
            say(f"evaluation.rows adds to the rows {others}; evaluation=none leaves those out")
        for each in given.keys() & rows.keys():
            written = _settings(given[each] or {})
            kept = [f"{name}={show_value(old)}" for name, old in _settings(rows[each]).items() if name not in written]
            if kept and given[each] is not None:
                say(f"row {each!r} keeps {', '.join(kept)} of its file; give the row another label to begin without")


def _find_baseline(evaluation: Mapping[str, Any], labels: Sequence[str], typed: Sequence[str]) -> str | None:
    """The row that the others are compared with; none where a file names one that the command takes out."""
    baseline = evaluation["baseline"]
    if baseline in (None, *labels):
        return baseline
    taken_out = [*(evaluation["rows"] or {}), *(evaluation["strategies"] or {})]
    is_typed = any(word.lstrip("+").startswith("evaluation.baseline=") for word in typed)
    if is_typed or (taken_out and baseline not in taken_out):
        raise ConfigError(
            f"evaluation.baseline={baseline!r} is none of the rows.{did_you_mean(baseline, labels)} "
            f"Rows: {', '.join(labels) or 'none'}"
        )
    return None


def choose_rows(evaluation: Mapping[str, Any]) -> dict[str, Tree]:
    """The rows that are to be evaluated, by label: those of the section, or the one of `evaluation.strategy`.

    Raises:
        ConfigError: a row that is no tree.
    """
    if chosen := evaluation["strategy"]:
        return {chosen: {"strategy": chosen}}
    rows = dict(evaluation["rows"] or {})
    for label, words in (evaluation.get("strategies") or {}).items():
        rows[label] = None if words is None else {"strategy": "reward", **read_words(label, words)}
    for label, tree in rows.items():
        if tree is not None and not isinstance(tree, Mapping):  # refused with the settings, where they are typed
            raise ConfigError(
                f"row {label!r} of evaluation.rows is {show_value(tree)}; give settings of conf/evaluate.yaml, as in "
                "{strategy: goal, planner: {temperature: 0.5}}, or null"
            )
        if tree is not None and "strategy" not in tree:  # perhaps a misspelled label
            others = [other for other in rows if other != label]
            raise ConfigError(
                f"row {label!r} of evaluation.rows has no strategy.{did_you_mean(label, others)} Give one"
            )
        if tree is not None and not isinstance(tree["strategy"], str):
            raise ConfigError(
                f"row {label!r} of evaluation.rows has strategy={show_value(tree['strategy'])}; give a name"
            )
    return {label: _with_groups(label, tree) for label, tree in rows.items() if tree is not None}


def read_words(label: str, words: Any) -> Tree:
    """The tree of a row in the form of before, `evaluation.strategies.LABEL=["strategy=goal","plan_every=5"]`.

    Raises:
        ConfigError: these are no words of `seqrl evaluate`.
    """
    tree: Tree = {}
    try:
        parsed = OverridesParser.create().parse_overrides([words] if isinstance(words, str) else list(words))
    except (HydraException, TypeError) as error:
        raise ConfigError(f"row {label!r} of evaluation.strategies: {' '.join(str(error).split())}") from error
    for override in parsed:
        key, value = override.key_or_group, override.value()
        *parents, last = [*key.split("."), "name"] if key in DECODED else key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = OmegaConf.to_object(OmegaConf.create({"value": _unquoted(value)}))["value"]  # type: ignore[index, call-overload]
    _say_new_form(label, write_flow(tree, str))
    return tree


_told: set[str] = set()  # words of which this process has said what they keep


@cache
def _say_new_form(label: str, tree: str) -> None:
    """Once in a process: a sweep composes the same row for every job."""
    say(f"evaluation.strategies.{label} is now evaluation.rows.{label}={tree}; the old form works as well")


def _unquoted(value: Any) -> Any:
    if isinstance(value, list):
        return [_unquoted(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _unquoted(each) for key, each in value.items()}
    return getattr(value, "text", value)  # of a quoted string


def _with_groups(label: str, tree: Mapping[str, Any]) -> Tree:
    """A row in which `planner: beam` is written out as `planner: {name: beam}`."""
    written = {
        key: {"name": value} if key in DECODED and isinstance(value, str) else value for key, value in tree.items()
    }
    for group in DECODED:
        value = written.get(group, {})
        if not isinstance(value, Mapping) or not isinstance(value.get("name", ""), str):
            raise ConfigError(
                f"row {label!r} of evaluation.rows has {group}={show_value(tree[group])}; give a name, or "
                "{name: ..., option: value}"
            )
    return written


class _Composer:
    """Composes `conf/evaluate.yaml` once for each choice of strategy, planner, condition and score."""

    def __init__(self) -> None:
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, label: str, tree: Mapping[str, Any]) -> DictConfig:
        words = ["checkpoint=none", f"strategy={tree['strategy']}"]
        for group in DECODED:
            if isinstance(tree.get(group), Mapping) and "name" in tree[group]:
                words.append(f"{group}={tree[group]['name']}")
        key = tuple(words)
        if key not in self._composed:
            try:
                config = composing(lambda: hydra.compose("evaluate", words))
            except HydraException as error:
                raise ConfigError(f"row {label!r} of evaluation.rows: {translate(error, 'evaluate', words)}") from error
            parts = {group: OmegaConf.to_container(config[group]) for group in DECODED}  # what is not set stays ???
            known = leave_out_foreign(parts, words)
            with open_dict(config):
                config.update(known)
            self._composed[key] = config
        return deepcopy(self._composed[key])


def _fill(label: str, config: DictConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A composed evaluation with settings by dotted key in it."""
    for key, value in settings.items():
        parent, _, last = key.rpartition(".")
        if key == "strategy" or (last == "name" and parent in DECODED):
            continue  # composed
        if key in _OF_THE_RUN:
            raise ConfigError(f"row {label!r} of evaluation.rows sets {key!r}, which is the run's; leave it out")
        if not _has(config, key):
            raise ConfigError(f"row {label!r} of evaluation.rows: {_explain_missing(config, key)}")
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return plain(config)


def _explain_missing(config: DictConfig, key: str) -> str:
    """Which part of a dotted key there is not, and what stands beside it."""
    section, above = config, ""
    for name in key.split("."):
        path = f"{above}.{name}" if above else name
        node = OmegaConf.select(config, path)
        if not isinstance(node, DictConfig):
            break
        section, above = node, path
    known = [str(each) for each in section if above or each not in _OF_THE_RUN]
    wrong = key if name in section else path
    hint = did_you_mean(name, [] if name in section else known).replace("'", f"'{above}." if above else "'", 1)
    return f"there is no setting {wrong!r}.{hint} Settings{f' in {above!r}' if above else ''}: {', '.join(known)}"


def _has(config: DictConfig, key: str) -> bool:
    """Whether there is such a setting, perhaps without a value yet, or the user may name one."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if isinstance(node, DictConfig) and last in node.keys():  # noqa: SIM118  (keys without a value as well)
        return True
    group, option, *own = key.split(".")[:3] if key.count(".") >= 2 else (key, "")
    if not own or group not in DECODED or not config[group]:
        return False
    options = registry_of(group).options(
        config[group].name
    )  # a mapping's keys are the user's, as in score.terms.likely
    return any(each.name == option and is_mapping(each.annotation) for each in options)


def _settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key; a group without options sets nothing."""
    return {key: value for key, value in flatten_tree(tree).items() if key not in DECODED or value != {}}
