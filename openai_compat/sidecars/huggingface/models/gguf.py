"""GGUF files, unpacked once: transformers needs half a minute for what it reads from safetensors in a second."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from openai_compat.core.errors import ModelUnavailableError

log = logging.getLogger(__name__)
CACHE: Final = "openai-compat-unpacked"
"""A folder beside the hub's own copies (`HF_HOME`)."""


def to_safetensors(folder: Path, gguf_file: str, name: str, progress: Callable[[str], None]) -> Path:
    """The folder with the unpacked weights and the tokenizer of a GGUF file, made where it is not there yet.

    Raises:
        ModelUnavailableError: the file is missing, or transformers cannot read it.
    """
    file = folder / gguf_file
    if not file.is_file():
        log.error("model '%s': there is no file %s", name, file)
        raise ModelUnavailableError(f"The file {Path(gguf_file).name} of the model '{name}' is missing.")
    place = Path(constants.HF_HOME) / CACHE / f"{file.stem}-{_fingerprint(file)}"
    if not place.is_dir():
        progress(f"unpacking {file.name}; this is done once")
        _unpack(file, name, place)
    return place


def _fingerprint(file: Path) -> str:
    """Changes with the file, and is known without reading all of it."""
    facts = file.stat()
    known = f"{file.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _unpack(file: Path, name: str, place: Path) -> None:
    """Into a folder of another name first: what bears its own name is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=place.parent, prefix=".unfinished-"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
        )
        tokenizer.save_pretrained(unfinished)
        model.save_pretrained(unfinished)
        if not place.is_dir():
            unfinished.rename(place)
    except (OSError, ValueError, KeyError, ImportError) as error:
        log.error("model '%s': %s", name, error)
        raise ModelUnavailableError(
            f"The GGUF file of the model '{name}' cannot be read ({type(error).__name__})."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
