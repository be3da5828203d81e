"""Prompts made by chat templates."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_models import PLAIN_TEMPLATE, byte_tokenizer
from tests.support.tools import require_extra

pytestmark = require_extra("local")

from openai_compat.core.errors import InvalidRequestError  # noqa: E402 - it needs the same libraries as below
from openai_compat.core.types import ChatRequest  # noqa: E402
from openai_compat.sidecars.huggingface.models.chat_template import ChatTemplate  # noqa: E402

CONVERSATION = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def render(template: str, **parameters: Any) -> str:
    return ChatTemplate(byte_tokenizer(template)).render(ChatRequest("m", CONVERSATION, parameters)).text


def test_a_template_without_the_role_developer_gets_the_role_system() -> None:
    assert render(PLAIN_TEMPLATE).startswith("system: Be brief.\nuser: Hi")
    assert render("{# developer #}" + PLAIN_TEMPLATE).startswith("developer: Be brief.")


@pytest.mark.parametrize("name", ["chat_template", "conversation", "tokenize", "tools", "return_tensors"])
def test_chat_template_kwargs_cannot_replace_the_tokenizers_options(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{name}'") as caught:
        render(PLAIN_TEMPLATE, chat_template_kwargs={name: "{{ 'ab' }}"})
    assert caught.value.param == "chat_template_kwargs"


def test_chat_template_kwargs_are_variables_of_the_template() -> None:
    template = "{{ mood }} {{ documents[0]['text'] }}"
    assert render(template, chat_template_kwargs={"mood": "calm", "documents": [{"text": "A"}]}) == "calm A"
