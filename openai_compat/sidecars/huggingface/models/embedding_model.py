"""Backend for embedding models, run by transformers alone, from plain encoders or sentence-transformers folders."""

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
from openai_compat.backends.parameter_checks import check_embeddings, require_text
from openai_compat.core.errors import ModelBusyError, ModelUnavailableError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import CallContext, Embeddings, EmbeddingsRequest, Usage

from .scheduler import OUT_OF_MEMORY, is_out_of_memory

BATCH_SIZE: Final = 32
"""Inputs of one forward pass. More are no faster on a CPU and take memory."""
Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """An encoder in memory, with its tokenizer.

    `pool` turns the hidden states of inputs and the masks of their tokens into one vector for each input. `size` is the
    length of that vector. `details` is what `GET /v1/models/{id}` shows about the model.
    """

    model: Any
    tokenizer: Any
    context_window: int
    weight_bytes: int
    details: Mapping[str, Any]
    pool: Pooling
    size: int


class EmbeddingModel(Backend, SupportsEmbeddings):
    """Embedding model with vectors of length 1. `dimensions` cuts them, which some models are trained for."""

    def __init__(self, entry: LocalModel, loaded: LoadedEncoder) -> None:
        super().__init__(ModelConfig(entry.name, "huggingface"), entry, None)  # type: ignore[arg-type]
        self.context_window = loaded.context_window
        self.memory_bytes = loaded.weight_bytes
        self._loaded: LoadedEncoder | None = loaded
        self._size = loaded.size
        self._details = {**loaded.details, "dimensions": loaded.size}
        self._prefix, self._suffix = _special_tokens(loaded.tokenizer)
        self._run_lock = threading.Lock()

    def describe(self) -> Mapping[str, Any]:
        return self._details

    def close(self) -> None:
        with self._run_lock:
            self._loaded = None

    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        check_embeddings(request, self._size)
        loaded = self._loaded
        if loaded is None:
            raise ModelBusyError("The model is being unloaded.")
        inputs = [self._tokenize(loaded, text) for text in request.inputs]
        kept = [tokens[: self.context_window - len(self._suffix)] for tokens in inputs]
        complete = [tokens + self._suffix for tokens in kept]
        vectors = self._embed(loaded, complete, context)
        if request.dimensions is not None:
            vectors = torch.nn.functional.normalize(vectors[:, : request.dimensions], dim=1)
        truncated = [index for index, tokens in enumerate(inputs) if len(tokens) > len(kept[index])]
        return Embeddings(vectors.tolist(), Usage(sum(map(len, complete))), truncated)

    def _tokenize(self, loaded: LoadedEncoder, text: str | Sequence[int]) -> list[int]:
        """Return an input's tokens with the special tokens before them. Those after them are added once it is cut."""
        encoded = loaded.tokenizer(require_text(text), add_special_tokens=False, verbose=False)["input_ids"]
        return [*self._prefix, *encoded]

    def _embed(self, loaded: LoadedEncoder, inputs: Sequence[list[int]], context: CallContext) -> torch.Tensor:
        """Return the vectors of all inputs. Inputs of similar length share a forward pass, which saves padding."""
        order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
        vectors = torch.empty(len(inputs), self._size)
        for indexes in _batches(order):
            context.cancellation.raise_if_cancelled()
            with self._run_lock:
                vectors[indexes] = _run(loaded, [inputs[index] for index in indexes])
        return vectors


def _batches(indexes: Sequence[int]) -> Iterator[Sequence[int]]:
    for begin in range(0, len(indexes), BATCH_SIZE):
        yield indexes[begin : begin + BATCH_SIZE]


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
    """Return the tokens that the tokenizer adds before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    complete = tokenizer("a")["input_ids"]
    begin = next((start for start in range(len(complete)) if complete[start : start + len(plain)] == plain), 0)
    return complete[:begin], complete[begin + len(plain) :]


def read_pooling(folder: Path, size: int) -> tuple[Pooling, int]:
    """Return the pooling of a folder's model and the size of its vectors. `size` is that of the hidden states.

    It is read from `modules.json`, which sentence-transformers writes. Without that file it is the mean of the tokens.

    Raises:
        ModelUnavailableError: the folder has a module of an unknown kind.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return _compose(_mean, _normalize), size
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
                f"This embedding model has a module of the kind '{kind}', which is not supported."
            )
    return _compose(*steps, _normalize), size


def _compose(pool: Pooling, *others: Callable[[torch.Tensor], torch.Tensor]) -> Pooling:
    def run(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors = pool(states, mask)
        for other in others:
            vectors = other(vectors)
        return vectors

    return run


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def _pooling(config: Mapping[str, Any]) -> Pooling:
    """Return the pooling that the configuration names, in its older or newer spelling."""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else [key for key, value in config.items() if value is True]
    known = {
        "mean": _mean,
        "pooling_mode_mean_tokens": _mean,
        "cls": _first_token,
        "pooling_mode_cls_token": _first_token,
        "max": _max,
        "pooling_mode_max_tokens": _max,
        "lasttoken": _last_token,
        "pooling_mode_lasttoken": _last_token,
    }
    modes = [mode for mode in modes if mode != "include_prompt"]
    if len(modes) != 1 or modes[0] not in known:
        raise ModelUnavailableError(f"This embedding model's pooling is not supported: {', '.join(modes)}.")
    return known[modes[0]]


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _first_token(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states[:, 0]


def _max(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)


def _last_token(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


def _normalize(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)


def _dense(folder: Path) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    """Return the linear layer that follows the pooling, and the size of its outputs."""
    from safetensors.torch import load_file

    config = _read_config(folder)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2]
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Tanh": torch.tanh, "Identity": lambda x: x}
    weights_file = folder / "model.safetensors"
    if activation not in functions or not weights_file.is_file():
        raise ModelUnavailableError("This embedding model has a dense layer that is not supported.")
    weights = load_file(weights_file)
    weight, bias = weights["linear.weight"], weights.get("linear.bias")

    def run(vectors: torch.Tensor) -> torch.Tensor:
        return functions[activation](torch.nn.functional.linear(vectors, weight.to(vectors), bias))

    return run, int(config["out_features"])
