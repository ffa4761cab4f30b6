"""Figure 3: the likelihood of what came, by the number of steps ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqrl.analysis.bins import Bins, find_bins
from seqrl.analysis.ensemble import roll_out
from seqrl.analysis.likelihood_figure import Curve, draw_likelihoods
from seqrl.analysis.masking import mask_observations
from seqrl.analysis.open_loop import imagine
from seqrl.analysis.references import References
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.evaluation.statistics import bootstrap
from seqrl.files import fingerprint
from seqrl.reproduction import OPEN, Finding, Options, Progress, Report, Reproduction, Run, judge
from seqrl.reproduction.dynamics import (
    HUMANOID,
    STATES,
    Trained,
    data_words,
    describe_ensemble,
    ensemble_for,
    short_window,
    states_run,
    states_words,
)

MARKOV, MASKED, MASKED_MARKOV = "markov", "masked", "masked_markov"
TRANSFORMER, SHORT, ENSEMBLE = "Trajectory Transformer", "the same, window of one", "ensemble"
ENSEMBLE_BINS, CEILING = "ensemble, as bin mass", "ceiling of the bins"
_SHARE = 0.5
_EVEN = 1e-3
_PANELS = {"full": "all observations", "masked": "every other number hidden"}


class Figure3(Reproduction):
    """Marginal log-likelihoods of held-out states, from rollouts under recorded actions."""

    name = "fig3"
    title = "Log-likelihood of held-out states against the number of steps ahead"
    time = "about 45 minutes on one core: four models, ten of them for one that fig2 and fig4 use as well"
    deviations = (
        "The paper shows a humanoid; at the CPU scale it is what `data.path` names, Hopper where nothing else is said.",
        "The paper samples 1,000 rollouts; `--rollouts` says how many here, and every rollout counts with the whole "
        "distribution that was predicted in it, not with its sample alone.",
        "What exactly the published likelihood is made of is not said. Here: log p(bin) - log width, per dimension in "
        "standard deviations of the training data, of the marginal of each dimension at each step, and the mean over "
        "dimensions that can be seen; of the ensemble the mixture of its Gaussians, once as a density and once as the "
        "mass of the same bins. A density may exceed the ceiling of the bins, a mass cannot.",
        "A mean of logs speaks of a model's worst moments. So a thousandth of an even distribution over the bins is "
        "mixed into the masses of all models, alike; the ensemble's density is left as it is.",
        "A window of one is a model of its own, trained on the present transition and one before it, with as many "
        "transitions in a step as the other.",
        "Hidden numbers are replaced by a mark in the recording, once, half of all at random; bins are twice as many "
        "there, since the mark takes half of them. All models are told which future numbers are hidden, which tells "
        "nothing of those that are not.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        full = [
            states_run(options, published_data=HUMANOID),
            Run(MARKOV, "train", lambda progress: _short_words(options)),
        ]
        masked = [
            Run(MASKED, "train", _masked_words, takes_data=False),
            Run(
                MASKED_MARKOV,
                "train",
                lambda progress: [*_masked_words(progress), *short_window(options), "name=tt_masked_markov"],
                takes_data=False,
            ),
        ]
        return [*full, *(masked if options.masked else [])]

    def report(self, progress: Progress) -> Report:
        options = progress.options
        pairs = {"full": (STATES, MARKOV), **({"masked": (MASKED, MASKED_MARKOV)} if options.masked else {})}
        found: dict[str, Likelihoods] = {}
        for name, keys in pairs.items():
            whole, short = (Trained.read(progress.folders(key)[0]) for key in keys)
            found[name] = measure_likelihoods(progress, whole, short)
        draw_likelihoods(
            options.folder / f"{self.name}.png",
            [(_PANELS[name], each.curves()) for name, each in found.items()],
            title=f"{found['full'].setting}. {len(found['full'].of[CEILING])} references, {options.rollouts} rollouts "
            "of each; bands: 95 % intervals over references of one model",
        )
        return _report(found, options)


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of references.

    Attributes:
        setting: data and model, in words.
        of: by model, (B, H) nats per dimension; NaN where a reference shows none.
    """

    setting: str
    of: Mapping[str, np.ndarray]

    def curves(self) -> dict[str, Curve]:
        """Mean over references with its interval, step by step."""
        found = {}
        for label, each in self.of.items():
            estimates = [bootstrap(column, ~np.isnan(column), samples=2000) for column in each.T]
            ends = np.array([[e.mean, e.low, e.high] for e in estimates])
            found[label] = (ends[:, 0], ends[:, 1], ends[:, 2])
        return found

    def stretch(self, label: str, first: int, last: int) -> np.ndarray:
        """(B,) the mean over the steps from `first` to `last`, counted from 1."""
        return np.asarray(np.nanmean(self.of[label][:, first - 1 : last], axis=1))


def measure_likelihoods(progress: Progress, whole: Trained, short: Trained) -> Likelihoods:
    """What all models hold of the same references.

    Args:
        whole, short: the model with the whole window, and that with a window of one; of the same data.
    """
    options = progress.options
    references = whole.references(options)
    rows = transitions(whole.store, whole.model.layout)[whole.training_rows]
    columns = references.observation
    bins = find_bins(whole.model.tokenizer, rows, columns, observed=whole.training_observed)
    future, seen = references.future, find_countable(bins, references)
    say(f"imagining {options.rollouts} futures of {len(references)} references with two models and the ensemble")
    settings = {"rollouts": options.rollouts, "seed": options.seed}
    found = {
        TRANSFORMER: bins.log_density(imagine(whole.model, references, **settings).probabilities, future, even=_EVEN)
    }
    short_bins = find_bins(short.model.tokenizer, rows, columns, observed=whole.training_observed)
    markov = imagine(short.model, references, context=2, **settings)
    found[SHORT] = short_bins.log_density(markov.probabilities, future, even=_EVEN)
    rollouts = roll_out(ensemble_for(progress, whole), references, **settings)
    found[ENSEMBLE] = rollouts.log_density(future, bins.scale)
    found[ENSEMBLE_BINS] = rollouts.log_bin_density(future, bins, even=_EVEN)
    found[CEILING] = bins.ceiling(future)
    setting = f"{whole.describe()}; {describe_ensemble(options)}"
    return Likelihoods(setting, {label: _mean_of_seen(each, seen) for label, each in found.items()})


def find_countable(bins: Bins, references: References) -> np.ndarray:
    """(B, H, O) bool, which numbers count: those that can be seen, and whose bin has a width and is no mark's.

    What was seen so near the mark that it shares its bin cannot be told from what is hidden.
    """
    future, seen = references.future, references.future_observed
    located = bins.locate(future)
    marked = np.zeros(seen.shape, bool)
    for scalar in range(seen.shape[-1]):
        hidden = located[..., scalar][~seen[..., scalar]]
        if len(hidden):
            marked[..., scalar] = located[..., scalar] == hidden[0]
    return seen & ~marked & np.isfinite(bins.ceiling(future))


def _mean_of_seen(densities: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(B, H) of (B, H, O): the mean over the dimensions that can be seen; NaN where there is none."""
    count = seen.sum(-1)
    total = np.where(seen, densities, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _short_words(options: Options) -> list[str]:
    return [
        *states_words(options), *data_words(options, HUMANOID), *short_window(options), "seed=0", "name=tt_markov"
    ]  # fmt: skip


def _masked_words(progress: Progress) -> list[str]:
    """The model of a recording of which half is hidden, which is made here, of the data of the first run."""
    if progress.only_list:
        folder = progress.options.folder / "masked-DATA"
    else:
        folder = keep_masked(Trained.read(progress.folders(STATES)[0]).store, progress.options.folder)
    words = [*states_words(progress.options), "data=store", f"data.path={folder}", "tokenizer.num_bins=200"]
    return [*words, "seed=0", "name=tt_masked"]


def keep_masked(store: EpisodeStore, folder: Path) -> Path:
    """The recording of which half is hidden, made once for each content of a recording.

    Args:
        folder: of the figure; the recordings of several data lie there beside each other.
    """
    place = folder / f"masked-{fingerprint([store.fingerprint(), _SHARE])[:8]}"
    if not place.exists():
        mask_observations(store, share=_SHARE).save(place)
    return place


def _report(found: Mapping[str, Likelihoods], options: Options) -> Report:
    horizon = found["full"].of[TRANSFORMER].shape[1]
    early, late = (1, 1), (max(1, horizon * 4 // 5), horizon)
    data = {
        "setting": found["full"].setting,
        "rollouts": options.rollouts,
        "curves": {
            name: {label: [part.tolist() for part in curve] for label, curve in each.curves().items()}
            for name, each in found.items()
        },
    }
    lines = [f"{found['full'].setting}. Nats per dimension, mean over references; the last column is the mean over "
             f"steps {late[0]} to {late[1]}:", ""]  # fmt: skip
    labels = [TRANSFORMER, SHORT, ENSEMBLE, ENSEMBLE_BINS, CEILING]
    steps = sorted({min(step, horizon) for step in (1, 5, 10, 25, 50, 100)})
    lines += [f"| observations | model | {' | '.join(f'step {s}' for s in steps)} | late |"]
    lines += ["| --- | --- |" + " --- |" * (len(steps) + 1)]
    for name, each in found.items():
        for label in labels:
            values = [np.nanmean(each.of[label][:, step - 1]) for step in steps]
            values.append(each.stretch(label, *late).mean())
            lines.append(f"| {_PANELS[name]} | {label} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return Report(data, [*_of_full(found["full"], early, late), *_of_masked(found.get("masked"), late)], lines)


def _of_full(found: Likelihoods, early: tuple[int, int], late: tuple[int, int]) -> list[Finding]:
    far = "far ahead the transformer holds what came likelier than the ensemble does"
    near = "one step ahead the transformer is no worse than the ensemble"
    return [
        _compare(found, TRANSFORMER, ENSEMBLE_BINS, late, far),
        _compare(found, TRANSFORMER, ENSEMBLE, late, "the same, with the ensemble's density"),
        _alike(found, late),
        _compare(found, TRANSFORMER, ENSEMBLE_BINS, early, near),
    ]


def _of_masked(found: Likelihoods | None, late: tuple[int, int]) -> list[Finding]:
    windows = "with half of the numbers hidden, a long window is clearly better than a window of one"
    ahead = "with half of the numbers hidden, the transformer is ahead of the ensemble"
    if found is None:
        return [Finding(claim, "not run (--no-masked)", OPEN) for claim in (windows, ahead)]
    return [
        _compare(found, TRANSFORMER, SHORT, late, windows),
        _compare(found, TRANSFORMER, ENSEMBLE_BINS, late, ahead),
    ]


def _compare(found: Likelihoods, ours: str, theirs: str, stretch: tuple[int, int], claim: str) -> Finding:
    """A claim that one model is ahead of another over a stretch of steps."""
    difference = bootstrap(found.stretch(ours, *stretch) - found.stretch(theirs, *stretch))
    where = f"step {stretch[0]}" if stretch[0] == stretch[1] else f"steps {stretch[0]} to {stretch[1]}"
    measured = (
        f"{ours} - {theirs}, {where}: {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] nats"
    )
    return Finding(claim, measured, judge(difference.low, difference.high))


def _alike(found: Likelihoods, stretch: tuple[int, int]) -> Finding:
    """The claim that the past makes little difference where everything is seen, measured against the ensemble's."""
    gap = bootstrap(found.stretch(TRANSFORMER, *stretch) - found.stretch(SHORT, *stretch))
    other = float((found.stretch(TRANSFORMER, *stretch) - found.stretch(ENSEMBLE_BINS, *stretch)).mean())
    is_small = max(abs(gap.low), abs(gap.high)) < max(0.1, 0.25 * abs(other))
    return Finding(
        "with all observations a window of one is almost as good",
        f"{TRANSFORMER} - window of one, steps {stretch[0]} to {stretch[1]}: {gap.mean:+.3f} [{gap.low:+.3f}, "
        f"{gap.high:+.3f}] nats; against the ensemble {other:+.3f}",
        "agrees" if is_small else "not told apart" if gap.low < 0 < gap.high else "does not agree",
    )
