import torch

from seqrl import Planner, Score, TokenModel, decoding, register_planner
from seqrl.decoding.noise import Noise, draw
from seqrl.scores import Trace
from seqrl.types import Plan, TokenHistory


@register_planner("shooting")
class ShootingPlanner(Planner):
    """Imagine `num_samples` futures to the end, and take the one with the best score.

    Args:
        num_samples: imagined futures per environment.
        horizon: H, their length in transitions.
    """

    shows = frozenset({"transitions"})

    def __init__(self, *, num_samples: int = 16, horizon: int = 5) -> None:
        self.num_samples, self.horizon = num_samples, horizon

    def check(self, model: TokenModel, score: Score) -> None:
        score.check(model.layout)

    def plan(self, model: TokenModel, history: TokenHistory, score: Score, noise: Noise) -> Plan:
        rows, count, steps = len(history.tokens), self.num_samples, model.tokens_per_step
        observation, action = (model.layout.field(name) for name in ("observation", "action"))
        session = decoding.start(model, history)
        copies = torch.arange(rows, device=history.tokens.device).repeat_interleave(count)
        session.select(copies)  # (rows * count) futures, those of an environment side by side
        tokens = [history.tokens[copies, place - observation.size] for place in range(observation.size)]
        log_probs = [torch.zeros_like(session.logits[:, 0])] * observation.size
        for place in range(observation.size, self.horizon * steps):
            chosen = draw(session.logits, noise.uniform(place, beams=count).flatten())
            log_probs.append(session.logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0])
            tokens.append(chosen)
            if place + 1 < self.horizon * steps:
                session.append(chosen)
        futures = torch.stack(tokens, -1).view(rows, count, self.horizon, steps)
        values = model.tokenizer.decode(futures)  # (rows, count, H, S)
        nats = torch.stack(log_probs, -1).view(rows, count, self.horizon, steps)
        fields = {f.name: values[..., f.start].to(nats.dtype) for f in model.layout.fields}
        trace = Trace(
            nats[..., action.slice].sum(-1),
            nats.sum(-1),
            fields.get("reward"),
            fields.get("value"),
            observations=values[..., observation.slice],
            actions=values[..., action.slice],
        )
        best, winner = score(trace).max(1)
        everyone = torch.arange(rows, device=winner.device)
        return Plan(values[everyone, winner][..., action.slice], best, futures[everyone, winner])
