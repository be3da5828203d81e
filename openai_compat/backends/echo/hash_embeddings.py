"""Embeddings without a model: equal texts give equal vectors, texts that share words or parts of words are near."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from zlib import crc32

from openai_compat.core.tokens import split_tokens

PART_WEIGHT = 0.3
"""What three letters in a row count beside a whole word."""


def embed_text(content: str | Sequence[int], dimensions: int) -> list[float]:
    """A unit vector: each word, and each three letters in a row, are hashed to a place and a sign.

    `content` is a text or token ids. White space and case do not matter, nor does the order of words.
    """
    vector = [0.0] * dimensions
    for feature, weight in _features(content).items():
        hash_ = crc32(feature.encode("utf-8", "replace"))
        vector[(hash_ >> 1) % dimensions] += weight if hash_ & 1 else -weight
    length = math.hypot(*vector)
    if length == 0.0:
        vector[0] = length = 1.0
    return [value / length for value in vector]


def _features(content: str | Sequence[int]) -> dict[str, float]:
    if not isinstance(content, str):
        return dict(Counter(f"<{token}>" for token in content))
    words = Counter(token.strip().lower() for token in split_tokens(content))
    features: dict[str, float] = dict(words)
    for word, count in words.items():
        for start in range(len(word) - 2 if len(word) > 3 else 0):
            part = "#" + word[start : start + 3]
            features[part] = features.get(part, 0.0) + PART_WEIGHT * count
    return features
