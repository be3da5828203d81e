"""OpenAI parameters that local language models support.

This module does not import torch, because the documentation is generated from it.
"""

from __future__ import annotations

from typing import Final

from openai_compat.backends.base import COMPLETION_PARAMETERS

SUPPORTED_CHAT_PARAMETERS: Final = frozenset(
    {
        "n",
        "logprobs",
        "top_logprobs",
        "response_format",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "logit_bias",
    }
)
"""Supported by every model that chats."""
TEMPLATE_PARAMETERS: Final = frozenset({"tools"})
"""Supported as well if the model's chat template does."""
SUPPORTED_COMPLETION_PARAMETERS: Final = COMPLETION_PARAMETERS - {"suffix"}
SAMPLED: Final = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"})
"""Parameters that influence the choice of the next token. Parameters that are in no set here have no effect."""
