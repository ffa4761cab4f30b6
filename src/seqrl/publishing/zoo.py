"""The models that come with seqrl: exported folders inside the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqrl.checkpoints.exported import CONFIG, find_published, list_published, zoo_dir
from seqrl.evaluation.rows import ResultsRow
from seqrl.files import read_json
from seqrl.publishing.card import CARD


@dataclass(frozen=True)
class Published:
    """A model that comes with seqrl.

    Attributes:
        name: `checkpoint=zoo:<name>`.
        dataset, environment: what it was trained on, and where it acts.
        backbone: its network.
        size: bytes of its folder.
        use: words of `seqrl evaluate` that act with it.
        rows: its results, as they were measured with these very weights.
    """

    name: str
    dataset: str
    environment: str | None
    backbone: str
    size: int
    use: tuple[str, ...]
    rows: tuple[ResultsRow, ...]


def read_published() -> list[Published]:
    """All models that come with seqrl, by name."""
    return [_read(zoo_dir() / name) for name in list_published()]


def read_card(name: str) -> str:
    """The card of one of them, as Markdown without the front matter that the hub reads.

    Raises:
        seqrl.errors.CheckpointError: there is no such model.
    """
    text = (find_published(name) / CARD).read_text(encoding="utf-8")
    return text.partition("\n---\n")[2].strip()


def _read(folder: Path) -> Published:
    noted = read_json(folder / CONFIG)
    config: dict[str, Any] = noted["model"]["config"]
    results = folder / "results.json"
    rows = [ResultsRow.from_json(each) for each in read_json(results)["rows"]] if results.is_file() else []
    return Published(
        name=folder.name,
        dataset=config["dataset"]["name"],
        environment=config["dataset"]["env_id"],
        backbone=config["backbone"]["name"],
        size=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        use=tuple(noted["use"]),
        rows=tuple(rows),
    )
