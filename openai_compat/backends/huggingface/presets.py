"""Models that are listed without a models file if the extra `local` is installed (`INCLUDE_DEFAULT_MODELS`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_GPT3_DEV: Final = (
    "A small model in GPT-3's architecture, trained on FineWeb. Its code comes with its weights, so that it loads only "
    "with `trust_remote_code: true`."
)


def _gpt3_dev(name: str, parameters: str, **options: Any) -> dict[str, Any]:
    repo = f"k050506koch/{name}"
    return {
        "name": name,
        "hf_repo": repo,
        "dtype": "float16",
        "capabilities": ["completions"],
        "metadata": {
            "description": _GPT3_DEV,
            "parameter_count": parameters,
            "sources": [f"https://huggingface.co/{repo}"],
        },
        **options,
    }


PRESETS: Final[tuple[Mapping[str, Any], ...]] = (
    _gpt3_dev("GPT3-dev-350m-2805", "350M", max_context_tokens=4096),
    _gpt3_dev("GPT3-dev-125m-0104", "125M"),
    _gpt3_dev("GPT3-dev-125m-1202", "125M"),
    _gpt3_dev("GPT3-dev-125m-0612", "125M"),
    _gpt3_dev("GPT3-dev", "17M"),
    _gpt3_dev("GPT3-dev-125m", "125M"),
    {
        "name": "GPT-2",
        "hf_repo": "openai-community/gpt2",
        "dtype": "float32",
        "capabilities": ["completions"],
        "metadata": {
            "description": "The smallest GPT-2.",
            "parameter_count": "124M",
            "sources": ["https://huggingface.co/openai-community/gpt2"],
        },
    },
)
"""Entries of a models file. No model has a chat template.

`capabilities` states that, so that no model is loaded to find out.
"""
