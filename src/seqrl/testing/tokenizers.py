"""Contracts of the slot `tokenizer`: of tokens, of vectors and of codes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seqrl.layout import Layout
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, close, require, shape
from seqrl.tokenizers import Codec, Tokenizer, TrajectoryAutoencoder, VectorScaler

WINDOW = 10  # transitions; built-in codes are told to take 5 at a time


def shapes_and_ranges(component: Component) -> None:
    """(..., S) floats become (..., K) integers in [0, V), row by row, and (..., S) floats again."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, Tokenizer)
    vocab, tokens = tokenizer.vocab_size, tokenizer.encode(values)
    require(
        tokens.shape == (len(values), tokenizer.tokens_per_step) and tokens.dtype == torch.int64,
        f"encode gives {shape(tokens)} for {len(values)} rows; it must give int64 of shape "
        f"({len(values)}, {tokenizer.tokens_per_step}), tokens_per_step each",
    )
    low, high = int(tokens.min()), int(tokens.max())
    require(0 <= low <= high < vocab, f"encode gives tokens from {low} to {high}; they must lie in [0, {vocab})")
    windows = tokenizer.encode(values.view(20, 10, -1))
    require(
        windows.shape[:2] == (20, 10) and torch.equal(windows.flatten(0, 1), tokens),
        "encode gives other tokens for the same rows as windows (B, T, S); rows must be encoded one by one",
    )
    require(
        torch.equal(tokenizer.encode(values[:3]), tokens[:3]),
        "encode gives other tokens for a row when other rows stand beside it; rows must be encoded one by one",
    )
    decoded = tokenizer.decode(tokens)
    require(
        decoded.shape == values.shape and decoded.is_floating_point() and bool(decoded.isfinite().all()),
        f"decode gives {shape(decoded)}, or numbers that are not finite; it must give floats of {shape(values)}",
    )


def round_trip(component: Component) -> None:
    """What a token decodes to is encoded to that token again."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, Tokenizer)
    tokens = tokenizer.encode(values)
    again = tokenizer.encode(tokenizer.decode(tokens))
    wrong = int((again != tokens).sum())
    require(wrong == 0, f"decode and encode again changes {wrong} of {tokens.numel()} tokens; it must change none")


def error_within_range(component: Component) -> None:
    """A round trip moves no value further than the data reach."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, Tokenizer)
    errors = (tokenizer.decode(tokenizer.encode(values)) - values).abs().amax(0)
    spans = values.amax(0) - values.amin(0)
    worst = int((errors - spans).argmax())
    require(
        bool((errors <= spans + _slack(values)).all()),
        f"a round trip moves a value by {errors[worst]:.4g} in a dimension whose values span {spans[worst]:.4g}; "
        "the error must not exceed the span",
    )


def ties(component: Component) -> None:
    """Two values that fill a column between them stay two tokens, however rare one is."""
    values = samples.columns()
    sparse = 2
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, Tokenizer)
    decoded = tokenizer.decode(tokenizer.encode(values))[:, sparse]
    zeros, ones = decoded[values[:, sparse] == 0], decoded[values[:, sparse] == 1]
    require(
        bool(zeros.max() < ones.min()),
        "a sparse column of zeros and ones decodes to values in which they can no longer be told apart",
    )


def constant_columns(component: Component) -> None:
    """A column with a single value decodes to that value."""
    constants = torch.tensor([0.0, 3.7, -1000.0])
    tokenizer = _fitted(component, constants.expand(50, -1))
    decoded = _decoded(tokenizer, _encoded(tokenizer, constants[None]))[0]
    for wanted, given in zip(constants.tolist(), decoded.tolist(), strict=True):
        require(
            abs(wanted - given) <= 1e-4 * max(1.0, abs(wanted)),
            f"a constant column of {wanted:g} decodes to {given:g}; it must decode to the constant",
        )


def fewer_rows_than_bins(component: Component) -> None:
    """Data of one, two or three rows are enough to be fitted."""
    for rows in (1, 2, 3):
        values = samples.columns()[:rows]
        tokenizer = _fitted(component, values)
        decoded = _decoded(tokenizer, _encoded(tokenizer, values))
        inside = (decoded >= values.amin(0) - _slack(values)) & (decoded <= values.amax(0) + _slack(values))
        require(bool(inside.all()), f"fitted to {rows} rows, it decodes to values outside of them, or to NaN")


def values_outside_the_range(component: Component) -> None:
    """What lies beyond the data is encoded as their nearest value: planners write 1e6 for "very large"."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, Tokenizer)
    for far, nearest, word in ((1e6, values.amax(0), "above"), (-1e6, values.amin(0), "below")):
        tokens = tokenizer.encode(torch.full_like(nearest, far)[None])
        if tokens.shape[1] == len(nearest):  # a token per scalar; codes of whole transitions have no order
            wanted = tokenizer.encode(nearest[None])
            require(
                torch.equal(tokens, wanted),
                f"a value of {far:g}, far {word} the data, is not encoded as the nearest value of the data",
            )
        decoded = tokenizer.decode(tokens)[0]
        inside = (decoded >= values.amin(0) - _slack(values)) & (decoded <= values.amax(0) + _slack(values))
        require(bool(inside.all()), f"a value of {far:g} decodes to {decoded.tolist()}, outside the range of the data")


def termination_token(component: Component) -> None:
    """The termination token V decodes as the last bin, so that an imagined end does no harm."""
    tokenizer = _fitted(component, samples.columns())
    assert isinstance(tokenizer, Tokenizer)
    last = torch.full((1, tokenizer.tokens_per_step), tokenizer.vocab_size - 1)
    try:
        decoded = tokenizer.decode(last + 1)
    except (IndexError, RuntimeError) as error:
        require(False, f"decode of the termination token {tokenizer.vocab_size} fails: {error}")
    require(
        close(decoded, tokenizer.decode(last)),
        f"the termination token {tokenizer.vocab_size} does not decode as the last bin {tokenizer.vocab_size - 1}",
    )


def state_in_buffers(component: Component) -> None:
    """A new instance with the saved state is the same tokenizer: checkpoints hold nothing else."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    file = io.BytesIO()
    torch.save(tokenizer.state_dict(), file)
    file.seek(0)
    restored = _built(component, values.shape[1])
    restored.load_state_dict(torch.load(file, weights_only=True))
    tokens = _encoded(tokenizer, values)
    require(
        _same(_encoded(restored, values), tokens) and close(_decoded(restored, tokens), _decoded(tokenizer, tokens)),
        "a new tokenizer with the saved state_dict encodes or decodes differently; keep what fit() learns in buffers",
    )


def moves_and_double_precision(component: Component) -> None:
    """`.to(device)` and `.double()` move all of its state and change no token."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    for name in _loose_tensors(tokenizer):
        require(False, f"the tensor {name!r} is no buffer and stays behind when the model moves; use register_buffer")
    tokens, decoded = _encoded(tokenizer, values), _decoded(tokenizer, _encoded(tokenizer, values))
    tokenizer.double()
    require(
        _same(_encoded(tokenizer, values.double()), tokens) and close(_decoded(tokenizer, tokens), decoded, 1e-5),
        "after .double() the same values get other tokens, or the same tokens other values",
    )
    if torch.cuda.is_available():
        tokenizer.cuda()
        require(
            _same(_encoded(tokenizer, values.cuda()).cpu(), tokens),
            "after .cuda() the same values get other tokens",
        )


def vectors_and_back(component: Component) -> None:
    """Of vectors: (..., S) floats become (..., S) finite floats, row by row, and the same values again."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, VectorScaler)
    vectors = tokenizer.normalise(values)
    require(
        vectors.shape == values.shape and vectors.is_floating_point() and bool(vectors.isfinite().all()),
        f"normalise gives {shape(vectors)}, or numbers that are not finite; it must give floats of {shape(values)}",
    )
    require(
        close(tokenizer.normalise(values.view(20, 10, -1)).flatten(0, 1), vectors),
        "normalise gives other vectors for the same rows as windows (B, T, S); rows must be encoded one by one",
    )
    require(close(tokenizer.normalise(values[:3]), vectors[:3]), "a row gets another vector beside others")
    errors = (tokenizer.denormalise(vectors) - values).abs()
    require(bool((errors <= _slack(values)).all()), f"there and back moves a value by {float(errors.max()):.4g}")


def windows_and_codes(component: Component) -> None:
    """Of codes: windows become (B, T // steps_per_code) integers in [0, V), one by one, and transitions again."""
    values = samples.columns()
    tokenizer = _fitted(component, values)
    assert isinstance(tokenizer, TrajectoryAutoencoder)
    tokenizer.eval()
    windows = tokenizer.normalise(values).unflatten(0, (-1, WINDOW))[:8]
    codes = tokenizer.encode_windows(windows)
    count = WINDOW // tokenizer.steps_per_code
    require(
        codes.shape == (8, count) and codes.dtype == torch.int64,
        f"encode_windows gives {shape(codes)} for 8 windows of {WINDOW}; it must give int64 of shape (8, {count})",
    )
    low, high = int(codes.min()), int(codes.max())
    require(
        0 <= low <= high < tokenizer.vocab_size,
        f"encode_windows gives codes from {low} to {high}; they must lie in [0, {tokenizer.vocab_size})",
    )
    require(torch.equal(tokenizer.encode_windows(windows[:2]), codes[:2]), "a window gets other codes alone")
    observation = _layout(values.shape[1]).field("observation").slice
    state = tokenizer.state(values[::WINDOW][:8, observation])
    require(
        close(state, windows[:, 0, observation]),
        "state() and normalise() do not do the same to observations",
    )
    with torch.no_grad():
        decoded = tokenizer.decode_codes(codes, state)
    require(
        decoded.shape == windows.shape and bool(decoded.isfinite().all()),
        f"decode_codes gives {shape(decoded)}, or numbers that are not finite; floats of {shape(windows)} are needed",
    )


_STATE: tuple[Contract, ...] = (state_in_buffers, moves_and_double_precision)
TOKENS: tuple[Contract, ...] = (
    shapes_and_ranges,
    round_trip,
    error_within_range,
    ties,
    constant_columns,
    fewer_rows_than_bins,
    values_outside_the_range,
    termination_token,
    *_STATE,
)
VECTORS: tuple[Contract, ...] = (vectors_and_back, constant_columns, fewer_rows_than_bins, *_STATE)
CODES: tuple[Contract, ...] = (windows_and_codes, *_STATE)


def contracts_of(cls: type[Codec]) -> tuple[Contract, ...]:
    """What a tokenizer promises, by its kind."""
    kinds = {Tokenizer: TOKENS, VectorScaler: VECTORS, TrajectoryAutoencoder: CODES}
    return next((contracts for kind, contracts in kinds.items() if issubclass(cls, kind)), TOKENS)


def _encoded(tokenizer: Codec, values: Tensor) -> Tensor:
    """What single transitions become, whatever the kind of tokenizer."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode(values)
    assert isinstance(tokenizer, VectorScaler | TrajectoryAutoencoder)
    return tokenizer.normalise(values)


def _decoded(tokenizer: Codec, encoded: Tensor) -> Tensor:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.decode(encoded)
    assert isinstance(tokenizer, VectorScaler | TrajectoryAutoencoder)
    return tokenizer.denormalise(encoded)


def _fitted(component: Component, values: Tensor) -> Codec:
    tokenizer = _built(component, values.shape[1])
    tokenizer.fit(values.clone())
    return tokenizer


def _built(component: Component, size: int) -> Codec:
    tokenizer: Codec = component.build(size=size, layout=_layout(size), window=WINDOW)
    return tokenizer


def _layout(size: int) -> Layout:
    """One action, a reward from three scalars on, and observations."""
    fields: dict[str, Any] = {"observation": {}, "action": {}, **({"reward": {}} if size > 2 else {})}
    return Layout.from_config({"fields": fields}, size - len(fields) + 1, 1)


def _same(first: Tensor, second: Tensor) -> bool:
    """Equal tokens, or vectors that are the same up to rounding."""
    return close(first, second, 1e-5) if second.is_floating_point() else torch.equal(first, second)


def _slack(values: Tensor) -> Tensor:
    """(S,) rounding that nobody minds, in the units of the values."""
    return 1e-4 * values.abs().amax(0).clamp(min=1.0)


def _loose_tensors(tokenizer: nn.Module) -> Iterator[str]:
    for module in tokenizer.modules():
        for name, value in vars(module).items():
            held: Any = value.values() if isinstance(value, dict) else value
            if isinstance(value, Tensor) or (
                not name.startswith("_") and isinstance(value, dict | list | tuple) and any(map(_is_tensor, held))
            ):
                yield name


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
