"""From a run to a folder that holds what acting needs, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrl.checkpoints.exported import is_exported, write_digests, write_exported
from seqrl.checkpoints.loading import checkpoint_file, critic_file, landmarks_file, load, load_critic, run_folder
from seqrl.checkpoints.reading import read_checkpoint
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import ROW, list_evaluations, read_row
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.tables import write_tables
from seqrl.files import write_folder
from seqrl.publishing.card import find_command, write_card
from seqrl.publishing.single_pass import check_single_pass, write_policies

RESULTS = "results.md"
_ROUNDED = "the rows were measured with the weights of the run; to have those of float16, evaluate"


def export_model(
    source: str | Path,
    folder: Path,
    *,
    half: bool = False,
    overwrite: bool = False,
    use: Sequence[str] = (),
    onnx: bool = False,
) -> Iterator[str]:
    """Write a run's model, critic and landmarks in the layout of the Hugging Face hub; yields what is to be told.

    See `seqrl.checkpoints.exported` for the files. The card is made from the run's commands and data, and from the
    evaluations of these weights.

    Args:
        source: whatever `checkpoint=` takes; an exported folder as well, whose own evaluations make the card then.
        folder: a new one.
        half: whether weights are kept as float16.
        overwrite: whether a folder with content is replaced.
        use: words of `seqrl evaluate` for the card, beside `checkpoint=`.
        onnx: whether policies of one pass are written as ONNX files, too; see `seqrl.publishing.single_pass`.

    Raises:
        seqrl.errors.SeqrlError: a checkpoint that cannot be loaded, a folder with content, or a policy that ONNX cannot
            hold; nothing is written then.
    """
    if folder.exists() and not overwrite and (folder.is_file() or any(folder.iterdir())):
        raise ConfigError(f"{str(folder)!r} exists already; choose another name, or --overwrite it")
    checkpoint = checkpoint_file(source)
    yield f"reading {checkpoint}"
    loaded = load(checkpoint)
    critic, graph = critic_file(checkpoint), landmarks_file(checkpoint)
    if onnx:
        check_single_pass(loaded.model, load_critic(checkpoint))
    run = run_folder(checkpoint)
    every, command = _read_rows(run), find_command(run)
    rows = [row for row in every if row.training_steps == loaded.step]
    with write_folder(folder, overwrite=overwrite) as new:
        write_exported(
            new,
            _without_places(read_checkpoint(checkpoint, "model")),
            None if critic is None else _without_places(read_checkpoint(critic, "critic")),
            half=half,
            command=command,
            use=use,
        )
        _copy_landmarks(graph, new)
        policies = (yield from _write_policies(new)) if onnx else []
        if rows:
            write_tables(new, rows, [], loaded.dataset)
        table = (new / RESULTS).read_text(encoding="utf-8") if rows else None
        write_card(new, folder.name, loaded, loaded.dataset, table, command, half=half, use=use)
        write_digests(new)
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    yield f"written: {', '.join([f'{folder}', f'{size / 1e6:.2f} MB', f'{len(rows)} rows of results', *policies])}"
    if len(rows) < len(every):
        yield f"left out: {len(every) - len(rows)} rows of the run's weights at other steps than {loaded.step}"
    if half and rows and not is_exported(checkpoint):
        yield f"{_ROUNDED} checkpoint={folder} and export that folder"


def _copy_landmarks(graph: Path, folder: Path) -> None:
    if graph.is_file():
        (folder / "landmarks").mkdir()
        shutil.copyfile(graph, folder / "landmarks" / graph.name)


def _read_rows(run: Path) -> list[ResultsRow]:
    """The results rows of a run, the oldest first."""
    evaluations = sorted(list_evaluations(run), key=lambda each: (each / ROW).stat().st_mtime_ns)
    return [read_row(each) for each in evaluations]


def _write_policies(folder: Path) -> Generator[str, None, list[str]]:
    """Names of the ONNX files of a folder, which are made of its own weights: of half precision, perhaps."""
    write_digests(folder)  # which loading asks for
    return (yield from write_policies(folder, load(folder).model, load_critic(folder)))


def _without_places(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint whose config and notes name files, and not where they lay on the machine that trained it."""
    note, config = dict(content["seqrl"]), dict(content["hyper_parameters"]["config"])
    note["plugins"] = [_file_name(each) for each in note.get("plugins") or []]
    note.pop("machine", None)
    config["plugins"] = [_file_name(each) for each in config.get("plugins") or []]
    config.pop("runs_dir", None)
    if "data" in config:
        config["data"] = _shorten(config["data"])
    return {**content, "seqrl": note, "hyper_parameters": {"config": config}}


def _shorten(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: None if key == "cache_dir" else _shorten(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shorten(each) for each in value]
    return _file_name(value) if isinstance(value, str) else value


def _file_name(text: str) -> str:
    return text.rpartition("/")[2] if text.startswith(("/", "~", ".")) else text
