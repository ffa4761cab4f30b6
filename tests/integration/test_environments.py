"""Environments that do not keep to Gymnasium's rules: told before a training, or with the step in which they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from seqrl.cli import data, evaluate, train

WORDS = ["data=arrays", "data.path=mine.npz", "debug=fast", "training.max_steps=2", "training.progress_bar=false"]
ROWS = ["strategy=imitation", "evaluation.settings.max_steps=null", "evaluation.settings.progress_bar=false"]
PLUGIN = """
import gymnasium as gym, numpy as np
from gymnasium.spaces import Box
class Mine(gym.Env):
    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Box(0, 9, (1,), np.int64)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed); self.t = 0; return np.zeros(3, np.float32), {}
    def step(self, action):
        self.t += 1
        assert isinstance(action, np.ndarray) and action.dtype == np.int64
        return OBSERVATION, REWARD, ENDED, CUT, {}
gym.register("odd/Task-v0", Mine, max_episode_steps=LIMIT)
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez(
        "mine.npz",
        observations=rng.normal(size=(120, 3)),
        actions=rng.uniform(0, 9, size=(120, 1)),
        rewards=rng.normal(size=120),
        offsets=np.arange(0, 121, 20),
    )
    yield
    gymnasium.registry.pop("odd/Task-v0", None)


def plugin(**code: str) -> list[str]:
    usual = {"OBSERVATION": "np.zeros(3)", "REWARD": "1.0", "ENDED": "False", "CUT": "False", "LIMIT": "4"}
    text = PLUGIN
    for key, value in {**usual, **code}.items():
        text = text.replace(key, value)
    Path("odd.py").write_text(text)
    return ["plugins=[odd.py]", "data.env_id=odd/Task-v0"]


def is_trained() -> bool:
    return any(Path("runs").glob("*/model/last.ckpt"))


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ({"LIMIT": "None"}, "has no time limit; give evaluation.settings.max_steps"),
        ({"REWARD": "np.nan"}, "gives the reward nan in step 1"),
        ({"REWARD": "None"}, "gives the reward None"),
        ({"OBSERVATION": "np.zeros(4)"}, "its space has 3 numbers"),
        ({"CUT": "False, 0"}, "fails in step 1 (ValueError: too many values to unpack"),
        (
            {"REWARD": "self.nothing"},
            "fails in step 1 (AttributeError: 'Mine' object has no attribute 'nothing'; odd.py, ",
        ),
    ],
)
def test_it_is_told_before_the_training(
    code: dict[str, str], words: str, check: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.run([*WORDS, *ROWS, *plugin(**code), *check]) == 2
    said = capsys.readouterr().err
    assert "odd/Task-v0 " in said
    assert words in said
    assert "Traceback" not in said
    assert not is_trained()


@pytest.mark.parametrize("number", ["np.nan", "np.inf", "1e300"])
@pytest.mark.parametrize("key", ["REWARD", "OBSERVATION"])
def test_a_later_fault_is_told_with_its_step(key: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = {"REWARD": f"{number} if self.t == 3 else 1", "OBSERVATION": f"np.full(3, {number} if self.t == 3 else 0)"}
    assert train.run([*WORDS, *ROWS, *plugin(**{key: code[key]})]) == 2
    said = capsys.readouterr()
    assert "odd/Task-v0 gives " in said.err
    assert "in step 3" in said.err
    assert "checkpoint" not in said.err
    assert "nan" not in said.out
    assert is_trained()
    assert data.run(["collect", "odd/Task-v0", "new.npz", "--episodes", "1", "--plugins", "odd.py"]) == 2
    assert not Path("new.npz").exists()


@pytest.mark.parametrize("code", [{"ENDED": "self.t == 4"}, {"REWARD": "-(action / 9) ** 2"}, {"CUT": "self.t == 2"}])
def test_what_gymnasium_allows_is_evaluated(code: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.run([*WORDS, *ROWS, *plugin(**code)]) == 0, capsys.readouterr().err


def test_a_checkpoint_is_checked_with_its_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.run([*WORDS, "evaluation=none"]) == 0
    (file,) = Path("runs").glob("*/model/last.ckpt")
    words = [f"checkpoint={file}", "strategy=imitation", "--check"]
    for env_id, said in (
        ("Nope-v3", "Gymnasium knows no environment 'Nope-v3'"),
        ("Hopper-v4", "data has 3 observation dimensions and Hopper-v4 has 11"),
        ("odd/Task-v0", "has no time limit"),
    ):
        assert evaluate.run([*words, *plugin(LIMIT="None")[:1], f"env_id={env_id}"]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert "sound" not in captured.out
    assert evaluate.run([*words, "plugins=[odd.py]", "env_id=odd/Task-v0", "max_steps=3"]) == 0
    assert "sound" in capsys.readouterr().out
