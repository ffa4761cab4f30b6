"""`trainer.fast_cpu`: what it changes, what it leaves, and that a training with it repeats itself."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from seqrl.attention.dropout import FastDropout
from seqrl.backbones.mlp import MlpBackbone
from seqrl.data.summary import DataSizes
from seqrl.training.defaults import compose_sequence
from seqrl.training.fast_cpu import speed_up
from seqrl.training.module import SequenceModule
from seqrl.training.seeding import seed_step
from seqrl.types import TokenBatch

DROPOUTS = ("embedding_dropout", "residual_dropout", "attention_dropout")
SIZES = DataSizes(3, 2)
NAMES = ["gpt", "llama", "mingru", "s6"]


def module(
    backbone: str = "gpt", dropout: float = 0.2, fast: bool = True, window: int = 5, **more: Any
) -> SequenceModule:
    torch.manual_seed(0)
    options = {"name": backbone, "num_layers": 2, "dim": 16, "num_heads": 2, **dict.fromkeys(DROPOUTS, dropout)}
    if backbone in ("mingru", "s6"):
        options["pattern"] = ("recurrence", "attention")
    config = compose_sequence({"backbone": options, **more}, window=window).to_dict()
    return SequenceModule({**config, "trainer": {"fast_cpu": fast}, **vars(SIZES)}).train()


def batch(made: SequenceModule) -> TokenBatch:
    shape = (8, 5, made.model.tokens_per_step)
    torch.manual_seed(1)
    tokens = torch.randint(0, made.model.num_classes, shape)
    return TokenBatch(tokens, torch.rand(shape) > 0.1, None)


def loss_and_gradients(made: SequenceModule) -> dict[str, torch.Tensor]:
    outcome = made.loss_of(batch(made))
    loss = outcome.total / outcome.count
    made.zero_grad()
    loss.backward()
    found = {name: each.grad.clone() for name, each in made.named_parameters() if each.grad is not None}
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("backbone", NAMES)
def test_without_dropout_losses_and_gradients_are_the_same_up_to_rounding(backbone: str) -> None:
    fast, slow = (loss_and_gradients(module(backbone, dropout=0.0, fast=fast)) for fast in (True, False))
    assert fast.keys() == slow.keys()
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backbone", NAMES)
def test_names_weights_and_evaluation_stay(backbone: str) -> None:
    fast, slow = module(backbone), module(backbone, fast=False)
    assert fast.state_dict().keys() == slow.state_dict().keys()
    with torch.no_grad():
        ours, theirs = (made.eval().loss_of(batch(made)).total for made in (fast, slow))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backbone", NAMES)
def test_masks_are_a_function_of_seed_batch_and_rank(backbone: str) -> None:
    made = module(backbone)
    found = {}
    for seed, number, rank in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0)]:
        progress = SimpleNamespace(total=SimpleNamespace(completed=number))
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        trainer = SimpleNamespace(fit_loop=loop)
        seed_step(SimpleNamespace(_trainer=trainer, global_rank=rank, device=torch.device("cpu")), seed)  # type: ignore[arg-type]
        loss = made.loss_of(batch_without_seed(made)).total.item()
        assert found.setdefault((seed, number, rank), loss) == loss
    assert len(set(found.values())) == 4


def batch_without_seed(made: SequenceModule) -> TokenBatch:
    state = torch.get_rng_state()
    found = batch(made)
    torch.set_rng_state(state)
    return found


def test_the_mean_loss_over_masks_is_that_of_torchs_dropout() -> None:
    means, errors = [], []
    for fast in (True, False):
        made = module(fast=fast, dropout=0.3)
        given = batch(made)
        with torch.no_grad():
            losses = torch.stack([made.loss_of(given).total for _ in range(300)])
        means.append(losses.mean().item())
        errors.append(losses.std().item() / len(losses) ** 0.5)
    assert means[0] == pytest.approx(means[1], abs=5 * max(errors))
    assert errors[0] == pytest.approx(errors[1], rel=0.3)


def test_dropouts_of_any_backbone_are_swapped_and_others_left() -> None:
    class Mine(nn.Dropout):
        pass

    model = nn.Sequential(MlpBackbone(dim=4, num_layers=2, dropout=0.5), Mine(0.5), nn.Dropout1d(0.5))
    names, plain = model.state_dict().keys(), sum(type(each) is nn.Dropout for each in model.modules())
    speed_up(model)
    kinds = [type(each) for each in model.modules()]
    assert kinds.count(FastDropout) == plain > 0
    assert kinds.count(nn.Dropout) == 0
    assert {Mine, nn.Dropout1d} <= set(kinds)
    assert model.state_dict().keys() == names


def test_a_copy_is_as_fast() -> None:
    made = module()
    torch.manual_seed(4)
    one = made.loss_of(batch_without_seed(made)).total
    torch.manual_seed(4)
    other = copy.deepcopy(made).loss_of(batch_without_seed(made)).total
    assert torch.equal(one, other)


def test_the_tokenizer_of_tap_is_sped_up_as_well() -> None:
    vq = {"name": "vq", "num_codes": 8, "code_dim": 8}
    made = module(tokenizer=vq, window=6)
    kinds = {type(each) for each in made.model.tokenizer.modules() if isinstance(each, nn.Dropout)}
    assert kinds == {FastDropout}
