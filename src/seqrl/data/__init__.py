"""Episodes, from a source to training windows; knows neither Lightning nor the tokenizers."""
