"""Observations told by their differences: in data, in windows, in a policy's past, and in what searches imagine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.planners.scripted import ROWS, Recording, observed
from torch import Tensor

from seqrl.acting.episode_history import EpisodeHistory
from seqrl.config import WindowConfig
from seqrl.data.batches import TokenWindows
from seqrl.data.returns import transition_chunks
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.evaluation.search_parts import FieldValuation, ModelDynamics
from seqrl.evaluation.swapped_search import Outcome
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.objectives.next_token import NextTokenObjective
from seqrl.planners import Planner
from seqrl.planners.beam import BeamPlanner
from seqrl.planners.cem import CemPlanner
from seqrl.planners.rollouts import RolloutsPlanner
from seqrl.testing import samples
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.module import SequenceModule
from seqrl.types import Plan

FIELDS: dict[str, Any] = {"observation": {}, "action": {}, "difference": {}, "reward": {}, "value": {"hidden": True}}
END = 1000


class Onward(Recording):
    """Ranks by nothing, and wants to see where plans lead to."""

    wants_next_observation = True


def layout(stride: int = 1, fields: dict[str, Any] = FIELDS, **options: Any) -> Layout:
    config = {"fields": fields, "discount": 0.9, "stride": stride} | options
    return Layout.from_config(config, samples.OBSERVATION_SIZE, samples.ACTION_SIZE)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_data_tell_what_follows_a_transition(stride: int, rows: int) -> None:
    store, made = samples.store(), layout(stride)
    values = np.empty((len(store), made.size), np.float32)
    for first, part in transition_chunks(store, made, rows):
        values[first : first + len(part)] = part
    for first, stop in zip(store.offsets, store.offsets[1:], strict=False):
        for row in range(first, stop):
            following = store.observations[min(row + stride, stop - 1)]
            wanted = following - store.observations[row]
            assert values[row, made.field("difference").slice].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("terminate_truncated", [False, True])
@pytest.mark.parametrize("goal", [None, {"dims": [0], "dropout": 0.5}])
def test_the_last_transitions_tell_of_the_end_where_it_is_learnt(
    stride: int, terminate_truncated: bool, goal: dict[str, Any] | None
) -> None:
    store, made = samples.store(), layout(stride, goal=goal)
    tokens = np.tile(np.arange(len(store))[:, None], (1, made.size))
    settings = WindowConfig(3, terminate_truncated=terminate_truncated)
    windows = TokenWindows(store, tokens, made, settings, termination_token=END)
    plain = TokenWindows(
        store, tokens, made, settings, termination_token=END, difference_columns=()
    )  # the same without any
    batch, without = (each.batch(np.arange(len(each)), np.random.default_rng(0)) for each in (windows, plain))
    part = made.field("difference").slice
    ends = 0
    for window in range(len(windows)):
        for step in range(3):
            row = int(batch.tokens[window, step, 0])
            if row == END:
                assert (batch.tokens[window, step] == END).all()
                continue
            episode = int(np.searchsorted(store.offsets, row, side="right")) - 1
            followed = bool(row + stride < store.offsets[episode + 1])
            learnt = bool(store.terminated[episode]) or terminate_truncated
            assert (batch.tokens[window, step, part] == (row if followed else END)).all()
            # What nobody knows is not learnt, nor is anything from it: the reward and the value after it.
            wanted = without.mask[window, step].clone()
            wanted[part.start :] &= followed or learnt
            assert torch.equal(batch.mask[window, step], wanted)
            ends += not followed
    assert ends > 5
    others = [each for each in range(made.size) if not part.start <= each < part.stop]
    assert torch.equal(batch.tokens[..., others], without.tokens[..., others])


@pytest.mark.parametrize("stride", [1, 2])
def test_the_past_of_a_policy_tells_what_was_seen(stride: int) -> None:
    made = layout(stride)
    seen = EpisodeHistory(made, 3, 2, torch.device("cpu"), None)
    shown = torch.randn(8, 2, samples.OBSERVATION_SIZE, generator=torch.Generator().manual_seed(0))
    for step, observation in enumerate(shown):
        seen.observe(observation)
        if step + 1 < len(shown):
            seen.act(torch.zeros(2, samples.ACTION_SIZE))
            seen.earn(torch.zeros(2))
    past = seen.transitions()
    assert past.shape[1] == 2
    for back in (1, 2):
        row = past[:, -back]
        at = len(shown) - 1 - back * stride
        assert torch.equal(row[:, made.field("observation").slice], shown[at])
        assert torch.equal(row[:, made.field("difference").slice], shown[at + stride] - shown[at])


@torch.no_grad()
def forward(model: TokenModel, tokens: Tensor) -> Tensor:
    """Probabilities of the next token, from the whole sequence at once."""
    sequence = torch.nn.functional.pad(tokens, (0, 1))
    padded = torch.nn.functional.pad(sequence, (0, -sequence.shape[1] % model.tokens_per_step))
    return model(padded.unflatten(1, (-1, model.tokens_per_step)))[:, tokens.shape[1] - 1].softmax(-1)


PLANNERS: dict[str, Planner] = {
    "beam": BeamPlanner(beam_width=3, n_expand=2, horizon=2, context=None),
    "rollouts": RolloutsPlanner(candidates=4, horizon=2),
    "cem": CemPlanner(candidates=4, elites=2, iterations=1, horizon=2),
}


def plan_from(model: TokenModel, planner: Planner, score: Recording) -> tuple[Plan, Tensor, Tensor]:
    """A plan of two transitions, the tokens before it, and what was observed."""
    history = observed(model)
    planner.check(model, score)
    plan = planner.plan(model, history, score, Noise.of(5, torch.arange(ROWS), time=0))
    assert history.observation is not None
    return plan, history.tokens, history.observation


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_imagined_observations_are_sums_of_expected_differences(name: str) -> None:
    model = samples.model(layout(fields=FIELDS | {"observation": {"loss_weight": 0.0}}), window=5)
    score = Onward()
    plan, before, present = plan_from(model, PLANNERS[name], score)
    assert plan.transitions is not None
    assert plan.tokens is not None
    parts = {each: model.layout.field(each).slice for each in ("observation", "difference")}
    places = model.places("difference")
    state = present.float()
    tokens = before[:, : -model.places("action").start]
    for step in range(2):
        assert plan.transitions[:, step, parts["observation"]].numpy() == pytest.approx(state.numpy(), abs=1e-5)
        expected = []
        for place in range(places.start, places.stop):
            beliefs = forward(model, torch.cat([tokens, plan.tokens[:, step, :place]], 1))[:, :-1]
            expected.append((beliefs / beliefs.sum(-1, keepdim=True)) @ model.tokenizer.bin_centres(place).double())
        difference = torch.stack(expected, -1).float()
        assert plan.transitions[:, step, parts["difference"]].numpy() == pytest.approx(difference.numpy(), abs=1e-5)
        state = state + difference
        tokens = torch.cat([tokens, plan.tokens[:, step]], 1)
        scalars = torch.zeros(ROWS, model.layout.size)
        scalars[:, parts["observation"]] = state
        if step == 0:
            wanted = model.tokenizer.encode(scalars)[:, model.places("observation")]
            over = (plan.tokens[:, 0, places] == model.termination_token).any(1)
            assert torch.equal(plan.tokens[~over, 1, model.places("observation")], wanted[~over])
            assert (plan.tokens[over, 1, model.places("observation")] == model.termination_token).all()
    trace = score.traces[-1]
    assert trace.next_observation is not None
    assert trace.observations is not None
    chosen = (trace.next_observation.float() - state[:, None]).abs().amax(-1).argmin(1)
    every = torch.arange(ROWS)
    assert trace.next_observation[every, chosen].numpy() == pytest.approx(state.numpy(), abs=1e-4)
    imagined = plan.transitions[..., parts["observation"]]
    assert trace.observations[every, chosen].numpy() == pytest.approx(imagined.numpy(), abs=1e-4)


@pytest.mark.parametrize(
    "planner",
    [
        BeamPlanner(beam_width=3, n_expand=2, horizon=2, context=None, k_obs=None),
        RolloutsPlanner(candidates=4, horizon=2, k_obs=None),
    ],
)
def test_drawn_differences_are_what_their_tokens_stand_for(planner: Planner) -> None:
    model = samples.model(layout(), window=5)
    plan, _, _ = plan_from(model, planner, Onward())
    assert plan.transitions is not None
    assert plan.tokens is not None
    part = model.layout.field("difference").slice
    wanted = model.tokenizer.decode(plan.tokens)[..., part]
    ends = (plan.tokens[..., model.places("difference")] == model.termination_token).any(-1, keepdim=True)
    wanted = wanted.masked_fill(ends, 0.0)
    assert plan.transitions[..., part].numpy() == pytest.approx(wanted.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    "planner",
    [
        CemPlanner(candidates=4, elites=2, iterations=1, horizon=3),
        RolloutsPlanner(candidates=4, horizon=3, k_obs=None),
    ],
)
def test_a_difference_that_ends_the_episode_ends_the_plan(planner: Planner) -> None:
    model = samples.model(layout(), window=5)
    place, classes = model.places("difference").start, model.num_classes
    with torch.no_grad():  # whatever it has read, every feature is 1, and the difference's first number is the end
        norm = next(module for name, module in model.backbone.named_modules() if name == "norm")
        norm.weight.zero_()
        norm.bias.fill_(1.0)
        model.head.weight.view(model.tokens_per_step, classes, -1)[place, -1] += 9.0
    score = Onward()
    plan, _, present = plan_from(model, planner, score)
    over = score.traces[-1].over
    assert over is not None
    assert plan.tokens is not None
    assert over.tolist() == [[[False, True, True, True]] * 4] * ROWS
    assert (plan.tokens[:, 1:, model.places("observation")] == model.termination_token).all()
    if isinstance(planner, RolloutsPlanner):  # drawn, an end changes nothing
        assert plan.transitions is not None
        seen = plan.transitions[..., model.layout.field("observation").slice]
        assert seen.numpy() == pytest.approx(present[:, None].expand_as(seen).numpy())


def test_learnt_dynamics_say_what_a_search_says() -> None:
    model = samples.model(layout(), window=5)
    score = Onward()
    planner = CemPlanner(candidates=4, elites=2, iterations=1, horizon=1)
    history = model.history(torch.zeros(ROWS, 0, model.layout.size), torch.zeros(ROWS, model.layout.size))
    planner.check(model, score)
    planner.plan(model, history, score, Noise.of(5, torch.arange(ROWS), time=0))
    trace = score.traces[-1]
    assert trace.actions is not None
    assert trace.next_observation is not None
    assert trace.rewards is not None
    found = ModelDynamics(model).advance(torch.zeros(ROWS * 4, samples.OBSERVATION_SIZE), trace.actions.flatten(0, 2))
    assert found.observations.numpy() == pytest.approx(trace.next_observation.flatten(0, 1).numpy(), abs=1e-5)
    assert found.rewards.numpy() == pytest.approx(trace.rewards.flatten().numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"observation": {}, "difference": {}, "action": {}}, r"and difference, reward and value after it"),
        (
            {"observation": {}, "action": {}, "difference": {"loss_weight": 0}},
            r"difference\.loss_weight=0 leaves it un",
        ),
        ({"observation": {}, "action": {}, "differences": {}}, r"they record none\. Did you mean 'difference'"),
    ],
)
def test_layouts_in_which_a_difference_means_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout(fields=fields)


def test_discrete_observations_have_no_difference() -> None:
    with pytest.raises(ConfigError, match=r"subtracts observations, and these are discrete; leave it out"):
        Layout.from_config({"fields": FIELDS}, 1, 1, {"observation": 5})


def test_arrays_of_the_data_may_be_called_much_like_it() -> None:
    fields = {"observation": {}, "action": {}, "obs_difference": {}}
    made = Layout.from_config({"fields": fields}, 2, 1, extras={"obs_difference": 2})
    assert made.field("obs_difference").size == 2


def test_a_model_s_value_reads_the_difference_that_came() -> None:
    """The value field is asked behind the tokens of the outcome, not behind what the model would have imagined."""
    model = samples.model(layout(), window=5)
    size = samples.OBSERVATION_SIZE
    here, there = torch.zeros(2, size), torch.tensor([[0.5] * size, [-1.0] * size])
    actions, rewards = torch.zeros(2, samples.ACTION_SIZE), torch.tensor([0.2, -0.3])
    outcome = Outcome(rewards, there, torch.zeros(2, dtype=torch.bool))
    found = FieldValuation(model, 0.9).rate(here, actions, outcome)
    scalars = torch.zeros(2, model.layout.size)
    scalars[:, model.layout.field("difference").slice] = there - here
    scalars[:, model.layout.field("reward").start] = rewards
    place = model.places("value").start
    beliefs = forward(model, model.tokenizer.encode(scalars)[:, :place])[:, :-1]
    wanted = rewards + 0.9 * (beliefs @ model.tokenizer.bin_centres(place).double())
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-5)


@pytest.mark.parametrize("tokenizer", ["uniform", "kmeans"])
def test_a_training_finds_the_tokens_of_the_difference(tokenizer: str) -> None:
    store = samples.store()
    module = SequenceModule.for_store(
        store,
        layout={"fields": FIELDS, "termination_penalty": None},
        tokenizer={"name": tokenizer, "num_bins": 8},
        backbone={"num_layers": 1, "num_heads": 1, "dim": 8},
        window=2,
    )
    data = EpisodeDataModule.for_module(module, store, batch_size=4, validation_fraction=0.0)
    windows = data.windows_for(module, data.train_episodes)
    batch = windows.batch(np.arange(len(windows)), np.random.default_rng(0))
    model = module.model
    assert isinstance(model, TokenModel)
    real = batch.tokens[:, 0] != model.termination_token  # the first transition of a window always is
    assert real[:, [*range(model.tokens_per_step)][: model.places("difference").start]].all()
    last = batch.tokens[:, 1]
    ends = (last[:, model.places("difference")] == model.termination_token).all(1)
    seen = (last[:, model.places("observation")] != model.termination_token).all(1)
    assert (ends & seen).sum() == store.num_episodes


def test_the_mask_of_the_published_code_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.mask=inputs moves the mask by a token"):
        NextTokenObjective(mask="inputs").check(samples.model(layout()))


def test_an_array_of_the_data_may_not_be_called_so() -> None:
    with pytest.raises(ConfigError, match=r"an array 'difference' beside their steps.*rename the array"):
        Layout.from_config({"fields": FIELDS}, 1, 1, extras={"difference": 1})


@pytest.mark.parametrize("build", [samples.code_model, samples.vector_model])
def test_models_that_cannot_compute_with_it_refuse_it(build: Any) -> None:
    with pytest.raises(ConfigError, match=r"layout\.fields\.difference is for models of tokens, and this one reads"):
        build(layout())
