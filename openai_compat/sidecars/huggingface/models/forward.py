"""Forward pass of a causal language model over a batch, for all architectures with plain attention."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import torch

from openai_compat.core.errors import ModelUnavailableError

from .kv_cache import BatchKVCache

BATCHED_LAYERS: Final = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers whose state is keys and values. The state of others cannot be padded, cut and joined."""


class ForwardPass:
    """Forward pass of one model over the rows of a `BatchKVCache`."""

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
        """Append each row's `tokens` and return the scores after the last of them, [rows, 1, vocabulary].

        Rows may get different numbers of tokens only if they have none in the cache yet. They are padded on the left.
        With `all_scores`, which needs equal numbers, return the scores after each token, [rows, tokens, vocabulary].
        """
        gained = [len(row) for row in tokens]
        columns = max(gained)
        cache.reserve(columns)
        lengths = [length + new for length, new in zip(cache.lengths, gained, strict=True)]
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
            input_ids=tokens.to(self.device), past_key_values=cache.past_key_values, use_cache=True, **arguments
        ).logits
        return logits if all_scores else logits[:, -1:]


def _count_layers(model: Any) -> int:
    """Return the number of layers with a cache. The last layers of Gemma 3n use the keys and values of earlier ones.

    Raises:
        ModelUnavailableError: the state is not keys and values, as of Mamba. Code that comes with a model may keep no
            state at all.
    """
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - BATCHED_LAYERS
    parameters = inspect.signature(model.forward).parameters
    takes_state = "past_key_values" in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    if others or getattr(model, "_is_stateful", False) or not takes_state:
        raise ModelUnavailableError(
            f"Models of the type '{config.model_type}' cannot run in this engine, because their state is not keys and "
            "values. Run the model on another server, and add that server to the models file (kind: openai)."
        )
    return int(config.num_hidden_layers) - (getattr(config, "num_kv_shared_layers", None) or 0)
