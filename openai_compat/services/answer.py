"""What the answers of chats and of completions share: a backend's pieces, checked for a whole answer, and counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from openai_compat.core.errors import UpstreamTruncatedError
from openai_compat.core.streams import Heartbeat, close_stream
from openai_compat.core.types import ChatDelta, TextDelta, Usage

from .openai_objects import new_id, now

JSON = dict[str, Any]
Finish = Callable[[JSON], JSON]
"""The model's `after_reply` hook."""
Delta = TypeVar("Delta", ChatDelta, TextDelta)


class StreamingAnswer(ABC, Generic[Delta]):
    """One answer under way. Read it once: as a whole (`to_completion`), or by its `deltas`.

    `usage` is there when it has been read to its end. `close()` ends the backend's work at any time.
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
        self._texts: list[str] = []

    def close(self) -> None:
        close_stream(self._deltas)

    def deltas(self) -> Iterator[Delta | Heartbeat]:
        """The backend's pieces, as they come. The hook sees the whole of a streamed answer after them.

        Raises:
            UpstreamCutError: a choice ended without a `finish_reason`.
        """
        open_choices = set(range(self._choices))
        shown: list[Delta] | None = [] if self._finish and self._is_streamed else None
        for delta in self._deltas:
            if not isinstance(delta, Heartbeat):
                self._note(delta)
                if shown is not None:
                    shown.append(delta)
                if delta.finish_reason is not None:
                    open_choices.discard(delta.index)
            yield delta
        if open_choices:
            raise UpstreamTruncatedError("The model's answer ended before it was complete.")
        self.final_usage()
        if shown is not None and self._finish is not None:
            self._finish(self._to_object(shown))

    def to_completion(self) -> JSON:
        """Reads the answer to its end, and makes OpenAI's object of it."""
        completion = self._to_object(self.deltas())
        return self._finish(completion) if self._finish and not self._is_streamed else completion

    def final_usage(self) -> Usage:
        """What the backend counted, or what is counted here where it did not."""
        if self.usage is None:
            self.usage = self._count("".join(self._texts))
        return self.usage

    def _note(self, delta: Delta) -> None:
        """Keeps the text to be counted, until the backend says that it counts for itself."""
        if delta.usage is not None:
            self.usage = delta.usage
            self._texts.clear()
        elif self.usage is None:
            self._texts += self._texts_of(delta)

    @abstractmethod
    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Heartbeat]:
        """Yield the answer as OpenAI's chunks, and last the usage if it is asked for."""

    @abstractmethod
    def _texts_of(self, delta: Delta) -> Iterable[str]:
        """What of a piece counts as tokens."""

    @abstractmethod
    def _count(self, text: str) -> Usage:
        """The usage, where the backend tells none: of the request, and of the answer's whole `text`."""

    @abstractmethod
    def _to_object(self, deltas: Iterable[Delta | Heartbeat]) -> JSON:
        """The whole answer as OpenAI's object; `deltas` are read to their end first."""
