"""Models of states and actions alone, which Figures 2, 3 and 4 share, and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrl.analysis.ensemble import Ensemble, fit_ensemble
from seqrl.analysis.masking import OBSERVED
from seqrl.analysis.references import References, pick_references
from seqrl.checkpoints.loading import find_checkpoint, load
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.data.order import split_episodes
from seqrl.errors import CheckpointError, ConfigError
from seqrl.files import fingerprint, write_file
from seqrl.models.token import TokenModel
from seqrl.reproduction import Options, Progress, Run
from seqrl.sources import load_episodes

STATES = "states"
_LAYOUT = ("~layout.fields.reward", "~layout.fields.value")
_CPU = ("experiment=d4rl_cpu", "training.max_steps=3000")
_PUBLISHED = ("method=tt_code", "backbone.num_layers=3", "training.validation_fraction=0.05", "trainer=gpu")
HUMANOID = ("data=minari", "data.id=mujoco/humanoid/expert-v0")


def states_run(options: Options, *, seeds: int = 1, published_data: Sequence[str] = ()) -> Run:
    """Training of the model with rewards left out, three layers, windows of ten transitions.

    Args:
        published_data: the data of the published scale, where the user names none.
    """
    words = [*states_words(options), *data_words(options, published_data), "name=tt_states"]
    words.append(f"seed={','.join(map(str, range(seeds)))}")
    return Run(STATES, "train", lambda progress: words)


def states_words(options: Options) -> tuple[str, ...]:
    """What is trained, without the data: the sizes of the scale, and no rewards."""
    return (*(_CPU if options.scale == "cpu" else _PUBLISHED), *_LAYOUT, "evaluation=none")


def data_words(options: Options, published: Sequence[str]) -> tuple[str, ...]:
    """The data of the published scale, unless the user names some."""
    named = any(word.lstrip("+").startswith(("data=", "data.")) for word in options.words)
    return () if named or options.scale == "cpu" else tuple(published)


def short_window(options: Options) -> tuple[str, ...]:
    """A window of the present transition and one before it, with as many transitions in a step as else."""
    return ("window.length=2", f"training.batch_size={160 if options.scale == 'cpu' else 1280}")


@dataclass(frozen=True)
class Trained:
    """A trained model and its data.

    Attributes:
        training, held_out: numbers of episodes.
    """

    model: TokenModel
    config: dict[str, Any]
    store: EpisodeStore
    training: np.ndarray
    held_out: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Trained:
        """The model of a run folder.

        Raises:
            CheckpointError: there is none.
            ConfigError: it is no model of tokens, or no episode was held out.
        """
        checkpoint = find_checkpoint(folder)
        if checkpoint is None:
            raise CheckpointError(f"no checkpoint at {str(folder)!r}; start the command again")
        loaded = load(checkpoint)
        if not isinstance(loaded.model, TokenModel):
            raise ConfigError("this figure is about models of tokens; choose tokenizer=quantile or uniform")
        store = load_episodes(loaded.config["data"])
        fraction = loaded.config["training"]["validation_fraction"]
        training, held_out = split_episodes(store.num_episodes, fraction, loaded.config["seed"])
        if not len(held_out):
            raise ConfigError("no episode was held out; give training.validation_fraction=0.05")
        return cls(loaded.model, loaded.config, store, training, held_out)

    @property
    def training_rows(self) -> np.ndarray:
        """(n,) rows of the training episodes."""
        bounds = [np.arange(self.store.offsets[e], self.store.offsets[e + 1]) for e in self.training]
        return np.concatenate(bounds)

    @property
    def training_observed(self) -> np.ndarray | None:
        """(n, O) which numbers of these can be seen; None for all."""
        observed = self.store.extras.get(OBSERVED)
        return None if observed is None else np.asarray(observed[:])[self.training_rows]

    def references(self, options: Options) -> References:
        """Stretches of held-out episodes, each after as much of a past as the model sees."""
        return pick_references(
            self.store,
            self.model.layout,
            self.held_out,
            past=self.model.context - 1,
            horizon=options.horizon,
            count=options.references,
        )

    def describe(self) -> str:
        """In a sentence without its full stop: data, size, steps."""
        backbone, dataset = self.config["backbone"], self.config["dataset"]
        return (
            f"{dataset['name']}, {dataset['num_transitions']} transitions of which "
            f"{len(self.held_out)} of {self.store.num_episodes} episodes are held out; {backbone['name']} of "
            f"{backbone['num_layers']} layers of width {backbone['dim']}, windows of {self.model.context}, "
            f"{self.config['training']['max_steps']} steps of {self.config['training']['batch_size']} windows"
        )


def describe_ensemble(options: Options) -> str:
    """What the ensemble is, in words."""
    return (
        "an untuned ensemble of five networks with three layers of width 200, "
        f"{options.ensemble_steps} steps of 256 transitions each"
    )


def ensemble_for(progress: Progress, trained: Trained) -> Ensemble:
    """The ensemble that was trained on the same episodes; kept in the folder for the next figure."""
    options, store = progress.options, trained.store
    settings = {"steps": options.ensemble_steps, "seed": options.seed}
    digest = fingerprint([store.fingerprint(), trained.training.tolist(), settings])[:8]
    kept = options.folder / f"ensemble-{digest}.pt"
    if kept.is_file():
        ensemble = Ensemble(store.observations.shape[1], store.actions.shape[1])
        ensemble.load_state_dict(torch.load(kept, weights_only=True))
        return ensemble.eval()
    say(f"training the ensemble on {store.attributes.get('name', 'the data')}: {options.ensemble_steps} steps")
    ensemble = fit_ensemble(store, trained.training, **settings)
    with write_file(kept) as file:
        torch.save(ensemble.state_dict(), file)
    return ensemble
