"""The trajectory autoencoder: what codes may know, how the codebook follows, and its training stage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from seqrl.checkpoints.loading import load
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import TOKENIZER
from seqrl.testing.samples import scramble
from seqrl.tokenizers._codebook import Codebook
from seqrl.tokenizers._report import reconstruction_report
from seqrl.tokenizers.vq import VqTokenizer
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.module import SequenceModule
from seqrl.training.tokenizer_module import TokenizerModule

OBSERVATION, ACTION, WINDOW, STEPS = 3, 2, 12, 3
SIZE = OBSERVATION + ACTION + 2
BACKBONE = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:The `srun` command is available",
    "ignore:Total length of `list` across ranks is zero",
    "ignore:.*your dataloader is not resumable",
)


def make_layout(**changes: Any) -> Layout:
    fields = {"observation": {}, "action": {"loss_weight": 5.0}, "reward": {}, "value": {"hidden": True}}
    return Layout.from_config({"fields": fields, "discount": 0.9, **changes}, OBSERVATION, ACTION)


def make_tokenizer(layout: Layout | None = None, *, window: int = WINDOW, **options: Any) -> VqTokenizer:
    """In float64 and eval mode, with weights at which everything matters, and codes among its features."""
    config = {"name": "vq", "num_codes": 16, "code_dim": 8, "steps_per_code": STEPS, "backbone": BACKBONE, **options}
    tokenizer: VqTokenizer = TOKENIZER.build(config, size=SIZE, layout=layout or make_layout(), window=window)
    tokenizer = tokenizer.double().eval()
    scramble(tokenizer)
    tokenizer.fit(3.0 * random(1000, SIZE, seed=9) + 1.0)
    features = tokenizer._features(*split(random(16, WINDOW, SIZE, seed=8)))
    tokenizer.codebook.vectors.copy_(features.flatten(0, 1).detach()[torch.randperm(64)[:16]])
    tokenizer.codebook.sums.copy_(tokenizer.codebook.vectors)
    tokenizer.codebook.idle.zero_()
    return tokenizer


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def split(windows: Tensor) -> tuple[Tensor, Tensor]:
    over = windows[..., 0].isnan()
    return windows.nan_to_num(0.0), over


def everywhere(windows: Tensor) -> Tensor:
    return torch.ones(windows.shape[:2], dtype=torch.bool)


def test_code_knows_transitions_up_to_its_own_and_no_later_one() -> None:
    tokenizer = make_tokenizer()
    windows = random(64, WINDOW, SIZE)
    before = tokenizer.encode_windows(windows)
    assert before.shape == (64, WINDOW // STEPS)
    for step in range(WINDOW):
        changed = windows.clone()
        changed[:, step] = random(64, SIZE, seed=step + 1)
        after = tokenizer.encode_windows(changed)
        assert torch.equal(after[:, : step // STEPS], before[:, : step // STEPS])
        assert not torch.equal(after[:, step // STEPS], before[:, step // STEPS])


def test_decoded_transition_knows_the_state_and_codes_up_to_its_own() -> None:
    tokenizer = make_tokenizer()
    codes, state = torch.randint(16, (8, 4), generator=torch.Generator().manual_seed(0)), random(8, OBSERVATION)
    before = tokenizer.decode_codes(codes, state)
    assert before.shape == (8, WINDOW, SIZE)
    for place in range(4):
        other = codes.clone()
        other[:, place] = (codes[:, place] + 1) % 16
        after = tokenizer.decode_codes(other, state)
        assert torch.allclose(after[:, : place * STEPS], before[:, : place * STEPS], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, place * STEPS], before[:, place * STEPS])
    assert not torch.allclose(
        tokenizer.decode_codes(codes, state + 1.0)[:, :, OBSERVATION:], before[:, :, OBSERVATION:]
    )


def test_imagined_codes_that_branch_are_what_whole_sequences_decode_to() -> None:
    tokenizer = make_tokenizer()
    state = random(2, OBSERVATION)
    imagination = tokenizer.imagine(state)
    codes = torch.tensor([[3], [5], [3], [7]])
    owners = torch.tensor([0, 0, 1, 1])
    parts, _ = imagination.grow(codes, owners)
    for chosen, new in (([0, 3, 3], [1, 2, 3]), ([2, 1, 0, 0], [4, 4, 5, 6])):
        rows = torch.tensor(chosen)
        grown, _ = imagination.grow(torch.tensor(new)[:, None], rows)
        parts, owners = torch.cat([parts[rows], grown], 1), owners[rows]
        codes = torch.cat([codes[rows], torch.tensor(new)[:, None]], 1)
    assert torch.allclose(parts, tokenizer.decode_codes(codes, state[owners]), rtol=0, atol=1e-12)


def test_errors_are_those_of_decoded_codes_and_nothing_past_the_end_counts_but_zero_rewards() -> None:
    tokenizer = make_tokenizer()
    tokenizer.low.fill_(-1e9)
    tokenizer.high.fill_(1e9)
    windows = random(3, WINDOW, SIZE)
    windows[0, 5:] = torch.nan  # an end that is learnt for two steps
    windows[1, 8:] = torch.nan  # a cut
    mask = everywhere(windows)
    mask[0, 7:] = False
    mask[1, 8:] = False
    losses = tokenizer.loss(windows, mask)
    codes = tokenizer.encode_windows(windows)
    decoded = tokenizer.decode_codes(codes, windows[:, 0, :OBSERVATION])
    mean, std = tokenizer.mean.numpy(), tokenizer.std.numpy()
    errors: dict[str, list[float]] = {"observation": [], "action": [], "reward": [], "value": []}
    weighted = 0.0
    for row, (real, learnt) in enumerate([(5, 7), (8, 8), (WINDOW, WINDOW)]):
        for step in range(learnt):
            for s in range(SIZE):
                name = "observation" if s < 3 else "action" if s < 5 else "reward" if s == 5 else "value"
                if step >= real and name in ("observation", "action"):
                    continue
                wanted = float(windows[row, step, s]) * std[s] + mean[s] if step < real else 0.0
                square = ((float(decoded[row, step, s]) - wanted) / std[s]) ** 2
                errors[name].append(square)
                weighted += square * (5.0 if name == "action" else 1.0)
    for name, squares in errors.items():
        assert float(losses[f"{name}_error"].detach()) == pytest.approx(np.mean(squares), rel=1e-9)
    assert float(losses["reconstruction"].detach()) == pytest.approx(weighted / windows.numel(), rel=1e-9)
    total = losses["reconstruction"] + losses["termination"] + losses["commitment"]
    assert float(losses["loss"].detach()) == pytest.approx(float(total.detach()))


def test_end_of_an_episode_is_seen_by_the_code_that_holds_it_and_learnt_as_a_mark() -> None:
    tokenizer = make_tokenizer()
    windows = random(64, WINDOW, SIZE)
    ended, padded = windows.clone(), windows.clone()
    ended[:, 4:] = torch.nan
    padded[:, 4:] = 0.0
    assert not torch.equal(tokenizer.encode_windows(ended), tokenizer.encode_windows(padded))
    nothing = tokenizer.loss(ended, torch.zeros_like(everywhere(ended)))
    assert float(nothing["termination"].detach()) == float(nothing["reconstruction"].detach()) == 0.0


def test_gradients_pass_straight_through_the_codes() -> None:
    book = make_tokenizer().codebook
    features = random(5, 4, 8).requires_grad_()
    slope = random(5, 4, 8, seed=1)
    (book(features).vectors * slope).sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad, slope)
    quantised = book(features.detach())
    distances = (features.detach()[:, :, None] - book.vectors).square().sum(-1)
    assert torch.equal(quantised.codes, distances.argmin(-1))
    assert torch.allclose(quantised.vectors, book.vectors[quantised.codes], rtol=0, atol=1e-12)
    squares = (features.detach() - book.vectors[quantised.codes]).square()
    assert float(quantised.commitment) == pytest.approx(float(squares.mean()))


def test_codebook_holds_moving_averages_of_what_chose_it() -> None:
    decay, num_codes, dim = 0.7, 5, 2
    book = Codebook(num_codes, dim, decay=decay, revive_after=None).double()
    vectors = random(num_codes, dim, seed=4)
    book.vectors.copy_(vectors)
    book.sums.copy_(vectors)
    book.idle.zero_()
    counts, sums, expected = np.ones(num_codes), vectors.numpy().copy(), vectors.numpy().copy()
    for step in range(6):
        batch = random(3, dim, seed=step).numpy()
        nearest = np.array([np.argmin([np.sum((row - code) ** 2) for code in expected]) for row in batch])
        for code in range(num_codes):
            own = batch[nearest == code]
            counts[code] = decay * counts[code] + (1 - decay) * len(own)
            sums[code] = decay * sums[code] + (1 - decay) * own.sum(0)
            if len(own):
                expected[code] = sums[code] / counts[code]
        book.train()(torch.from_numpy(batch))
        assert np.allclose(book.vectors.numpy(), expected)
    unchanged = book.vectors.clone()
    book.eval()(random(3, dim, seed=99))
    assert torch.equal(book.vectors, unchanged)


def test_codebook_begins_among_the_features_and_revives_what_lies_idle() -> None:
    torch.manual_seed(0)
    book = Codebook(4, 2, decay=0.5, revive_after=3)
    far = torch.tensor([[10.0, 10.0], [-10.0, 10.0]])
    book.train()(far)
    for row in book.vectors:
        assert any(torch.allclose(row, place) for place in far)  # all codes stand where features were
    near_zero = torch.zeros(1, 2)
    for _ in range(3):
        book(near_zero)
    assert bool((book.idle >= 3).any())
    book(torch.full((1, 2), 5.0))
    assert int((book.vectors == 5.0).all(-1).sum()) >= 1
    assert bool((book.idle < 3).all())


def test_used_codes_and_perplexity() -> None:
    book = Codebook(8, 1, decay=0.99, revive_after=None)
    book.vectors.copy_(torch.arange(8.0)[:, None])
    book.sums.copy_(book.vectors)
    book.idle.zero_()
    quantised = book.eval()(torch.tensor([[0.0], [0.1], [3.0], [3.1]]))
    assert float(quantised.perplexity) == pytest.approx(2.0)
    for _ in range(100):
        book.train()(torch.tensor([[0.0], [3.0]]))
    assert float(book.used_share) == pytest.approx(2 / 8)


def test_encoding_ignores_the_mode_and_changes_nothing() -> None:
    tokenizer = make_tokenizer(backbone={**BACKBONE, "residual_dropout": 0.5})
    windows = random(16, WINDOW, SIZE)
    state = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    codes = tokenizer.encode_windows(windows)
    tokenizer.train()
    assert torch.equal(tokenizer.encode_windows(windows), codes)
    assert tokenizer.training
    assert tokenizer.encoder.training
    assert all(torch.equal(value, state[name]) for name, value in tokenizer.state_dict().items())


def test_decoded_values_stay_within_the_data() -> None:
    tokenizer = make_tokenizer()
    decoded = tokenizer.decode_codes(torch.randint(16, (64, 4)), 100.0 * random(64, OBSERVATION))
    assert bool((decoded >= tokenizer.low).all())
    assert bool((decoded <= tokenizer.high).all())
    assert float(decoded[..., 0].max()) == float(tokenizer.high[0])
    low, high = tokenizer.action_range(make_layout())
    assert torch.equal(low, tokenizer.low[3:5])
    assert torch.equal(high, tokenizer.high[3:5])


def test_rows_are_normalised_and_back_and_constants_survive() -> None:
    tokenizer = make_tokenizer()
    values = 2.0 * random(100, SIZE) - 5.0
    values[:, 3] = 7.0
    tokenizer.fit(values)
    rows = tokenizer.normalise(values)
    assert torch.allclose(rows.mean(0), torch.zeros(SIZE, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(rows[:, 0].std(correction=0), torch.ones((), dtype=torch.float64))
    assert torch.allclose(tokenizer.denormalise(rows), values)
    assert torch.allclose(tokenizer.state(values[:, :OBSERVATION]), rows[:, :OBSERVATION])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"num_codes": 1}, "num_codes"),
        ({"steps_per_code": 0}, "steps_per_code"),
        ({"decay": 1.0}, "decay"),
        ({"revive_after": 0}, "revive_after"),
        ({"commitment_weight": -1.0}, "commitment_weight"),
        ({"window": 10}, "no multiple"),
    ],
)
def test_refusals(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make_tokenizer(**options)


def test_discrete_fields_are_refused() -> None:
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}}}, 3, 1, {"action": 4})
    with pytest.raises(ConfigError, match="discrete"):
        TOKENIZER.build({"name": "vq", "backbone": BACKBONE}, size=4, layout=layout, window=12)


def test_overfits_a_few_windows() -> None:
    torch.manual_seed(0)
    config = {"name": "vq", "num_codes": 32, "code_dim": 8, "backbone": {**BACKBONE, "dim": 32, "num_layers": 2}}
    tokenizer: VqTokenizer = TOKENIZER.build(config, size=SIZE, layout=make_layout(), window=WINDOW)
    tokenizer.fit(random(100, SIZE).float())
    windows = tokenizer.normalise(random(4, WINDOW, SIZE).float())
    tokenizer.train()
    for module in tokenizer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    losses = []
    for _ in range(300):
        result = tokenizer.loss(windows, everywhere(windows))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(float(result["loss"].detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert float(result["perplexity"]) > 4


_RANK = """
import sys
import torch
from torch import distributed as dist
from seqrl.tokenizers._codebook import Codebook

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
for revive in (False, True):
    book = Codebook(6, 3, decay=0.9, revive_after=2 if revive else None).double().train()
    if not revive:
        book.load_state_dict(torch.load(f"{folder}/start.pt", weights_only=True))
    for step, batch in enumerate(torch.load(f"{folder}/batches.pt", weights_only=True)):
        torch.manual_seed(100 * rank + step)  # ranks draw differently
        book(batch[rank::2])
    torch.save(book.state_dict(), f"{folder}/{revive}{rank}.pt")
dist.destroy_process_group()
"""


def test_ranks_share_one_codebook(tmp_path: Path) -> None:
    batches = [random(8, 3, seed=step) for step in range(5)]
    alone = Codebook(6, 3, decay=0.9, revive_after=None).double().train()
    alone.vectors.copy_(random(6, 3, seed=77))
    alone.sums.copy_(alone.vectors)
    alone.idle.zero_()
    torch.save(batches, tmp_path / "batches.pt")
    torch.save(alone.state_dict(), tmp_path / "start.pt")
    ranks = [subprocess.Popen([sys.executable, "-c", _RANK, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    for revive in (False, True):
        first, second = (torch.load(tmp_path / f"{revive}{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        if not revive:  # what a single process makes of whole batches
            for batch in batches:
                alone(batch)
            assert all(torch.allclose(value, first[name]) for name, value in alone.state_dict().items())
            assert not torch.allclose(alone.vectors, random(6, 3, seed=77))


def make_module(store: EpisodeStore) -> SequenceModule:
    tokenizer = {"name": "vq", "num_codes": 8, "code_dim": 4}
    backbone = {"num_layers": 1, "num_heads": 2, "dim": 8}
    pl.seed_everything(0)
    settings: dict[str, Any] = {"layout": "tt", "scheduler": "constant", "window": 6, "seed": 1}
    return SequenceModule.for_store(store, tokenizer=tokenizer, backbone=backbone, **settings)


def make_store() -> EpisodeStore:
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(length, 3)),
            "actions": rng.uniform(-1, 1, size=(length, 2)),
            "rewards": rng.normal(size=length),
            "terminated": length % 2 == 0,
        }
        for length in (20, 9, 15, 30, 12)
    ]
    return EpisodeStore.from_episodes(episodes, attributes={"name": "random walks"})


def fit(
    module: pl.LightningModule, data: EpisodeDataModule, steps: int, folder: Path, resume: Path | None = None
) -> Path:
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, use_distributed_sampler=False, max_epochs=-1, check_val_every_n_epoch=None,
        val_check_interval=3, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return folder / f"{steps}.ckpt"


def test_tokenizer_is_trained_and_resumed_exactly_and_then_frozen_under_its_prior(tmp_path: Path) -> None:
    store = make_store()
    states = []
    for stops in ((6,), (3, 6)):
        resume: Path | None = None
        for stop in stops:
            module = make_module(store)
            data = EpisodeDataModule.for_module(module, store, batch_size=4, validation_fraction=0.2)
            resume = fit(TokenizerModule(module), data, stop, tmp_path, resume)
        states.append({name: value.clone() for name, value in module.model.tokenizer.state_dict().items()})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    untrained = make_module(store).model.tokenizer.state_dict()
    assert not torch.equal(states[0]["codebook.vectors"], untrained["codebook.vectors"])
    assert not torch.equal(states[0]["head.weight"], untrained["head.weight"])

    path = fit(module, data, 4, tmp_path)
    trained = module.model.tokenizer.state_dict()
    assert not any(parameter.requires_grad for parameter in module.model.tokenizer.parameters())  # DDP would miss them
    assert all(torch.equal(value, trained[name]) for name, value in states[0].items())
    loaded = load(path).model
    windows = data.sample_windows(8).values
    assert isinstance(loaded.tokenizer, VqTokenizer)
    assert isinstance(module.model.tokenizer, VqTokenizer)
    assert torch.equal(loaded.tokenizer.encode_windows(windows), module.model.tokenizer.encode_windows(windows))


def test_other_tokenizers_have_no_such_stage() -> None:
    module = SequenceModule.for_store(make_store(), tokenizer="uniform", backbone={"dim": 8}, window=6)
    with pytest.raises(ConfigError, match="nothing to train"):
        TokenizerModule(module)


def test_report_compares_what_is_not_past_the_end() -> None:
    layout, tokenizer = make_layout(), make_tokenizer()
    windows = random(10, WINDOW, SIZE)
    windows[0, 2:] = torch.nan
    rows = reconstruction_report(tokenizer, windows, layout)
    codes = tokenizer.encode_windows(windows)
    decoded = tokenizer.decode_codes(codes, windows[:, 0, :OBSERVATION])
    found = [abs(float(decoded[r, t, 4] - (windows[r, t, 4] * tokenizer.std[4] + tokenizer.mean[4]).clamp(
        tokenizer.low[4], tokenizer.high[4]))) for r in range(10) for t in range(WINDOW if r else 2)]  # fmt: skip
    assert [row["field"] for row in rows] == ["observation"] * 3 + ["action"] * 2 + ["reward", "value"]
    assert rows[4]["mean_error"] == pytest.approx(np.mean(found))
    assert rows[4]["max_error"] == pytest.approx(max(found))
