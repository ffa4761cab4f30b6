"""From what a source says to a run folder that every command takes, and what is told of the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from seqrl.config import RunConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.files import fingerprint_files, write_folder
from seqrl.importing import Imported, Wishes
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.sources import find_source, source_config
from seqrl.tokenizers import TrajectoryAutoencoder
from seqrl.tokenizers.vq import VqTokenizer
from seqrl.training.checkpoint_io import describe_checkpoint
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.defaults import compose_sequence
from seqrl.training.module import SequenceModule
from seqrl.training.run import summarize_data

_CHECKED = 64  # windows that the imported model is tried on
_SECTIONS = ("layout", "tokenizer", "backbone", "objective", "optimizer", "scheduler")


def import_checkpoint(
    kind: str, source: Path, output: Path, *, data: str | None, wishes: Wishes, overwrite: bool = False
) -> Iterator[str]:
    """Write a run folder with the model of a source; yields what is to be told, sentence by sentence.

    Args:
        kind: `tt`, `hf-tt`: a module of this package reads it.
        data: short name of the episodes that the source was trained on, for what it lacks; see `find_source`.

    Raises:
        seqrl.errors.SeqrlError: sources or data that cannot be read, or do not fit each other; nothing is written then.
    """
    reader: Callable[[Path, Wishes], Imported] = import_module(f"seqrl.importing.{kind.replace('-', '_')}").read
    found = reader(source, wishes)
    yield f"mapped: {len(found.mapped)} weights"
    yield from (f"dropped: {name}: {why}" for name, why in found.dropped.items())
    store = None if data is None else find_source(data).load()
    if store is not None:
        _check_sizes(found, store, str(data))
    elif found.statistics is None:
        raise ConfigError(
            f"{str(source)!r} lacks the statistics that its tokens or states were made with, as every {kind} does; "
            "give the data that it was trained on, --data PATH or a D4RL id"
        )
    module = _compose(found, store, data)
    _fill(module, found, store)
    if store is not None and found.statistics is None:
        yield f"taken from the data {data}: {_statistics(module, found)}"
    yield from (f"assumed: {each}" for each in found.assumed)
    if store is not None:
        yield _try_out(module, store)
    with write_folder(output, overwrite=overwrite) as folder:
        _write(folder, module, found)
        told = {"format": kind, "source": str(source), "data": data, "digest": _digest(source)}
        lists = {"mapped": found.mapped, "dropped": found.dropped, "assumed": found.assumed}
        (folder / "imported.json").write_text(json.dumps({**told, **lists}, indent=2) + "\n", encoding="utf-8")
    yield f"written: {output}"


def _check_sizes(found: Imported, store: EpisodeStore, name: str) -> None:
    sizes = store.observations.shape[1], store.actions.shape[1]
    if sizes != (found.observation_size, found.action_size):
        raise ConfigError(
            f"the source has {found.observation_size} observation and {found.action_size} action dimensions, and "
            f"{name} has {sizes[0]} and {sizes[1]}; give the data that it was trained on"
        )


def _compose(found: Imported, store: EpisodeStore | None, data: str | None) -> SequenceModule:
    """The untrained module of a run with the settings of a source."""
    groups = {key: value for key, value in found.settings.items() if key in _SECTIONS}
    sections = compose_sequence(groups, window=found.settings["window"]).to_dict()
    sections["window"] |= found.settings.get("window_options", {})
    if data is not None:
        sections["data"] = source_config(data)
    whole = RunConfig.from_dict({**sections, "experiment_name": "imported"}).to_dict()
    longest = found.longest_episode or (1000 if store is None else int(store.lengths.max()))
    sizes = DataSizes(found.observation_size, found.action_size, longest)
    return SequenceModule(RunConfig.from_dict(whole), sizes, None if store is None else summarize_data(store))


def _fill(module: SequenceModule, found: Imported, store: EpisodeStore | None) -> None:
    """Give a module its weights and the statistics of its tokenizer.

    Raises:
        ConfigError: weights that do not fit the model that the source's settings make.
    """
    prefix = "tokenizer."
    if found.statistics is not None:
        statistics = {prefix + name: value for name, value in found.statistics.items()}
    else:
        assert store is not None
        seen = _without_last_row(store) if found.drops_last_row else store
        if found.drops_unfinished and store.complete().any():
            seen = seen.subset(seen.complete())
        module.fit_tokenizer(transitions(seen, module.model.layout))
        _correct_scaling(module, found, seen)
        own = module.model.tokenizer.state_dict()
        statistics = {prefix + name: value for name, value in own.items() if prefix + name not in found.weights}
    try:
        module.model.load_state_dict({**statistics, **found.weights})
    except RuntimeError as error:
        raise ConfigError(f"the weights do not fit the model that their settings make: {error}") from error
    module.tokenizer_fitted = True
    module.eval()


def _correct_scaling(module: SequenceModule, found: Imported, seen: EpisodeStore) -> None:
    """Mean and deviation of an autoencoder that is not scaled, or scales rewards as they were recorded."""
    tokenizer, layout = module.model.tokenizer, module.model.layout
    if found.raw_reward_statistics:
        assert isinstance(tokenizer, VqTokenizer)
        place = layout.field("reward").start
        tokenizer.mean[place], tokenizer.std[place] = float(seen.rewards.mean()), float(seen.rewards.std()) or 1.0
        if not found.is_normalised:
            tokenizer.mean.zero_()
            tokenizer.std.fill_(1.0)


def _without_last_row(store: EpisodeStore) -> EpisodeStore:
    """The episodes as published code reads a file: of n rows it looks at n - 1."""
    ends, terminals = np.zeros(len(store), bool), np.zeros(len(store), bool)
    ends[store.offsets[1:] - 1] = store.complete()
    terminals[store.offsets[1:] - 1] = store.terminated
    rows = slice(0, max(1, len(store) - 1))
    observations, actions = np.asarray(store.observations[rows]), np.asarray(store.actions[rows])
    ended = ends[rows], terminals[rows]
    return EpisodeStore.from_arrays(observations, actions, store.rewards[rows], *ended, attributes=store.attributes)


def _statistics(module: SequenceModule, found: Imported) -> str:
    names = [name for name in module.model.tokenizer.state_dict() if f"tokenizer.{name}" not in found.weights]
    return f"{', '.join(names)} of the {type(module.model.tokenizer).__name__}, by the published rule"


def _try_out(module: SequenceModule, store: EpisodeStore) -> str:
    """What the model makes of some windows of the data: numbers that tell whether the two belong together."""
    few = store.subset(np.arange(min(20, store.num_episodes)))
    data = EpisodeDataModule.for_module(module, few, batch_size=_CHECKED, validation_fraction=0.0)
    batch = data.sample_windows(_CHECKED)
    unit, losses, blind = _losses(module, batch)
    listed = ", ".join(f"{name} {loss:.3g} (knowing nothing: {blind[name]:.3g})" for name, loss in losses.items())
    verdict = "; the data are hardly those it was trained on" if sum(losses.values()) >= sum(blind.values()) else ""
    return f"checked on {len(batch)} windows of the data, {unit}: {listed}{verdict}"


@torch.no_grad()
def _losses(module: SequenceModule, batch: Any) -> tuple[str, dict[str, float], dict[str, float]]:
    """What is measured, of each field how large it is, and how large it is of a model that knows nothing."""
    tokenizer, layout = module.model.tokenizer, module.model.layout
    if isinstance(tokenizer, TrajectoryAutoencoder):
        errors = tokenizer.loss(batch.values, batch.mask)
        losses = {field.name: float(errors[f"{field.name}_error"]) for field in layout.fields}
        return "error of the codes as a share of the variance", losses, dict.fromkeys(losses, 1.0)
    outcome = module.loss_of(batch)
    losses = {name: float(each.loss / each.count.clamp(min=1)) for name, each in outcome.fields.items()}
    if isinstance(module.model, AutoregressiveModel):
        return "nats per token", losses, dict.fromkeys(losses, float(np.log(module.model.num_classes)))
    real = batch.values[batch.mask]
    blind = {name: float(real[:, layout.field(name).slice].var(0, correction=0).mean()) for name in losses}
    return "normalised squared error", losses, blind


def _write(folder: Path, module: SequenceModule, found: Imported) -> None:
    parts = {"tokenizer": module.model.tokenizer, "backbone": module.model.backbone}
    checkpoint = {
        "state_dict": {f"model.{name}": value for name, value in module.model.state_dict().items()},
        "hyper_parameters": dict(module.hparams),
        "seqrl": describe_checkpoint(module.config, parts, model=module.model.made_of),
        "global_step": found.step,
        "stage": "model",
    }
    (folder / "model").mkdir()
    torch.save(checkpoint, folder / "model" / "last.ckpt")
    kept = yaml.safe_dump(dict(module.hparams["config"]), sort_keys=False)
    (folder / "config.yaml").write_text(kept, encoding="utf-8")
    status = {"model": {"state": "done", "step": found.step}}
    (folder / "status.json").write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")


def _digest(source: Path) -> str:
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    return fingerprint_files(*files)
