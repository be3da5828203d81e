"""Weights on the Hugging Face hub and on this machine's disk. The hub's library is imported on first use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from openai_compat.backends.local.options import PooledModel, SharedOptions
from openai_compat.core.errors import ModelUnavailableError

log = logging.getLogger(__name__)

Location = Literal["folder", "cached", "not downloaded"]

OTHER_FRAMEWORKS: Final = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*")
"""Weights that torch does not read. Many repositories have them beside those that it does."""
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Files that are not needed if the repository has the same weights as safetensors."""


def weights_location(model: SharedOptions) -> Location:
    """Return where a model's weights are, without asking the hub.

    Raises:
        ModuleNotFoundError: `hf_repo` is not a folder, and the hub's library is not installed.
    """
    if not model.hf_repo or Path(model.hf_repo).expanduser().is_dir():
        return "folder"
    is_cached = _cached_path(model, model.gguf_file or "config.json") and cached_folder(model)
    return "cached" if is_cached else "not downloaded"


def cached_folder(model: SharedOptions) -> Path | None:
    """Return the folder of a download that was not interrupted, as far as the hub's library knows, or None."""
    if model.hub_files is not None:
        return _snapshot(model, allow_patterns=list(model.hub_files))
    folder = _snapshot(model, ignore_patterns=_unwanted(has_safetensors=True))
    if folder is None or any(folder.rglob("*.safetensors")):
        return folder
    return _snapshot(model, ignore_patterns=_unwanted(has_safetensors=False))


def _snapshot(model: SharedOptions, **patterns: list[str]) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.hf_repo, revision=model.revision, local_files_only=True, **patterns))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _unwanted(*, has_safetensors: bool) -> list[str]:
    return [*OTHER_FRAMEWORKS, "*.gguf", *(PICKLES if has_safetensors else ())]


def file_path(model: PooledModel, name: str) -> Path:
    """Return the path of a model's file on this machine. Without `hf_repo` its name is a path.

    Raises:
        ModelUnavailableError: it is not there.
    """
    folder = Path(model.hf_repo).expanduser()
    is_here = not model.hf_repo or folder.is_dir()
    path = folder / Path(name).expanduser() if is_here else _cached_path(model, name)
    if path is None or not path.is_file():
        log.error("model '%s': there is no file %s", model.name, path or f"{name} in {model.hf_repo}")
        raise ModelUnavailableError(f"The file {Path(name).name} of the model '{model.name}' does not exist.")
    return path.absolute()


def _cached_path(model: SharedOptions, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.hf_repo, name, revision=model.revision)
    return Path(found) if isinstance(found, str) else None


def pull(model: SharedOptions, token: str | None) -> str:
    """Download the missing files of a model, with progress on standard error, and return their folder.

    Raises:
        ModuleNotFoundError: the hub's library is not installed.
        OSError, ValueError: the download failed.
    """
    from huggingface_hub import HfApi, snapshot_download

    if (wanted := model.hub_files) is not None:
        allowed = list(wanted)
        return str(snapshot_download(model.hf_repo, revision=model.revision, token=token, allow_patterns=allowed))
    try:
        names = HfApi(token=token).list_repo_files(model.hf_repo, revision=model.revision)
    except (OSError, ValueError):
        raise
    except Exception as error:  # that of an HTTP library whose name depends on the version
        raise OSError(f"the hub cannot be reached: {error}") from error
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    unwanted = _unwanted(has_safetensors=has_safetensors)
    return str(snapshot_download(model.hf_repo, revision=model.revision, token=token, ignore_patterns=unwanted))


def fetch_weights(model: PooledModel, progress: Callable[[str], None]) -> None:
    """Download a model that is not on this machine, as the first step of loading it.

    Raises:
        ModelUnavailableError: the folder does not exist, or the download failed.
        ModuleNotFoundError: the hub's library is not installed.
    """
    if model.hf_repo.startswith(("/", "./", "../", "~")) and not Path(model.hf_repo).expanduser().is_dir():
        log.error("model '%s': the folder %s does not exist", model.name, model.hf_repo)
        raise ModelUnavailableError(f"The folder of the model '{model.name}' (key `hf_repo`) does not exist.")
    if weights_location(model) != "not downloaded":
        return
    progress(f"downloading {model.hf_repo} from the hub")
    try:
        pull(model, None)
    except (OSError, ValueError) as error:
        log.error("model '%s': %s", model.name, error)
        raise ModelUnavailableError(
            f"The weights of the model '{model.name}' could not be downloaded from the hub ({type(error).__name__})."
        ) from error
