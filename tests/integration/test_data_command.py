"""`seqrl data` as a user types it: what it prints and writes, and what it says to mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from seqrl.cli.data import run
from seqrl.sources import find_source
from seqrl.sources.d4rl import D4rlSource

pytestmark = pytest.mark.usefixtures("in_folder_with_data", "clean_plugins")

PLUGIN = '''
import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Line(gymnasium.Env):
    """A point on a line; three steps an episode. It knows no render_mode, as small environments do not."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=1), 0
        return self.place, {}

    def step(self, action):
        self.place, self.time = self.place + action, self.time + 1
        return self.place, float(-abs(self.place[0])), self.time == 3, False, {}


if "mine/Line-v0" not in gymnasium.registry:
    gymnasium.register("mine/Line-v0", Line, max_episode_steps=10)


def home(observations):
    return -observations
'''


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence that a command ends with, which must be the only one and cost status 2."""
    assert run(list(arguments)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if "Error: " in line] == said[-1:]  # some packages talk while they are imported
    return said[-1]


def spoil(path: str) -> None:
    with h5py.File(path, "a") as file:
        file["observations"][7, 3] = np.nan


def test_inspect_prints_and_writes_everything(capsys: pytest.CaptureFixture[str]) -> None:
    spoil("hopper-tiny.hdf5")
    assert run(["inspect", "hopper-tiny.hdf5", "--json", "a.json", "--png", "a.png"]) == 0
    printed = capsys.readouterr().out
    assert "60 transitions in 3 episodes: 0 terminated, 3 truncated, 0 cut" in printed
    assert "observation 3 holds 1 NaN" in printed
    assert "env_id Hopper-v4" in printed
    report = json.loads(Path("a.json").read_text())
    assert report["columns"][3]["nan"] == 1
    assert [column["name"] for column in report["columns"]][-2:] == ["action 2", "reward"]
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_takes_overrides_as_training_does(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=d4rl", "data.path=hopper-tiny.hdf5", "data.episodes=time_limit", "data.time_limit=6"]
    assert run(["inspect", *words]) == 0
    assert "in 10 episodes" in capsys.readouterr().out
    assert run(["inspect", *words[:1], "--json", "a.json", *words[1:]]) == 0  # also after a switch
    assert json.loads(Path("a.json").read_text())["episodes"] == 10
    assert "data.path is not set" in error(capsys, "inspect", "data=arrays")
    assert "Did you mean 'arrays'" in error(capsys, "inspect", "data=arays")
    assert "Did you mean 'data.path'" in error(capsys, "inspect", "data=arrays", "data.pth=x")


def test_inspect_reads_files_without_timeouts_which_training_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("hopper-tiny.hdf5", "a") as file:
        del file["timeouts"]
    Path("hopper-tiny.hdf5").rename("mine.hdf5")
    assert run(["inspect", "mine.hdf5"]) == 0
    printed = capsys.readouterr().out
    assert "note: there are no timeouts" in printed
    assert "look at: training refuses it: mine.hdf5 has no timeouts" in printed
    assert "has no timeouts" in error(capsys, "convert", "mine.hdf5", "a.npz")
    Path("mine.hdf5").rename("hopper-mine.hdf5")  # of a family whose resets can be told
    assert run(["inspect", "hopper-mine.hdf5"]) == 0
    printed = capsys.readouterr().out
    assert "note: its flags are read by episodes=time_limit" in printed
    assert "training refuses it" not in printed


def test_outputs_that_exist_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.json").write_text("mine")
    Path("a.npz").write_text("mine")
    assert "exists already" in error(capsys, "inspect", "hopper-tiny.hdf5", "--json", "a.json")
    assert "exists already" in error(capsys, "convert", "hopper-tiny.hdf5", "a.npz")
    assert "exists already" in error(capsys, "collect", "Hopper-v4", "a.npz", "--episodes", "1")
    assert {Path("a.json").read_text(), Path("a.npz").read_text()} == {"mine"}
    assert run(["inspect", "hopper-tiny.hdf5", "--json", "a.json", "--overwrite"]) == 0
    assert run(["convert", "hopper-tiny.hdf5", "a.npz", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "is an empty file"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "cannot be read by HDF5"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(50)), "is truncated or damaged"),
        (lambda path: path.write_text("a,b"), "is neither an HDF5 nor an NPZ file"),
        (lambda path: h5py.File(path, "w").close(), "lacks observations and actions and rewards and terminals"),
        (lambda path: None, "there is no file"),
    ],
    ids=["empty", "hdf5", "npz", "text", "keys", "missing"],
)
def test_unreadable_files_are_one_sentence(make: object, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    make(Path("bad.hdf5"))  # type: ignore[operator]
    for command in (["inspect", "bad.hdf5"], ["convert", "bad.hdf5", "a.npz"]):
        assert words in error(capsys, *command)
    assert not Path("a.npz").exists()


def test_unknown_names_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'hopper-medium-v2'" in error(capsys, "inspect", "hopper-medum-v2")
    assert "Gymnasium knows no environment 'Hoper-v4'" in error(
        capsys, "collect", "Hoper-v4", "a.npz", "--episodes", "1"
    )
    assert "policy 'randm' is unknown" in error(
        capsys, "collect", "Hopper-v4", "a.npz", "--episodes", "1", "--policy", "randm"
    )
    assert "'strategy=reward' is for checkpoints" in error(
        capsys, "collect", "Hopper-v4", "a.npz", "strategy=reward", "--episodes", "1"
    )
    assert "data.maze='tiny' is unknown. Choices: umaze" in error(capsys, "generate", "maze2d", "--maze", "tiny")
    assert "has no known format" in error(capsys, "convert", "hopper-tiny.hdf5", "a.csv")
    with pytest.raises(SystemExit):
        run(["convert", "hopper-tiny.hdf5", "a.npz", "b.npz"])


def test_a_recorded_plugin_environment_is_trained_on_and_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    from seqrl.cli import train

    Path("mine.py").write_text(PLUGIN)
    amount = ["--episodes", "30", "--plugins", "mine.py"]
    assert run(["collect", "mine/Line-v0", "line.npz", "--policy", "mine.py:home", *amount]) == 0
    flat = find_source("line.npz").read()
    np.testing.assert_allclose(flat.actions, np.clip(-flat.observations, -1, 1))
    assert flat.attributes["env_id"] == "mine/Line-v0"
    fast = ["debug=fast", "training.progress_bar=false", "training.loggers=[csv]", "window.length=3"]
    words = ["data=arrays", "data.path=line.npz", "plugins=[mine.py]", *fast, "planner.context=2"]
    assert train.run(words) == 0, capsys.readouterr().err
    (folder,) = Path("runs").iterdir()
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["env_id"] for row in rows} == {"mine/Line-v0"}

    decoding = ["strategy=imitation", "planner.temperature=0"]
    again = ["--plugins", "mine.py", "--policy", str(folder), "--episodes", "3"]
    assert run(["collect", "mine/Line-v0", "policy.hdf5", *again, *decoding]) == 0
    assert D4rlSource("policy.hdf5").load().terminated.tolist() == [True] * 3
    goal = error(capsys, "collect", "mine/Line-v0", "b.npz", "strategy=goal", *again)
    assert "layout has no goal" in goal


def test_convert_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", "hopper-tiny.hdf5", "a.npz"]) == 0
    assert "written: a.npz (60 transitions, 3 episodes)" in capsys.readouterr().out
    assert run(["convert", "a.npz", "b.hdf5"]) == 0
    one, two = D4rlSource("hopper-tiny.hdf5").load(), D4rlSource("b.hdf5").load()
    assert one.fingerprint() == two.fingerprint()
    assert two.attributes["env_id"] == "Hopper-v4"  # guessed from the first name, kept in the second file


def test_generate_maze2d_gives_a_file_of_d4rls() -> None:
    words = ["generate", "maze2d", "maze2d-umaze-mine.hdf5", "--transitions", "700", "--seed", "3"]
    assert run(words) == 0
    store = D4rlSource("maze2d-umaze-mine.hdf5").load()
    assert (len(store), store.attributes["env_id"]) == (700, "seqrl/Maze2d-Umaze-v1")
    assert store.lengths.tolist() == [300, 300, 100]
    assert run(words) == 2
    assert run([*words, "--overwrite"]) == 0


def test_list_shows_the_catalogue_and_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    from seqrl.d4rl.catalogue import find

    assert run(["list", "hopper", "v2"]) == 0
    shown = capsys.readouterr().out
    assert "hopper-medium-v2" in shown
    assert "halfcheetah" not in shown
    entry = find("hopper-medium-v2")
    entry.target.parent.mkdir(parents=True, exist_ok=True)
    entry.target.write_bytes(bytes(2_000_000))
    try:
        assert run(["list", "--cached"]) == 0
    finally:
        entry.target.unlink()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "hopper" in line]
    assert "hopper-medium-v2" in line
    assert "2 MB" in line


def test_the_command_is_there_and_starts_without_hydra() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "seqrl", "data", "list", "hopper-medium-v2"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hopper-medium-v2" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "seqrl.d4rl.catalogue" in imported
    assert imported & {"hydra", "torch", "gymnasium", "lightning", "matplotlib"} == set()


@pytest.mark.parametrize("word", ["plugins=[{}]", "plugins={}"])
def test_plugins_are_named_as_for_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clean_plugins: None, word: str
) -> None:
    file, told = tmp_path / "mine.py", tmp_path / "told"
    file.write_text(f"from pathlib import Path\nPath({str(told)!r}).touch()\n")
    with pytest.raises(SystemExit):
        run(["list", word.replace("{}", str(file))])
    assert not told.exists()
    np.savez(tmp_path / "d.npz", observations=np.zeros((4, 2)), actions=np.zeros((4, 1)), rewards=np.zeros(4),
             terminals=np.zeros(4, bool), timeouts=np.array([0, 0, 0, 1], bool))  # fmt: skip
    assert run(["inspect", str(tmp_path / "d.npz"), word.replace("{}", str(file))]) == 0
    assert told.exists()
