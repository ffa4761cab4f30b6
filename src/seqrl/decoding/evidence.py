"""What imagined actions say about where they lead."""

from __future__ import annotations

import torch
from torch import Tensor

from seqrl.models.token import TokenModel

_ROWS = 4096  # windows of one pass, which bounds the memory


@torch.no_grad()
def find_goal_evidence(model: TokenModel, tokens: Tensor, goal: Tensor, *, steps: int) -> Tensor:
    """How much likelier the last actions of sequences are on the way to a goal than without one.

    For each transition `log P(a | goal) - log P(a | no goal)` in nats, its tokens summed. Sequences are read in windows
    of the model's own length that follow each other and end with the last transition; within a window an action is seen
    with what precedes it there. Where the model knows which states lie on the way to which goal, the sum says whether a
    sequence is heading there, long before its states are near: by Bayes' rule it is `log P(goal | actions)` less
    `log P(goal)`, as far as the windows know.

    Args:
        model: trained with goals and with the null goal, in eval mode.
        tokens: (R, h, K) int64.
        goal: (R, P) int64, as `model.encode_goals` makes it.
        steps: n, of how many of the last transitions; 1 or more.

    Returns:
        (R, min(n, h)) float.
    """
    null = model.encode_goals(None, 1)
    assert null is not None
    wanted = min(steps, tokens.shape[1])
    # Whole windows where the sequences are long enough, so that the first actions are seen with a past, too.
    read = min(-(-wanted // model.context) * model.context, tokens.shape[1])
    last = tokens[:, tokens.shape[1] - read :]
    first = read % model.context
    pieces = ([last[:, None, :first]] if first else []) + [last[:, first:].unflatten(1, (-1, model.context))]
    found = [_compare(model, piece, goal, null) for piece in pieces if piece.shape[1]]
    return torch.cat(found, 1)[:, read - wanted :]


def _compare(model: TokenModel, windows: Tensor, goal: Tensor, null: Tensor) -> Tensor:
    """(R, m, T, K) windows and (R, P) goals to (R, m * T) nats."""
    rows, count = windows.shape[:2]
    flat, goals = windows.flatten(0, 1), goal.repeat_interleave(count, 0)
    evidence = [
        _score_actions(model, some, toward) - _score_actions(model, some, null.expand(len(some), -1))
        for some, toward in zip(flat.split(_ROWS), goals.split(_ROWS), strict=True)
    ]
    return torch.cat(evidence).view(rows, -1)


def _score_actions(model: TokenModel, windows: Tensor, goal: Tensor) -> Tensor:
    """(U, T) log-likelihood of the action tokens of (U, T, K) windows, in nats."""
    logits = model(windows, goal)  # of every token but the first
    log_probs = logits.log_softmax(-1).gather(-1, windows.flatten(1)[:, 1:, None])[..., 0]
    per_step = torch.nn.functional.pad(log_probs, (1, 0)).unflatten(1, windows.shape[1:])
    found: Tensor = per_step[..., model.places("action")].sum(-1)
    return found
