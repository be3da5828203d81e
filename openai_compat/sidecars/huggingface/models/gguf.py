"""Conversion of GGUF files to safetensors, done once for each file.

transformers reads a GGUF file in half a minute and the same weights as safetensors in a second.
"""

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
"""Name of the cache folder in `HF_HOME`, beside the hub's own."""


def to_safetensors(folder: Path, gguf_file: str, name: str, progress: Callable[[str], None]) -> Path:
    """Return a folder with a GGUF file's weights as safetensors and its tokenizer. The first call converts the file.

    Raises:
        ModelUnavailableError: the file does not exist, or transformers cannot read it.
    """
    file = folder / gguf_file
    if not file.is_file():
        log.error("model '%s': the file %s does not exist", name, file)
        raise ModelUnavailableError(f"The file {Path(gguf_file).name} of the model '{name}' is missing.")
    converted = Path(constants.HF_HOME) / CACHE / f"{file.stem}-{_fingerprint(file)}"
    if not converted.is_dir():
        progress(f"converting {file.name}, which is done once")
        _convert(file, name, converted)
    return converted


def _fingerprint(file: Path) -> str:
    """Return a hash of the file's path, size and time of change, which is known without reading the file."""
    status = file.stat()
    known = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _convert(file: Path, name: str, target: Path) -> None:
    """Write the converted model to a temporary folder, and rename that to `target` when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unfinished-"))
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
        if not target.is_dir():
            unfinished.rename(target)
    except (OSError, ValueError, KeyError, ImportError) as error:
        log.error("model '%s': %s", name, error)
        raise ModelUnavailableError(
            f"The GGUF file of the model '{name}' cannot be read ({type(error).__name__})."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
