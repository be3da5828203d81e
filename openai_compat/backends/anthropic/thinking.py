"""The parameter `reasoning_effort` in the form that each generation of Claude understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from openai_compat.core.types import JSON

Thinking = Literal["auto", "adaptive", "budget", "none"]
BUDGETS: Final[Mapping[str, int]] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 31744}
"""Tokens for reasoning by effort, for models that are given a budget."""
MIN_BUDGET: Final = 1024
"""The smallest budget that Anthropic accepts, which also leaves this much for the answer."""
_EFFORTS: Final = {"minimal": "low", "xhigh": "max"}
"""Efforts that Anthropic calls differently."""
_WITHOUT: Final = re.compile(r"claude-(?:instant|2|3(?!-7))")
"""Models that do not think."""
_WITH_BUDGET: Final = re.compile(r"claude-(?:3-7|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?!-?\d{1,2}(?!\d)))")
"""Claude 3.7 to 4.5, which are given a budget. Later ones decide themselves how long to think."""
_LIMITS: Final = ((re.compile(r"claude-(?:instant|2|3-(?:opus|sonnet|haiku))"), 4096), (re.compile("claude-3-5"), 8192))
"""The most tokens that old models answer with."""
DEFAULT_MAX_TOKENS: Final = 32_000


def thinking_of(model: str) -> Thinking:
    """Return how a model is asked to think."""
    if _WITHOUT.search(model):
        return "none"
    return "budget" if _WITH_BUDGET.search(model) else "adaptive"


def max_tokens_of(model: str) -> int:
    """Return the limit for a call without one, which Anthropic requires."""
    return next((limit for pattern, limit in _LIMITS if pattern.search(model)), DEFAULT_MAX_TOKENS)


def to_adaptive(effort: str) -> JSON:
    """Return the fields for a model that decides itself how long to think."""
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": _EFFORTS.get(effort, effort)}}


def to_budget(effort: str, max_tokens: int, budgets: Mapping[str, Any]) -> JSON:
    """Return the fields for a model with a budget, which is part of `max_tokens`. It is empty if none is left."""
    wanted = int({**BUDGETS, **budgets}.get(effort, BUDGETS["medium"]))
    budget = min(wanted, max_tokens - MIN_BUDGET)
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget >= MIN_BUDGET else {}
