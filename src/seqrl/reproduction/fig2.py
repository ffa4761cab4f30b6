"""Figure 2: open-loop rollouts of 100 steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqrl.analysis.ensemble import roll_out
from seqrl.analysis.open_loop import imagine
from seqrl.analysis.rollout_figure import draw_rollouts
from seqrl.console import say
from seqrl.evaluation.statistics import bootstrap
from seqrl.reproduction import Finding, Options, Progress, Report, Reproduction, Run, judge
from seqrl.reproduction.dynamics import HUMANOID, STATES, Trained, describe_ensemble, ensemble_for, states_run

TRANSFORMER, ENSEMBLE = "Trajectory Transformer", "ensemble"
_HOPPER = ("height", "torso angle", "thigh joint", "leg joint")
_ROLLOUTS = 20  # of each reference: this figure looks at single ones


class Figure2(Reproduction):
    """What the models imagine, and how far from what came it is."""

    name = "fig2"
    title = "Open-loop rollouts: the Trajectory Transformer and a single-step ensemble"
    time = "about 15 minutes on one core, ten of them for a model that fig3 and fig4 use as well"
    deviations = (
        "The paper shows a humanoid; at the CPU scale it is what `data.path` names, Hopper where nothing else is said.",
        "Both models are given the recorded actions, so that what is imagined can be compared with what came.",
        "The rollouts begin in held-out episodes. The paper's figure is a picture without a number; the distances "
        "here are ours: root mean square over dimensions, in standard deviations of the data.",
        "A model of bins cannot leave the range of its data, whatever it has learnt.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        return [states_run(options, published_data=HUMANOID)]

    def report(self, progress: Progress) -> Report:
        options = progress.options
        trained = Trained.read(progress.folders(STATES)[0])
        references = trained.references(options)
        say(f"imagining {_ROLLOUTS} futures of {len(references)} references, {references.horizon} steps each")
        samples = {
            TRANSFORMER: imagine(trained.model, references, rollouts=_ROLLOUTS, seed=options.seed).samples,
            ENSEMBLE: roll_out(
                ensemble_for(progress, trained), references, rollouts=_ROLLOUTS, seed=options.seed
            ).samples,
        }
        rows = np.asarray(trained.store.observations[:])[trained.training_rows]
        distances = {label: measure_distances(each, references.future, rows.std(0)) for label, each in samples.items()}
        outside = {label: share_outside(each, rows.min(0), rows.max(0)) for label, each in samples.items()}
        is_hopper = str(trained.config["dataset"]["env_id"]).startswith("Hopper-v")
        chosen = pick_typical(distances[TRANSFORMER])
        names = _HOPPER if is_hopper else [f"observation {dim}" for dim in range(rows.shape[1])]
        draw_rollouts(
            options.folder / f"{self.name}.png",
            references.future[chosen],
            {label: each[chosen] for label, each in samples.items()},
            {label: np.nanpercentile(each, [25, 50, 75], axis=(0, 1)).T for label, each in distances.items()},
            names=names,
            poses=is_hopper,
            title=f"{trained.describe()}. The reference at which the Trajectory Transformer's error is the median one.",
        )
        return _report(f"{trained.describe()}; {describe_ensemble(options)}", distances, outside)


def measure_distances(samples: np.ndarray, future: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """(B, M, H) root mean square distance of (B, M, H, O) rollouts to (B, H, O) what came, in deviations."""
    moving = deviations > 0
    scaled = (samples - future[:, None])[..., moving] / deviations[moving]
    return np.sqrt((scaled.astype(np.float64) ** 2).mean(-1))


def share_outside(samples: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(B, M) whether a rollout leaves the range of the data by more than a tenth of it, in any dimension."""
    margin = 0.1 * (high - low)
    return ((samples < low - margin) | (samples > high + margin)).any((-1, -2))


def pick_typical(distances: np.ndarray) -> int:
    """The reference whose mean distance is the median one."""
    means = distances.mean((1, 2))
    return int(np.argsort(means)[(len(means) - 1) // 2])


def _report(what: str, distances: dict[str, np.ndarray], outside: dict[str, np.ndarray]) -> Report:
    horizon = distances[TRANSFORMER].shape[-1]
    steps = sorted({min(step, horizon) for step in (1, 5, 10, 25, 50, 100, horizon)})
    table = [
        "| steps ahead | Trajectory Transformer | ensemble | ensemble - transformer |",
        "| --- | --- | --- | --- |",
    ]
    data: dict[str, object] = {"setting": what, "steps": steps, "distance": {}, "outside": {}}
    by_step = []
    for step in steps:
        ours, theirs = (np.median(distances[label][:, :, step - 1], axis=1) for label in (TRANSFORMER, ENSEMBLE))
        difference = bootstrap(theirs - ours)
        by_step.append({"steps": step, "transformer": float(ours.mean()), "ensemble": float(theirs.mean()),
                        "difference": difference.mean, "ci95": difference.interval})  # fmt: skip
        table.append(
            f"| {step} | {ours.mean():.3f} | {theirs.mean():.3f} | "
            f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] |"
        )
    data["distance"] = by_step
    data["outside"] = {label: float(each.mean()) for label, each in outside.items()}
    first, last = by_step[0], by_step[-1]
    near = first["ci95"] or (float("nan"), float("nan"))
    low, high = last["ci95"] or (float("nan"), float("nan"))
    left = {label: 100 * float(each.mean()) for label, each in outside.items()}
    findings = [
        Finding(
            "errors of the single-step model compound until it is wrong; the transformer's do not",
            f"median distance at {horizon} steps: ensemble {last['ensemble']:.2f}, transformer "
            f"{last['transformer']:.2f}, difference {last['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
            judge(low, high),
        ),
        Finding(
            "the transformer is no worse from the first step on (the picture shows no difference there)",
            f"median distance at 1 step: ensemble {first['ensemble']:.3f}, transformer {first['transformer']:.3f}, "
            f"difference {first['difference']:+.3f} [{near[0]:+.3f}, {near[1]:+.3f}]",
            judge(near[0], near[1]),
        ),
        Finding(
            "the ensemble's rollouts become physically implausible",
            f"rollouts that leave the data's range by a tenth of it: ensemble {left[ENSEMBLE]:.0f} %, transformer "
            f"{left[TRANSFORMER]:.0f} % (which cannot)",
            "agrees" if left[ENSEMBLE] >= 50 else "not told apart" if left[ENSEMBLE] > 0 else "does not agree",
        ),
    ]
    count = distances[TRANSFORMER].shape[:2]
    lines = [
        f"{what}. {count[0]} references, {count[1]} rollouts of each; median over the rollouts, then the mean over "
        "references, with 95 % intervals over references of the one model and the one ensemble:",
        "",
        *table,
    ]
    return Report(data, findings, lines)
