"""Loading of models, which determines from a folder of weights what kind of model it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.core.errors import ModelUnavailableError

from .embedding_model import EmbeddingModel, LoadedEncoder, read_pooling
from .gguf import to_safetensors
from .hub import cached_folder
from .hub import fetch_weights as fetch_weights  # the engine finds it here and calls it before `load_model`
from .quantization import quantize_to_int8
from .row_attention import use_row_attention
from .scheduler import is_out_of_memory
from .text_model import ChatTextModel, LoadedText, TextModel

log = logging.getLogger(__name__)
GENERATIVE_SUFFIXES: Final = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures that generate text."""
WINDOW_KEYS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")

# The server logs the steps of loading itself.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


@dataclass(frozen=True, slots=True)
class _Source:
    """A model's folder, its transformers configuration and its device."""

    entry: LocalModel
    folder: Path
    config: Any
    device: torch.device

    @property
    def options(self) -> dict[str, Any]:
        return {"trust_remote_code": self.entry.trust_remote_code, "local_files_only": True}


def load_model(entry: LocalModel, progress: Callable[[str], None]) -> Backend:
    """Return the loaded model. `progress` is called with a text for each step.

    Raises:
        ModelUnavailableError: its message names the cause.
    """
    try:
        return _load(entry, progress)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.error("model '%s': %s", entry.name, error)
        raise ModelUnavailableError(f"There is not enough memory for the model '{entry.name}'.") from error


def estimate_bytes(entry: LocalModel) -> int | None:
    """Return how many bytes of memory the model will take, by its files, or None if they are not on this machine."""
    try:
        folder = find_folder(entry)
    except ModelUnavailableError:
        return None
    if entry.gguf_file is not None:
        file = folder / entry.gguf_file
        # 4 or 5 bits a weight become 32.
        return file.stat().st_size * 7 if file.is_file() else None
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None


def find_folder(entry: LocalModel) -> Path:
    """Return the folder of the weights, which `hf_repo` names or the hub's library has downloaded.

    Raises:
        ModelUnavailableError: the weights are not on this machine.
    """
    folder = Path(entry.hf_repo).expanduser()
    if folder.is_dir():
        return folder
    if (cached := cached_folder(entry)) is None:
        raise ModelUnavailableError(f"The weights of the model '{entry.name}' are not on this machine.")
    return cached


def _load(entry: LocalModel, progress: Callable[[str], None]) -> Backend:
    folder = find_folder(entry)
    if entry.gguf_file is not None:
        folder = to_safetensors(folder, entry.gguf_file, entry.name, progress)
    if not (folder / "config.json").is_file():
        raise ModelUnavailableError(f"The folder of the model '{entry.name}' has no config.json, so it is not a model.")
    config = _read(
        entry,
        lambda: AutoConfig.from_pretrained(folder, trust_remote_code=entry.trust_remote_code, local_files_only=True),
    )
    source = _Source(entry, folder, config, find_device(entry.device))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    progress(f"reading {size / 1e6:.0f} MB of weights onto {source.device}")
    return _load_text_model(source) if _is_generative(source) else _load_encoder(source)


def _is_generative(source: _Source) -> bool:
    if (source.folder / "modules.json").is_file() or source.entry.capabilities == ("embeddings",):
        return False
    names = source.config.architectures or [""]
    return any(name.endswith(GENERATIVE_SUFFIXES) for name in names)


def _load_text_model(source: _Source) -> TextModel:
    model = _load_weights(source, AutoModelForCausalLM)
    if source.entry.quantize == "int8":
        quantize_to_int8(model)
        use_row_attention(model)
    if getattr(model, "generation_config", None) is None:  # as with code that comes with a model
        model.generation_config = GenerationConfig()
    tokenizer = _load_tokenizer(source)
    loaded = LoadedText(model, tokenizer, _context_window(source), _weight_bytes(model), _details(source, model))
    model_class = ChatTextModel if tokenizer.chat_template else TextModel
    return model_class(source.entry, loaded)


def _load_encoder(source: _Source) -> EmbeddingModel:
    model = _load_weights(source, AutoModel)
    pool, size = read_pooling(source.folder, int(source.config.get_text_config().hidden_size))
    window = _context_window(source)
    limits = source.folder / "sentence_bert_config.json"
    if limits.is_file():
        window = min(window, json.loads(limits.read_text()).get("max_seq_length") or window)
    tokenizer, details = _load_tokenizer(source), _details(source, model)
    loaded = LoadedEncoder(model, tokenizer, window, _weight_bytes(model), details, pool, size)
    return EmbeddingModel(source.entry, loaded)


def _load_weights(source: _Source, auto_class: Any) -> Any:
    options = {"config": source.config, "dtype": _dtype(source), **source.options}
    model = _read(source.entry, lambda: auto_class.from_pretrained(source.folder, **options))
    return model.to(source.device).eval()


def _load_tokenizer(source: _Source) -> Any:
    return _read(source.entry, lambda: AutoTokenizer.from_pretrained(source.folder, **source.options))


def _read(entry: LocalModel, read: Callable[[], Any]) -> Any:
    """Call `read`, and translate transformers' errors about missing, broken or unknown files."""
    try:
        return read()
    except (OSError, ValueError, KeyError, ImportError) as error:
        log.error("model '%s': %s", entry.name, error)
        reason = _reason(entry, error)
        raise ModelUnavailableError(f"The model '{entry.name}' cannot be read: {reason}.") from error


def _reason(entry: LocalModel, error: Exception) -> str:
    """Return the reason in words that clients may see. transformers' messages contain paths."""
    if "trust_remote_code" in str(error) and not entry.trust_remote_code:
        return "it has code of its own, which runs only with `trust_remote_code: true` in its entry"
    if isinstance(error, ImportError):
        return "a library that it needs is not installed"
    if isinstance(error, OSError):
        return "a file is missing or broken"
    return "this server's version of transformers does not support its files"


def find_device(device: str) -> torch.device:
    """Return the configured device. `auto` is the fastest kind that this machine has."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(source: _Source) -> torch.dtype:
    """Return the configured dtype, or the one of the weights.

    float16 becomes float32 on a CPU, which computes in float16 slowly or not at all.
    """
    entry = source.entry
    if entry.quantize is not None:
        return torch.float32
    dtype = getattr(torch, entry.dtype) if entry.dtype != "auto" else getattr(source.config, "dtype", None)
    if dtype is None or (source.device.type == "cpu" and dtype is torch.float16):
        return torch.float32
    found: torch.dtype = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype))
    return found


def _context_window(source: _Source) -> int:
    """Return the smaller of the model's own and the configured window, or the setting's if neither is known."""
    config = source.config.get_text_config()
    own = next((value for key in WINDOW_KEYS if isinstance(value := getattr(config, key, None), int)), None)
    limits = [limit for limit in (own, source.entry.max_context_tokens) if limit]
    return min(limits, default=source.entry.default_context_tokens)


def _weight_bytes(model: Any) -> int:
    """Return the size of all parameters and buffers. Shared ones count once."""
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _details(source: _Source, model: Any) -> dict[str, Any]:
    """Return what `GET /v1/models/{id}` shows about the loaded model."""
    entry = source.entry
    return {
        "architecture": type(model).__name__,
        "dtype": entry.quantize or str(model.dtype).removeprefix("torch."),
        "device": str(source.device),
    }
