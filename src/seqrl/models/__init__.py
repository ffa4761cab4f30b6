"""Sequence models: embedding, backbone and heads of tokens, of codes and of vectors."""
