import torch
from torch import Tensor

from seqrl import Tokenizer, register_tokenizer


@register_tokenizer("log_bins")
class LogBinTokenizer(Tokenizer):
    """Bins of equal width on a signed-log scale: fine near zero, coarse in the tails."""

    def __init__(self, size: int, *, num_bins: int = 100) -> None:
        super().__init__()
        self.tokens_per_step, self.vocab_size = size, num_bins
        self.register_buffer("low", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("high", torch.zeros(size, dtype=torch.float64))

    def fit(self, values: Tensor) -> None:
        scaled = values.double().sign() * values.double().abs().log1p()
        self.low.copy_(scaled.amin(0))
        self.high.copy_(scaled.amax(0))

    def encode(self, values: Tensor) -> Tensor:
        scaled = values.double().sign() * values.double().abs().log1p()
        share = (scaled.clamp(self.low, self.high) - self.low) / (self.high - self.low).clamp(min=1e-12)
        return (share * self.vocab_size).floor().clamp(max=self.vocab_size - 1).long()

    def decode(self, tokens: Tensor) -> Tensor:
        share = (tokens.clamp(max=self.vocab_size - 1) + 0.5) / self.vocab_size
        scaled = self.low + share * (self.high - self.low)
        return (scaled.sign() * scaled.abs().expm1()).float()
