"""Pages of runs and sweeps: whole, without network, and safe whatever names and files say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seqrl.cli import report as command
from seqrl.config import RunConfig
from seqrl.evaluation.archive import Evaluation, write_evaluation
from seqrl.evaluation.jobs import Job, locate_record, write_job
from seqrl.evaluation.recording import PLANS, TRAJECTORIES
from seqrl.evaluation.rows import ResultsRow
from seqrl.reports.figures import WIDTH, Series, draw_intervals, draw_series
from seqrl.reports.page import write_report
from seqrl.reports.plans import collect_plans
from seqrl.runs.metrics import Metric, write_metrics

EVIL = '<script>alert("1")</script>\'"&<img src=x onerror=alert(2)>'
PIXEL = bytes.fromhex("89504e470d0a1a0a") + b"picture"
VOID = {"meta", "img", "br", "line", "link", "input"}


class Page(HTMLParser):
    """The elements, texts and addresses of a page, whose elements must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "poster")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)


def write_plans(folder: Path) -> None:
    """Two episodes of 6 and 4 steps and plans of three transitions; the first observation counts the steps."""
    lengths, number = [6, 4], [0, 1]
    observations = np.concatenate([np.stack([np.arange(n), 10 * np.arange(n)], 1) for n in lengths]).astype(np.float32)
    rewards = np.ones(10, np.float32)
    np.savez(
        folder / TRAJECTORIES, observations=observations, actions=-observations[:, :1], rewards=rewards,
        offsets=np.array([0, 6, 10]), episode=np.repeat(number, lengths),
        final_observations=np.array([[6, 60], [4, 40]], np.float32), speed=np.arange(10.0),
    )  # fmt: skip
    imagined = np.arange(3 * 3 * 2, dtype=np.float32).reshape(3, 3, 2)
    imagined[2, 2] = np.nan
    np.savez(
        folder / PLANS, time=np.array([0, 0, 5]), episode=np.array([0, 1, 0]), score=np.array([1, 2, np.inf]),
        horizon=np.array([3, 3, 2]), observation=imagined, action=imagined[..., :1], value=imagined[..., :1],
        **{"extras.speed": imagined[..., 1:]},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> Path:
    """A run whose every text is hostile."""
    folder = tmp_path / "runs" / "run <script>x"
    place = folder / "evaluations" / "a-1"
    place.mkdir(parents=True)
    config: dict[str, Any] = {**RunConfig().to_dict(), "experiment_name": EVIL}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    status = {"model": {"state": "failed", "step": 7, "reason": EVIL}}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "identity.json").write_text(json.dumps({EVIL: {EVIL: EVIL}}))
    (folder / "provenance.yaml").write_text(
        yaml.safe_dump([{"host": "my-laptop", "command": EVIL, "overrides": [EVIL]}])
    )
    (folder / "tokenizer.csv").write_text('field,dim\n"</script>",1\n')
    (folder / "results.json").write_text(
        json.dumps({"dataset": {"name": EVIL, "standard_deviations": {EVIL: [1.23456789]}}})
    )
    logged = [
        Metric(step, name, 50.0 / step) for step in range(1, 900) for name in ("train/loss", f"val/{EVIL}", "val/loss")
    ]
    write_metrics(folder / "metrics.csv", logged)
    values = np.array([[1.0], [3.0], [8.0]])
    row = make_row(strategy=EVIL, env_id="seqrl/Maze2d-Umaze-v1", score_mean=None, score_ci95=None, return_mean=4.0)
    write_evaluation(Evaluation(place, row, {"returns": values}, []))
    write_plans(place)
    (place / "rollout.mp4").write_bytes(b"film")
    (folder / "paths.png").write_bytes(PIXEL)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def test_a_page_of_a_run_holds_everything_and_reaches_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in run.iterdir())
    assert command.run([str(run)]) == 0
    assert capsys.readouterr().out.split(": ", 1)[1].strip() == str(run / "report.html")
    assert sorted(path.name for path in run.iterdir()) == sorted([*before, "report.html"]), "nothing half is left"
    text = (run / "report.html").read_text()
    page, told = Page(text), "".join(Page(text).texts)
    for part in (
        "What was trained on what",
        "Data",
        "Learning curves",
        "Results",
        "Pictures and films",
        "Plans, step by",
    ):
        assert part in told
    assert "4.0 [1.0, 5.3]" in told
    assert "1.2346" in told
    assert {address.partition(";")[0] for address in page.addresses} == {"data:image/png", "data:video/mp4"}
    assert len(page.addresses) == 2, "the link to a file outside of the run is not followed"
    assert "my-laptop" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/)|url\(|@import", text), "nothing is fetched"


def test_texts_of_strangers_are_texts(run: Path) -> None:
    text = write_report(run).read_text()
    page = Page(text)
    assert page.handlers == []
    assert len(page.scripts) == page.tags.count("script") == 2, "that of the page and the numbers of the plans"
    assert json.loads(page.scripts[0])["label"] == EVIL
    assert not set("<>&") & set(page.scripts[0]), "nothing in it begins or ends an element or a comment"
    assert "<script>x" not in text
    told = "".join(page.texts)
    assert told.count(EVIL) >= 8, "wherever a name, label, reason, setting or digest stands, it stands as it is"
    assert "".join(page.texts).count("run <script>x") >= 2


def test_the_page_of_a_damaged_run_says_what_is_damaged(run: Path) -> None:
    for name in ("status.json", "identity.json", "provenance.yaml", "results.json"):
        (run / name).write_text("{[")
    (run / "evaluations" / "a-1" / PLANS).write_bytes(b"PK")
    page = Page(write_report(run).read_text())
    told = "".join(page.texts)
    for name in ("status.json", PLANS):
        assert name in told
    assert str(run) not in told, "folders of this machine are nobody's business"
    assert "Results" in told
    (run / "config.yaml").write_text("{[")
    assert "config.yaml" in "".join(Page(write_report(run).read_text()).texts)


@pytest.mark.parametrize("missing", ["evaluations", "metrics.csv", "provenance.yaml", "identity.json", "results.json"])
def test_what_is_not_there_is_left_out(run: Path, missing: str) -> None:
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    Page(write_report(run).read_text())


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([str(tmp_path)]) == 2
    assert command.run([str(tmp_path / "gone")]) == 2
    assert "there is no run or sweep in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_is_one_page(run: Path, tmp_path: Path) -> None:
    other = run.parent / "second"
    shutil.copytree(run, other, symlinks=True)
    sweep = tmp_path / "runs" / "sweep"
    (sweep / "jobs").mkdir(parents=True)
    for number, folder in enumerate((run, other)):
        job = Job(
            [f"seed={number}", EVIL], "done", str(folder), number=number, results=[str(folder / "evaluations/a-1")]
        )
        write_job(locate_record(sweep, job.overrides), job)
    failed = Job(["seed=2"], "failed", None, error=EVIL, number=2)
    write_job(locate_record(sweep, failed.overrides), failed)
    page = Page(write_report(sweep, tmp_path / "out" / "page.html").read_text())
    told = "".join(page.texts)
    assert "held-out loss (val/loss) of the runs" in told
    assert "second" in told
    assert "seed=2" in told
    assert page.tags.count("video") == 2


def test_plans_stand_beside_what_happened(tmp_path: Path) -> None:
    write_plans(tmp_path)
    found = collect_plans(tmp_path, "row", "Hopper-v4", {"stride": 1, "discount": 0.5})
    assert found is not None
    assert [field["name"] for field in found["fields"]] == ["observation", "action", "value", "extras.speed"]
    assert found["episodes"][1]["happened"]["extras.speed"] == [[6, 7, 8, 9]]
    first, second = found["episodes"]
    assert first["happened"]["observation"][0] == [0, 1, 2, 3, 4, 5, 6]
    assert first["happened"]["value"][0] == [1.938, 1.875, 1.75, 1.5, 1, 0], "discounted rewards after each step"
    assert [(plan["time"], plan["score"]) for plan in first["plans"]] == [(0, 1), (5, None)]
    assert first["plans"][1]["imagined"]["observation"] == [[12, 14], [13, 15]]
    assert second["plans"][0]["imagined"]["action"] == [[6, 8, 10]]
    assert found["maze"] is None
    strided = collect_plans(tmp_path, "row", "seqrl/Maze2d-Umaze-v1", {"stride": 2})
    assert strided is not None
    assert "value" not in strided["episodes"][0]["happened"], "a reward of two steps is not one of them"
    assert len(strided["maze"]["rows"]) == 5
    (tmp_path / TRAJECTORIES).unlink()
    assert collect_plans(tmp_path, "row", "Hopper-v4", {}) is None


def test_curves_lie_where_their_numbers_are() -> None:
    figure = draw_series("loss", [Series("a", [0, 50, 100], [1.0, 3.0, 2.0])])
    assert figure is not None
    places = [tuple(map(float, point.split(","))) for point in figure.lines[0].points.split()]
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[1][1] < places[2][1] < places[0][1], "higher numbers stand higher, where y is smaller"
    np.testing.assert_allclose(places[1][0], (places[0][0] + places[2][0]) / 2)
    assert {text for _, text in figure.across} >= {"0", "50", "100"}
    many = draw_series("loss", [Series("a", list(range(5000)), [float(x) for x in range(5000)])])
    assert many is not None
    assert len(many.lines[0].points.split()) <= 401
    assert draw_series("nothing", []) is None
    for last in (1500, 900_000, 1_000_000):  # 13 pixels high, texts are not cut at the edge
        across = draw_series("loss", [Series("a", [0, last], [1.0, 2.0])]).across  # type: ignore[union-attr]
        assert all(place + 7.5 * len(text) / 2 <= WIDTH for place, text in across)
    steep = draw_series("loss", [Series("a", [1, 2, 3], [1.0, 10.0, 100.0])])
    assert steep is not None
    ys = [float(point.split(",")[1]) for point in steep.lines[0].points.split()]
    np.testing.assert_allclose(ys[0] - ys[1], ys[1] - ys[2], atol=0.2)
    assert draw_series("flat", [Series("a", [5], [2.0])]) is not None


def test_intervals_share_a_scale() -> None:
    low, high, alone = draw_intervals([("a", "", 1.0, [0.0, 2.0]), ("b", "", 9.0, [8.0, 10.0]), ("c", "", 5.0, None)])
    assert (low.start, low.place, high.place) == pytest.approx((2.0, 11.6, 88.4))
    assert low.length == pytest.approx(high.length)
    assert alone.start is None
    assert draw_intervals([("a", "", float("nan"), None)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(run: Path, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = write_report(run)
    probe = "document.title = [document.querySelectorAll('.charts svg').length, document.documentElement.scrollWidth]"
    text = page.read_text().replace("show();\n  }\n})();", f"show();\n  }}\n  {probe};\n}})();")
    (tmp_path / "probe.html").write_text(text)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--window-size={width},900"]
    shown = subprocess.run(
        [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "probe.html").as_uri()],
        capture_output=True, encoding="utf-8", check=True, timeout=120,
    ).stdout  # fmt: skip
    match = re.search(r"<title>(\d+),(\d+)</title>", shown)
    assert match is not None, shown[:500]
    charts, wide = map(int, match.groups())
    assert charts == 5, "two dimensions of the observation, one of the action, the value and an extra"
    assert wide <= max(width, 500), "nothing is wider than the window"
