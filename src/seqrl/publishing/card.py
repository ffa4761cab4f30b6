"""The card of a published model: what it is, what made it, what it earns, how it is used."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqrl.checkpoints.exported import CONFIG, WEIGHTS
from seqrl.checkpoints.loaded import Loaded
from seqrl.data.summary import DataSummary
from seqrl.evaluation.wording import shorten_data_name
from seqrl.files import read_json
from seqrl.runs.yaml_files import read_yaml

CARD = "README.md"
_FOLDERS = re.compile(r"(?:(?<=[=,\[])|^)(?:~|\.{1,2})?/[^,\]]*/")  # of a path in a word


def write_card(
    folder: Path,
    name: str,
    loaded: Loaded,
    dataset: DataSummary,
    table: str | None,
    command: str | None,
    *,
    half: bool,
    use: Sequence[str] = (),
) -> None:
    """Write the card into a folder.

    Args:
        name: of the model.
        table: rows of results, as Markdown; None where nothing was evaluated.
        command: what trained it.
        half: whether the weights are float16.
        use: words of `seqrl evaluate`, beside `checkpoint=`.
    """
    lines = _lines(name, loaded, dataset, table, command, half=half, use=use)
    (folder / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8")


def find_command(run: Path) -> str | None:
    """The command that trained the model of a run, or of an exported folder, without the folders of its paths.

    Returns:
        None where nothing says.
    """
    try:
        if (run / CONFIG).is_file() and (run / WEIGHTS).is_file():
            command = read_json(run / CONFIG)["command"]
        else:
            command = read_yaml(run / "provenance.yaml")[0]["command"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not isinstance(command, str):
        return None
    try:
        return shlex.join(_FOLDERS.sub("", word) for word in shlex.split(command))
    except ValueError:  # a quote without its other one
        return None


def _lines(
    name: str,
    loaded: Loaded,
    dataset: DataSummary,
    table: str | None,
    command: str | None,
    *,
    half: bool,
    use: Sequence[str],
) -> Iterator[str]:
    config = loaded.config
    tags = ["reinforcement-learning", "offline-reinforcement-learning", "sequence-modelling"]
    yield "---"
    yield "library_name: seqrl"
    yield "pipeline_tag: reinforcement-learning"
    yield "tags:"
    yield from (f"- {tag}" for tag in tags)
    yield "---"
    yield f"# {name}"
    yield ""
    kind, backbone = loaded.model.made_of, config["backbone"]["name"]
    count = sum(each.numel() for each in loaded.model.parameters())
    precision = ", float16" if half else ""
    yield f"A model of {kind} (`backbone={backbone}`, {count:,} parameters{precision}) of trajectories,"
    size = f"{dataset.num_transitions:,} transitions, {dataset.num_episodes:,} episodes"
    yield f"trained on {shorten_data_name(dataset.name)} ({size})"
    yield f"for {loaded.step:,} steps, training seed {config['seed']}."
    if dataset.env_id is not None:
        yield f"Environment: `{dataset.env_id}`."
    yield ""
    if command is not None:
        yield from ("## What made it", "", "```sh", command, "```", "")
        listed = ", ".join(f"{package} {version}" for package, version in sorted(loaded.versions.items()))
        yield from (f"With {listed}.", "") if listed else ()
    if table is not None:
        yield from ("## Results", "", table.strip(), "")
    yield from (
        "## Use",
        "",
        "```sh",
        " ".join(["seqrl evaluate checkpoint=FOLDER", *map(shlex.quote, use)]),
        "```",
        "",
        "```python",
    )
    yield from ("import seqrl", "", 'model = seqrl.load("FOLDER").model', "```", "")
    yield "`sha256sum -c SHA256SUMS` tells whether all is as it was written. Nothing in this folder is code."
