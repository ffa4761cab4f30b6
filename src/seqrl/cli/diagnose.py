"""`seqrl diagnose`: which part of a search is the weakest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqrl.cli.telling import tell_errors
from seqrl.console import print_table, say
from seqrl.errors import ConfigError
from seqrl.files import write_text
from seqrl.paths import find_path

if TYPE_CHECKING:
    from seqrl.evaluation.ladder import Ladder, LadderSettings, Rung

_AS_GIVEN = ("seed", "use", "search", "tail_mass", "actor_noise", "outside_cost", "short")


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    from seqrl.checkpoints.loading import checkpoint_file, run_folder
    from seqrl.evaluation.diagnosis import diagnose_checkpoint

    settings = _settings(options)
    checkpoint = checkpoint_file(options.checkpoint)
    found = diagnose_checkpoint(checkpoint, settings, tell=_tell)
    output = options.output or run_folder(checkpoint) / "diagnosis.json"
    _print(found)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, found.to_json())
    say(f"written: {output}")
    say(found.ranking.sentence)
    if found.errors is not None:
        say(found.errors.sentence)
    say(found.verdict.sentence)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrl diagnose",
        description="Run one search with learnt and with true parts (dynamics, value, candidates), from the same "
        "starts, and say which part fails.",
    )
    parser.add_argument("checkpoint", type=find_path, metavar="CHECKPOINT", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="starts of each rung (10)")
    parser.add_argument("--max-steps", type=int, metavar="N", help="of an episode; the environment's limit by default")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of starts and draws (0)")
    parser.add_argument("--start-cell", action="append", metavar="ROW,COLUMN", help="of a maze; may be given again")
    parser.add_argument("--beam-width", type=int, default=8, metavar="W", help="as in planner=beam (8)")
    parser.add_argument("--n-expand", type=int, default=2, metavar="N", help="as in planner=beam (2)")
    parser.add_argument("--horizon", type=int, default=5, metavar="H", help="transitions to look ahead (5)")
    parser.add_argument(
        "--search",
        choices=("beam", "rollouts"),
        default="beam",
        help="beam, or rollouts of the critic's policy from W * N first actions (beam)",
    )
    parser.add_argument("--use", choices=("q", "v"), default="v", help="how a critic rates, as in score=critic (v)")
    parser.add_argument("--tail-mass", type=float, metavar="P", help="of the model's actions, as planner.cdf_act")
    parser.add_argument(
        "--actor-noise",
        type=float,
        metavar="STD",
        help="learnt candidates are the critic's policy with so much noise (default: the model's own)",
    )
    parser.add_argument(
        "--outside-cost",
        type=float,
        default=0.0,
        metavar="COST",
        help="of rollouts that leave the range of the data, as planner.outside_cost (0)",
    )
    parser.add_argument("--plan-every", type=int, default=1, metavar="N", help="steps between two plans (1)")
    parser.add_argument(
        "--value-transitions",
        type=int,
        default=25,
        metavar="N",
        help="how far the true value follows a policy, where the world has no map (25)",
    )
    parser.add_argument("--short", action="store_true", help="leave out the rungs that the sentence does not need")
    parser.add_argument("--output", type=find_path, metavar="FILE", help="of the JSON (RUN/diagnosis.json)")
    return parser


def _settings(options: argparse.Namespace) -> LadderSettings:
    """The settings of a ladder, refused here if they are wrong."""
    from seqrl.evaluation.ladder import LadderSettings

    counts = ("episodes", "beam_width", "n_expand", "horizon", "value_transitions", "max_steps", "plan_every")
    for name in counts:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is too small; give 1 or more")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed} is no seed; give 0 or more")
    if options.actor_noise is not None and options.actor_noise < 0:
        raise ConfigError(f"--actor-noise {options.actor_noise:g} is below 0; give a standard deviation of 0 or more")
    if not 0 <= options.outside_cost < float("inf"):
        raise ConfigError(f"--outside-cost {options.outside_cost:g} is no cost; give a number of 0 or more")
    if options.outside_cost and options.search != "rollouts":
        raise ConfigError(
            f"--outside-cost {options.outside_cost:g} counts in rollouts alone, and the search is a beam; add --search "
            "rollouts, or leave it out"
        )
    if options.tail_mass is not None and not 0 <= options.tail_mass < 1:
        raise ConfigError(f"--tail-mass {options.tail_mass:g} is outside [0, 1); give a probability below 1")
    return LadderSettings(
        **{name: getattr(options, name) for name in (*counts, *_AS_GIVEN)},
        start_cells=_cells(options.start_cell),
    )


def _cells(words: Sequence[str] | None) -> tuple[tuple[int, int], ...] | None:
    if words is None:
        return None
    try:
        pairs = [tuple(map(int, word.split(","))) for word in words]
        return tuple((row, column) for row, column in pairs)
    except ValueError as error:
        raise ConfigError(f"--start-cell {' '.join(words)} is no cell; give a row and a column, as in 3,1") from error


def _tell(rung: Rung) -> None:
    say(f"{rung.name}: return {rung.return_mean:.1f}, {rung.cpu_seconds:.0f} CPU-seconds")


def _print(found: Ladder) -> None:
    from seqrl.evaluation.ladder import Swap

    header = ["dynamics", "value", "candidates", "return", "success %", "CPU-s"]
    body = [_line(rung.swap or Swap(), rung, beside=False) for rung in found.rungs]
    body += [_line(None, rung, beside=True) for rung in found.beside]
    title = f"{found.env_id}, training seed {found.training_seed}, {found.settings.episodes} starts"
    print_table(header, body, title=title, words=3)
    say(f"learnt value: {found.learnt_value}; true value: {found.true_value}; 95 % intervals")


def _line(swap: object, rung: Rung, *, beside: bool) -> list[str]:
    parts = [rung.name, "", ""] if beside else [getattr(swap, name) for name in ("dynamics", "value", "candidates")]
    interval = "" if rung.return_ci95 is None else f" [{rung.return_ci95[0]:.1f}, {rung.return_ci95[1]:.1f}]"
    reached = "" if rung.success_rate is None else f"{rung.success_rate:.0f}"
    if rung.success_ci95 is not None:
        reached += f" [{rung.success_ci95[0]:.0f}, {rung.success_ci95[1]:.0f}]"
    return [*parts, f"{rung.return_mean:.1f}{interval}", reached, f"{rung.cpu_seconds:.0f}"]
