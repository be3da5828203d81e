"""Weights on the Hugging Face hub, and on this machine's disk. The hub's library is imported when it is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from openai_compat.backends.huggingface.model_options import LocalModel, LocalModelOptions
from openai_compat.core.errors import ModelUnavailableError

log = logging.getLogger(__name__)

Place = Literal["folder", "cached", "not here"]

OTHER_FRAMEWORKS: Final = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*")
"""Weights that torch does not read; many repositories have them beside those that it does."""
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Not needed where the same weights are there as safetensors."""


def place_of(model: LocalModelOptions) -> Place:
    """Where the weights are, as far as one can see without the hub.

    Raises:
        ModuleNotFoundError: the hub's library is not installed, and the model is no folder.
    """
    if Path(model.hf_repo).expanduser().is_dir():
        return "folder"
    from huggingface_hub import try_to_load_from_cache

    wanted = model.gguf_file or "config.json"
    found = try_to_load_from_cache(model.hf_repo, wanted, revision=model.revision)
    return "cached" if isinstance(found, str) else "not here"


def pull(model: LocalModelOptions, token: str | None) -> str:
    """Downloads what is not here yet, with progress on standard error; the folder where it is.

    Raises:
        ModuleNotFoundError; OSError or ValueError: the hub's reasons.
    """
    from huggingface_hub import HfApi, snapshot_download

    if model.gguf_file is not None:
        wanted = [model.gguf_file, "*.json", "*.txt", "*.model", "*.jinja"]
        return str(snapshot_download(model.hf_repo, revision=model.revision, token=token, allow_patterns=wanted))
    names = HfApi(token=token).list_repo_files(model.hf_repo, revision=model.revision)
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    unwanted = [*OTHER_FRAMEWORKS, "*.gguf", *(PICKLES if has_safetensors else ())]
    return str(snapshot_download(model.hf_repo, revision=model.revision, token=token, ignore_patterns=unwanted))


def fetch_weights(model: LocalModel, progress: Callable[[str], None]) -> None:
    """Downloads what is not here yet; part of loading.

    Raises:
        ModelUnavailableError: no such folder, or the hub did not give it. ModuleNotFoundError
    """
    if model.hf_repo.startswith(("/", "./", "../", "~")) and not Path(model.hf_repo).expanduser().is_dir():
        log.error("model '%s': there is no folder %s", model.name, model.hf_repo)
        raise ModelUnavailableError(f"The model '{model.name}' is not in the folder that its row names.")
    if place_of(model) != "not here":
        return
    progress(f"downloading {model.hf_repo} from the hub")
    try:
        pull(model, None)
    except (OSError, ValueError) as error:
        log.error("model '%s': %s", model.name, error)
        raise ModelUnavailableError(
            f"The weights of the model '{model.name}' could not be had from the hub ({type(error).__name__})."
        ) from error
