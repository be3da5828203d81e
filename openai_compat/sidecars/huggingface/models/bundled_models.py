"""The two small models from Python packages, as transformers runs them."""

from __future__ import annotations

from typing import Any

from openai_compat.sidecars.llama_cpp.bundled_models import (
    CHAT_FILE,
    CHAT_MODEL,
    EMBEDDING_MODEL,
    chat_folder,
    embedding_folder,
)


def entries() -> list[dict[str, Any]]:
    """Return the two entries of a models file.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    return [
        {
            "name": CHAT_MODEL,
            "hf_repo": str(chat_folder()),
            "gguf_file": CHAT_FILE,
            "quantize": "int8",
            # The makers' recommendation, which a GGUF file cannot hold. At 1 so small a model writes nonsense.
            "temperature": 0.2,
            "top_p": 0.9,
            "max_context_tokens": 4096,
            "capabilities": ["chat", "completions"],
            "metadata": {"description": "SmolLM2 135M Instruct, Apache 2.0"},
        },
        {
            "name": EMBEDDING_MODEL,
            "hf_repo": str(embedding_folder()),
            "capabilities": ["embeddings"],
            "metadata": {"description": "all-MiniLM-L6-v2 of sentence-transformers, Apache 2.0"},
        },
    ]
