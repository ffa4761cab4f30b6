"""Table 1 and its picture, Figure 5: scores on D4RL's locomotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seqrl.analysis.bars_figure import Bar, draw_bars
from seqrl.d4rl.reference import OTHER_DATA
from seqrl.evaluation.jobs import Job
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.statistics import seed_difference
from seqrl.reproduction import AGREES, DISAGREES, OPEN, OTHER, Finding, Options, Progress, Report, Reproduction, Run
from seqrl.reproduction.published import AVERAGES, LOCOMOTION, METHODS, PLANNER, QUANTILE, UNIFORM, match_table

_SEARCH, _GREEDY = "reward", "greedy imitation"
_CPU = (
    "experiment=d4rl_cpu",
    "training.max_steps=3000",
    "evaluation=none",
    "evaluation.rows={greedy imitation: {strategy: imitation, planner: {temperature: 0}}, "
    "reward: {strategy: reward, planner: {beam_width: 8, horizon: 5}}}",
    "evaluation.baseline=greedy imitation",
    "evaluation.settings.num_episodes=5",
)
_TOKENIZERS = {"quantile": QUANTILE, "uniform": UNIFORM}


class Table1(Reproduction):
    """Both tokenizers on the data that the user names, or on all nine data sets."""

    name = "table1"
    title = "Table 1 and Figure 5: scores on locomotion, uniform and quantile bins"
    time = "about 20 minutes on one core for one data set"
    deviations = (
        "At the CPU scale model, batch, number of steps, search and number of episodes are all reduced; with data that "
        "are not D4RL's, nothing can agree but the order of things.",
        "Published errors are standard errors over 15 rollouts of five models; ours are 95 % intervals: over starts "
        "where there is one training seed, over the seeds' means, and not their starts, where there are several.",
        "The published planner's settings differ by data set and between versions of the code; those of the released "
        "`config/offline.py` are used at the published scale.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        tokenizers = f"tokenizer={','.join(_TOKENIZERS)}"
        if options.scale == "cpu":
            return [_run("cpu", [*_CPU, tokenizers, "seed=0", "name=table1"])]
        if any(word.startswith(("data=", "data.")) for word in options.words):
            return [_run("yours", [*published_words(""), tokenizers])]
        return [_run(line, [*published_words(line), tokenizers]) for line in LOCOMOTION]

    def report(self, progress: Progress) -> Report:
        rows = collect_rows(progress.jobs)
        datasets = list(dict.fromkeys(dataset for dataset, _ in rows))
        draw_bars(
            progress.options.folder / f"{self.name}.png",
            [*((dataset, _bars(dataset, rows)) for dataset in datasets), ("average of nine, published", _averages())],
            title="Normalised score; grey: as published, of D4RL's data; blue: measured here, with 95 % intervals",
            axis="normalised score",
        )
        return _report(datasets, rows, progress)


def _run(key: str, words: list[str]) -> Run:
    return Run(key, "train", lambda progress: words)


def published_words(line: str) -> list[str]:
    """The words of one line of the table at the published scale; of a user's data where the line is empty."""
    data = [f"data=d4rl data.id={line}-v2"] if line else []
    longer = ["training.max_steps=312000"] if line in ("hopper-medium-replay", "walker2d-medium-replay") else []
    words = ["method=tt_code", *(data[0].split() if data else ["data=d4rl"]), "trainer=gpu", "seed=0,1,2,3,4"]
    return [*words, *longer, *PLANNER.get(line, ()), f"name={line or 'table1'}"]


def collect_rows(jobs: Mapping[str, Sequence[Job]]) -> dict[tuple[str, str], dict[str, list[ResultsRow]]]:
    """Results rows by data set and tokenizer, then by label; one of each training seed."""
    found: dict[tuple[str, str], dict[str, list[ResultsRow]]] = {}
    for each in jobs.values():
        for job in each:
            words = dict(word.partition("=")[::2] for word in job.overrides)
            for row in job.rows:
                of = found.setdefault((row.dataset, words.get("tokenizer", "quantile")), {})
                of.setdefault(row.strategy, []).append(row)
    return found


def mean_score(rows: Sequence[ResultsRow]) -> tuple[float, tuple[float, float] | None]:
    """Mean score over training seeds; the interval is that of the one seed, or over the seeds' means."""
    scores = [row.score_mean for row in rows if row.score_mean is not None]
    if not scores:
        return float("nan"), None
    if len(scores) == 1:
        interval = rows[0].score_ci95
        return scores[0], None if interval is None else (interval[0], interval[1])
    each = np.array(scores)[:, None, None]
    found = seed_difference(each, np.zeros_like(each), paired=True)
    return found.mean, (found.low, found.high)


def _bars(dataset: str, rows: Mapping[tuple[str, str], Mapping[str, Sequence[ResultsRow]]]) -> list[Bar]:
    line = match_table(dataset)
    bars = []
    if line is not None:
        methods, uniform, quantile = LOCOMOTION[line]
        bars += [Bar(method, score, None, True) for method, score in zip(METHODS, methods, strict=True)]
        for label, (mean, error) in ((UNIFORM, uniform), (QUANTILE, quantile)):
            bars.append(Bar(label, mean, (mean - error, mean + error), True))
    for (name, tokenizer), by_label in rows.items():
        if name == dataset:
            for label in (_GREEDY, _SEARCH):
                if label in by_label:
                    bars.append(Bar(f"{tokenizer}, {label}", *mean_score(by_label[label]), published=False))
    first = next(iter(next(of for (name, _), of in rows.items() if name == dataset).values()))[0]
    if first.behaviour_score is not None:
        bars.append(Bar("behaviour", first.behaviour_score, None, False))
    return bars


def _averages() -> list[Bar]:
    return [Bar(label, value, None, True) for label, value in AVERAGES.items()]


def _report(
    datasets: Sequence[str],
    rows: Mapping[tuple[str, str], Mapping[str, Sequence[ResultsRow]]],
    progress: Progress,
) -> Report:
    lines = ["| data | uniform, published | quantile, published | uniform, search | quantile, search "
             "| uniform, greedy | quantile, greedy | behaviour | seeds |", "|" + " --- |" * 9]  # fmt: skip
    findings, data = [], []
    for dataset in datasets:
        line = match_table(dataset)
        printed = ["-", "-"] if line is None else [f"{m:.1f} ± {e:g}" for m, e in LOCOMOTION[line][1:]]
        cells, scores = [], {}
        for label in (_SEARCH, _GREEDY):
            for tokenizer in ("uniform", "quantile"):
                found = rows.get((dataset, tokenizer), {}).get(label)
                scores[tokenizer, label] = None if found is None else mean_score(found)
                cells.append("-" if found is None else _cell(*mean_score(found)))
        any_rows = next(of for (name, _), of in rows.items() if name == dataset)
        first = next(iter(any_rows.values()))
        behaviour = first[0].behaviour_score
        cells += ["-" if behaviour is None else f"{behaviour:.1f}", str(len(first))]
        lines.append(f"| {dataset} | {' | '.join([*printed, *cells])} |")
        data.append({
            "dataset": dataset, "published": None if line is None else LOCOMOTION[line],
            "measured": {f"{t}, {label}": score for (t, label), score in scores.items()},
            "behaviour": behaviour, "note": first[0].score_note,
        })  # fmt: skip
        findings += _findings(dataset, line, scores, published_data=OTHER_DATA not in (first[0].score_note or ""))
    notes = dict.fromkeys(row.score_note for of in rows.values() for each in of.values() for row in each)
    lines += ["", *(f"- scores: {note}." for note in notes if note)]
    return Report({"scale": progress.options.scale, "rows": data}, findings, lines)


def _cell(mean: float, interval: tuple[float, float] | None) -> str:
    return f"{mean:.1f}" + ("" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]")


def _findings(
    dataset: str,
    line: str | None,
    scores: Mapping[tuple[str, str], tuple[float, tuple[float, float] | None] | None],
    *,
    published_data: bool,
) -> list[Finding]:
    """Whether the published scores lie in our intervals, and which tokenizer is ahead."""
    found = []
    uniform, quantile = scores["uniform", _SEARCH], scores["quantile", _SEARCH]
    for label, measured, place in ((UNIFORM, uniform, 1), (QUANTILE, quantile, 2)):
        if line is None or measured is None or measured[1] is None:
            continue
        mean, error = LOCOMOTION[line][place]
        low, high = measured[1]
        overlaps = low <= mean + 2 * error and high >= mean - 2 * error
        found.append(
            Finding(
                f"{dataset}: {label} scores {mean} ± {error}",
                f"{measured[0]:.1f} [{low:.1f}, {high:.1f}]",
                OTHER if not published_data else AGREES if overlaps else DISAGREES,
            )
        )
    if line is not None and uniform is not None and quantile is not None:
        gap = LOCOMOTION[line][2][0] - LOCOMOTION[line][1][0]
        ours = quantile[0] - uniform[0]
        found.append(
            Finding(
                f"{dataset}: quantile bins are {'ahead of' if gap > 0 else 'behind'} uniform ones, by {abs(gap):.1f}",
                f"quantile - uniform: {ours:+.1f}",
                _judge_order(gap, ours, uniform[1], quantile[1]),
            )
        )
    return found


def _judge_order(gap: float, ours: float, one: tuple[float, float] | None, other: tuple[float, float] | None) -> str:
    """Whether two intervals stand apart, and in the published order."""
    if one is None or other is None or (one[0] <= other[1] and other[0] <= one[1]):
        return OPEN
    return AGREES if gap * ours > 0 else DISAGREES
