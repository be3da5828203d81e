"""A user's own code on the way of a call: functions that a row of the models file names, for any kind of backend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Final, TypeVar

from .errors import InternalError, OpenAICompatError
from .types import CallContext

log = logging.getLogger(__name__)

JSON = dict[str, Any]
Hook = Callable[[Any, "HookCall"], Any]
T = TypeVar("T")
REQUIRED_FIELDS: Final = ("messages", "prompt", "input")
"""What the requests of each door are about."""


@dataclass(frozen=True, slots=True)
class HookCall:
    """What a hook may know of the call beside its subject. `header` looks up a header of the client's request."""

    model: str
    request_id: str
    header: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions of one row; each gets its subject and a `HookCall`. What one raises of `openai_compat.core.errors`
    is the answer to the client, anything else a 500 whose cause is in the log.

    `choose_model(request)` returns the name of the model that is to answer instead, or None. `before_request(request)`:
    the request to go on with, or None for the one it got, and may have changed. `on_delta(delta)`: the piece of the
    answer to send on (`ChatDelta`, `TextDelta`), or None to leave its text out. `after_reply(reply)`: the answer to
    send, in OpenAI's form, or None for the one it got; what was streamed is only shown to it.

    `paths` is what the row says: another process loads the hooks by it.
    """

    choose_model: Hook | None = None
    before_request: Hook | None = None
    on_delta: Hook | None = None
    after_reply: Hook | None = None
    paths: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Of what a path leads to, an instance or a `partial` say, many a thing cannot be pickled."""
        return load_hooks, (dict(self.paths),)

    def run_before_request(self, payload: Mapping[str, Any], model: str, context: CallContext) -> Mapping[str, Any]:
        """The payload to go on with; the same object where nothing was changed. Whether the answer is streamed is the
        client's to say.

        Raises:
            OpenAICompatError: the hook's own. InternalError: it failed, or left no request.
        """
        if self.before_request is None:
            return payload
        changed = deepcopy(dict(payload))
        result = run(self.before_request, changed, to_hook_call(model, context), dict)
        changed = changed if result is None else result
        if changed == payload:
            return payload
        if problem := _missing_field(payload, changed):
            log.error("the hook %s left %s", _name_of(self.before_request), problem)
            raise InternalError
        return _with_stream_of(payload, changed)

    def run_after_reply(self, reply: JSON, model: str, context: CallContext) -> JSON:
        """The answer to send."""
        if self.after_reply is None:
            return reply
        result = run(self.after_reply, reply, to_hook_call(model, context), dict)
        return reply if result is None else result


def to_hook_call(model: str, context: CallContext) -> HookCall:
    return HookCall(model, context.request_id, context.sent_header)


def run(hook: Hook, subject: Any, call: HookCall, type_: type[T]) -> T | None:
    """What the hook returns: a `type_` or None.

    Raises:
        OpenAICompatError: the hook's own.
        InternalError: it failed, or returned something else.
    """
    try:
        result = hook(subject, call)
    except OpenAICompatError:
        raise
    except Exception as error:
        log.exception("the hook %s failed", _name_of(hook))
        raise InternalError from error
    if result is not None and not isinstance(result, type_):
        log.error("the hook %s returned a %s, not a %s", _name_of(hook), type(result).__name__, type_.__name__)
        raise InternalError
    return result


def _name_of(hook: Hook) -> str:
    return f"{getattr(hook, '__module__', '?')}:{getattr(hook, '__qualname__', None) or repr(hook)}"


def _missing_field(payload: Mapping[str, Any], changed: Mapping[str, Any]) -> str | None:
    """What a changed request lacks that every one consists of."""
    missing = [name for name in REQUIRED_FIELDS if name in payload and not changed.get(name)]
    if missing:
        return f"a request without its {missing[0]}"
    messages = changed.get("messages", [])
    are_messages = isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
    )
    return None if are_messages else "messages that are none: each is a mapping with a role"


def _with_stream_of(payload: Mapping[str, Any], changed: JSON) -> JSON:
    if changed.get("stream") == payload.get("stream"):
        return changed
    rest = {name: value for name, value in changed.items() if name != "stream"}
    return rest | {"stream": payload["stream"]} if "stream" in payload else rest


def load_hooks(value: Any) -> Hooks:
    """The hooks that a row names, each by `package.module:function`.

    Raises:
        ValueError: with a sentence for the user.
    """
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of hooks to package.module:function")
    known = [hook.name for hook in fields(Hooks) if hook.name != "paths"]
    unknown = sorted(str(name) for name in value if name not in known)
    if unknown:
        raise ValueError(f"has unknown keys: {', '.join(unknown)} (known are {', '.join(known)})")
    return Hooks(**{name: _load(name, path) for name, path in value.items()}, paths=value)


def _load(name: str, path: Any) -> Hook:
    module, colon, function = str(path).partition(":")
    if not colon:
        raise ValueError(f"{name} must be package.module:function, not {path!r}")
    try:
        found = getattr(import_module(module), function)
    except Exception as error:
        raise ValueError(f"{name}: {path} cannot be loaded: {error}") from error
    if not callable(found):
        raise ValueError(f"{name}: {path} is not a function")
    return found  # type: ignore[no-any-return]
