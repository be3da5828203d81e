"""What language models that run here do with OpenAI's parameters. Free of torch: the documentation reads it."""

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
"""By every model that chats."""
TEMPLATE_PARAMETERS: Final = frozenset({"tools"})
"""Besides, by those whose chat template knows them."""
SUPPORTED_COMPLETION_PARAMETERS: Final = COMPLETION_PARAMETERS - {"suffix"}
SAMPLED: Final = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"})
"""Hints that choose the next token; what is in none of these sets has no meaning."""
