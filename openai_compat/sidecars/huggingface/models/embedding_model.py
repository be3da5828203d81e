"""Embedding models as backends: the folders of sentence-transformers, and plain encoders, run by transformers alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from openai_compat.backends.base import Backend, SupportsEmbeddings
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.parameter_checks import check_embeddings
from openai_compat.core.errors import InvalidRequestError, ModelBusyError, ModelUnavailableError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import CallContext, Embeddings, EmbeddingsRequest, Usage

from .scheduler import OUT_OF_MEMORY, is_out_of_memory

AT_ONCE: Final = 32
"""Inputs of one forward pass: more of them are no faster on a CPU, and cost memory."""
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """An encoder in memory, and its tokenizer.

    `pool` makes one vector of an input's hidden states, given with the mask of its tokens; `size` is that vector's.
    """

    model: Any
    tokenizer: Any
    window: int
    weight_bytes: int
    facts: Mapping[str, Any]
    pool: Step
    size: int


class EmbeddingModel(Backend, SupportsEmbeddings):
    """Turns texts into vectors of length 1. `dimensions` cuts them, as models trained for it allow."""

    def __init__(self, entry: LocalModel, loaded: LoadedEncoder) -> None:
        super().__init__(ModelConfig(entry.name, "huggingface"), entry, None)  # type: ignore[arg-type]
        self.context_window = loaded.window
        self.memory_bytes = loaded.weight_bytes
        self._loaded: LoadedEncoder | None = loaded
        self._size = loaded.size
        self._facts = {**loaded.facts, "dimensions": loaded.size}
        self._before, self._after = _special_tokens(loaded.tokenizer)
        self._running = threading.Lock()

    def describe(self) -> Mapping[str, Any]:
        return self._facts

    def close(self) -> None:
        with self._running:
            self._loaded = None

    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        check_embeddings(request, self._size)
        loaded = self._loaded
        if loaded is None:
            raise ModelBusyError("The model is being unloaded.")
        inputs = [self._tokens(loaded, text) for text in request.inputs]
        kept = [tokens[: self.context_window - len(self._after)] for tokens in inputs]
        whole = [tokens + self._after for tokens in kept]
        vectors = self._vectors(loaded, whole, context)
        if request.dimensions is not None:
            vectors = torch.nn.functional.normalize(vectors[:, : request.dimensions], dim=1)
        truncated = [place for place, tokens in enumerate(inputs) if len(tokens) > len(kept[place])]
        return Embeddings(vectors.tolist(), Usage(sum(map(len, whole))), truncated)

    def _tokens(self, loaded: LoadedEncoder, text: str | Sequence[int]) -> list[int]:
        """The input's tokens with what the model expects before them; what comes after them is put on at the end."""
        if isinstance(text, str):
            encoded = loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            return [*self._before, *encoded]
        wrong = next((token for token in text if not 0 <= token < len(loaded.tokenizer)), None)
        if wrong is not None:
            message = f"Invalid 'input': {wrong} is not a token of this model's {len(loaded.tokenizer)}."
            raise InvalidRequestError(message, param="input", code="invalid_token")
        return [*self._before, *text]

    def _vectors(self, loaded: LoadedEncoder, inputs: Sequence[list[int]], context: CallContext) -> torch.Tensor:
        """A forward pass for every `AT_ONCE` inputs, of like length so that little is padded."""
        order = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
        vectors = torch.empty(len(inputs), self._size)
        for capacity in _slices(order):
            context.cancellation.raise_if_cancelled()
            with self._running:
                vectors[capacity] = _run(loaded, [inputs[place] for place in capacity])
        return vectors


def _slices(capacity: Sequence[int]) -> Iterator[Sequence[int]]:
    for begin in range(0, len(capacity), AT_ONCE):
        yield capacity[begin : begin + AT_ONCE]


def _run(loaded: LoadedEncoder, inputs: Sequence[list[int]]) -> torch.Tensor:
    longest = max(map(len, inputs))
    padding = loaded.tokenizer.pad_token_id or 0
    tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in inputs])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in inputs])
    device = loaded.model.device
    try:
        with torch.inference_mode():
            states = loaded.model(input_ids=tokens.to(device), attention_mask=mask.to(device)).last_hidden_state
            return loaded.pool(states.float(), mask.to(device)).cpu()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelBusyError(OUT_OF_MEMORY, code="out_of_memory") from error
        raise


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    begin = next((place for place in range(len(whole)) if whole[place : place + len(alone)] == alone), 0)
    return whole[:begin], whole[begin + len(alone) :]


def read_pooling(folder: Path, size: int) -> tuple[Step, int]:
    """How the folder's hidden states of `size` become vectors, and the size of these.

    Read from `modules.json`, as sentence-transformers writes it; without that file, the mean of the tokens.

    Raises:
        ModelUnavailableError: a module that is not known here.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return _then(_mean, _normalize), size
    steps: list[Callable[..., torch.Tensor]] = []
    for module in json.loads(file.read_text()):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            steps.append(_pooling(_read_config(folder / module["path"])))
        elif kind == "Dense":
            dense, size = _dense(folder / module["path"])
            steps.append(dense)
        elif kind not in {"Transformer", "Normalize"}:
            raise ModelUnavailableError(
                f"This embedding model has a part of the kind '{kind}', which is not known here."
            )
    return _then(*steps, _normalize), size


def _then(pool: Step, *others: Callable[[torch.Tensor], torch.Tensor]) -> Step:
    def run(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors = pool(states, mask)
        for other in others:
            vectors = other(vectors)
        return vectors

    return run


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def _pooling(config: Mapping[str, Any]) -> Step:
    """The one way of pooling that the configuration names, in its older spelling or its newer."""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else [key for key, value in config.items() if value is True]
    known = {
        "mean": _mean,
        "pooling_mode_mean_tokens": _mean,
        "cls": _first,
        "pooling_mode_cls_token": _first,
        "max": _largest,
        "pooling_mode_max_tokens": _largest,
        "lasttoken": _last,
        "pooling_mode_lasttoken": _last,
    }
    modes = [mode for mode in modes if mode != "include_prompt"]
    if len(modes) != 1 or modes[0] not in known:
        raise ModelUnavailableError(f"This embedding model's way of pooling is not known here: {', '.join(modes)}.")
    return known[modes[0]]


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _first(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states[:, 0]


def _largest(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


def _normalize(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)


def _dense(folder: Path) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    """A linear layer behind the pooling."""
    from safetensors.torch import load_file

    config = _read_config(folder)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2]
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Tanh": torch.tanh, "Identity": lambda x: x}
    weights_file = folder / "model.safetensors"
    if activation not in functions or not weights_file.is_file():
        raise ModelUnavailableError("This embedding model has a dense layer that cannot be read here.")
    weights = load_file(weights_file)
    weight, bias = weights["linear.weight"], weights.get("linear.bias")

    def run(vectors: torch.Tensor) -> torch.Tensor:
        return functions[activation](torch.nn.functional.linear(vectors, weight.to(vectors), bias))

    return run, int(config["out_features"])
