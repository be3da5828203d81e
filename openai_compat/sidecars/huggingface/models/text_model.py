"""Backends for language models, which check a request and turn it into sequences for the scheduler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from openai_compat.backends.base import Backend, SupportsChat, SupportsCompletions
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.parameter_checks import Range, check_chat, check_completion, stops_of
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.settings import ModelConfig
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest, CompletionRequest, TextDelta

from .chat_template import ChatDeltaBuilder, ChatPrompt, ChatTemplate
from .detokenizer import Detokenizer
from .forward import ForwardPass
from .output import BestOfDeltaBuilder, CompletionDeltaBuilder, DeltaBuilder, OutputStream, count_usage
from .sampling import Sampler, SamplingOptions
from .scheduler import Scheduler
from .sequence import GeneratedSequence, GenerationRequest
from .stop_strings import StopStrings
from .structured_output import ConstraintFactory
from .supported_parameters import SUPPORTED_CHAT_PARAMETERS, SUPPORTED_COMPLETION_PARAMETERS, TEMPLATE_PARAMETERS
from .tool_constraint import SequenceConstraint, to_choice_constraint, to_tool_call_constraint

COMPLETION_TOKENS: Final = 16
"""Limit of a completion that sends none (source: OpenAI's API reference)."""
CHAT_TOKENS: Final = 1024
"""Limit of a chat that sends none. A small model may repeat itself until its window is full, for minutes on a CPU."""
SAMPLING_DEFAULTS: Final = ("temperature", "top_p")
"""Parameters that have a default in the model config or in the model's own files."""
LOGIT_BIAS: Final = Range(-100, 100)
MAX_TOKEN_DIGITS: Final = 20
"""Limit of the keys of `logit_bias`. Python refuses to convert more than 4,300 digits."""


@dataclass(frozen=True, slots=True)
class LoadedText:
    """A causal language model in memory, with its tokenizer.

    `context_window` is the limit on the tokens of a prompt and its answer together. `details` is what
    `GET /v1/models/{id}` shows about the model.
    """

    model: Any
    tokenizer: Any
    context_window: int
    weight_bytes: int
    details: Mapping[str, Any]


class TextModel(Backend, SupportsCompletions):
    """Language model that completes texts."""

    judges_requests = True
    supported_completion_parameters: ClassVar[frozenset[str]] = SUPPORTED_COMPLETION_PARAMETERS

    def __init__(self, entry: LocalModel, loaded: LoadedText) -> None:
        # Emulated tools are this class's own, so that the service must not emulate them.
        tools = None if entry.tools == "prompt" else entry.tools
        config = ModelConfig(entry.name, "huggingface", tools=tools, response_format=entry.response_format)
        super().__init__(config, entry, None)  # type: ignore[arg-type]
        self.context_window = loaded.context_window
        self._tokenizer = loaded.tokenizer
        self._details = loaded.details
        self._weight_bytes = loaded.weight_bytes
        self._vocabulary_size = int(loaded.model.config.get_text_config().vocab_size)
        self._end_tokens = _end_tokens(loaded)
        self._defaults = _sampling_defaults(entry, loaded.model.generation_config)
        self._default_max_tokens = entry.default_max_tokens
        self._constraints = ConstraintFactory(loaded.tokenizer, self._vocabulary_size)
        self._scheduler = Scheduler(ForwardPass(loaded.model), entry.max_batch, entry.name)

    @property
    def memory_bytes(self) -> int:
        """The memory that weights, keys and values occupy now."""
        return self._weight_bytes + self._scheduler.memory_bytes

    @property
    def running_calls(self) -> int:
        """The number of calls that are waiting or running."""
        return self._scheduler.active_requests

    def describe(self) -> Mapping[str, Any]:
        return dict(self._details)

    def close(self) -> None:
        self._scheduler.close()

    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta | Heartbeat]:
        check_completion(request)
        context.cancellation.raise_if_cancelled()
        parameters = request.parameters
        n = parameters.get("n", 1)
        candidates = parameters.get("best_of", n)
        logprobs = parameters.get("logprobs")
        echoes = bool(parameters.get("echo"))
        # The best of several candidates is found by their log probabilities.
        options = self._sampling_options(parameters, 0 if candidates > n and logprobs is None else logprobs)
        prompts = [self._tokenize(prompt) for prompt in request.prompts]
        max_tokens = parameters.get("max_tokens", self._default_max_tokens or COMPLETION_TOKENS)
        scores_prompt = echoes and logprobs is not None
        sequences = [
            self._sequence(index, prompt, max_tokens, options, stops_of(parameters), scores_prompt=scores_prompt)
            for index, prompt in enumerate(prompt for prompt in prompts for _ in range(candidates))
        ]
        echoed = [self._text_of(prompt) for prompt in request.prompts if echoes and not scores_prompt]
        plain = CompletionDeltaBuilder([text for text in echoed for _ in range(candidates)])
        best = BestOfDeltaBuilder(plain, candidates, n, shows_logprobs=logprobs is not None)
        builder: DeltaBuilder[TextDelta] = best if candidates > n else plain
        usage = count_usage(sum(map(len, prompts)))
        return OutputStream(GenerationRequest(sequences), self._scheduler, builder, usage, context)

    def _sequence(
        self,
        index: int,
        prompt: Sequence[int],
        max_tokens: int,
        options: SamplingOptions,
        stops: Sequence[str],
        *,
        constraint: SequenceConstraint | None = None,
        scores_prompt: bool = False,
        keeps_special: bool = False,
    ) -> GeneratedSequence:
        return GeneratedSequence(
            index,
            prompt,
            min(max_tokens, self.context_window - len(prompt)),
            Sampler(options, index, constraint),
            Detokenizer(self._tokenizer, prompt, keeps_special=keeps_special),
            StopStrings(stops),
            self._end_tokens,
            self._tokenizer,
            scores_prompt=scores_prompt,
        )

    def _tokenize(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the prompt's tokens, at least one.

        Raises:
            InvalidRequestError: a token does not exist, or the prompt exceeds the context window.
        """
        given = self._tokenizer(prompt, verbose=False)["input_ids"] if isinstance(prompt, str) else prompt
        tokens = list(given) or [self._first_token()]
        self._check_tokens(tokens, "prompt")
        return tokens

    def _first_token(self) -> int:
        """Return the token for an empty prompt. It begins a new document (source: OpenAI's API reference)."""
        beginning = self._tokenizer.bos_token_id
        return int(beginning) if beginning is not None else min(self._end_tokens, default=0)

    def _check_tokens(self, tokens: Sequence[int], param: str) -> None:
        """Raise InvalidRequestError if the model lacks a token or the tokens exceed the context window.

        A tokenizer may have more tokens than its model.
        """
        invalid = next((token for token in tokens if not 0 <= token < self._vocabulary_size), None)
        if invalid is not None:
            message = f"Invalid '{param}': {invalid} is not a token of this model's {self._vocabulary_size}."
            raise InvalidRequestError(message, param=param, code="invalid_token")
        if len(tokens) >= self.context_window:
            message = (
                f"This model's maximum context length is {self.context_window} tokens. "
                f"However, your {param} resulted in {len(tokens)} tokens, and at least one must be left for the "
                f"answer. Please reduce the length of the {param}."
            )
            raise InvalidRequestError(message, param=param, code="context_length_exceeded")

    def _text_of(self, prompt: str | Sequence[int]) -> str:
        if isinstance(prompt, str):
            return prompt
        detokenizer = Detokenizer(self._tokenizer)
        return "".join(map(detokenizer.push, prompt)) + detokenizer.flush()

    def _sampling_options(self, parameters: Mapping[str, Any], top_logprobs: int | None) -> SamplingOptions:
        return SamplingOptions(
            temperature=parameters.get("temperature", self._defaults.get("temperature", 1.0)),
            top_p=parameters.get("top_p", self._defaults.get("top_p", 1.0)),
            presence_penalty=parameters.get("presence_penalty", 0.0),
            frequency_penalty=parameters.get("frequency_penalty", 0.0),
            logit_bias=self._logit_bias(parameters.get("logit_bias", {})),
            seed=parameters.get("seed"),
            top_logprobs=top_logprobs,
        )

    def _logit_bias(self, given: Mapping[str, Any]) -> dict[int, float]:
        bias = {}
        for token, value in given.items():
            is_number = token.isascii() and token.isdigit() and len(token) <= MAX_TOKEN_DIGITS
            if not is_number or int(token) >= self._vocabulary_size:
                message = f"Invalid key in 'logit_bias': {token[:MAX_TOKEN_DIGITS]!r} is not a token of this model."
                raise InvalidRequestError(message, param="logit_bias", code="invalid_token")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidRequestError("Invalid value in 'logit_bias': it must be a number.", param="logit_bias")
            LOGIT_BIAS.check(value, "logit_bias")
            bias[int(token)] = float(value)
        return bias


class ChatTextModel(TextModel, SupportsChat):
    """Language model with a chat template."""

    def __init__(self, entry: LocalModel, loaded: LoadedText) -> None:
        super().__init__(entry, loaded)
        self._emulates_tools = entry.tools == "prompt"
        self._template = ChatTemplate(loaded.tokenizer, emulates_tools=self._emulates_tools)
        by_template = TEMPLATE_PARAMETERS if self._template.tool_format is not None else frozenset()
        self.supported_chat_parameters = SUPPORTED_CHAT_PARAMETERS | by_template  # type: ignore[misc] # differs by model

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        check_chat(request)
        context.cancellation.raise_if_cancelled()
        parameters = request.parameters
        prompt = self._template.render(request)
        if self._emulates_tools and "tools" in parameters:
            record_adaptations({"tools": "emulated"}, context.reply_headers)
        tokens = list(self._tokenizer(prompt.text, add_special_tokens=False, verbose=False)["input_ids"])
        self._check_tokens(tokens, "messages")
        top_logprobs = parameters.get("top_logprobs", 0) if parameters.get("logprobs") else None
        options = self._sampling_options(parameters, top_logprobs)
        default = self._default_max_tokens or CHAT_TOKENS
        max_tokens = parameters.get("max_completion_tokens", parameters.get("max_tokens", default))
        constraints = [self._constraint(prompt, tokens) for _ in range(parameters.get("n", 1))]
        sequences = [
            self._sequence(
                index,
                tokens,
                max_tokens,
                options,
                stops_of(parameters),
                constraint=constraint,
                keeps_special=prompt.tools is not None,
            )
            for index, constraint in enumerate(constraints)
        ]
        builder = ChatDeltaBuilder(prompt.tools, is_constrained=None not in constraints)
        usage = count_usage(len(tokens))
        return OutputStream(GenerationRequest(sequences), self._scheduler, builder, usage, context)

    def _constraint(self, prompt: ChatPrompt, tokens: Sequence[int]) -> SequenceConstraint | None:
        if prompt.schema is None:
            return None
        if prompt.answer_schema is not None and prompt.tools is not None:
            return to_choice_constraint(self._constraints, prompt.answer_schema, prompt.schema, prompt.tools.format)
        if prompt.tools is None or prompt.tools.is_forced:
            return self._constraints.from_schema(prompt.schema, prompt.schema_param)
        if not prompt.trigger:
            return None  # without a mark, a call cannot be told from an answer in JSON
        detokenizer = Detokenizer(self._tokenizer, tokens, keeps_special=True)
        return to_tool_call_constraint(self._constraints, prompt.schema, prompt.trigger, detokenizer)


def _end_tokens(loaded: LoadedText) -> frozenset[int]:
    """Return the tokens that end a text, by the model's configurations and the tokenizer's."""
    ends: set[int] = set()
    for source in (loaded.model.generation_config, loaded.model.config.get_text_config(), loaded.tokenizer):
        given = source.eos_token_id
        ends.update(given if isinstance(given, list | tuple) else [] if given is None else [given])
    return frozenset(ends)


def _sampling_defaults(entry: LocalModel, config: Any) -> dict[str, float]:
    """Return the defaults of the model config, or else those that the model's makers recommend."""
    recommended = [(name, getattr(config, name)) for name in SAMPLING_DEFAULTS if config.do_sample]
    configured = [(name, getattr(entry, name)) for name in SAMPLING_DEFAULTS]
    return {name: value for name, value in [*recommended, *configured] if value is not None}
