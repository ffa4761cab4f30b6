"""Table 2: sparse rewards far apart, searched with the Q-function of implicit Q-learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqrl.analysis.bars_figure import Bar, draw_bars
from seqrl.evaluation.rows import ResultsRow
from seqrl.reproduction import AGREES, DISAGREES, OPEN, Finding, Options, Progress, Report, Reproduction, Run
from seqrl.reproduction.published import ANTMAZE, ANTMAZE_METHODS

_RUN, _OURS, _CRITIC, _PLAIN = "table2", "TT+Q", "IQL", "reward"
_CPU = (
    "experiment=maze2d_sparse_ttq",
    "window.length=2",
    "planner.context=null",
    "layout.stride=4",
    "critic_training.max_steps=60000",
    "training.max_steps=4000",
    "evaluation.settings.seed=1",
    "trainer.num_threads=1",
)


class Table2(Reproduction):
    """AntMaze through D4RL's own package, or the stitching maze on a CPU."""

    name = "table2"
    title = "Table 2: TT+Q where rewards are sparse"
    time = "about 15 minutes on one core: one model with its critic"
    deviations = (
        "At the CPU scale the maze is ours: a point mass in D4RL's smallest maze, a reward at one end, episodes that "
        "begin at the other, and no recorded episode that visits both. Its returns are no success rates of AntMaze.",
        "At the published scale D4RL's own AntMaze is used, by its package, on the v0 data of the table.",
        "The released code has no AntMaze: horizon, beam width and number of steps of the published runs are unknown, "
        "and so is how Q entered the score.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        if options.scale == "cpu":
            return [Run(_RUN, "train", lambda progress: [*_CPU, "seed=1"])]
        named = any(word.startswith(("data=", "data.")) for word in options.words)
        ids = [] if named else [f"data.id={','.join(f'{name}-v0' for name in ANTMAZE)}"]
        words = ["experiment=antmaze_ttq", *ids, "seed=0,1,2,3,4", "trainer=gpu"]
        return [Run(_RUN, "train", lambda progress: words)]

    def report(self, progress: Progress) -> Report:
        progress.folders(_RUN)  # all of them finished
        by_run = [{row.strategy: row for row in job.rows} for job in progress.jobs[_RUN]]
        lines = [
            "Return of an episode, with 95 % intervals over starts:",
            "",
            "| data | training seed | strategy | return | score | success % | episodes |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_line(row) for rows in by_run for row in rows.values()),
            "",
            *published_table(),
        ]
        bars = [Bar(f"{row.training_seed}: {label}", row.return_mean, _ends(row.return_ci95), False)
                for rows in by_run for label, row in rows.items()]  # fmt: skip
        published = [
            Bar(method, sum(each[place] for each in ANTMAZE.values()) / len(ANTMAZE), None, True)
            for place, method in enumerate(ANTMAZE_METHODS)
        ]
        draw_bars(
            progress.options.folder / f"{self.name}.png",
            [("measured here: return", bars), ("AntMaze as published: success in %", published)],
            title="Blue: measured here, with 95 % intervals over starts; grey: as published, another task",
            axis="return, or success in %",
        )
        data = {"rows": [{"seed": row.training_seed, "strategy": label, "dataset": row.dataset,
                          "return": row.return_mean, "ci95": row.return_ci95, "score": row.score_mean}
                         for rows in by_run for label, row in rows.items()]}  # fmt: skip
        findings = [
            _compare(by_run, _OURS, _PLAIN, "the critic makes the search work where rewards are sparse"),
            _compare(by_run, _OURS, _CRITIC, "TT+Q is ahead of the policy of the critic that it searches with"),
        ]
        return Report(data, findings, lines)


def published_table() -> list[str]:
    """Table 2 as printed, in Markdown."""
    lines = ["AntMaze as published (v0 data, success in %):", "", f"| data | {' | '.join(ANTMAZE_METHODS)} |"]
    lines.append("| --- |" + " --- |" * len(ANTMAZE_METHODS))
    lines += [f"| {name} | {' | '.join(f'{value:.1f}' for value in each)} |" for name, each in ANTMAZE.items()]
    means = [sum(each[place] for each in ANTMAZE.values()) / len(ANTMAZE) for place in range(len(ANTMAZE_METHODS))]
    return [*lines, f"| average | {' | '.join(f'{mean:.1f}' for mean in means)} |"]


def _line(row: ResultsRow) -> str:
    ends = _ends(row.return_ci95)
    interval = "" if ends is None else f" [{ends[0]:.1f}, {ends[1]:.1f}]"
    score = "-" if row.score_mean is None else f"{row.score_mean:.1f}"
    success = "-" if row.goals is None else f"{row.goals.success_rate:.0f}"
    return (
        f"| {row.dataset} | {row.training_seed} | {row.strategy} | {row.return_mean:.1f}{interval} | {score} | "
        f"{success} | {row.num_episodes} |"
    )


def _ends(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])


def _compare(by_run: Sequence[Mapping[str, ResultsRow]], ours: str, theirs: str, claim: str) -> Finding:
    """A claim that one strategy earns more than another, by intervals that stand apart in every run."""
    above, below, words = [], [], []
    for rows in by_run:
        one, other = (_ends(rows[name].return_ci95) if name in rows else None for name in (ours, theirs))
        if one is not None and other is not None:
            above.append(one[0] > other[1])
            below.append(one[1] < other[0])
            words.append(f"{rows[ours].return_mean:.1f} against {rows[theirs].return_mean:.1f}")
    verdict = AGREES if above and all(above) else DISAGREES if below and all(below) else OPEN
    return Finding(claim, f"return of {ours} and {theirs}: {'; '.join(words) or 'not measured'}", verdict)
