"""Language models as backends: a request becomes choices for the scheduler, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from openai_compat.backends.base import Backend, SupportsChat, SupportsCompletions
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.parameter_checks import Range, check_chat, check_completion, stops_of
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest, CompletionRequest, TextDelta

from .chat_template import ChatDeltaBuilder, ChatTemplate
from .detokenizer import Detokenizer
from .forward import ForwardPass
from .output import BestOfDeltaBuilder, CompletionDeltaBuilder, DeltaBuilder, OutputStream, count_usage
from .sampling import Sampler, SamplingOptions
from .scheduler import GenerationRequest, Scheduler
from .sequence import GeneratedSequence
from .stop_strings import StopStrings
from .structured_output import Constraint, ConstraintFactory
from .supported_parameters import SUPPORTED_CHAT_PARAMETERS, SUPPORTED_COMPLETION_PARAMETERS, TEMPLATE_PARAMETERS

DEFAULT_MAX_TOKENS: Final = 16
"""Of a completion (source: OpenAI's API reference); a chat may fill the window."""
SAMPLING: Final = ("temperature", "top_p")
"""What a row, or the model's makers, may say for calls that do not."""
BIAS: Final = Range(-100, 100)


@dataclass(frozen=True, slots=True)
class LoadedText:
    """A causal language model in memory, and its tokenizer.

    `window` is how many tokens a prompt and its answer may have together; `facts` is what is told about the model.
    """

    model: Any
    tokenizer: Any
    window: int
    weight_bytes: int
    facts: Mapping[str, Any]


class TextModel(Backend, SupportsCompletions):
    """A language model that continues texts."""

    supported_completion_parameters: ClassVar[frozenset[str]] = SUPPORTED_COMPLETION_PARAMETERS

    def __init__(self, entry: LocalModel, loaded: LoadedText) -> None:
        super().__init__(ModelConfig(entry.name, "huggingface"), entry, None)  # type: ignore[arg-type]
        self.context_window = loaded.window
        self._tokenizer = loaded.tokenizer
        self._facts = loaded.facts
        self._weight_bytes = loaded.weight_bytes
        self._vocabulary_size = int(loaded.model.config.get_text_config().vocab_size)
        self._end_tokens = _end_tokens(loaded)
        self._defaults = _sampling_defaults(entry, loaded.model.generation_config)
        self._constraints = ConstraintFactory(loaded.tokenizer, self._vocabulary_size)
        self._scheduler = Scheduler(ForwardPass(loaded.model), entry.max_batch, entry.name)

    @property
    def memory_bytes(self) -> int:
        """Weights, keys and values, as held now."""
        return self._weight_bytes + self._scheduler.memory_bytes

    @property
    def running_calls(self) -> int:
        """Calls that are waiting or being answered."""
        return self._scheduler.work

    def describe(self) -> Mapping[str, Any]:
        return dict(self._facts)

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
        # The best of several is found by their log probabilities.
        options = self._sampling(parameters, 0 if candidates > n and logprobs is None else logprobs)
        prompts = [self._prompt_tokens(prompt) for prompt in request.prompts]
        limit = parameters.get("max_tokens", DEFAULT_MAX_TOKENS)
        scores_prompt = echoes and logprobs is not None
        choices = [
            self._choice(number, prompt, limit, options, stops_of(parameters), scores_prompt=scores_prompt)
            for number, prompt in enumerate(prompt for prompt in prompts for _ in range(candidates))
        ]
        echoed = [self._text_of(prompt) for prompt in request.prompts if echoes and not scores_prompt]
        plain = CompletionDeltaBuilder([text for text in echoed for _ in range(candidates)])
        best = BestOfDeltaBuilder(plain, candidates, n, shows_logprobs=logprobs is not None)
        reader: DeltaBuilder[TextDelta] = best if candidates > n else plain
        return OutputStream(
            GenerationRequest(choices), self._scheduler, reader, count_usage(sum(map(len, prompts))), context
        )

    def _choice(
        self,
        number: int,
        prompt: Sequence[int],
        limit: int,
        options: SamplingOptions,
        stops: Sequence[str],
        *,
        constraint: Constraint | None = None,
        scores_prompt: bool = False,
        keeps_special: bool = False,
    ) -> GeneratedSequence:
        room = self.context_window - len(prompt)
        return GeneratedSequence(
            number,
            prompt,
            min(limit, room),
            Sampler(options, number, constraint),
            Detokenizer(self._tokenizer, prompt, keeps_special=keeps_special),
            StopStrings(stops),
            self._end_tokens,
            self._tokenizer,
            scores_prompt=scores_prompt,
        )

    def _prompt_tokens(self, prompt: str | Sequence[int]) -> list[int]:
        """The prompt's tokens, at least one; refuses what cannot be read or does not fit."""
        if isinstance(prompt, str):
            tokens = list(self._tokenizer(prompt, verbose=False)["input_ids"])
        else:
            tokens = list(prompt)
            wrong = next((token for token in tokens if not 0 <= token < self._vocabulary_size), None)
            if wrong is not None:
                message = f"Invalid 'prompt': {wrong} is not a token of this model's {self._vocabulary_size}."
                raise InvalidRequestError(message, param="prompt", code="invalid_token")
        return self._checked(tokens or [self._first_token()], "prompt")

    def _first_token(self) -> int:
        """What an empty prompt stands for (source: OpenAI's API reference: the beginning of a new document)."""
        beginning = self._tokenizer.bos_token_id
        return int(beginning) if beginning is not None else min(self._end_tokens, default=0)

    def _checked(self, tokens: list[int], param: str) -> list[int]:
        if len(tokens) >= self.context_window:
            message = (
                f"This model's maximum context length is {self.context_window} tokens. "
                f"However, your {param} resulted in {len(tokens)} tokens, and at least one must be left for the "
                f"answer. Please reduce the length of the {param}."
            )
            raise InvalidRequestError(message, param=param, code="context_length_exceeded")
        return tokens

    def _text_of(self, prompt: str | Sequence[int]) -> str:
        if isinstance(prompt, str):
            return prompt
        detokenizer = Detokenizer(self._tokenizer)
        return "".join(map(detokenizer.push, prompt)) + detokenizer.flush()

    def _sampling(self, parameters: Mapping[str, Any], top_logprobs: int | None) -> SamplingOptions:
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
            if not (token.isascii() and token.isdigit() and int(token) < self._vocabulary_size):
                message = f"Invalid key in 'logit_bias': {token!r} is not a token of this model."
                raise InvalidRequestError(message, param="logit_bias", code="invalid_token")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidRequestError("Invalid value in 'logit_bias': it must be a number.", param="logit_bias")
            BIAS.check(value, "logit_bias")
            bias[int(token)] = float(value)
        return bias


class ChatTextModel(TextModel, SupportsChat):
    """A language model with a chat template."""

    def __init__(self, entry: LocalModel, loaded: LoadedText) -> None:
        super().__init__(entry, loaded)
        self._form = ChatTemplate(loaded.tokenizer)
        of_template = TEMPLATE_PARAMETERS if self._form.tool_format is not None else frozenset()
        self.supported_chat_parameters = SUPPORTED_CHAT_PARAMETERS | of_template  # type: ignore[misc] # what this model keeps, not its class

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        check_chat(request)
        context.cancellation.raise_if_cancelled()
        parameters = request.parameters
        prompt = self._form.render(request)
        tokens = list(self._tokenizer(prompt.text, add_special_tokens=False, verbose=False)["input_ids"])
        self._checked(tokens, "messages")
        top = parameters.get("top_logprobs", 0) if parameters.get("logprobs") else None
        options = self._sampling(parameters, top)
        n = parameters.get("n", 1)
        limit = parameters.get("max_completion_tokens", parameters.get("max_tokens", self.context_window))
        choices = [
            self._choice(
                number,
                tokens,
                limit,
                options,
                stops_of(parameters),
                constraint=self._constraint(prompt.schema, prompt.schema_param),
                keeps_special=prompt.tools is not None,
            )
            for number in range(n)
        ]
        return OutputStream(
            GenerationRequest(choices),
            self._scheduler,
            ChatDeltaBuilder(prompt.tools),
            count_usage(len(tokens)),
            context,
        )

    def _constraint(self, schema: Mapping[str, Any] | None, param: str) -> Constraint | None:
        return None if schema is None else self._constraints.from_schema(schema, param)


def _end_tokens(loaded: LoadedText) -> frozenset[int]:
    """Every token that ends a text, by the model's configurations or the tokenizer's."""
    ends: set[int] = set()
    for source in (loaded.model.generation_config, loaded.model.config.get_text_config(), loaded.tokenizer):
        given = source.eos_token_id
        ends.update(given if isinstance(given, list | tuple) else [] if given is None else [given])
    return frozenset(ends)


def _sampling_defaults(entry: LocalModel, config: Any) -> dict[str, float]:
    """What the row says, else the model's makers recommend, where the caller says nothing."""
    recommended = [(name, getattr(config, name)) for name in SAMPLING if config.do_sample]
    of_row = [(name, getattr(entry, name)) for name in SAMPLING]
    return {name: value for name, value in [*recommended, *of_row] if value is not None}
