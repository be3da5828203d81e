"""A model's response hooks, applied to the deltas of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Generic, TypeVar, cast

from openai_compat.core.hooks import Hook, Hooks, run, to_hook_call
from openai_compat.core.streams import HEARTBEAT, Heartbeat, close_stream
from openai_compat.core.types import CallContext

from .answer import Finish

Delta = TypeVar("Delta")


class HookedDeltas(Iterator["Delta | Heartbeat"], Generic[Delta]):
    """Deltas as `hook` leaves them. Closing it closes their source.

    A delta that the hook drops keeps its finish reason and its usage.
    """

    def __init__(self, source: Iterator[Delta | Heartbeat], hook: Hook, model: str, context: CallContext) -> None:
        self._source = source
        self._hook = hook
        self._call = to_hook_call(model, context)

    def __next__(self) -> Delta | Heartbeat:
        delta: Any = next(self._source)
        if delta is HEARTBEAT:
            return delta
        result = run(self._hook, delta, self._call, type(delta))
        if result is None:
            result = type(delta)(index=delta.index, finish_reason=delta.finish_reason, usage=delta.usage)
        return cast(Delta, result)

    def close(self) -> None:
        close_stream(self._source)


def apply_hooks(
    hooks: Hooks | None, deltas: Iterator[Delta | Heartbeat], model: str, context: CallContext
) -> tuple[Iterator[Delta | Heartbeat], Finish | None]:
    """Return the deltas as the `on_delta` hook leaves them, and the `after_reply` hook for the complete answer."""
    if hooks is None:
        return deltas, None
    finish = partial(hooks.run_after_reply, model=model, context=context) if hooks.after_reply is not None else None
    if hooks.on_delta is None:
        return deltas, finish
    return HookedDeltas(deltas, hooks.on_delta, model, context), finish
