"""An answer made of a backend's deltas, shared by chat and text completions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from openai_compat.core.errors import UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat, close_stream
from openai_compat.core.text_buffer import TextBuffer
from openai_compat.core.types import JSON, ChatDelta, TextDelta, Usage

from .openai_objects import new_id, now

Finish = Callable[[JSON], JSON]
"""The `after_reply` hook of a model."""
Delta = TypeVar("Delta", ChatDelta, TextDelta)


class StreamingAnswer(ABC, Generic[Delta]):
    """An answer in progress. Read it once, either complete (`to_completion`) or as `deltas` or `chunks`.

    `usage` is known once it has been read to its end. `close()` ends the backend's work at any time.
    """

    id_prefix: str

    def __init__(
        self, deltas: Iterator[Delta | Heartbeat], *, choices: int, is_streamed: bool, finish: Finish | None
    ) -> None:
        self.id = new_id(self.id_prefix)
        self.created = now()
        self.usage: Usage | None = None
        self._deltas: Iterator[Delta | Heartbeat] = deltas
        self._choices = choices
        self._is_streamed = is_streamed
        self._finish = finish
        self._record: Callable[[JSON], None] | None = None
        self._text = TextBuffer()

    @property
    def has_finish_hook(self) -> bool:
        """True if the model has an `after_reply` hook, which `to_completion` applies."""
        return self._finish is not None

    def close(self) -> None:
        close_stream(self._deltas)

    def deltas(self) -> Iterator[Delta | Heartbeat]:
        """Yield the backend's deltas as they arrive. The `after_reply` hook sees a streamed answer after the last one.

        Raises:
            UpstreamTruncatedError: a choice ended without a `finish_reason`.
        """
        open_choices = set(range(self._choices))
        kept: list[Delta] | None = [] if (self._finish or self._record) and self._is_streamed else None
        for delta in self._deltas:
            if delta is not HEARTBEAT:
                self._accumulate(delta)
                if kept is not None:
                    kept.append(delta)
                if delta.finish_reason is not None:
                    open_choices.discard(delta.index)
            yield delta
        if open_choices:
            raise UpstreamTruncatedError("The model's answer ended before it was complete.")
        self.final_usage()
        if kept is not None:
            self._complete_stream(self._to_object(kept))

    def to_completion(self) -> JSON:
        """Read the answer to its end and return OpenAI's object."""
        completion = self._to_object(self.deltas())
        if self._is_streamed:
            return completion
        if self._finish is not None:
            completion = self._finish(completion)
        if self._record is not None:
            self._record(completion)
        return completion

    def record_with(self, record: Callable[[JSON], None]) -> None:
        """Pass the complete answer to `record` before its end is sent. Errors of `record` are errors of the answer."""
        self._record = record

    def _complete_stream(self, completion: JSON) -> None:
        if self._record is not None:
            self._record(completion)
        if self._finish is not None:
            self._finish(completion)

    def final_usage(self) -> Usage:
        """Return the usage that the backend reported, or the one counted here if it reported none."""
        if self.usage is None:
            self.usage = self._count(str(self._text))
        return self.usage

    def _accumulate(self, delta: Delta) -> None:
        """Keep the text for counting until the backend reports a usage of its own."""
        if delta.usage is not None:
            self.usage = delta.usage
            self._text = TextBuffer()
        elif self.usage is None:
            for text in self._texts_of(delta):
                self._text.add(text)

    @abstractmethod
    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Heartbeat]:
        """Yield the answer as OpenAI's chunks, and last the usage if it is asked for."""

    @abstractmethod
    def _texts_of(self, delta: Delta) -> Iterable[str]:
        """Return the texts of a delta that count as tokens."""

    @abstractmethod
    def _count(self, text: str) -> Usage:
        """Count the usage of the request and of the answer's complete `text`."""

    @abstractmethod
    def _to_object(self, deltas: Iterable[Delta | Heartbeat]) -> JSON:
        """Return the complete answer as OpenAI's object, made of `deltas`."""
