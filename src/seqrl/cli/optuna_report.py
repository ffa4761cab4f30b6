"""What a search found: its best trial and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seqrl.analysis.search import Trial, draw_search
from seqrl.cli.sweep import Job
from seqrl.console import say
from seqrl.training.studies import JOURNAL, open_study

if TYPE_CHECKING:
    from optuna import Study

PICTURE = "search.png"
_FEWEST = 4  # finished trials, below which importances are noise


def report(folder: Path, jobs: list[Job]) -> None:
    """Say which trial of a sweep's study is best, and draw the search; without effect where the sweep has none.

    Args:
        jobs: of the sweep; their numbers are those of the trials.
    """
    if not (folder / JOURNAL).exists():
        return
    from optuna.trial import TrialState

    study = open_study(folder / JOURNAL)
    named = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned"}
    trials = [
        Trial(trial.number, trial.value, named[trial.state], trial.params)
        for trial in study.trials
        if trial.state in named and trial.value is not None
    ]
    if not any(trial.state == "done" for trial in trials):
        return
    best, objective = study.best_trial, study.user_attrs["objective"]
    chosen = " ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in best.params.items()
    )
    where = next((f" ({job.folder})" for job in jobs if job.number == best.number), "")
    say(f"best of {len(trials)} trials: {objective} {best.value:.5g} with {chosen}{where}")
    picture = draw_search(
        folder / PICTURE,
        trials,
        objective=objective,
        minimize=study.direction.name == "MINIMIZE",
        importances=_importances(study),
        logarithmic=[key for key, space in best.distributions.items() if getattr(space, "log", False)],
    )
    say(f"picture: {picture}")


def _importances(study: Study) -> dict[str, float]:
    """By PED-ANOVA (Watanabe et al., IJCAI 2023), which needs no other package."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    if len(study.get_trials(states=(TrialState.COMPLETE,))) < _FEWEST:
        return {}
    try:
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):  # no setting that all trials have, or none that varies
        return {}
