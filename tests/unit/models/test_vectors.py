"""Models of vectors: who sees what, what is learnt, and how a desired return is followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.code import CodeModel
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.objectives.regression import RegressionObjective
from seqrl.testing import samples
from seqrl.training.module import SequenceModule
from seqrl.types import VectorBatch

GPT = {"name": "gpt", "num_layers": 2, "num_heads": 2, "dim": 16}
DT_FIELDS = {"return": {"loss_weight": 0.0}, "observation": {"loss_weight": 0.0}, "action": {}}


def dt(*, context: int = 4, backbone: dict[str, Any] = GPT, **options: Any) -> VectorModel:
    categories = options.pop("categories", None)
    config = {"fields": DT_FIELDS, "discount": 1.0, **options}
    layout = Layout.from_config(config, 3, 1 if categories else 2, categories)
    torch.manual_seed(0)
    model = VectorModel(layout, {"name": "continuous"}, backbone, context=context, longest_episode=20).double().eval()
    samples.scramble(model)
    return model


def values(model: VectorModel, rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(rows, model.context, model.layout.size, dtype=torch.float64, generator=generator) * 2 - 1


def test_an_action_is_predicted_from_returns_and_observations_so_far_and_earlier_actions() -> None:
    model = dt()
    x = values(model)
    before = model(x)["action"]
    for name, step, first in (("action", 2, 3), ("observation", 2, 2), ("return", 2, 2), ("action", 0, 1)):
        changed = x.clone()
        changed[:, step, model.layout.field(name).slice] += 0.5
        moved = (model(changed)["action"] - before).abs().amax((0, 2)) > 1e-9
        assert moved.tolist() == [t >= first for t in range(model.context)], (name, step)


def test_a_hidden_value_is_seen_by_no_action() -> None:
    fields = {"observation": {"loss_weight": 0.0}, "action": {}, "value": {"hidden": True}}
    model = dt(fields=fields)
    x = values(model)
    changed = x.clone()
    changed[..., model.layout.field("value").slice] += 1e6  # what policies remember of every step
    assert torch.equal(model(changed)["action"], model(x)["action"])
    with pytest.raises(ConfigError, match=r"value tells the future.*use layout\.fields\.value\.hidden=true"):
        dt(fields={**fields, "value": {}})


def test_fields_of_the_next_transition_are_predicted_from_the_last_vector() -> None:
    model = dt(fields={"return": {"loss_weight": 0.0}, "observation": {"loss_weight": 1.0}, "action": {}})
    x = values(model)
    before = model(x)["observation"]
    changed = x.clone()
    changed[:, 1, model.layout.field("action").slice] += 0.5
    moved = (model(changed)["observation"] - before).abs().amax((0, 2)) > 1e-9
    assert moved.tolist() == [False, False, True, True]


def test_one_transition_and_an_mlp_are_behaviour_cloning() -> None:
    """Against a multilayer perceptron written out by hand."""
    layout = Layout.from_config({"fields": {"observation": {"loss_weight": 0.0}, "action": {}}}, 3, 2)
    backbone = {"name": "mlp", "num_layers": 2, "dim": 8}
    model = VectorModel(layout, {"name": "continuous"}, backbone, context=1, longest_episode=9).double().eval()
    samples.scramble(model)
    x = values(model, rows=5)
    state = model.state_dict()
    h = x[:, 0, :3] @ state["embeddings.0.weight"].T + state["embeddings.0.bias"]
    h = torch.nn.functional.layer_norm(h, (8,), state["norm.weight"], state["norm.bias"])
    for index in (2, 5):
        h = h.clamp(min=0) @ state[f"backbone.layers.{index}.weight"].T + state[f"backbone.layers.{index}.bias"]
    wanted = (h.clamp(min=0) @ state["heads.action.weight"].T + state["heads.action.bias"]).tanh()
    assert torch.allclose(model(x)["action"][:, 0], wanted)


def test_the_loss_is_the_mean_square_of_what_counts() -> None:
    model = dt()
    x = values(model)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    mask[1, 2:] = False
    outcome = RegressionObjective()(model, VectorBatch(x, mask))
    errors = (model(x)["action"] - x[..., model.layout.field("action").slice]).detach().numpy() ** 2
    counted = np.concatenate([errors[0].ravel(), errors[1, :2].ravel()])
    assert float((outcome.total / outcome.count).detach()) == pytest.approx(counted.mean())
    assert set(outcome.fields) == {"action"}


def test_discrete_actions_are_logits_with_a_cross_entropy() -> None:
    model = dt(categories={"action": 3})
    x = values(model)
    x[..., -1] = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])
    logits = model(x)["action"]
    assert logits.shape == (2, 4, 3)
    outcome = RegressionObjective()(model, VectorBatch(x, torch.ones(x.shape[:2], dtype=torch.bool)))
    chosen = logits.detach().softmax(-1).numpy()[np.arange(2)[:, None], np.arange(4), x[..., -1].long().numpy()]
    assert float((outcome.total / outcome.count).detach()) == pytest.approx(float(-np.log(chosen).mean()))
    policy = Policy(model, planner={"name": "sample"}, condition={"name": "target_return", "target": 1.0})
    policy.reset(50)
    actions = policy.act(np.zeros((50, 3), np.float32))
    assert set(actions.ravel()) <= {0.0, 1.0, 2.0}


def test_a_policy_asks_for_what_is_left_of_the_return() -> None:
    """Its actions are those of the training pass over the same window, with what was earned taken off the target."""
    model = dt(context=3)
    rng = np.random.default_rng(0)
    model.tokenizer.fit(torch.from_numpy(rng.normal(size=(100, 6))))
    observations, rewards = rng.normal(size=(6, 1, 3)).astype(np.float32), rng.normal(size=(6, 1))
    policy = Policy(model, planner={"name": "sample"}, condition={"name": "target_return", "target": 7.0})
    policy.reset(1)
    actions = [policy.act(o, None if t == 0 else rewards[t - 1]) for t, o in enumerate(observations)]
    left = 7.0 - np.concatenate([[0.0], np.cumsum(rewards[:, 0])])[:6]
    for t in range(6):
        first = max(0, t - 2)
        window = np.concatenate(
            [left[first : t + 1, None], observations[first : t + 1, 0], np.zeros((t + 1 - first, 2))], 1
        )
        window[:-1, 4:] = np.concatenate(actions[first:t]) if t > first else 0.0
        encoded = model.tokenizer.normalise(torch.from_numpy(window)[None])
        predicted = model(encoded, None, torch.tensor([first]))["action"][0, -1]
        decoded = predicted * model.tokenizer.scale[4:] + model.tokenizer.shift[4:]
        assert np.allclose(actions[t][0], decoded.detach().numpy(), atol=1e-5), t


def test_an_untrained_model_tells_returns_apart() -> None:
    """The norm behind the embedding takes the length of a vector away, and a return is nothing but a length."""
    layout = Layout.from_config({"fields": DT_FIELDS}, 3, 2)
    torch.manual_seed(0)
    model = VectorModel(layout, {"name": "continuous"}, {**GPT, "dim": 128}, context=4, longest_episode=20)
    low, high = model.norm(model.embeddings[0](torch.tensor([[1.8], [3.6]]))).detach()
    assert float((low - high).norm() / low.norm()) > 0.1


def test_the_step_of_the_episode_is_told_by_the_positions() -> None:
    model = dt()
    x = values(model)
    at_start, later = model(x)["action"], model(x, None, torch.tensor([3, 3]))["action"]
    assert not torch.allclose(at_start, later)
    last = model(x, None, torch.tensor([19, 19]))["action"]
    assert torch.allclose(model(x, None, torch.tensor([99, 99]))["action"], last), "later than was trained: the last"


@pytest.mark.parametrize("vectors", [None, [["return"], ["goal", "observation"], ["action"]]])
def test_a_null_goal_is_not_a_goal_of_zeros(vectors: Any) -> None:
    model = dt(goal={"dims": [0, 2]}, vectors=vectors)
    x = values(model)
    goals = torch.zeros(2, 2, dtype=torch.float64)
    null = model.encode_goals(None, 2).double()
    assert null.isnan().all()
    answers = [model(x, prefix)["action"] for prefix in (goals, goals + 0.5, null)]
    assert all(a.isfinite().all() for a in answers)
    assert not any(torch.allclose(a, b) for a, b in ((answers[0], answers[1]), (answers[0], answers[2])))


def test_goals_are_normalised_like_their_observations() -> None:
    model = dt(goal={"dims": [0, 2]})
    model.tokenizer.shift += torch.arange(6)
    model.tokenizer.scale *= 2.0
    prefix = model.encode_goals(torch.tensor([[5.0, 9.0]]), 1)
    assert prefix.tolist() == [[(5.0 - 1) / 2, (9.0 - 3) / 2]]  # observation 0 is scalar 1, observation 2 scalar 3


def test_what_does_not_fit_is_refused() -> None:
    vectors = dt()
    tokens = samples.model(samples.layout())
    with pytest.raises(ConfigError, match="planner=beam decodes tokens, and this checkpoint's tokenizer makes vectors"):
        Policy(vectors, planner={"name": "beam"})
    with pytest.raises(ConfigError, match=r"needs a desired return; use strategy=return condition\.target="):
        Policy(vectors, planner={"name": "sample"})
    with pytest.raises(ConfigError, match="has no 'return' field"):
        Policy(tokens, planner={"name": "sample"}, condition={"name": "target_return", "target": 3.0})
    with pytest.raises(ConfigError, match="makes no tokens"):
        TokenModel(vectors.layout, {"name": "continuous"}, GPT, context=4)
    with pytest.raises(ConfigError, match="makes no vectors; use tokenizer=continuous"):
        VectorModel(vectors.layout, {"name": "uniform"}, GPT, context=4, longest_episode=9)
    with pytest.raises(ConfigError, match="backbone=mlp sees one position at a time"):
        TokenModel(samples.layout(), {"name": "uniform"}, {"name": "mlp"}, context=4)
    with pytest.raises(ConfigError, match="use precision=float32"):
        vectors.cast(torch.bfloat16)
    for unseen in (samples.layout(goal=True), samples.layout(with_return=True)):
        with pytest.raises(ConfigError, match=r"follow the present observation alone.*use layout=tt"):
            CodeModel(unseen, {"name": "vq", "num_codes": 8, "code_dim": 4}, GPT, context=6)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({}, False),
        ({"vectors": [["return", "observation"], ["action"]]}, True),
        ({"vectors": [["return", "observation"], ["action"]], "goal": {"dims": [0]}}, False),
        ({"vectors": [["goal", "return"], ["observation"], ["action"]], "goal": {"dims": [0]}}, False),
        ({"vectors": [["goal", "return", "observation"], ["action"]], "goal": {"dims": [0]}}, True),
    ],
)
def test_a_perceptron_is_shown_all_that_decides_the_action(options: Any, fits: bool) -> None:
    if fits:
        dt(backbone={"name": "mlp"}, **options)
        return
    with pytest.raises(ConfigError, match="backbone=mlp sees one vector at a time, and the action depends on"):
        dt(backbone={"name": "mlp"}, **options)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([["observation"], ["return"], ["action"]], r"must hold the fields \['return', 'observation', 'action'\]"),
        ([["return", "observation", "action"]], "puts the action into a vector with what it is decided by"),
        ([["goal", "return"], ["observation"], ["action"]], "only where layout.goal is set"),
    ],
)
def test_vectors_that_cannot_be_decided_by_are_refused(vectors: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Layout.from_config({"fields": DT_FIELDS, "vectors": vectors}, 3, 2)


def test_tokens_can_be_asked_for_a_return_as_well() -> None:
    """The return is one more token that is known before the action."""
    model = samples.model(samples.layout(with_return=True))
    plans = []
    for target in (5.0, -5.0):
        policy = Policy(
            model, planner={"name": "sample", "temperature": 0.0}, condition={"name": "target_return", "target": target}
        )
        policy.reset(4)
        plans.append(policy.act(np.zeros((4, 3), np.float32)))
        history = model.history(torch.zeros(4, 0, model.layout.size), torch.zeros(4, model.layout.size))
        assert history.tokens.shape == (4, 1 + samples.OBSERVATION_SIZE)
    assert not np.array_equal(*plans)


def test_an_objective_for_other_models_is_refused_before_the_data_are_read() -> None:
    store = samples.store()
    with pytest.raises(ConfigError, match=r"objective=next_token learns tokens or codes.*use objective=regression"):
        SequenceModule.for_store(store, tokenizer="continuous", window=3)
    with pytest.raises(ConfigError, match=r"objective=regression learns vectors.*use objective=next_token"):
        SequenceModule.for_store(store, objective="regression", window=3)
