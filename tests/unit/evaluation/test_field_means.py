"""The metrics of a training run are means over tokens, not over batches."""

from __future__ import annotations

import math

import torch

from seqrl.layout import Layout
from seqrl.objectives import FieldOutcome, Outcome
from seqrl.training.metrics import FieldMeans, ScalarMeans, pop_means


def outcome(total: float, count: int, fields: dict[str, tuple[float, int, int]]) -> Outcome:
    parts = {name: FieldOutcome(*(torch.tensor(number) for number in numbers)) for name, numbers in fields.items()}
    return Outcome(torch.tensor(total, requires_grad=True), torch.tensor(count), parts)


def test_a_batch_counts_by_its_tokens(tiny_layout: Layout) -> None:
    means = FieldMeans([field.name for field in tiny_layout.fields])
    nothing = (0.0, 0, 0)
    means.update(outcome(6.0, 2, {"observation": (4.0, 1, 2), "action": nothing, "reward": nothing, "value": nothing}))
    means.update(
        outcome(2.0, 6, {"observation": (2.0, 3, 4), "action": (9.0, 2, 3), "reward": nothing, "value": nothing})
    )
    found = dict(zip(means.names, means.compute().tolist(), strict=True))
    assert found["loss"] == (6.0 + 2.0) / (2 + 6)
    assert found["observation_loss"] == (4.0 + 2.0) / (2 + 4)
    assert found["action_loss"] == 9.0 / 3
    torch.testing.assert_close(found["observation_accuracy"], (1 + 3) / (2 + 4))
    assert math.isnan(found["value_loss"])  # no token of it carried a loss


def test_a_loss_that_is_not_a_number_is_shown(tiny_layout: Layout) -> None:
    means = FieldMeans([field.name for field in tiny_layout.fields])
    fine = {field.name: (1.0, 1, 1) for field in tiny_layout.fields}
    means.update(outcome(math.nan, 1, fine))
    means.update(outcome(1.0, 1, fine))
    assert math.isnan(means.compute()[0])


def test_nothing_is_left_after_a_reset(tiny_layout: Layout) -> None:
    means = FieldMeans([field.name for field in tiny_layout.fields])
    fine = {field.name: (1.0, 1, 1) for field in tiny_layout.fields}
    means.update(outcome(5.0, 1, fine))
    means.compute()
    means.reset()
    means.update(outcome(7.0, 2, fine))
    assert means.compute()[0] == 3.5


def test_only_fields_with_a_mode_have_an_accuracy(tiny_layout: Layout) -> None:
    means = FieldMeans(["observation", "action"], modes=["action"])
    means.update(outcome(6.0, 2, {"observation": (4.0, 0, 2), "action": (3.0, 1, 4)}))
    found = dict(zip(means.names, means.compute().tolist(), strict=True))
    assert found == {"loss": 3.0, "observation_loss": 2.0, "action_loss": 0.75, "action_accuracy": 0.25}


def test_a_share_without_anything_in_it_does_not_spoil_the_mean() -> None:
    means = ScalarMeans(["loss"])
    means.update({"loss": torch.tensor(3.0)}, 2)
    means.update({"loss": torch.tensor(math.nan)}, 0)
    means.update({"loss": torch.tensor(6.0)}, 1)
    assert pop_means(means, "val") == {"val/loss": 4.0}
