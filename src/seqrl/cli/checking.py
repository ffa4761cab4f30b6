"""What commands check of a configuration before anything else: types, ranges, unknown keys; and, on demand, all that
can be told without data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from seqrl.cli.words import OPTIONAL, is_sweep
from seqrl.config import EvaluationConfig, RunConfig, Text
from seqrl.errors import ConfigError, SeqrlError, did_you_mean
from seqrl.evaluation.hints import name_for_training
from seqrl.evaluation.rows import measured_names
from seqrl.plugins import load_plugins
from seqrl.registry import DATA, registry_of
from seqrl.schema import check_value

if TYPE_CHECKING:
    from seqrl.layout import Layout

SECTIONS: tuple[str, ...] = (
    "data",
    "layout",
    "tokenizer",
    "backbone",
    "objective",
    "optimizer",
    "scheduler",
    "trainer",
    "window",
)
SECTIONS += ("training", "tokenizer_training", "critic_training", "evaluation")
_TRAINED = ("tokenizer", "backbone", "objective", "critic", "optimizer", "scheduler")
_TAKEN_OUT = r"layout\.fields\.|layout\.goal$|evaluation\.(rows|strategies|decoding)\.|data\.|hydra"
CHECK = "--check"
"""The word of a command that composes, checks and stops."""


def take_check(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without `--check`, and whether it was among them.

    Raises:
        ConfigError: of a sweep, whose jobs are many configurations.
    """
    asked = CHECK in arguments
    if asked and is_sweep(arguments):
        raise ConfigError(f"{CHECK} judges one configuration; leave -m out, and give each setting one value")
    return [word for word in arguments if word != CHECK], asked


def load_named_plugins(config: Mapping[str, Any]) -> None:
    """Load the plugins that a composed configuration names, whose components it may use.

    Raises:
        ConfigError: they are no list of names.
        PluginError: one cannot be imported.
    """
    load_plugins(check_value("plugins", config.get("plugins"), tuple[Text, ...]))


def find_start(config: dict[str, Any]) -> dict[str, Any]:
    """A composed configuration in which `init_from` is the file of the checkpoint that it means.

    Raises:
        ConfigError: `latest`, which may be this very run when the command goes on.
        CheckpointError: there is none.
    """
    given = config.get("init_from")
    if not isinstance(given, str):
        return config
    from seqrl.checkpoints.loading import checkpoint_file
    from seqrl.runs.finding import LATEST

    if Path(given).name == LATEST:
        raise ConfigError(f"init_from={given} changes with every run; name the run itself")
    return {**config, "init_from": str(checkpoint_file(given).resolve())}


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuse the configuration of a run of which a section or setting is missing (`~backbone`): files stay complete.

    Raises:
        ConfigError: names it.
    """
    for each in dataclasses.fields(RunConfig):
        if each.name not in config and each.name != "critic":
            is_section = each.name in SECTIONS
            raise ConfigError(
                f"the section {each.name!r} was taken out, and every run needs it; leave ~{each.name} out"
                if is_section
                else f"{each.name} is missing, and every run needs it; give {each.name}=... a value"
            )


def check_deletions(words: Sequence[str]) -> None:
    """Refuse to take out what every run needs (`~training.max_steps`).

    Groups of which nothing may be chosen, fields of the layout, rows and options of data may be taken out, and what
    another word gives anew.

    Raises:
        ConfigError: names the setting.
    """
    overrides = OverridesParser.create().parse_overrides(list(words))
    replaced = {each.key_or_group for each in overrides if each.is_add()}  # ~layout.fields '+layout.fields={...}'
    for each in overrides:
        key = each.key_or_group
        if each.is_delete() and key not in {*OPTIONAL, *replaced} and not re.match(_TAKEN_OUT, key):
            raise ConfigError(f"~{key} takes out a setting that every run needs; give it a value ({key}=...)")


def check_objective(name: str, labels: Sequence[str]) -> None:
    """Refuse an objective that no run can have, before the training.

    Args:
        name: `train/...`, `val/...`, or `eval/<row>/<key of the results row>`.

    Raises:
        ConfigError: another form, or a row that is not evaluated.
    """
    section, _, rest = name.partition("/")
    label, _, number = rest.rpartition("/")
    if section not in ("train", "val", "eval") or not rest or (section == "eval" and not label):
        raise ConfigError(
            f"objective_metric={name!r} is none; give val/loss, another name of metrics.csv, or eval/<row>/return_mean"
        )
    if section != "eval":
        return
    if label not in labels:
        known = ", ".join(labels) or "none"
        raise ConfigError(f"objective_metric={name!r} needs a row {label!r} of the evaluation; rows: {known}")
    numbers = measured_names()
    if number not in numbers:
        raise ConfigError(
            f"objective_metric={name!r} is no number of a results row.{did_you_mean(number, numbers)} Numbers: "
            f"{', '.join(numbers)}"
        )


def check_plugged(run: RunConfig, rows: Sequence[EvaluationConfig]) -> None:
    """Run the quick contracts of plugins' components that a run and its rows use; ours are tested.

    Sources are left out, which would have to read all their data.

    Args:
        rows: of its results table.

    Raises:
        PluginError: a contract is violated.
    """
    parts = [(slot, getattr(run, slot)) for slot in _TRAINED]
    for row in rows:
        parts += [(slot, getattr(row, slot)) for slot in ("planner", "condition", "score")]
        terms = row.score.get("terms")
        parts += [("score", term) for term in (terms.values() if isinstance(terms, Mapping) else ())]
    plugged = [
        (slot, part)
        for slot, part in parts
        if isinstance(part, Mapping) and part.get("name") not in registry_of(slot).builtin_names()
    ]
    if plugged:  # else nobody need wait for torch
        from seqrl.testing.preflight import check_plugged

        check_plugged(plugged)


def check_training(run: RunConfig) -> None:
    """Refuse loggers that cannot be opened here, and callbacks that are named twice or do not fit a stage.

    Raises:
        ConfigError: names the setting.
    """
    from seqrl.loggers import check_loggers

    for section in (run.training, run.tokenizer_training, run.critic_training):
        check_loggers(section.loggers or ())
    names = [each if isinstance(each, str) else each["name"] for each in run.training.callbacks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"training.callbacks names {name!r} twice; name it once")


def check_without_data(run: RunConfig, rows: Sequence[EvaluationConfig]) -> None:
    """Refuse parts that do not fit each other, with a model of the same shape.

    No episode is read, and no weights take memory. Sizes that the source does not know are those of the environment of
    the data, or of the rows; or else usual ones.

    Args:
        rows: of the results table.

    Raises:
        ConfigError: whatever the parts refuse, before any data are opened.
    """
    import torch

    from seqrl.critics import build_critic
    from seqrl.data.landmarks import LandmarkGraph
    from seqrl.data.summary import DataSizes
    from seqrl.models.building import build_model
    from seqrl.training.landmarks import check_landmarks
    from seqrl.training.stages import check_stages

    shared = {option.name for option in DATA.shared}
    source = DATA.build({key: value for key, value in run.data.items() if key not in shared})
    known = source.check()
    env_id, sized = known.pop("env_id", None), "observation_size" in known
    if not sized and (place := next((each for each in (env_id, *(row.env_id for row in rows)) if each), None)):
        known = {**_measure_environment(place), **known}
    goal = run.layout.goal.dims if run.layout.goal is not None else ()
    usual = {"observation_size": max(4, *(dim + 1 for dim in goal)) if goal else 4, "action_size": 2}
    extras = dict.fromkeys(run.layout.extras, 1)
    known["categories"] = {**(known.get("categories") or {}), **(run.data.get("categories") or {})}
    sizes = DataSizes(**{**usual, "longest_episode": 1000, "extras": extras, **known})
    with _as_refusal("the parts make no model"), torch.device("meta"):
        check_stages(run, sizes)
        model = build_model(run, sizes)
        critic = build_critic(run, sizes)
    check_landmarks(run)
    model.landmarks = None if run.landmarks is None else LandmarkGraph.promise()
    for row in rows:
        with _of_row(row.label), _as_refusal("the parts make no strategy"), torch.device("meta"):
            _check_strategy(row, model, critic, env_id)
    for row in rows:
        with _of_row(row.label):
            _check_environment(row, model.layout if sized else None, env_id)


def _measure_environment(env_id: str) -> dict[str, Any]:
    """Sizes as of `DataSource.check`; none where it cannot be made, which the rows that act in it tell."""
    from seqrl.envs import make_environments

    with suppress(SeqrlError):
        envs = make_environments(env_id, 1)
        envs.close()
        return {name: getattr(envs, name) for name in ("observation_size", "action_size", "categories")}
    return {}


def check_with_checkpoint(config: EvaluationConfig, checkpoint: Path) -> None:
    """Refuse an evaluation that a trained model cannot serve.

    Raises:
        seqrl.errors.SeqrlError: a checkpoint that cannot be read, or a strategy that does not fit it.
    """
    from seqrl.checkpoints.loading import load, load_critic

    loaded = load(checkpoint)
    env_id = loaded.dataset.env_id
    _check_strategy(config, loaded.model, load_critic(checkpoint), env_id)
    _check_environment(config, loaded.model.layout, env_id)


def _check_strategy(row: EvaluationConfig, model: Any, critic: Any, env_id: str | None) -> None:
    from seqrl.acting.strategy import Strategy
    from seqrl.envs import check_env_id
    from seqrl.evaluation.placement import device_of
    from seqrl.evaluation.protocol import check_protocol

    device_of(row.device)
    strategy = Strategy.build(
        model.layout, planner=row.planner, condition=row.condition, score=row.score, critic=critic
    )
    strategy.check(model, plan_every=row.plan_every)
    if (env := row.env_id or env_id) is not None:
        check_env_id(env)
        check_protocol(row, strategy, model.layout, env)


def _check_environment(row: EvaluationConfig, layout: Layout | None, env_id: str | None) -> None:
    """Try the environment, where it is known already; see `seqrl.evaluation.protocol.check_environment`."""
    from seqrl.evaluation.protocol import check_environment

    if (env := row.env_id or env_id) is not None:
        check_environment(row, layout, env)


@contextmanager
def _of_row(label: str | None) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"row {label!r} of the evaluation: {name_for_training(str(error))}") from error


@contextmanager
def _as_refusal(what: str) -> Iterator[None]:
    """Sizes that no machine can hold fail inside torch, in words of its own."""
    try:
        yield
    except SeqrlError:
        raise
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {str(error).partition(chr(10))[0]}; give other sizes") from error
