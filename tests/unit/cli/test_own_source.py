"""What is wrong with the arrays of a source of one's own is told before anything is trained, under its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqrl.cli import train

pytestmark = pytest.mark.usefixtures("clean_plugins")

SOURCE = """
import numpy as np
from seqrl import DataSource, EpisodeStore, register_data

@register_data("ragged")
class Ragged(DataSource):
    def load(self):
        rng = np.random.default_rng(0)
        episodes = [
            {
                "observations": rng.normal(size=(9, 3)), "actions": rng.uniform(-1, 1, size=(9, 1)),
                "rewards": rng.normal(size=9), "terminated": False, "energy": ENERGY,
            }
            for _ in range(6)
        ]
        return EpisodeStore.from_episodes(episodes, extras=("energy",), attributes=ATTRIBUTES)
"""
WORDS = [
    *("plugins=[mine.py]", "data=ragged", "window.length=4", "tokenizer.num_bins=8", "evaluation=none"),
    *("training.max_steps=2", "training.batch_size=4", "training.progress_bar=false"),
]


@pytest.mark.parametrize(
    ("energy", "attributes", "told"),
    [
        ("np.where(np.arange(9) == 2, np.nan, 1.0)", "{}", "ragged: 'energy' holds nan at row 2"),
        ("np.arange(9)", "{}", "ragged: 'energy' holds whole numbers"),
        ("np.array(list('abcdefghi'))", "{}", "ragged: 'energy' is of type"),
        ("np.full(9, np.inf)", "{'name': 'logbook'}", "logbook: 'energy' holds inf at row 0"),
    ],
)
def test_odd_extras_are_refused_before_the_run_folder_is_announced(
    energy: str,
    attributes: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SOURCE.replace("ENERGY", energy).replace("ATTRIBUTES", attributes))
    assert train.run([*WORDS, "+layout.fields.energy={}"]) == 2
    out, err = capsys.readouterr()
    assert f"DataError: {told}" in " ".join(err.split())
    assert "run folder" not in out
