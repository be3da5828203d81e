"""The built-in pipeline and its chat generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haystack import Document, Pipeline, component
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, StreamingCallbackT
from haystack.tools import ToolsType
from haystack.utils import Secret

from .citations import to_grounding

UNNAMED = "set-by-the-models-file"


@component
class GroundedChatGenerator(OpenAIChatGenerator):
    """Haystack's OpenAIChatGenerator with two more inputs, `documents` to answer from and `instructions`.

    Both are put before the conversation in a single system message with the conversation's own system messages, because
    many models accept only one.
    """

    def __init__(self, model: str = UNNAMED, **options: Any) -> None:
        options.setdefault("api_key", Secret.from_token(UNNAMED))
        options.setdefault("max_retries", 0)
        # `super()` does not work here, because the decorator replaces this class.
        OpenAIChatGenerator.__init__(self, model=model, **options)

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: StreamingCallbackT | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        *,
        tools: ToolsType | None = None,
        tools_strict: bool | None = None,
        instructions: list[ChatMessage] | None = None,
        documents: list[Document] | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """Return the model's replies."""
        grounded = _add_grounding(messages, instructions, documents)
        replies: dict[str, list[ChatMessage]] = OpenAIChatGenerator.run(
            self, grounded, streaming_callback, generation_kwargs, tools=tools, tools_strict=tools_strict
        )
        return replies

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: StreamingCallbackT | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        *,
        tools: ToolsType | None = None,
        tools_strict: bool | None = None,
        instructions: list[ChatMessage] | None = None,
        documents: list[Document] | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """Return the model's replies.

        Haystack requires `run` and `run_async` to take the same inputs. This server calls `run`.
        """
        grounded = _add_grounding(messages, instructions, documents)
        replies: dict[str, list[ChatMessage]] = await OpenAIChatGenerator.run_async(
            self, grounded, streaming_callback, generation_kwargs, tools=tools, tools_strict=tools_strict
        )
        return replies


def _add_grounding(
    messages: list[ChatMessage] | str, instructions: Sequence[ChatMessage] | None, documents: list[Document] | None
) -> list[ChatMessage]:
    conversation = [ChatMessage.from_user(messages)] if isinstance(messages, str) else messages
    texts = [message.text or "" for message in instructions or ()]
    if documents is not None:
        texts.append(to_grounding(documents))
    texts = [text for text in texts if text.strip()]
    if not texts:
        return conversation
    texts += [message.text or "" for message in conversation if message.is_from("system")]
    turns = [message for message in conversation if not message.is_from("system")]
    return [ChatMessage.from_system("\n\n".join(texts)), *turns]


class HaystackPipeline:
    """The built-in pipeline, which is also a base class for custom pipelines.

    It has the components `prompt_builder`, a ChatPromptBuilder with the system prompt as its template, and `generator`,
    which calls the model that the model config names.

        class MyPipeline(HaystackPipeline):
            def __init__(self) -> None:
                super().__init__()
                self.pipeline.add_component("retriever", ...)
                self.pipeline.connect("retriever", "generator")

    `factory: my_module:MyPipeline` in the model config serves it.
    """

    def __init__(self, system_prompt: str | None = None) -> None:
        self.pipeline = Pipeline()
        template = [ChatMessage.from_system(system_prompt or "")]
        self.pipeline.add_component("prompt_builder", ChatPromptBuilder(template=template, required_variables=None))
        self.pipeline.add_component("generator", GroundedChatGenerator())
        self.pipeline.connect("prompt_builder.prompt", "generator.instructions")
