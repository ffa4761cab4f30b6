"""Trainings that begin with the weights of another: what is taken, what is not, and what a run then is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from seqrl import EpisodeDataModule, EpisodeStore, SequenceModule, load
from seqrl.cli import train
from seqrl.errors import CheckpointError, ConfigError
from seqrl.training.warm_start import start_from

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about a trainer of ten steps
SMALL = {"num_layers": 2, "num_heads": 2, "dim": 16}
LAYOUT = {"fields": {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}}


def episodes(scale: float = 1.0, *, observations: int = 3, seed: int = 0) -> EpisodeStore:
    rng = np.random.default_rng(seed)
    made = {
        "observations": scale * rng.normal(size=(30, observations)),
        "actions": rng.uniform(-1, 1, size=(30, 2)),
        "rewards": rng.normal(size=30),
    }
    return EpisodeStore.from_episodes([{**made, "terminated": False}] * 6)


def module_for(store: EpisodeStore, seed: int = 1, **changes: Any) -> SequenceModule:
    torch.manual_seed(seed)
    settings = {"layout": LAYOUT, "tokenizer": {"name": "uniform", "num_bins": 8}, "backbone": SMALL, "window": 4}
    return SequenceModule.for_store(store, **{**settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ten steps."""
    path = tmp_path_factory.mktemp("warm") / "own.ckpt"
    store = episodes()
    module = module_for(store, seed=0)
    data = EpisodeDataModule.for_module(module, store, batch_size=16)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=10, enable_checkpointing=False, use_distributed_sampler=False, **quiet)
    trainer.fit(module, data)
    trainer.save_checkpoint(path)
    return path


def weights(module: SequenceModule) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.model.state_dict().items()}


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        (None, ("embedding.", "backbone.", "head.")),
        (["backbone"], ("backbone.",)),
        (["backbone.blocks.1", "head"], ("backbone.blocks.1.", "head.")),
    ],
)
@pytest.mark.parametrize("tokenizer", ["keep", "refit"])
def test_what_is_named_is_taken_and_the_rest_stays(
    trained: Path, parts: list[str] | None, taken: tuple[str, ...], tokenizer: Any
) -> None:
    module = module_for(episodes())
    before, source = weights(module), load(trained).model.state_dict()
    drawn = torch.get_rng_state()
    start_from(module, trained, parts=parts, tokenizer=tokenizer)
    assert torch.equal(torch.get_rng_state(), drawn), "what is drawn next depends on no checkpoint"
    for key, value in weights(module).items():
        came = key.startswith(taken) or (tokenizer == "keep" and key.startswith("tokenizer."))
        assert torch.equal(value, source[key] if came else before[key]), key
    assert module.tokenizer_fitted == (tokenizer == "keep")


@pytest.mark.parametrize("tokenizer", ["keep", "refit"])
def test_the_tokenizer_is_kept_or_fitted_to_the_new_data(trained: Path, tokenizer: Any) -> None:
    store = episodes(scale=5.0, seed=3)
    module = module_for(store)
    start_from(module, trained, tokenizer=tokenizer)
    EpisodeDataModule.for_module(module, store, batch_size=16)
    old, new = load(trained).model.tokenizer, module.model.tokenizer
    assert torch.equal(new.high, old.high) == (tokenizer == "keep")
    if tokenizer == "refit":
        assert float(new.high[:3].max()) == pytest.approx(float(store.observations.max()), rel=0.2)


def test_it_goes_on_where_the_other_training_was(trained: Path) -> None:
    """The loss of a batch is that of the trained model, and a step is one of the new optimizer."""
    store = episodes()
    module = module_for(store).eval()
    start_from(module, trained)
    data = EpisodeDataModule.for_module(module, store, batch_size=16)
    batch = next(iter(data.train_dataloader()))
    expected = load(trained).model
    logits = expected(batch.tokens, batch.goal)
    targets, mask = batch.tokens.flatten(1)[:, 1:], batch.mask.flatten(1)[:, 1:]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    weights = torch.tensor(expected.loss_weights).repeat(batch.tokens.shape[1])[1:]
    assert float(module.loss_of(batch).total) == pytest.approx(float((nats * weights * mask).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"backbone": {**SMALL, "dim": 8}}, {}, r"is of shape \(.*16.*\) in init_from and of shape \(.*8.*\) in this"),
        ({"backbone": {**SMALL, "num_layers": 3}}, {}, r"backbone.blocks.2.* is missing in init_from"),
        ({"window": 6}, {"parts": ["backbone"]}, "backbone.positions.weight is of shape .* name the parts that fit"),
        ({"tokenizer": {"name": "quantile", "num_bins": 8}}, {}, "tokenizer.name is uniform in init_from and quantile"),
        ({"tokenizer": {"name": "uniform", "num_bins": 9}}, {"parts": ["backbone"]}, "tokenizer.num_bins is 8 in init"),
        ({"layout": {"fields": {"observation": {}, "action": {}}}}, {}, "was trained on observation .* reward"),
        ({}, {"parts": ["backbon"]}, "'backbon' is no part of this model. Did you mean 'backbone'"),
        ({}, {"parts": ["tokenizer"]}, "which warm_start.tokenizer=keep or refit decides"),
    ],
)
def test_what_does_not_fit_is_refused(trained: Path, changes: Any, options: Any, words: str) -> None:
    module = module_for(episodes(), **changes)
    before = weights(module)
    with pytest.raises(ConfigError, match=words):
        start_from(module, trained, **options)
    assert all(torch.equal(value, before[key]) for key, value in weights(module).items())


def test_a_backbone_serves_data_of_other_sizes(trained: Path) -> None:
    module = module_for(episodes(observations=1), window=4)
    with pytest.raises(ConfigError, match=r"was trained on observation \(3\).* have observation \(1\)"):
        start_from(module, trained)
    start_from(module, trained, parts=["backbone.blocks"], tokenizer="refit")
    key = "backbone.blocks.0.query_key_value.weight"
    assert torch.equal(module.model.state_dict()[key], load(trained).model.state_dict()[key])


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at 'nowhere'"):
        start_from(module_for(episodes()), "nowhere")


WORDS = [
    "data=d4rl",
    "data.path=hopper-tiny.hdf5",
    "debug=fast",
    "training.progress_bar=false",
    "training.loggers=[csv]",
]
WORDS += ["evaluation=none", "training.validate_every=2", "training.checkpoint_every=2"]


def run(*words: str) -> int:
    return train.run([*WORDS, *words])


def only(pattern: str) -> Path:
    (found,) = Path("runs").glob(pattern)
    return found


def test_a_command_trains_on_and_finds_its_own_run(
    in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the first run lies; another training of the same settings is another run, and so is one without."""
    assert run("name=first", "training.max_steps=2") == 0
    first = only("first-*")
    on = ("name=on", "training.max_steps=4", f"init_from={first}")
    assert run(*on) == 0
    begun, source = load(only("on-*")), load(first)
    assert begun.step == 4
    old, kept = source.model.tokenizer.state_dict(), begun.model.tokenizer.state_dict()
    assert old
    assert all(torch.equal(old[key], kept[key]) for key in old)
    capsys.readouterr()
    shutil.move(first, "elsewhere")
    assert run(*on[:2], "init_from=elsewhere") == 0
    assert "the model is trained already" in " ".join(capsys.readouterr().out.split())
    assert len(list(Path("runs").glob("on-*"))) == 1

    assert run(*on[:2]) == 0
    assert run("name=first", "training.max_steps=2", "seed=1") == 0
    assert run(*on[:2], f"init_from={only('first-*')}") == 0
    assert run(*on[:2], "init_from=elsewhere", "warm_start.parts=[backbone]") == 0
    assert run(*on[:2], "init_from=elsewhere", "warm_start.tokenizer=refit") == 0
    assert len(list(Path("runs").glob("on-*"))) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init_from=nowhere"], "no checkpoint at 'nowhere'"),
        (["init_from=runs/latest"], "init_from=runs/latest changes with every run; name the run itself"),
        (["warm_start.tokenizer=burn"], "warm_start.tokenizer"),
        (["warm_start.parts=[]"], "warm_start.parts"),
    ],
)
def test_a_command_refuses_a_start_that_is_none(
    words: list[str], said: str, in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()


def test_a_trained_tokenizer_is_kept_without_a_stage_of_its_own(in_folder_with_data: Path) -> None:
    """`tokenizer=vq`: its stage is left out, or comes again where it is refitted."""
    vq = ("tokenizer=vq", "tokenizer.num_codes=8", "window.length=6", "training.max_steps=2")
    assert run("name=first", *vq) == 0
    first = only("first-*")
    assert run("name=kept", *vq, f"init_from={first}", "training.batch_size=8") == 0
    assert run("name=again", *vq, f"init_from={first}", "training.batch_size=8", "warm_start.tokenizer=refit") == 0
    assert not (only("kept-*") / "tokenizer").exists()
    assert (only("again-*") / "tokenizer" / "last.ckpt").exists()
    old, kept, again = (
        load(folder).model.tokenizer.state_dict() for folder in (first, only("kept-*"), only("again-*"))
    )
    assert all(torch.equal(old[key], kept[key]) for key in old)
    assert not all(torch.equal(old[key], again[key]) for key in old)
