"""From a row of the models file to a model in memory: the one place that decides what a folder of weights is."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# torch's threads sleep while they wait for each other. Spinning, as they do otherwise, is no faster, and where other
# processes want the same cores it costs whole time slices: a first token after 0.5 s instead of 0.1. Read when torch is
# imported; GOMP_SPINCOUNT still has the last word.
os.putenv("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.core.errors import ModelUnavailableError

from .embedding_model import EmbeddingModel, LoadedEncoder, read_pooling
from .gguf import to_safetensors
from .hub import fetch_weights as fetch_weights  # the engine looks for it here, and calls it before `load_model`
from .quantization import quantize_to_int8
from .scheduler import is_out_of_memory
from .text_model import ChatTextModel, LoadedText, TextModel

log = logging.getLogger(__name__)
GENERATES: Final = ("ForCausalLM", "LMHeadModel")
"""How the names of architectures end that continue texts."""
WINDOW_KEYS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")

# Loading is told in this server's own log.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the weights are, and how to read them."""

    entry: LocalModel
    folder: Path
    config: Any
    device: torch.device

    @property
    def options(self) -> dict[str, Any]:
        return {"trust_remote_code": self.entry.trust_remote_code, "local_files_only": True}


def load_model(entry: LocalModel, progress: Callable[[str], None]) -> Backend:
    """The model, ready to answer; `progress` hears of each step.

    Raises:
        ModelUnavailableError: with a sentence that names the cause.
    """
    try:
        return _load(entry, progress)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.error("model '%s': %s", entry.name, error)
        raise ModelUnavailableError(f"There is not enough memory for the model '{entry.name}'.") from error


def estimate_bytes(entry: LocalModel) -> int | None:
    """Memory that loading will need, from the sizes of the files; None where they are not here."""
    try:
        folder = find_folder(entry)
    except ModelUnavailableError:
        return None
    if entry.gguf_file is not None:
        file = folder / entry.gguf_file
        # Unpacked from 4 or 5 bits a weight to 32.
        return file.stat().st_size * 7 if file.is_file() else None
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None


def find_folder(entry: LocalModel) -> Path:
    """The folder of the weights: the row's own, or the hub's copy on this machine."""
    folder = Path(entry.hf_repo).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(entry.hf_repo, revision=entry.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelUnavailableError(f"The weights of the model '{entry.name}' are not on this machine.") from error


def _load(entry: LocalModel, progress: Callable[[str], None]) -> Backend:
    folder = find_folder(entry)
    if entry.gguf_file is not None:
        folder = to_safetensors(folder, entry.gguf_file, entry.name, progress)
    if not (folder / "config.json").is_file():
        raise ModelUnavailableError(f"The folder of the model '{entry.name}' has no config.json: these are no weights.")
    config = _read(
        entry,
        lambda: AutoConfig.from_pretrained(folder, trust_remote_code=entry.trust_remote_code, local_files_only=True),
    )
    source = _Source(entry, folder, config, find_device(entry.device))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    progress(f"reading {size / 1e6:.0f} MB of weights onto {source.device}")
    return _load_text(source) if _generates(source) else _load_encoder(source)


def _generates(source: _Source) -> bool:
    if (source.folder / "modules.json").is_file() or source.entry.capabilities == ("embeddings",):
        return False
    names = source.config.architectures or [""]
    return any(name.endswith(GENERATES) for name in names)


def _load_text(source: _Source) -> TextModel:
    model = _weights(source, AutoModelForCausalLM)
    if source.entry.quantize == "int8":
        quantize_to_int8(model)
    tokenizer = _tokenizer(source)
    loaded = LoadedText(model, tokenizer, _window(source), _bytes_of(model), _facts(source, model))
    kind = ChatTextModel if tokenizer.chat_template else TextModel
    return kind(source.entry, loaded)


def _load_encoder(source: _Source) -> EmbeddingModel:
    model = _weights(source, AutoModel)
    pool, size = read_pooling(source.folder, int(source.config.get_text_config().hidden_size))
    window = _window(source)
    limits = source.folder / "sentence_bert_config.json"
    if limits.is_file():
        window = min(window, json.loads(limits.read_text()).get("max_seq_length") or window)
    facts = _facts(source, model)
    return EmbeddingModel(
        source.entry, LoadedEncoder(model, _tokenizer(source), window, _bytes_of(model), facts, pool, size)
    )


def _weights(source: _Source, kind: Any) -> Any:
    dtype = _dtype(source)
    model = _read(
        source.entry, lambda: kind.from_pretrained(source.folder, config=source.config, dtype=dtype, **source.options)
    )
    return model.to(source.device).eval()


def _tokenizer(source: _Source) -> Any:
    return _read(source.entry, lambda: AutoTokenizer.from_pretrained(source.folder, **source.options))


def _read(entry: LocalModel, read: Callable[[], Any]) -> Any:
    """Translates what transformers says of files that are missing, broken or of a kind it does not know."""
    try:
        return read()
    except (OSError, ValueError, KeyError, ImportError) as error:
        log.error("model '%s': %s", entry.name, error)
        reason = _reason(entry, error)
        raise ModelUnavailableError(f"The model '{entry.name}' cannot be read: {reason}.") from error


def _reason(entry: LocalModel, error: Exception) -> str:
    """What a client may know: transformers' own words name folders."""
    if "trust_remote_code" in str(error) and not entry.trust_remote_code:
        return "it brings code of its own, which `trust_remote_code: true` in its row would allow to run"
    if isinstance(error, ImportError):
        return "a library that it needs is not installed"
    if isinstance(error, OSError):
        return "a file is missing or broken"
    return "its files are not what this server's version of transformers knows"


def find_device(device: str) -> torch.device:
    """The device that a row names; `auto` is the fastest kind there is."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(source: _Source) -> torch.dtype:
    """The row's, else the one the weights were saved in; a CPU computes in float16 slowly or not at all."""
    entry = source.entry
    if entry.quantize is not None:
        return torch.float32
    named = getattr(torch, entry.dtype) if entry.dtype != "auto" else getattr(source.config, "dtype", None)
    if named is None or (source.device.type == "cpu" and named is torch.float16):
        return torch.float32
    found: torch.dtype = named if isinstance(named, torch.dtype) else getattr(torch, str(named))
    return found


def _window(source: _Source) -> int:
    """The narrower of the model's own and the row's; the setting's where neither is known."""
    config = source.config.get_text_config()
    own = next((value for key in WINDOW_KEYS if isinstance(value := getattr(config, key, None), int)), None)
    limits = [limit for limit in (own, source.entry.max_context_tokens) if limit]
    return min(limits, default=source.entry.default_context_tokens)


def _bytes_of(model: Any) -> int:
    """Parameters and buffers, those that are shared counted once."""
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _facts(source: _Source, model: Any) -> dict[str, Any]:
    entry = source.entry
    return {
        "architecture": type(model).__name__,
        "dtype": entry.quantize or str(model.dtype).removeprefix("torch."),
        "device": str(source.device),
    }
