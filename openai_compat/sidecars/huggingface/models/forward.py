"""The forward pass: from rows of tokens to the scores of their next ones, whatever the model's architecture."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import torch

from openai_compat.core.errors import ModelUnavailableError

from .kv_cache import BatchKVCache

BATCHED_LAYERS: Final = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers whose memory of the past is keys and values; the others' cannot be padded, cut and joined."""


class ForwardPass:
    """Runs a causal language model over the rows of a `BatchKVCache`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = _count_layers(model)
        parameters = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._takes_logits_to_keep = "logits_to_keep" in parameters
        self.device: torch.device = model.device

    def new_cache(self) -> BatchKVCache:
        return BatchKVCache(self._layers)

    def extend(self, cache: BatchKVCache, tokens: Sequence[Sequence[int]], *, all_scores: bool = False) -> torch.Tensor:
        """Appends each row's `tokens`, and gives the scores after the last of them: [rows, 1, vocabulary].

        Rows may be of different lengths only where they have nothing in the cache yet: they are padded on the left.
        With `all_scores` (for rows of one length), the scores after each token: [rows, tokens, vocabulary].
        """
        gained = [len(row) for row in tokens]
        columns = max(gained)
        cache.make_room(columns)
        lengths = [before + new for before, new in zip(cache.lengths, gained, strict=True)]
        padded = [[0] * (columns - len(row)) + list(row) for row in tokens]
        logits = self._run(cache, torch.tensor(padded), torch.tensor(lengths), all_scores)
        cache.advance(gained)
        return logits

    def _run(self, cache: BatchKVCache, tokens: torch.Tensor, lengths: torch.Tensor, all_scores: bool) -> torch.Tensor:
        columns = tokens.shape[1]
        width = cache.width + columns
        arguments: dict[str, Any] = {}
        if int(lengths.min()) < width:
            arguments["attention_mask"] = (torch.arange(width) >= (width - lengths)[:, None]).to(self.device)
        if self._takes_positions:
            positions = lengths[:, None] - columns + torch.arange(columns)
            arguments["position_ids"] = positions.clamp(min=0).to(self.device)
        if self._takes_logits_to_keep and not all_scores:
            arguments["logits_to_keep"] = 1
        logits: torch.Tensor = self._model(
            input_ids=tokens.to(self.device), past_key_values=cache.for_model, use_cache=True, **arguments
        ).logits
        return logits if all_scores else logits[:, -1:]


def _count_layers(model: Any) -> int:
    """Raises ModelUnavailableError for a model whose past is more than keys and values (Mamba and its like)."""
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - BATCHED_LAYERS
    if others or getattr(model, "_is_stateful", False):
        raise ModelUnavailableError(
            f"Models of the type '{config.model_type}' cannot be run here: they remember their past otherwise than as "
            "keys and values. Serve it elsewhere, and name that server in the models file (kind: openai)."
        )
    return int(config.num_hidden_layers)
