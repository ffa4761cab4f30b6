"""What environments showed in the episodes that a policy is acting in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seqrl.layout import Layout

# The published planner writes this return-to-go into every past transition: the top bin, "all went well".
OPTIMISTIC_VALUE = 1e6


class EpisodeHistory:
    """Values of the steps so far, as far back as a model looks, and of the step that is being lived through.

    A step begins with `observe`, gets its actions by `act`, and ends with `earn`. Extras are (B, n) by name.

    Args:
        layout: which scalars a step is made of.
        context: transitions that the model sees, the present one included.
        rows: B, environments.
        device: where values are kept.
        target_return: of the whole episode, in the data's units; what is earned is taken off it. None where no return
            is asked for.

    Attributes:
        time: steps since the episodes began.
        present: (B, S) the step that is being lived through; None before the first.
    """

    def __init__(
        self, layout: Layout, context: int, rows: int, device: torch.device, target_return: float | None
    ) -> None:
        self._layout = layout
        self._kept = (context - 1) * layout.stride
        self._past = torch.zeros(rows, 0, layout.size, device=device)  # (B, n, S), the newest last
        self._desired = torch.full((rows,), float("nan") if target_return is None else target_return, device=device)
        self.time = 0
        self.present: Tensor | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self._past)

    @property
    def observation(self) -> Tensor:
        """(B, O) of the present step."""
        assert self.present is not None
        return self.present[:, self._layout.field("observation").slice]

    def observe(self, observations: Tensor, contexts: Mapping[str, Tensor] | None = None) -> Tensor:
        """Begin a step with (B, O) observations; (B, S) what is known of it before the action, zeros elsewhere."""
        layout = self._layout
        self.present = torch.zeros(self.rows, layout.size, device=self._past.device)
        self.present[:, layout.field("observation").slice] = observations
        if layout.has("return"):
            self.present[:, layout.field("return").start] = self._desired
        for name, values in (contexts or {}).items():
            self.present[:, layout.field(name).slice] = values
        return self.present

    def act(self, actions: Tensor) -> None:
        """Note the (B, A) actions of the step."""
        assert self.present is not None
        start = self._layout.field("action").start
        self.present[:, start : start + actions.shape[1]] = actions  # those of a chunk come together in `transitions`
        self.time += 1

    def correct(self, actions: Tensor) -> None:
        """Note other (B, A) actions of the step than those of `act`."""
        assert self.present is not None
        start = self._layout.field("action").start
        self.present[:, start : start + actions.shape[1]] = actions

    def earn(self, rewards: Tensor | None, outcomes: Mapping[str, Tensor] | None = None) -> None:
        """End the step with the (B,) rewards that its actions earned; None where the layout asks for none."""
        layout, step = self._layout, self.present
        assert step is not None
        if rewards is not None:
            if layout.has("reward"):
                step[:, layout.field("reward").start] = rewards
            self._desired = (self._desired - rewards) / layout.discount if layout.discount else self._desired
        for name, values in (outcomes or {}).items():
            step[:, layout.field(name).slice] = values
        if layout.has("value"):
            step[:, layout.field("value").start] = OPTIMISTIC_VALUE
        self._past = torch.cat([self._past, step[:, None]], dim=1)[:, -self._kept :] if self._kept else self._past

    def transitions(self) -> Tensor:
        """(B, n, S) past transitions, `stride` steps apart: the rewards between two of them add up.

        With `layout.chunk` they hold the actions of all their steps.
        """
        layout, steps = self._layout, self._past
        if layout.stride == 1:
            return self._tell_differences(steps)
        whole = steps.shape[1] // layout.stride
        pieces = steps[:, steps.shape[1] - whole * layout.stride :].unflatten(1, (whole, layout.stride))
        found = pieces[:, :, 0].clone()
        if layout.has("reward"):
            powers = layout.discount ** torch.arange(layout.stride, device=steps.device)
            reward = layout.field("reward").start
            found[..., reward] = (pieces[..., reward] * powers).sum(-1)
        if layout.chunk > 1:
            action = layout.field("action")
            each = pieces[..., action.start : action.start + layout.action_size]
            found[..., action.slice] = each.flatten(-2)
        return self._tell_differences(found)

    def _tell_differences(self, transitions: Tensor) -> Tensor:
        """(B, n, S) transitions of which each says how the next observation differs, where the layout asks for it."""
        layout = self._layout
        if not layout.has("difference"):
            return transitions
        observed = transitions[..., layout.field("observation").slice]
        found = transitions.clone()
        following = torch.cat([observed[:, 1:], self.observation[:, None]], 1)
        found[..., layout.field("difference").slice] = following[:, : observed.shape[1]] - observed
        return found
