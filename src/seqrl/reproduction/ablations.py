"""What the search's settings cost and earn on one checkpoint; nobody has published it."""

from __future__ import annotations

from collections.abc import Sequence

from seqrl.analysis.tradeoff import Point, draw_tradeoff
from seqrl.errors import ConfigError
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.tables import circumstances
from seqrl.evaluation.wording import abbreviate
from seqrl.reproduction import Finding, Options, Progress, Report, Reproduction, Run

BASE = {"beam_width": "8", "horizon": "5", "context": "null", "cache": "exact"}
AXES = {
    "cpu": {"beam_width": ("1", "32"), "horizon": ("1", "15"), "context": ("2",)},
    "published": {
        "beam_width": ("1", "4", "32", "128", "512"),
        "horizon": ("1", "2", "10", "15", "30"),
        "context": ("2", "3", "5"),
    },
}
CACHES = ("exact", "none")
_CACHE_STEPS = (
    10  # one takes many times as long, and but for near-ties they decode the same tokens: time is what differs
)


class Ablations(Reproduction):
    """One setting at a time, the others as they are."""

    name = "ablations"
    title = "Beam width, horizon, context and cache of one checkpoint: score and milliseconds"
    time = "about 20 minutes on one core for Hopper"
    deviations = (
        "The paper has none of this. One setting is changed at a time; what they do together is not measured.",
        "All evaluations begin in the same states; intervals are over starts of one model.",
        "Milliseconds are wall time of the policy, per action, of all episodes side by side.",
        "Caches decode the same tokens but for near-ties; they are compared over the first steps of episodes alone.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        if not any(word.startswith("checkpoint=") for word in options.words):
            raise ConfigError("this is about one checkpoint; add checkpoint=RUN, of a model with rewards and values")
        episodes = "5" if options.scale == "cpu" else "50"
        axes = [("base", ()), *AXES[options.scale].items()]
        common = ["strategy=reward", f"num_episodes={episodes}", "progress_bar=false"]
        first = [] if any(word.startswith("max_steps=") for word in options.words) else [f"max_steps={_CACHE_STEPS}"]
        return [
            *(_run(axis, [*common, *_planner(axis, values)]) for axis, values in axes),
            _run("cache", [*common, *_planner("cache", CACHES), *first]),
        ]

    def report(self, progress: Progress) -> Report:
        found: dict[str, dict[str, ResultsRow]] = {}
        base = progress.jobs["base"][0].rows[0]
        for axis in AXES[progress.options.scale]:
            found[axis] = {BASE[axis]: base}
            for job in progress.jobs[axis]:
                words = dict(word.partition("=")[::2] for word in job.overrides)
                if job.state == "done":
                    found[axis][words[f"planner.{axis}"]] = job.rows[0]
        points = [
            Point(abbreviate(axis, value), axis, row.ms_per_action, gain_of(row)[0], gain_of(row)[1])
            for axis, rows in found.items()
            for value, row in rows.items()
        ]
        draw_tradeoff(
            progress.options.folder / f"{self.name}.png",
            points,
            gain=gain_name(base),
            title=f"{base.dataset}, {circumstances([base])}; {base.num_episodes} episodes; else "
            f"{', '.join(abbreviate(*each) for each in BASE.items())}",
        )
        lines = [
            f"{base.dataset}, {circumstances([base])}; {base.num_episodes} episodes a row.",
            "",
            f"| setting | value | {gain_name(base)} | return | ms/action |",
            "| --- | --- | --- | --- | --- |",
        ]
        for axis, rows in found.items():
            for value in sorted(rows, key=lambda text: (not text.isdigit(), int(text) if text.isdigit() else 0)):
                lines.append(_line(axis, value, rows[value]))
        caches = {cache: job.rows[0] for cache, job in zip(CACHES, progress.jobs["cache"], strict=True) if job.rows}
        lines += ["", "| cache | return of the first steps | ms/action |", "| --- | --- | --- |"]
        lines += [f"| {cache} | {row.return_mean:.2f} | {row.ms_per_action:.2f} |" for cache, row in caches.items()]
        found["cache"] = caches
        data = {
            axis: {value: {"gain": gain_of(row)[0], "ci95": gain_of(row)[1], "return": row.return_mean,
                           "ms_per_action": row.ms_per_action} for value, row in rows.items()}
            for axis, rows in found.items()
        }  # fmt: skip
        findings = [_axis_finding(axis, rows) for axis, rows in found.items() if rows]
        return Report({"base": BASE, "axes": data}, findings, lines)


def _run(axis: str, words: list[str]) -> Run:
    return Run(axis, "evaluate", lambda progress: words)


def _planner(axis: str, values: Sequence[str]) -> list[str]:
    chosen = {**BASE, **({axis: ",".join(values)} if values else {})}
    return [f"planner.{name}={value}" for name, value in chosen.items()]


def gain_of(row: ResultsRow) -> tuple[float, list[float] | None]:
    """What a row earned and its interval: the score, where there is one, or the return."""
    if row.score_mean is not None:
        return row.score_mean, row.score_ci95
    return row.return_mean, row.return_ci95


def gain_name(row: ResultsRow) -> str:
    """What `gain_of` gives."""
    return "return" if row.score_mean is None else "normalised score"


def _line(axis: str, value: str, row: ResultsRow) -> str:
    gain, interval = gain_of(row)
    ends = "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    return f"| {axis} | {value} | {gain:.1f}{ends} | {row.return_mean:.1f} | {row.ms_per_action:.2f} |"


def _axis_finding(axis: str, rows: dict[str, ResultsRow]) -> Finding:
    """Whether the intervals of an axis tell its values apart, and what the dearest costs against the cheapest."""
    gains = {value: gain_of(row) for value, row in rows.items()}
    ends = [interval for _, interval in gains.values() if interval is not None]
    apart = bool(ends) and max(low for low, _ in ends) > min(high for _, high in ends)
    best = max(gains, key=lambda value: gains[value][0])
    times = [row.ms_per_action for row in rows.values()]
    measured = ", ".join(f"{value}: {gain:.1f}" for value, (gain, _) in gains.items())
    return Finding(
        f"{axis} matters",
        f"{measured}; best {best}; time from {min(times):.2f} to {max(times):.2f} ms",
        "intervals apart" if apart else "not told apart",
    )
