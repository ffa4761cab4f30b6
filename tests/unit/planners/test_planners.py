"""Planners against brute force, and the promises about noise, batches and caches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrl.decoding.noise import Noise
from seqrl.decoding.session import DecodingSession
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import PLANNER, SCORE
from seqrl.scores import Score, Trace
from seqrl.types import Plan, TokenHistory

OBS, ACT, V = 2, 2, 4
K = OBS + ACT + 2
REWARDS, VALUES = [-1.5, -0.5, 0.5, 1.5], [-2.0, 2.0, 6.0, 10.0]  # centres of their bins
LAYOUT = {"fields": {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}}


def untrained(layout: Layout) -> TokenModel:
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 8}
    return TokenModel(layout, {"name": "uniform", "num_bins": V}, backbone, context=6)


@pytest.fixture(scope="module")
def model() -> TokenModel:
    torch.manual_seed(0)
    made = untrained(Layout.from_config(LAYOUT, OBS, ACT))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    made.tokenizer.fit(torch.tensor([[-1.0] * (OBS + ACT) + [-2.0, -4.0], [1.0] * (OBS + ACT) + [2.0, 12.0]]))
    return made.double().eval()


def histories(rows: int, transitions: int = 2) -> TokenHistory:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, V, (rows, transitions * K + OBS), generator=generator)
    return TokenHistory(tokens, torch.full((rows,), transitions))


def noise(rows: int, seed: int = 0) -> Noise:
    return Noise.of(seed, torch.arange(rows), 0)


def plan(model: TokenModel, name: str, history: TokenHistory, score: str = "reward", seed: int = 0, **options) -> Plan:
    built = SCORE.build({"name": score}, discount=0.9)
    with torch.no_grad():
        return PLANNER.build({"name": name, **options}).plan(model, history, built, noise(len(history.tokens), seed))


def next_probabilities(model: TokenModel, tokens: list[int]) -> np.ndarray:
    padded = tokens + [0] * (-(len(tokens) + 1) % K + 1)
    with torch.no_grad():
        logits = model(torch.tensor(padded).view(1, -1, K))[0, len(tokens) - 1]
    return logits.softmax(-1).numpy()


def imagine(model: TokenModel, tokens: list[int], actions: list[list[int]]) -> tuple[list[int], float]:
    """Roll greedy predictions out under given action tokens; the score by the paper's formula, gamma 0.9."""
    tokens, score = list(tokens), 0.0
    for h, action in enumerate(actions):
        tokens += action
        reward = next_probabilities(model, tokens)
        tokens.append(int(reward.argmax()))
        value = next_probabilities(model, tokens)
        tokens.append(int(value.argmax()))
        score += 0.9**h * float(reward[:V] @ REWARDS)
        last = h + 1 == len(actions)
        if last:
            score += 0.9 ** (h + 1) * float(value[:V] @ VALUES)
        else:
            for _ in range(OBS):
                tokens.append(int(next_probabilities(model, tokens).argmax()))
    return tokens, score


def test_a_plan_is_scored_as_the_paper_says(model: TokenModel) -> None:
    """The winner's tokens, replayed one at a time through the training-time pass, give its score and its actions."""
    history = histories(3, transitions=1)
    found = plan(model, "beam", history, beam_width=3, n_expand=2, horizon=3, context=6)
    for row in range(3):
        actions = found.tokens[row, :, OBS : OBS + ACT].tolist()
        tokens, score = imagine(model, history.tokens[row].tolist(), actions)
        assert tokens[K:] == found.tokens[row].flatten().tolist()
        assert float(found.value[row]) == pytest.approx(score, abs=1e-9)
        centres = np.array([-0.75, -0.25, 0.25, 0.75, 0.75])
        np.testing.assert_allclose(found.actions[row].numpy(), centres[found.tokens[row, :, OBS : OBS + ACT].numpy()])


def test_a_wide_beam_finds_the_best_of_all_plans(model: TokenModel) -> None:
    """With every action sampled, H = 1 must find the best of all V^ACT + termination actions."""
    history = histories(1)
    found = plan(model, "beam", history, beam_width=400, n_expand=4, horizon=1, cdf_act=None, context=6)
    scores = [
        imagine(model, history.tokens[0].tolist(), [list(action)])[1]
        for action in itertools.product(range(V + 1), repeat=ACT)
    ]
    assert float(found.value[0]) == pytest.approx(max(scores), abs=1e-9)
    winner = found.tokens[0, :, OBS : OBS + ACT].tolist()
    assert imagine(model, history.tokens[0].tolist(), winner)[1] == pytest.approx(max(scores), abs=1e-9)


@pytest.mark.parametrize("counted", ["action", "all"])
def test_a_plan_is_worth_its_likelihood(model: TokenModel, counted: str) -> None:
    """In nats under the unfiltered distributions, the present observation not counted."""
    history = histories(3, transitions=1)
    score = SCORE.build({"name": "likelihood", "tokens": counted})
    planner = PLANNER.build({"name": "beam", "beam_width": 3, "n_expand": 2, "horizon": 2, "context": 6})
    with torch.no_grad():
        found = planner.plan(model, history, score, noise(3))
    for row in range(3):
        tokens, nats = history.tokens[row].tolist(), 0.0
        for token in found.tokens[row].flatten().tolist()[OBS:]:
            if counted == "all" or OBS <= len(tokens) % K < OBS + ACT:
                nats += float(np.log(next_probabilities(model, tokens)[token]))
            tokens.append(token)
        assert float(found.value[row]) == pytest.approx(nats, abs=1e-9)


def test_copies_of_a_beam_stand_side_by_side(model: TokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a session need not copy what they share."""
    selected: list[Tensor] = []
    select = DecodingSession.select
    monkeypatch.setattr(DecodingSession, "select", lambda self, rows: (selected.append(rows), select(self, rows))[1])
    plan(model, "beam", histories(2), beam_width=3, n_expand=2, horizon=2, context=6)
    assert torch.equal(selected[0], torch.arange(2).repeat_interleave(6))
    assert torch.equal(selected[2], torch.arange(6).repeat_interleave(2))
    assert len(selected) == 3


class _FixedScores(Score):
    """A score that prefers candidates by their index, to watch what the search keeps."""

    def __init__(self) -> None:
        self.depths: list[tuple[int, ...]] = []

    def check(self, layout: Layout) -> None: ...

    def __call__(self, trace: Trace) -> Tensor:
        self.depths.append(tuple(trace.rewards.shape))
        return torch.zeros(trace.rewards.shape[:-1], dtype=torch.float64)


def test_ties_go_to_the_lower_index_and_the_beam_is_cut_to_its_width(model: TokenModel) -> None:
    score = _FixedScores()
    planner = PLANNER.build({"name": "beam", "beam_width": 3, "n_expand": 2, "horizon": 3, "context": 6})
    with torch.no_grad():
        found = planner.plan(model, histories(2), score, noise(2))
        alone = PLANNER.build({"name": "beam", "beam_width": 1, "n_expand": 1, "horizon": 3, "context": 6}).plan(
            model, histories(2), score, noise(2)
        )
    assert score.depths[:3] == [(2, 6, 1), (2, 6, 2), (2, 6, 3)]
    assert torch.equal(found.tokens, alone.tokens)  # candidate 0 of candidate 0, and the same draws


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beam", {"beam_width": 3, "horizon": 5, "context": 4}),
        ("beam", {"beam_width": 2, "horizon": 3, "context": 3, "k_obs": None, "k_act": 2, "cdf_act": None}),
        ("sample", {}),
        ("sample", {"temperature": 0.0, "context": 2}),
    ],
)
class TestPromises:
    def test_exact_gives_the_tokens_of_none(self, model: TokenModel, name: str, options: dict) -> None:
        exact = plan(model, name, histories(3, 3), cache="exact", **options)
        none = plan(model, name, histories(3, 3), cache="none", **options)
        assert torch.equal(exact.tokens, none.tokens)

    def test_a_plan_does_not_depend_on_the_other_rows(self, model: TokenModel, name: str, options: dict) -> None:
        history, score = histories(3), SCORE.build({"name": "reward"}, discount=0.9)
        planner = PLANNER.build({"name": name, **options})
        with torch.no_grad():
            together = planner.plan(model, history, score, noise(3))
            for row in (2, 0):
                own = TokenHistory(history.tokens[row : row + 1], history.lengths[row : row + 1])
                alone = planner.plan(model, own, score, Noise.of(0, torch.tensor([row]), 0))
                assert torch.equal(alone.tokens[0], together.tokens[row])

    def test_the_present_observation_opens_the_plan(self, model: TokenModel, name: str, options: dict) -> None:
        history = histories(3)
        assert torch.equal(plan(model, name, history, **options).tokens[:, 0, :OBS], history.tokens[:, -OBS:])


def test_the_seed_decides(model: TokenModel) -> None:
    options = {"beam_width": 2, "horizon": 2, "cdf_act": None, "context": 6}
    first, again, other = (plan(model, "beam", histories(8), seed=s, **options).tokens for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["beam", "sample"])
def test_no_two_tokens_share_a_draw(model: TokenModel, name: str) -> None:
    asked: list[int] = []

    class Counted(Noise):
        def uniform(self, draw: int, beams: int = 1) -> Tensor:
            asked.append(draw)
            return super().uniform(draw, beams)

    options = {"beam_width": 2, "horizon": 3, "context": 6, "k_obs": None} if name == "beam" else {}
    score = SCORE.build({"name": "reward"}, discount=0.9)
    with torch.no_grad():
        PLANNER.build({"name": name, **options}).plan(model, histories(1), score, Counted(noise(1).keys))
    assert len(asked) == len(set(asked)) == (3 * ACT + 2 * OBS if name == "beam" else ACT)


def test_greedy_sampling_takes_the_likeliest_tokens(model: TokenModel) -> None:
    history = histories(2, transitions=1)
    found = plan(model, "sample", history, temperature=0.0)
    for row in range(2):
        tokens, log_prob = history.tokens[row].tolist(), 0.0
        for _ in range(ACT):
            probabilities = next_probabilities(model, tokens)
            tokens.append(int(probabilities.argmax()))
            log_prob += float(np.log(probabilities.max()))
        assert found.tokens[row, 0, OBS : OBS + ACT].tolist() == tokens[-ACT:]
        assert float(found.value[row]) == pytest.approx(log_prob, abs=1e-9)


def test_sampled_actions_follow_the_model(model: TokenModel) -> None:
    one = histories(1, transitions=1)
    many = TokenHistory(one.tokens.expand(4000, -1), one.lengths.expand(4000))
    drawn = plan(model, "sample", many).tokens[:, 0, OBS]
    share = np.bincount(drawn.numpy(), minlength=V + 1) / 4000
    np.testing.assert_allclose(share, next_probabilities(model, one.tokens[0].tolist()), atol=0.03)


def test_likelihood_counts_action_tokens_or_all(model: TokenModel) -> None:
    trace = Trace(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), None, None)
    assert float(SCORE.build({"name": "likelihood"})(trace)) == 3.0
    assert float(SCORE.build({"name": "likelihood", "tokens": "all"})(trace)) == 7.0


def test_reward_score_adds_the_value_after_the_last_reward() -> None:
    trace = Trace(torch.zeros(2), torch.zeros(2), torch.tensor([1.0, 10.0]), torch.tensor([5.0, 7.0]))
    assert float(SCORE.build({"name": "reward"}, discount=0.5)(trace)) == pytest.approx(1 + 0.5 * 10 + 0.25 * 7)


def test_baselines(model: TokenModel) -> None:
    history = histories(500)
    assert torch.equal(plan(model, "zero", history).actions, torch.zeros(500, 1, ACT))
    drawn = plan(model, "random", history).actions
    assert float(drawn.min()) >= -0.75
    assert float(drawn.max()) <= 0.75
    np.testing.assert_allclose(drawn.mean((0, 1)).numpy(), 0, atol=0.06)
    assert float(drawn.std()) == pytest.approx(1.5 / np.sqrt(12), rel=0.05)


class _Watch(Score):
    """Time that passes only when a score is asked for: 10 ms a transition, or more for the first one."""

    def __init__(self, first: float = 0.010) -> None:
        self.now = 0.0
        self.next = first

    def perf_counter(self) -> float:
        return self.now

    def check(self, layout: Layout) -> None: ...

    def __call__(self, trace: Trace) -> Tensor:
        self.now, self.next = self.now + self.next, 0.010
        assert trace.rewards is not None
        return trace.rewards.sum(-1)


@pytest.mark.parametrize(("budget", "transitions"), [(1.0, 1), (19.9, 1), (20.1, 2), (35.0, 3), (500.0, 5), (None, 5)])
def test_a_time_budget_ends_the_search_before_it_is_exceeded(
    model: TokenModel, monkeypatch: pytest.MonkeyPatch, budget: float | None, transitions: int
) -> None:
    """The plan is then the best so far: that of a search with a shorter horizon."""
    watch = _Watch()
    monkeypatch.setattr("seqrl.planners.beam.time", watch)
    options = {"beam_width": 3, "context": 6}
    planner = PLANNER.build({"name": "beam", "horizon": 5, "time_budget_ms": budget, **options})
    shorter = PLANNER.build({"name": "beam", "horizon": transitions, **options})
    with torch.no_grad():
        found = planner.plan(model, histories(2), watch, noise(2))
        expected = shorter.plan(model, histories(2), watch, noise(2))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.actions, expected.actions)
    assert torch.equal(found.value, expected.value)


@pytest.mark.parametrize(("budget", "transitions"), [(59.0, 1), (69.0, 2), (79.0, 3), (81.0, 4)])
def test_a_time_budget_reckons_with_the_slowest_transition(
    model: TokenModel, monkeypatch: pytest.MonkeyPatch, budget: float, transitions: int
) -> None:
    """The first one takes 30 ms, all others 10."""
    watch = _Watch(first=0.030)
    monkeypatch.setattr("seqrl.planners.beam.time", watch)
    planner = PLANNER.build({"name": "beam", "horizon": 5, "time_budget_ms": budget, "beam_width": 3, "context": 6})
    with torch.no_grad():
        found = planner.plan(model, histories(2), watch, noise(2))
    assert found.actions.shape[1] == transitions


@pytest.mark.parametrize("budget", [0, -3.0, float("nan")])
def test_a_time_budget_must_be_some_time(budget: float) -> None:
    with pytest.raises(ConfigError, match=r"planner\.time_budget_ms="):
        PLANNER.build({"name": "beam", "time_budget_ms": budget})


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ({"k_act": 1, "k_obs": None}, "action"),
        ({"cdf_act": 0.99, "k_obs": None}, "action"),
        ({"k_obs": 1, "cdf_act": None}, "observation"),
        ({"k_obs": None, "cdf_obs": 0.99, "cdf_act": None}, "observation"),
    ],
)
def test_a_filter_is_that_of_its_field(model: TokenModel, options: dict, greedy: str) -> None:
    """A field of which the likeliest token alone is kept is greedy, the other one is drawn."""
    history = histories(8, transitions=1)
    found = plan(model, "beam", history, beam_width=1, n_expand=1, horizon=2, context=6, **options)
    likeliest: dict[str, list[bool]] = {"action": [], "observation": []}
    for row, future in zip(history.tokens, found.tokens.flatten(1), strict=True):
        tokens = row[:K].tolist() + future.tolist()
        for place in range(K + OBS, 3 * K):
            if place % K < OBS + ACT:
                is_mode = tokens[place] == int(next_probabilities(model, tokens[:place]).argmax())
                likeliest["observation" if place % K < OBS else "action"].append(is_mode)
    assert [name for name, modes in likeliest.items() if all(modes)] == [greedy]


@pytest.mark.parametrize("option", ["beam_width", "n_expand", "horizon"])
def test_sizes_below_one_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"planner.{option}=0 is too small"):
        PLANNER.build({"name": "beam", option: 0})


def test_reward_search_without_a_value_field_names_the_override() -> None:
    layout = Layout.from_config({"fields": {"observation": {}, "action": {}, "reward": {}}}, OBS, ACT)
    score = SCORE.build({"name": "reward"}, discount=0.9)
    with pytest.raises(ConfigError, match=r"\+layout\.fields\.value=\{hidden: true\}"):
        PLANNER.build({"name": "beam"}).check(untrained(layout), score)


def test_a_search_imagines_only_what_was_learnt() -> None:
    fields = {"observation": {"loss_weight": 0.0}, "action": {}}
    layout, score = Layout.from_config({"fields": fields}, OBS, ACT), SCORE.build({"name": "likelihood"})
    PLANNER.build({"name": "beam", "horizon": 1}).check(untrained(layout), score)
    with pytest.raises(ConfigError, match=r"'observation'.*train with layout\.fields\.observation\.loss_weight=1"):
        PLANNER.build({"name": "beam", "horizon": 2}).check(untrained(layout), score)
    unvalued = Layout.from_config({"fields": {**fields, "value": {"loss_weight": 0.0, "hidden": True}}}, OBS, ACT)
    with pytest.raises(ConfigError, match="'value'"):
        PLANNER.build({"name": "beam", "horizon": 1}).check(untrained(unvalued), score)


@pytest.mark.parametrize("percentile", [0.0, 0.3, 0.5, 0.9])
def test_reward_and_value_are_percentiles_of_their_bins(model: TokenModel, percentile: float) -> None:
    """By a loop over the bins: the first whose share, with those before it, exceeds the percentile."""

    def passed(probabilities: np.ndarray, centres: list[float]) -> float:
        mass, total = 0.0, float(probabilities[:V].sum())  # the termination token has no value
        for probability, centre in zip(probabilities, centres, strict=False):
            mass += float(probability)
            if mass / total > percentile:
                return centre
        raise AssertionError

    history = histories(20, transitions=1)
    found = plan(model, "beam", history, beam_width=2, n_expand=1, horizon=1, context=6, percentile=percentile)
    for row in range(20):
        tokens = history.tokens[row].tolist() + found.tokens[row, 0, OBS : OBS + ACT].tolist()
        reward = next_probabilities(model, tokens)
        value = next_probabilities(model, [*tokens, int(reward.argmax())])
        expected = passed(reward, REWARDS) + 0.9 * passed(value, VALUES)
        assert float(found.value[row]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("percentile", [-0.1, 1.0, float("nan")])
def test_a_percentile_is_a_share(percentile: float) -> None:
    with pytest.raises(ConfigError, match=r"planner\.percentile=.*; give 0 or more and less than 1, or null"):
        PLANNER.build({"name": "beam", "percentile": percentile})


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("action", {"k_act": 2}),
        ("action", {"cdf_act": 0.35}),
        ("observation", {"k_obs": 2}),
        ("observation", {"k_obs": None, "cdf_obs": 0.35}),
    ],
)
def test_a_filter_leaves_what_an_independent_sort_leaves(model: TokenModel, field: str, option: dict) -> None:
    """Every drawn token lies in the head of its distribution, and over many rows all of the head is drawn."""
    history = histories(60, transitions=1)
    options = {"cdf_act": None, "k_obs": 1, **option}
    found = plan(model, "beam", history, beam_width=1, n_expand=1, horizon=2, context=6, **options)
    ranks, kept, fewest = [], [], V + 1
    for row, future in zip(history.tokens, found.tokens.flatten(1), strict=True):
        tokens = row[:K].tolist() + future.tolist()
        places = range(2 * K, 2 * K + OBS) if field == "observation" else range(K + OBS, K + OBS + ACT)
        for place in places:
            probabilities = next_probabilities(model, tokens[:place])
            descending = np.argsort(-probabilities)
            size = option.get("k_act") or option.get("k_obs") or V + 1
            mass = option.get("cdf_act") or option.get("cdf_obs") or 0.0
            while probabilities[descending[size - 1 :]].sum() < mass:  # the least likely one can go as well
                size -= 1
            ranks.append(int(np.flatnonzero(descending == tokens[place])[0]))
            kept.append(size)
            fewest = min(fewest, size)
    assert fewest < V + 1
    assert all(rank < size for rank, size in zip(ranks, kept, strict=True))
    assert any(rank == size - 1 > 0 for rank, size in zip(ranks, kept, strict=True))
