"""A description of a tokenizer, as plain data for a VLM's fingerprint."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def describe_tokenizer(tokenizer: Any, tokenize: Callable[[list[str]], Any]) -> dict[str, Any]:
    """A tokenizer's vocabulary, and its tokens for a long text with accents, capitals and signs."""
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else tokenizer.encoder
    tokens = tokenize(["A photo of  3 café's, unBELIEVABLY small! " * 20])
    ids = tokens if isinstance(tokens, Tensor) else tokens["input_ids"]
    return {"vocabulary": vocabulary, "probe": ids.tolist()}
