"""Request preparation by the model's hook and parameter profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openai_compat.backends.base import Backend, SupportsForwarding
from openai_compat.core.errors import CapabilityError
from openai_compat.core.profiles import Profile, apply_profile, record_adaptations
from openai_compat.core.types import CallContext

from .body_rewrite import to_body
from .inference_call import CHAT_PATH, COMPLETIONS_PATH, InferenceCall


def adapt_payload(
    profile: Profile | None, payload: Mapping[str, Any], model: str, context: CallContext
) -> Mapping[str, Any]:
    """Return the payload as the upstream takes it. What was adapted is reported in the response headers.

    Raises:
        UnsupportedParameterError: the profile is strict.
    """
    if profile is None:
        return payload
    changed, adapted = apply_profile(profile, payload, model)
    record_adaptations(adapted, context.reply_headers)
    return changed


def prepare_payload(
    backend: Backend | SupportsForwarding, payload: Mapping[str, Any], model: str, context: CallContext
) -> Mapping[str, Any]:
    """Return the payload as the model's hook and then its profile leave it.

    Raises:
        UnsupportedParameterError: the profile is strict. OpenAICompatError: the hook's own.
    """
    if backend.hooks is not None:
        payload = backend.hooks.run_before_request(payload, model, context)
    return adapt_payload(backend.profile, payload, model, context)


def prepare_call(backend: SupportsForwarding, call: InferenceCall, context: CallContext) -> InferenceCall:
    """Prepare a call that is forwarded. Its bytes stay as they are where nothing was changed."""
    changed = prepare_payload(backend, call.payload, call.model, context)
    return call if changed is call.payload else replace(call, payload=changed, body=to_body(changed))


def needs_translation(backend: SupportsForwarding, call: InferenceCall) -> bool:
    """Return True if the answer of an OpenAI-compatible upstream has to be translated.

    A hook, a profile, or tools and structured output that are not left to the upstream can be the reason.

    Raises:
        CapabilityError: a hook needs it, but the call is no chat.
    """
    profile, hooks = backend.profile, backend.hooks
    if profile is None and hooks is None and not backend.changes_chats:
        return False
    if backend.changes_chats and call.path == CHAT_PATH:
        return True
    has_to_see = hooks is not None and (hooks.on_delta or (hooks.after_reply and call.is_streamed))
    if call.path != CHAT_PATH:
        if has_to_see and call.path == COMPLETIONS_PATH:
            raise CapabilityError(
                f"The model '{call.model}' has a hook for chat only, so it serves no completions.",
                param="model",
                code="hook_not_available",
            )
        return False
    if has_to_see or profile is None:
        return bool(has_to_see)
    return profile.translate_responses or (call.wants_usage and "stream_options" in profile.emulate)
