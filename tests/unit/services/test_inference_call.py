"""Facts of a validated call."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.services.inference_call import InferenceCall


@pytest.mark.parametrize(
    ("payload", "choices"),
    [
        ({}, 1),
        ({"n": None}, 1),
        ({"n": 3}, 3),
        ({"prompt": "a", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1], [2, 3]]}, 2),
    ],
)
def test_the_number_of_choices_of_a_call(payload: dict[str, Any], choices: int) -> None:
    assert InferenceCall("completions", b"", payload, "m").choices == choices
