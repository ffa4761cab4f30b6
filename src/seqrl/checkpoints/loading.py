"""Models and critics made from checkpoints: by a plain config, whose parts are looked up by name, and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqrl.checkpoints.exported import CRITIC, LANDMARKS, WEIGHTS, check_listed, find_published, is_exported, zoo_dir
from seqrl.checkpoints.loaded import Loaded
from seqrl.checkpoints.reading import DamagedError, find_newest, read_checkpoint, step_of
from seqrl.config import CriticConfig, ModelConfig
from seqrl.console import say
from seqrl.critics import Critic, build_critic
from seqrl.data.landmarks import LandmarkGraph
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.errors import CheckpointError, ConfigError, drop_own_file, is_damage
from seqrl.models import Model
from seqrl.models.building import build_model
from seqrl.paths import find_path
from seqrl.plugins import source
from seqrl.registry import registry_of
from seqrl.runs.finding import LATEST, find_latest

T = TypeVar("T", bound=nn.Module | None)

ZOO = "zoo:"  # before the name of a model that comes with seqrl
_PREFIX = "model."
_SMALL = 2**26  # bytes that a model may take whatever its file holds: masks and the like are not kept


def load(path: str | Path) -> Loaded:
    """Load a checkpoint that `seqrl train` (or a `SequenceModule` in a trainer of yours) wrote.

    The file's bytes are compared with its checksums, only tensors and plain values are unpickled
    (`weights_only=True`), and components are looked up by name in the registries, so that a file can build what is
    registered and nothing else.

    Args:
        path: whatever `checkpoint=` takes; see `checkpoint_file`.

    Raises:
        CheckpointError: the file is missing, damaged, from another program, or from a newer seqrl.
    """
    path = checkpoint_file(path)
    model, config, content = _rebuilt(path, _build_model, _PREFIX)
    config = {"dataset": asdict(DataSummary("arrays")), "seed": 0, **config}
    graph = landmarks_file(path)
    has_graph = check_listed(path, LANDMARKS) if is_exported(path) else graph.is_file()
    model.landmarks = LandmarkGraph.read(graph) if has_graph else None
    versions = content["seqrl"].get("versions")
    return Loaded(model.eval(), config, dict(versions) if isinstance(versions, Mapping) else {}, step_of(content))


def landmarks_file(path: str | Path) -> Path:
    """Where the graph of landmarks of a run lies, if it has one.

    Args:
        path: a run folder, or a checkpoint in the folder of one of its stages.
    """
    path = find_path(path)
    run = path.parent.parent if path.is_file() else path
    return (path.parent if is_exported(path) else run) / "landmarks" / "graph.npz"


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint that a user means, for every command and for `load`.

    Args:
        path: a file, the folder of a run or of its model, or an exported folder; or `latest`, the run of `./runs` that
            was saved last, and `FOLDER/latest` for another folder of runs; or `zoo:NAME`, a model that comes with
            seqrl. A file or folder of that name goes first.

    Raises:
        CheckpointError: there is none, or none that can be read.
    """
    path = find_path(path)
    if path.name == LATEST and not path.exists():
        folder = path.parent if path.parent.name else Path("runs")
        newest = find_latest(folder)
        if newest is None:
            raise CheckpointError(f"no run in {str(folder)!r} has a checkpoint, so that there is no latest; give a run")
        say(f"latest: {newest}")
        path = newest
    if str(path).startswith(ZOO) and not path.exists():
        path = find_published(str(path).removeprefix(ZOO))
    found = find_checkpoint(path)
    if found is not None:
        return found
    raise CheckpointError(f"no checkpoint at {str(path)!r}; give a .ckpt file or the folder of a run")


def run_folder(checkpoint: Path) -> Path:
    """The folder in which lies what is made of a checkpoint: its run, or the exported folder.

    For a model that comes with seqrl it is `runs/zoo-NAME`.
    """
    if is_exported(checkpoint):
        folder = checkpoint.parent
        return Path("runs") / f"zoo-{folder.name}" if folder.parent == zoo_dir() else folder
    return checkpoint.parent.parent if checkpoint.parent.name == "model" else checkpoint.parent


def find_checkpoint(path: Path, stage: str = "model") -> Path | None:
    """The checkpoint that a user means: a file, the folder of a run, or that of a stage.

    Of a folder it is `last.ckpt`; where that is damaged, the latest that is whole, which is said.

    Returns:
        None where there is none.

    Raises:
        CheckpointError: as `seqrl.checkpoints.reading.find_newest`.
    """
    if path.is_file():
        return path
    if is_exported(path / f"{stage}.safetensors"):
        return path / f"{stage}.safetensors"
    for folder in (path / stage, path):
        try:
            found = find_newest(folder, stage) if folder.is_dir() else None
        except DamagedError as error:
            raise DamagedError(f"{error}; no other checkpoint of {str(folder)!r} is whole, so train again") from error
        if found is not None:
            if found.faults:
                say(f"{found.faults[0]}; {found.path.name} of step {found.step} is taken instead")
            return found.path
    return None


def load_critic(path: str | Path) -> Critic | None:
    """The critic that was trained in the same run as a model, in eval mode, on the CPU.

    Args:
        path: as for `critic_file`.

    Returns:
        None where the run has no critic.

    Raises:
        CheckpointError: as `load`.
    """
    file = critic_file(path)
    if file is None:
        return None
    critic, _, _ = _rebuilt(file, _build_critic, "critic.")
    if critic is None:
        raise CheckpointError(f"{str(file)!r} is no checkpoint of a critic; give the folder of the run")
    return critic.eval()


def critic_file(path: str | Path) -> Path | None:
    """The critic's checkpoint of a run, or None.

    Args:
        path: a run folder, or a checkpoint in the folder of one of its stages (`RUN/model/last.ckpt`).
    """
    path = find_path(path)
    if path.name == LATEST and not path.exists():
        path = checkpoint_file(path)
    if path.is_file() and path.parent.name == "critic":
        return path
    exported = (path.parent if path.is_file() else path) / CRITIC
    if is_exported(exported) or is_exported(exported.with_name(WEIGHTS)):
        return exported if exported.is_file() else None
    run = path.parent.parent if path.is_file() or path.name == "model" else path
    return find_checkpoint(run / "critic", "critic") if (run / "critic").is_dir() else None


def critic_settings(path: str | Path) -> dict[str, Any]:
    """What a run's critic was trained with: the sections `critic` and `critic_training` of its checkpoint.

    The model's checkpoint need not say: runs with different critics may share a model.

    Args:
        path: as for `critic_file`.

    Returns:
        `{"critic": None}` where the run has no critic.
    """
    file = critic_file(path)
    if file is None:
        return {"critic": None}
    config = read_checkpoint(file, "critic")["hyper_parameters"]["config"]
    return {key: config[key] for key in ("critic", "critic_training") if key in config}


def _build_model(config: Mapping[str, Any]) -> Model:
    return build_model(ModelConfig.from_saved(config), DataSizes.from_saved(config))


def _build_critic(config: Mapping[str, Any]) -> Critic | None:
    return build_critic(CriticConfig.from_saved(config), DataSizes.from_saved(config))


def _rebuilt(
    path: Path, build: Callable[[Mapping[str, Any]], T], prefix: str
) -> tuple[T, Mapping[str, Any], dict[str, Any]]:
    """The module that a checkpoint was written of, its config, and all that the file holds.

    Args:
        build: makes the untrained module of a config as a file keeps it.
        prefix: of its weights in the file.
    """
    content = read_checkpoint(path, prefix.removesuffix("."))
    note, config = content["seqrl"], content["hyper_parameters"]["config"]
    state = content.get("state_dict", {})
    if not isinstance(state, Mapping) or not all(isinstance(each, Tensor) for each in state.values()):
        raise CheckpointError(f"{str(path)!r} holds no weights; give another checkpoint of the run")
    weights = {k.removeprefix(prefix): v for k, v in state.items() if str(k).startswith(prefix)}
    try:
        _check_size(build, config, weights)
        module = build(config)
    except ConfigError as error:
        needed = _needed(note)
        told = drop_own_file(str(error)) if needed else str(error)
        raise CheckpointError(f"{str(path)!r} cannot be rebuilt: {told}{needed}") from error
    except Exception as error:  # nobody checked what stands in it
        if not is_damage(error):
            raise
        raise CheckpointError(f"{str(path)!r} has an incomplete config ({type(error).__name__}: {error})") from error
    _tell_other_code(path, note, config)
    held, made = note.get("model"), module.made_of if isinstance(module, Model) else None
    if held != made:
        what = f"a model of {held}" if held else "no model"
        raise CheckpointError(
            f"{str(path)!r} holds {what}, and its config asks for one of {made}; load the plugins it was trained with"
        )
    try:
        if module is not None:
            module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{str(path)!r} holds weights that do not fit its own config: {error}") from error
    return module, config, content


def _check_size(
    build: Callable[[Mapping[str, Any]], Any], config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Refuse a config whose model would take more memory than its weights, before there is memory for it.

    Raises:
        ConfigError: says both sizes.
    """
    with torch.device("meta"):
        outline = build(config)
    if outline is None:
        return
    asked = sum(each.nbytes for each in (*outline.parameters(), *outline.buffers()))
    held = sum(each.nbytes for each in weights.values())
    if asked > _SMALL + 4 * held:
        raise ConfigError(f"its config asks for a model of {asked} bytes, and it holds weights of {held}")


def _tell_other_code(path: Path, note: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Say where a plugin's component has another source now than when a checkpoint was written."""
    noted = note.get("code")
    for slot in ("tokenizer", "backbone", "critic"):  # what acts
        content, part = noted.get(slot) if isinstance(noted, Mapping) else None, config.get(slot)
        if content is None or not isinstance(part, Mapping):
            continue
        if source(registry_of(slot).named_by(part).__module__) != content:
            say(f"{path} was trained with other code of {slot}={part['name']} than is loaded now")


def _needed(note: Mapping[str, Any]) -> str:
    """Which plugins a checkpoint was trained with, to be appended to an error; empty where it needed none."""
    if note.get("plugins"):
        return f" (trained with plugins={note['plugins']}; give the same)"
    origins = note.get("origins")
    if not isinstance(origins, Mapping) or not origins:
        return ""
    listed = ", ".join(f"{slot} of {origin}" for slot, origin in origins.items())
    return f" (trained with {listed}; install or load the same)"
