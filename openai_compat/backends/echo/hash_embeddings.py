"""Embeddings by feature hashing, without a model.

Equal texts get equal vectors, and texts that share words or parts of words get similar ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from zlib import crc32

from openai_compat.core.tokens import split_tokens

TRIGRAM_WEIGHT = 0.3
"""The weight of three consecutive letters. A word has the weight 1."""


def embed_text(content: str | Sequence[int], dimensions: int) -> list[float]:
    """Return a unit vector to which each word and each trigram adds its weight at a hashed index and sign.

    `content` is a text or token ids. White space, case and the order of words do not matter.
    """
    vector = [0.0] * dimensions
    for feature, weight in _features(content).items():
        hash_ = crc32(feature.encode("utf-8", "replace"))
        vector[(hash_ >> 1) % dimensions] += weight if hash_ & 1 else -weight
    length = math.hypot(*vector)
    if length == 0.0:
        vector[0] = length = 1.0
    return [value / length if value else 0.0 for value in vector]  # nearly all are this one object, which saves memory


def _features(content: str | Sequence[int]) -> dict[str, float]:
    if not isinstance(content, str):
        return dict(Counter(f"<{token}>" for token in content))
    words = Counter(token.strip().lower() for token in split_tokens(content))
    features: dict[str, float] = dict(words)
    for word, count in words.items():
        for start in range(len(word) - 2 if len(word) > 3 else 0):
            trigram = "#" + word[start : start + 3]
            features[trigram] = features.get(trigram, 0.0) + TRIGRAM_WEIGHT * count
    return features
