"""`seqrl data`: look at episodes, make them, record them, convert them; Hydra only where overrides are given."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.cli.plugin_words import take_plugins
from seqrl.cli.telling import tell_errors
from seqrl.console import print_table, say, show_progress
from seqrl.errors import ConfigError, DataError
from seqrl.files import write_text
from seqrl.paths import find_path
from seqrl.plugins import load_plugins, split_module

if TYPE_CHECKING:
    from seqrl.envs import Environments
    from seqrl.evaluation.recorded_episodes import Actor
    from seqrl.formats.flat import FlatEpisodes
    from seqrl.sources import DataSource


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    parser = _parser()
    arguments, named = take_plugins(arguments)
    options, rest = parser.parse_known_args(arguments)
    if named and not hasattr(options, "plugins"):
        parser.error("plugins=... is of no use here")
    words = getattr(options, "overrides", getattr(options, "source", None))
    if rest and words is not None and all("=" in word and not word.startswith("-") for word in rest):
        words += rest  # argparse stops taking words at the first switch
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if named:
        options.plugins = [*options.plugins, *named]
    try:
        options.task(options)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename!r}" if error.filename else "an output"
        reason = f"cannot be written or read ({error.strerror or error}); give a place with room that you may write to"
        raise DataError(f"{where} {reason}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("seqrl data", description="Episodes: inspect, generate, collect, convert, list.")
    commands = parser.add_subparsers(required=True, metavar="inspect | generate | collect | convert | list")
    plugged = argparse.ArgumentParser(add_help=False)
    plugged.add_argument(
        "--plugins", nargs="+", default=[], metavar="FILE_OR_MODULE", help="loaded before; also plugins=[FILE]"
    )
    writing = argparse.ArgumentParser(add_help=False)
    writing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")

    known = "path of an HDF5 or NPZ file, or of a saved store; a D4RL id; minari:ID"
    inspecting = commands.add_parser("inspect", parents=[plugged, writing], help="what is in there, and what is odd")
    inspecting.add_argument("source", nargs="+", help=f"{known}; or overrides: data=d4rl data.path=...")
    inspecting.add_argument("--json", type=find_path, metavar="FILE", help="write everything there")
    inspecting.add_argument("--png", type=find_path, metavar="FILE", help="draw a picture there")
    inspecting.set_defaults(task=_inspect)

    generating = commands.add_parser("generate", help="make data by simulation")
    makers = generating.add_subparsers(required=True, metavar="maze2d")
    maze = makers.add_parser("maze2d", parents=[writing], help="D4RL's maze2d recipe, as HDF5 in D4RL's layout")
    maze.add_argument("output", nargs="?", help="an .hdf5 file; maze2d-MAZE.hdf5 by default")
    maze.add_argument("--maze", default="umaze", help="umaze, medium or large")
    maze.add_argument("--transitions", type=int, default=60_000, metavar="N")
    maze.add_argument("--seed", type=int, default=0)
    maze.add_argument("--action-noise", type=float, default=0.1, help="standard deviation; actions lie in [-1, 1]")
    maze.set_defaults(task=_generate_maze2d)

    collecting = commands.add_parser("collect", parents=[plugged, writing], help="record a policy in an environment")
    collecting.add_argument("env_id", help="Gymnasium id; with @observation+desired_goal for parts of observations")
    collecting.add_argument("output", help="an .hdf5, .h5 or .npz file, or minari:ID")
    collecting.add_argument("overrides", nargs="*", help="of the decoding: strategy=reward planner.beam_width=8")
    collecting.add_argument(
        "--policy", default="random", help="random (default), a checkpoint or run, module:function or file.py:function"
    )
    amount = collecting.add_mutually_exclusive_group(required=True)
    amount.add_argument("--episodes", type=int, metavar="N")
    amount.add_argument("--transitions", type=int, metavar="N", help="exactly; the last episode is cut there")
    collecting.add_argument("--seed", type=int, default=0)
    collecting.add_argument("--num-envs", type=int, default=8, metavar="N", help="environments at a time")
    collecting.add_argument("--max-steps", type=int, metavar="N", help="truncate episodes after so many steps")
    collecting.add_argument(
        "--extras",
        nargs="+",
        default=[],
        metavar="NAME:after",
        help="infos to keep beside the steps: what a step told (cost:after), what was known before it (load:before)",
    )
    collecting.set_defaults(task=_collect)

    converting = commands.add_parser("convert", parents=[writing], help="from one format to another")
    converting.add_argument("input", help=known)
    converting.add_argument("output", help="an .hdf5 or .h5 (D4RL's layout) or .npz file, or minari:ID")
    converting.set_defaults(task=_convert)

    listing = commands.add_parser("list", help="the data sets of D4RL, and which are cached")
    listing.add_argument("words", nargs="*", help="show ids that contain all of them, such as hopper v2")
    listing.add_argument("--cached", action="store_true", help="show cached ones only")
    listing.set_defaults(task=_list)
    return parser


def _inspect(options: argparse.Namespace) -> None:
    from seqrl.cli.inspection_table import print_inspection
    from seqrl.formats.inspection import inspect_episodes
    from seqrl.sources import find_source

    for path in (options.json, options.png):
        if path is not None and path.exists() and not options.overwrite:
            raise ConfigError(f"{str(path)!r} exists already; choose another name, or --overwrite it")
    load_plugins(options.plugins)
    if any("=" in word and not find_path(word).exists() for word in options.source):
        flat = _composed(options.source)
    elif len(options.source) == 1:
        flat = find_source(options.source[0]).read()
    else:
        raise ConfigError(f"{len(options.source)} sources were given; give one, or overrides such as data=d4rl")
    report = inspect_episodes(flat)
    print_inspection(report)
    if options.json is not None:
        write_text(options.json, json.dumps(report.plain(), indent=2, allow_nan=False) + "\n")
        say(f"written: {options.json}")
    if options.png is not None:
        from seqrl.analysis.data import draw_inspection

        say(f"written: {draw_inspection(options.png, report)}")


def _generate_maze2d(options: argparse.Namespace) -> None:
    from seqrl.formats import targets
    from seqrl.registry import DATA

    target = options.output or f"maze2d-{options.maze}.hdf5"
    recipe = {"num_transitions": options.transitions, "seed": options.seed, "action_noise": options.action_noise}
    source = DATA.build({"name": "maze2d", "maze": options.maze, **recipe})
    if ":" in target or Path(target).suffix not in targets.HDF5_SUFFIXES:
        raise ConfigError(f"{target!r} is no HDF5 file; give an .hdf5 name, then `seqrl data convert` it")
    targets.check_target(target, overwrite=options.overwrite)
    source.load()  # makes the cached file
    targets.copy_to_target(source.path, target, overwrite=options.overwrite)
    say(f"written: {target}")


def _collect(options: argparse.Namespace) -> None:
    from seqrl.evaluation.collect import collect
    from seqrl.formats import targets

    targets.check_target(options.output, overwrite=options.overwrite)
    extras = _read_moments(options.extras)
    modules, env_id = split_module(options.env_id)
    load_plugins([*options.plugins, *modules])
    with show_progress(f"steps in {env_id}", options.transitions) as advance:
        flat = collect(
            _actor(options),
            env_id,
            episodes=options.episodes,
            transitions=options.transitions,
            batch=options.num_envs,
            seed=options.seed,
            max_steps=options.max_steps,
            extras=extras,
            attributes={"policy": options.policy},
            progress=advance,
        )
    _write(flat, options)


def _read_moments(words: list[str]) -> dict[str, Any]:
    """`cost:after load:before` as what `seqrl.evaluation.collect.collect` takes.

    Raises:
        ConfigError: a word of another form.
    """
    found = {}
    for word in words:
        name, _, moment = word.rpartition(":")
        if not name or moment not in ("before", "after"):
            raise ConfigError(
                f"--extras has {word!r}; give NAME:after for what a step told, or NAME:before for what was known "
                "before its action"
            )
        found[name] = moment
    return found


def _actor(options: argparse.Namespace) -> Callable[[Environments], Actor]:
    """What makes the policy once the environments are there."""
    from seqrl.evaluation import collect

    if options.policy == "random" or not find_path(options.policy).exists():
        if options.overrides:
            raise ConfigError(f"{options.overrides[0]!r} is for checkpoints, and --policy {options.policy} is none")
        if options.policy == "random":
            return lambda envs: collect.RandomActor(envs, options.seed)
        function = collect.find_function(options.policy)
        return lambda envs: function
    words = [f"checkpoint={options.policy}", f"seed={options.seed}", *options.overrides]
    config = compose_part("evaluate", words, lambda composed: composed)
    return lambda envs: collect.checkpoint_actor(config, envs)


def _convert(options: argparse.Namespace) -> None:
    from seqrl.formats import targets
    from seqrl.sources import find_source

    targets.check_target(options.output, overwrite=options.overwrite)
    _write(find_source(options.input).read(), options)


def _write(flat: FlatEpisodes, options: argparse.Namespace) -> None:
    from seqrl.formats import writers

    for note in [*flat.remarks, *writers.write_episodes(flat, options.output, overwrite=options.overwrite)]:
        say(f"note: {note}")
    say(f"written: {options.output} ({len(flat.ends)} transitions, {len(flat.offsets) - 1} episodes)")


def _list(options: argparse.Namespace) -> None:
    from seqrl.d4rl.catalogue import cache_dir, entries

    shown = [e for e in entries() if all(word in e.id for word in options.words) and (e.cached or not options.cached)]
    body = []
    for entry in shown:
        size = f"{entry.size / 1e6:.0f} MB" if entry.size is not None else ""
        references = (f"{entry.reference_min:.1f}", f"{entry.reference_max:.1f}")
        body.append([entry.id, entry.family, entry.env_id or "-", *references, size])
    title = f"{len(shown)} data sets of D4RL; * references of scores 0 and 100"
    print_table(["id", "family", "environment", "random*", "expert*", "cached"], body, title=title, words=3)
    say(f"cache: {cache_dir()}")


def _composed(overrides: Sequence[str]) -> FlatEpisodes:
    """The episodes of `data=... data.key=value`, as `seqrl train` would read them."""
    from seqrl.registry import DATA

    source: DataSource = DATA.build(compose_part("train", overrides, lambda composed: composed.data))
    return source.read()


def compose_part(name: str, overrides: Sequence[str], part: Callable[[Any], Any]) -> dict[str, Any]:
    """A part of what the overrides compose, as plain values."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from seqrl.cli.application import composing, plain
    from seqrl.cli.explaining import translate
    from seqrl.cli.surface import open_surface
    from seqrl.cli.words import spell_words
    from seqrl.paths import config_dir

    words = spell_words(name, overrides)
    open_surface(words)
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            return plain(part(composing(lambda: hydra.compose(name, words))))
    except (HydraException, OmegaConfBaseException) as error:
        raise translate(error, name, words) from error
