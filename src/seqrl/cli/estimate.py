"""`seqrl estimate`: what a policy would earn, from logged data and without an environment."""

from __future__ import annotations

import argparse

from seqrl.cli.data import compose_part
from seqrl.console import print_table, say, say_error, show_progress
from seqrl.errors import ConfigError, SeqrlError, sentence
from seqrl.files import write_text
from seqrl.paths import find_path
from seqrl.plugins import load_plugins


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 2 for an error of the user, told in one sentence on stderr.
    """
    options = _parser().parse_intermixed_args(arguments)
    try:
        _estimate(options)
    except (SeqrlError, OSError) as error:
        say_error(sentence(error))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrl estimate",
        description="Estimate the discounted return of a checkpoint's policy on the data it was trained on, by "
        "fitted Q evaluation.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .ckpt file, or the folder of a run")
    parser.add_argument("overrides", nargs="*", help="of the decoding: strategy=imitation planner.temperature=0")
    parser.add_argument("--steps", type=int, default=20_000, metavar="N", help="gradient steps of a fit (20000)")
    parser.add_argument("--fits", type=int, default=3, metavar="N", help="fits from other first weights (3)")
    parser.add_argument("--episodes", type=int, metavar="N", help="of the data, evenly chosen; all by default")
    parser.add_argument("--output", type=find_path, metavar="FILE", help="of the JSON (RUN/estimate.json)")
    return parser


def _estimate(options: argparse.Namespace) -> None:
    for name in ("steps", "fits", "episodes"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)} is too small; give 1 or more")
    words = [f"checkpoint={options.checkpoint}", *options.overrides]
    composed = compose_part("evaluate", words, lambda tree: tree)
    load_plugins(composed["plugins"])
    import numpy as np

    from seqrl.checkpoints.loading import checkpoint_file, load, load_critic, run_folder
    from seqrl.config import EvaluationConfig
    from seqrl.evaluation.off_policy import FitSettings, count_steps, estimate_return
    from seqrl.evaluation.placement import policy_of
    from seqrl.evaluation.training_data import load_training_data

    config = EvaluationConfig.from_dict(composed)
    checkpoint = checkpoint_file(find_path(config.checkpoint))
    loaded = load(checkpoint)
    policy = policy_of(loaded.model, config, load_critic(checkpoint))
    store = load_training_data(loaded, "a return is estimated on the data of the training")
    if options.episodes is not None and options.episodes < store.num_episodes:
        store = store.subset(np.linspace(0, store.num_episodes - 1, options.episodes).round().astype(int))
    settings = FitSettings(steps=options.steps, fits=options.fits, seed=config.seed)
    _tell_steps(settings.steps, count_steps(store, loaded.model.layout.discount, settings))
    with show_progress("steps", len(store) + 2 * options.steps * options.fits) as advance:
        found = estimate_return(policy, store, settings, advance=advance)
    ends = "" if found.value_ci95 is None else f" [{found.value_ci95[0]:.4g}, {found.value_ci95[1]:.4g}]"
    rows = [
        ["the policy", f"{found.value:.4g}{ends}", ", ".join(f"{each:.4g}" for each in found.fits)],
        ["the data's behaviour, by the same method", f"{found.control:.4g}", ""],
        ["the data's behaviour, as recorded", f"{found.behaviour:.4g}", ""],
    ]
    title = f"{loaded.dataset.name}, {found.episodes} episodes, discount {found.discount:g}"
    print_table(["who", "discounted return", "each fit"], rows, title=title, words=1)
    say(f"distance of the policy's actions from the recorded ones: {found.distance:.2f} halves of their range")
    output = options.output or run_folder(checkpoint) / "estimate.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, found.to_json())
    say(f"written: {output}")


def _tell_steps(steps: int, needed: int | None) -> None:
    """Warn of fits that end long before their values do."""
    from seqrl.evaluation.off_policy import find_settled

    settled = find_settled(steps, needed)
    if settled is not None and needed is not None and steps < needed:
        say(
            f"warning: in {steps} steps values come {settled:.0%} of the way to their end, and estimates stay too near "
            f"0; give --steps {needed}"
        )
