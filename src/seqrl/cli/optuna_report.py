"""What a search found: its best trial, and Optuna's own plots of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from seqrl.console import say
from seqrl.evaluation.jobs import Job
from seqrl.files import write_file
from seqrl.runs.words import show_word
from seqrl.training.studies import JOURNAL, open_study

if TYPE_CHECKING:
    from optuna import Study

_FEWEST = 4  # finished trials, below which importances are noise
_SLICES = 4  # settings that are drawn one by one, most important first


def report(folder: Path, jobs: list[Job]) -> None:
    """Say which trial of a sweep's study is best, and draw the search; without effect where the sweep has none.

    Args:
        jobs: of the sweep; their numbers are those of the trials.
    """
    if not (folder / JOURNAL).exists():
        return
    from optuna.trial import TrialState

    study = open_study(folder / JOURNAL)
    ended = [trial for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if not any(trial.state == TrialState.COMPLETE for trial in ended):
        return
    best, objective = study.best_trial, study.user_attrs["objective"]
    chosen = " ".join(
        show_word(f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}")
        for key, value in best.params.items()
    )
    where = next((f" ({job.folder})" for job in jobs if job.number == best.number), "")
    say(f"best of {len(ended)} trials: {objective} {best.value:.5g} with {chosen}{where}")
    say(f"pictures: {', '.join(map(str, draw_study(folder, study)))}")


def draw_study(folder: Path, study: Study) -> list[Path]:
    """Write the plots of a study with a finished trial.

    Returns:
        `search.png`, how the objective went, and as far as there is something to see `search_validations.png`, the
        validations of every trial, `search_slices.png`, the objective over the chief settings, and
        `search_importances.png`.
    """
    import optuna.visualization.matplotlib as plots
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState

    objective = study.user_attrs["objective"]
    importances = _importances(study)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    varied = [key for key in study.best_trial.params if len({trial.params.get(key) for trial in done}) > 1]
    settings = sorted(varied, key=lambda key: -importances.get(key, 0.0))[:_SLICES]
    pyplot.switch_backend("agg")
    written = []

    def keep(name: str) -> None:
        figure = pyplot.gcf()
        with write_file(folder / name) as file:
            figure.savefig(file, format="png", dpi=130, bbox_inches="tight")
        pyplot.close(figure)
        written.append(folder / name)

    with pyplot.rc_context(), warnings.catch_warnings():  # the plots change the style of the whole process
        warnings.simplefilter("ignore", ExperimentalWarning)  # since Optuna 2.2, and so they are in 5.0
        plots.plot_optimization_history(study, target_name=objective)
        keep("search.png")
        if any(trial.intermediate_values for trial in study.trials):
            plots.plot_intermediate_values(study)
            keep("search_validations.png")
        if settings:
            plots.plot_slice(study, settings, target_name=objective)
            keep("search_slices.png")
        if importances:
            plots.plot_param_importances(study, PedAnovaImportanceEvaluator(), target_name=objective)
            keep("search_importances.png")
    return written


def _importances(study: Study) -> dict[str, float]:
    """By PED-ANOVA (Watanabe et al., IJCAI 2023), which needs no other package; empty where too few trials tell."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    if len(study.get_trials(states=(TrialState.COMPLETE,))) < _FEWEST:
        return {}
    try:
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):  # no setting that all trials have, or none that varies
        return {}
