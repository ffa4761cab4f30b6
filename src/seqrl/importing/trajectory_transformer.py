"""Published weights of the Trajectory Transformer under seqrl's names, and the settings that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.importing import Imported, Renaming, Wishes, shape_of

_BLOCK = {"ln1": "attention_norm", "ln2": "feed_forward_norm", "attn.proj": "attention_out"}
_POSITIONS = "the last position of a window predicts nothing, and no format has one: zeros"


def convert_transformer(
    weights: Mapping[str, Tensor],
    said: Mapping[str, Any],
    data_said: Mapping[str, Any],
    wishes: Wishes,
    *,
    where: str,
    feed_forward: tuple[str, str] = ("mlp.0", "mlp.2"),
) -> Imported:
    """A model of tokens from the weights of a `GPT` of the published code.

    Args:
        weights: by their published names.
        said: the source's settings of the model.
        data_said: its settings of the data; empty where it has none.
        where: how messages call the source.
        feed_forward: how the two layers of a block's feed-forward network are called.

    Raises:
        ConfigError: weights that are missing, of shapes that do not fit each other, or left over.
    """
    left, assumed = Renaming(weights, where), [_POSITIONS]
    head = left.take("head.weight", "head.weight: each place's rows under the place that they predict")
    step, classes, width = shape_of(head, 3, "head.weight")
    table = left.take("tok_emb.weight", "embedding.weight: termination's row repeated for every place")
    positions = left.take("pos_emb", "backbone.positions.weight")[0]
    if table.shape != ((classes - 1) * step + 1, width) or positions.shape[1] != width:
        raise ConfigError(f"{where} holds embeddings that do not fit its head of {step} places and {classes} classes")
    if (len(positions) + 1) % step:
        raise ConfigError(f"{where} has {len(positions)} positions, which make no whole number of {step}-token steps")
    rows = torch.cat([table[:-1].view(step, classes - 1, width), table[-1].expand(step, 1, width)], dim=1)
    found = {
        "embedding.weight": rows.reshape(step * classes, width),
        "head.weight": head.roll(1, 0).reshape(step * classes, width),
        "backbone.positions.weight": torch.cat([positions, torch.zeros_like(positions[:1])]),
    }
    for kind in ("weight", "bias"):
        found[f"backbone.norm.{kind}"] = left.take(f"ln_f.{kind}", f"backbone.norm.{kind}")
    layers = _take_blocks(left, found, feed_forward)
    left.finish()
    heads = _number(said, "n_head", wishes.heads)
    if heads is None:
        heads = 4
        assumed.append("4 attention heads, as published: weights do not tell them; give --heads for another number")
    observation, action = _sizes(said, step, where)
    window = (len(positions) + 1) // step
    settings = _settings(said, data_said, assumed)
    settings["tokenizer"] = {"num_bins": classes - 1, "edges": "published", "decode_to": "midpoints"}
    settings["backbone"] = {"num_layers": layers, "num_heads": heads, "dim": width, **_dropouts(said)}
    settings["window"] = window
    notes = {"mapped": left.mapped, "dropped": left.dropped, "assumed": assumed}
    return Imported(settings, observation, action, None, found, drops_last_row=True, **notes)  # type: ignore[arg-type]


def _take_blocks(left: Renaming, found: dict[str, Tensor], feed_forward: tuple[str, str]) -> int:
    """Add the weights of all blocks to those that were found; how many blocks there are."""
    layers = left.count("blocks.{}.ln1.weight")
    names = {**_BLOCK, feed_forward[0]: "feed_forward.0", feed_forward[1]: "feed_forward.2"}
    for layer in range(layers):
        left.drop(f"blocks.{layer}.attn.mask", "masks are made from the layout")
        for kind in ("weight", "bias"):
            ours, theirs = f"backbone.blocks.{layer}.{{}}.{kind}", f"blocks.{layer}.{{}}.{kind}"
            for their, our in names.items():
                found[ours.format(our)] = left.take(theirs.format(their), ours.format(our))
            merged = ours.format("query_key_value")
            parts = [left.take(theirs.format(f"attn.{part}"), merged) for part in ("query", "key", "value")]
            found[merged] = torch.cat(parts)
    return layers


def _sizes(said: Mapping[str, Any], step: int, where: str) -> tuple[int, int]:
    """O and A; a transition has a reward and a value beside them."""
    observation, action = _number(said, "observation_dim"), _number(said, "action_dim")
    if observation is None or action is None:
        raise ConfigError(
            f"{where} does not say how many of the {step} tokens of a step are the observation's; keep "
            "model_config.pkl (or config.json) beside the weights"
        )
    if observation + action + 2 != step:
        raise ConfigError(
            f"{where} says {observation} observation and {action} action dimensions, which with reward and value are "
            f"not the {step} tokens of its head"
        )
    return observation, action


def _settings(said: Mapping[str, Any], data_said: Mapping[str, Any], assumed: list[str]) -> dict[str, Any]:
    """The layout and what else a training of these weights would be told."""
    if int(data_said.get("step", 1) or 1) != 1:
        raise ConfigError(
            f"the source was trained on every {data_said['step']}-th step with the rewards of single steps, which no "
            "layout here has; only step 1 can be imported"
        )
    name = data_said.get("discretizer", "QuantileDiscretizer")
    if name != "QuantileDiscretizer":
        raise ConfigError(f"the source's bins are of a {name}; only QuantileDiscretizer can be imported")
    discount, penalty = data_said.get("discount"), data_said.get("penalty")
    if discount is None:
        discount = 0.99
        assumed.append("discount 0.99, as published")
    if penalty is None and "penalty" not in data_said:
        penalty = -100.0
        assumed.append("termination penalty -100, as published")
    weights = {name: float(said.get(f"{name}_weight", default)) for name, default in _WEIGHTS.items()}
    return {
        "layout": {
            "fields": {
                "observation": {"loss_weight": 1.0},
                "action": {"loss_weight": weights["action"]},
                "reward": {"loss_weight": weights["reward"]},
                "value": {"loss_weight": weights["value"], "hidden": True},
            },
            "discount": float(discount),
            "termination_penalty": None if penalty is None else float(penalty),
            "termination": "shared",
        },
        "objective": {"average": "all", "mask": "inputs"},
        "scheduler": {"name": "tt_reference"},
    }


_WEIGHTS = {"action": 5, "reward": 1, "value": 1}


def _dropouts(said: Mapping[str, Any]) -> dict[str, float]:
    names = {"embd_pdrop": "embedding_dropout", "resid_pdrop": "residual_dropout", "attn_pdrop": "attention_dropout"}
    return {ours: float(said.get(theirs, 0.1)) for theirs, ours in names.items()}


def _number(said: Mapping[str, Any], key: str, wished: int | None = None) -> int | None:
    value = said.get(key, wished)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"the source says {key}={value!r}, which is no number of 1 or more")
    return value
