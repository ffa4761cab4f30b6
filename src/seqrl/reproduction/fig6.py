"""Figure 6: goals in continuous four rooms."""

from __future__ import annotations

from collections.abc import Sequence

from seqrl.evaluation.rows import ResultsRow
from seqrl.files import copy_file
from seqrl.reproduction import AGREES, DISAGREES, OPEN, Finding, Options, Progress, Report, Reproduction, Run

_RUN = "four_rooms"
_LABELS = ("goal", "shuffled goals", "sampling")


class Figure6(Reproduction):
    """One goal in each room, from starts in all others."""

    name = "fig6"
    title = "Goal-reaching in continuous four rooms"
    time = "about 10 minutes on one core: three models"
    deviations = (
        "The sizes of the paper's rooms, its data and its model are not published: the rooms, the recorded walks and "
        "the model are ours, and need no simulator.",
        "The paper's figure is a picture without a number. Ours are success rates, beside the same model under other "
        "episodes' goals and under the null goal.",
        "At the published scale the model has the published size (four layers of width 128) and trains for longer.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        words = ["experiment=four_rooms", f"seed={','.join(map(str, range(options.models)))}"]
        if options.scale == "published":
            words += ["backbone=gpt", "backbone.num_layers=4", "backbone.num_heads=4", "backbone.dim=128"]
            words += ["tokenizer.num_bins=100", "optimizer.learning_rate=6e-4", "training.max_steps=20000"]
            words += ["training.batch_size=256", "trainer=gpu"]
        return [Run(_RUN, "train", lambda progress: words)]

    def report(self, progress: Progress) -> Report:
        folders, jobs = progress.folders(_RUN), progress.jobs[_RUN]
        picture = folders[0] / "paths.png"
        if picture.is_file():
            copy_file(picture, progress.options.folder / f"{self.name}.png")
        by_seed = [{row.strategy: row for row in job.rows if row.goals is not None} for job in jobs]
        lines = [
            "Success in %, with 95 % intervals over starts; goals in the four rooms:",
            "",
            "| training seed | strategy | success % | by goal | steps | starts |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for rows in by_seed:
            lines += [_line(row) for row in rows.values()]
        data = {
            "rows": [
                {"seed": row.training_seed, "strategy": label, "success": row.goals.success_rate,
                 "ci95": row.goals.success_ci95}
                for rows in by_seed for label, row in rows.items() if row.goals is not None
            ],
        }  # fmt: skip
        return Report(data, [_reaches(by_seed), *(_against(by_seed, label) for label in _LABELS[1:])], lines)


def _line(row: ResultsRow) -> str:
    assert row.goals is not None
    goals, interval = row.goals, row.goals.success_ci95
    ends = "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    each = ", ".join(f"{share.success_rate:.0f}" for share in goals.success_by_goal)
    steps = "-" if goals.steps_to_goal_median is None else f"{goals.steps_to_goal_median:.0f}"
    rate = f"{goals.success_rate:.1f}{ends}"
    return f"| {row.training_seed} | {row.strategy} | {rate} | {each} | {steps} | {goals.counted_episodes} |"


def _reaches(by_seed: Sequence[dict[str, ResultsRow]]) -> Finding:
    rates = [rows["goal"].goals.success_rate for rows in by_seed if "goal" in rows and rows["goal"].goals is not None]
    many = [rate >= 50 for rate in rates]
    return Finding(
        "the model goes to goals in other rooms",
        f"success by seed: {', '.join(f'{rate:.1f} %' for rate in rates)}",
        AGREES if all(many) else OPEN if any(many) else DISAGREES,
    )


def _against(by_seed: Sequence[dict[str, ResultsRow]], label: str) -> Finding:
    """Whether the goal is what makes the difference, by intervals that stand apart on every seed."""
    apart, words = [], []
    for rows in by_seed:
        ours, theirs = (rows[name].goals if name in rows else None for name in ("goal", label))
        if ours is None or theirs is None or ours.success_ci95 is None or theirs.success_ci95 is None:
            continue
        apart.append(ours.success_ci95[0] > theirs.success_ci95[1])
        words.append(f"{ours.success_rate:.1f} against {theirs.success_rate:.1f} %")
    verdict = AGREES if apart and all(apart) else DISAGREES if apart and not any(apart) else OPEN
    return Finding(f"the goal decides where it goes (control: {label})", "; ".join(words) or "not measured", verdict)
