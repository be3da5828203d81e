"""Models in the cache of the hub's library, complete and interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.llama_cpp.model_options import LlamaCppModel
from openai_compat.sidecars.huggingface.models import hub

pytestmark = [pytest.mark.extra("local")]

COMMIT = "0123456789012345678901234567890123456789"
FILES = {"config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "small.gguf", "projector.gguf"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache after a download of `org/name` that has only listed the repository."""
    from huggingface_hub import constants
    from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path), raising=False)
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    write_tree_cache(str(repository), COMMIT, {file: TreeCacheEntry(1, "0" * 40) for file in FILES})
    return repository / "snapshots" / COMMIT


def add(cache: Path, *files: str) -> None:
    for file in files:
        (cache / file).parent.mkdir(parents=True, exist_ok=True)
        (cache / file).write_text("x")


def test_a_download_is_complete_without_the_files_that_are_not_wanted(cache: Path) -> None:
    model = LocalModel(name="a", hf_repo="org/name")
    add(cache, "config.json")
    assert hub.weights_location(model) == "not downloaded"
    add(cache, "model.safetensors")
    assert hub.weights_location(model) == "cached"
    assert hub.cached_folder(model) == cache


def test_a_hub_that_cannot_be_reached_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors of its HTTP library are none."""
    from huggingface_hub import HfApi

    class ConnectError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise ConnectError("refused")

    monkeypatch.setattr(HfApi, "list_repo_files", fail)
    with pytest.raises(OSError, match="cannot be reached: refused"):
        hub.pull(LocalModel(name="a", hf_repo="org/name"), None)


def test_a_gguf_model_needs_each_of_its_files(cache: Path) -> None:
    text = LlamaCppModel(name="a", hf_repo="org/name", gguf_file="small.gguf")
    images = LlamaCppModel(name="b", hf_repo="org/name", gguf_file="small.gguf", mmproj_file="projector.gguf")
    add(cache, "small.gguf")
    assert hub.weights_location(text) == "cached"
    assert hub.weights_location(images) == "not downloaded"
    add(cache, "projector.gguf")
    assert hub.weights_location(images) == "cached"
