"""Hooks, which are a user's functions that see the requests and responses of a model.

An entry of the models file names them. They work with every kind of backend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Final, TypeVar

from .errors import InternalError, OpenAICompatError
from .types import JSON, CallContext

log = logging.getLogger(__name__)

Hook = Callable[[Any, "HookCall"], Any]
T = TypeVar("T")
REQUIRED_FIELDS: Final = ("messages", "prompt", "input")
"""Required field of the requests of each endpoint."""


@dataclass(frozen=True, slots=True)
class HookCall:
    """Second argument of every hook.

    `header` returns a header of the client's request by its name, or None.
    """

    model: str
    request_id: str
    header: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Hooks of one model config.

    Each one is called with its subject and a `HookCall`. Errors of `openai_compat.core.errors` that it raises are sent
    to the client. Other exceptions become a 500, and the log has their cause.

    Attributes:
        choose_model: Gets the request. Returns the name of the model that answers instead, or None.
        before_request: Gets the request. Returns the request to continue with, or None for the one that it got and may
            have changed.
        on_delta: Gets a `ChatDelta` or `TextDelta`. Returns the delta to send, or None to remove its text.
        after_reply: Gets the response in OpenAI's format. Returns the response to send, or None for the one that it
            got. After a stream the result is ignored.
        paths: The value in the models file, from which another process loads the hooks.
    """

    choose_model: Hook | None = None
    before_request: Hook | None = None
    on_delta: Hook | None = None
    after_reply: Hook | None = None
    paths: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the paths for pickling, as a hook may be an object that cannot be pickled."""
        return load_hooks, (dict(self.paths),)

    def run_before_request(self, payload: Mapping[str, Any], model: str, context: CallContext) -> Mapping[str, Any]:
        """Run `before_request` and return the payload to continue with.

        An unchanged payload is returned as the same object. Changes of `stream` are ignored.

        Raises:
            OpenAICompatError: The hook raised it.
            InternalError: The hook failed, or its request lacks a required field.
        """
        if self.before_request is None:
            return payload
        changed = deepcopy(dict(payload))
        result = run(self.before_request, changed, to_hook_call(model, context), dict)
        changed = changed if result is None else result
        if changed == payload:
            return payload
        if problem := _find_problem(payload, changed):
            log.error("the hook %s produced %s", _name_of(self.before_request), problem)
            raise InternalError
        return _with_stream_of(payload, changed)

    def run_after_reply(self, reply: JSON, model: str, context: CallContext) -> JSON:
        """Run `after_reply` and return the response to send."""
        if self.after_reply is None:
            return reply
        result = run(self.after_reply, reply, to_hook_call(model, context), dict)
        return reply if result is None else result


def to_hook_call(model: str, context: CallContext) -> HookCall:
    """Return the second argument of the hooks of this call."""
    return HookCall(model, context.request_id, context.sent_header)


def run(hook: Hook, subject: Any, call: HookCall, type_: type[T]) -> T | None:
    """Call the hook and return its result.

    Raises:
        OpenAICompatError: The hook raised it.
        InternalError: The hook failed, or its result is neither a `type_` nor None.
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


def _find_problem(payload: Mapping[str, Any], changed: Mapping[str, Any]) -> str | None:
    """Return what makes a changed request unusable, or None."""
    missing = [name for name in REQUIRED_FIELDS if name in payload and not changed.get(name)]
    if missing:
        return f"a request without {missing[0]}"
    messages = changed.get("messages", [])
    are_messages = isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
    )
    return None if are_messages else "invalid messages (each must be a mapping with a role)"


def _with_stream_of(payload: Mapping[str, Any], changed: JSON) -> JSON:
    if changed.get("stream") == payload.get("stream"):
        return changed
    rest = {name: value for name, value in changed.items() if name != "stream"}
    return rest | {"stream": payload["stream"]} if "stream" in payload else rest


def load_hooks(value: Any) -> Hooks:
    """Return the hooks that `value` of the models file names, each by `package.module:function`.

    Raises:
        ValueError: `value` is invalid, or a function cannot be loaded. The message is a sentence for the user.
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
        hook = getattr(import_module(module), function)
    except Exception as error:
        raise ValueError(f"{name}: {path} cannot be loaded: {error}") from error
    if not callable(hook):
        raise ValueError(f"{name}: {path} is not a function")
    return hook  # type: ignore[no-any-return]
