"""Former import paths and names, which third-party backends, hooks and pipelines may still use."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any, Final

MODULES: Final = MappingProxyType(
    {
        "openai_compat.domain": "openai_compat.core.types",
        "openai_compat.errors": "openai_compat.core.errors",
        "openai_compat.hooks": "openai_compat.core.hooks",
        "openai_compat.profiles": "openai_compat.core.profiles",
        "openai_compat.settings": "openai_compat.core.settings",
        "openai_compat.streams": "openai_compat.core.streams",
        "openai_compat.tokens": "openai_compat.core.tokens",
        "openai_compat.backends.upstream": "openai_compat.backends.http.client",
        "openai_compat.backends.credentials": "openai_compat.backends.auth.base",
        "openai_compat.local.entries": "openai_compat.backends.huggingface.model_options",
        "openai_compat.local": "openai_compat.sidecars.huggingface.models",
        "openai_compat.pipelines": "openai_compat.sidecars.haystack",
    }
)
"""Former path -> present path. Modules of a package move with it."""

NAMES: Final = MappingProxyType(
    {
        "PayloadError": "InvalidRequestError",
        "PayloadTooLargeError": "RequestTooLargeError",
        "UpstreamCutError": "UpstreamTruncatedError",
        "UpstreamNotConnectedError": "UpstreamConnectError",
        "UpstreamReplyError": "UpstreamInvalidResponseError",
        "ModelEntry": "ModelConfig",
        "SILENCE": "HEARTBEAT",
        "Silence": "Heartbeat",
        "Cancellation": "openai_compat.core.cancellation:CancellationToken",
        "Pending": "BackgroundStart",
        "Forwarder": "UpstreamClient",
        "UpstreamReply": "StreamedResponse",
        "ForwardedCall": "UpstreamRequest",
        "ForwardedReply": "UpstreamResponse",
        "CHAT_PROMISES": "CHAT_PARAMETERS",
        "COMPLETION_PROMISES": "COMPLETION_PARAMETERS",
        "options_of": "option_names",
    }
)
"""Former name -> present name, within those modules and `backends.base`. A colon separates another module's path."""

BACKEND_NAMES: Final = MappingProxyType(
    {
        "find_problems": "validate",
        "problems_among": "validate_with_others",
        "chat_promises": "supported_chat_parameters",
        "completion_promises": "supported_completion_parameters",
        "may_ask_for_usage": "may_request_usage",
        "learned_no_usage": "mark_usage_unsupported",
    }
)
"""The same for the attributes that a backend class defines."""

RESPONSE_NAMES: Final = MappingProxyType({"expect_end": "limit_remaining", "close_after_end": "release"})
"""The same for subclasses of `UpstreamResponse`."""

CREDENTIAL_NAMES: Final = MappingProxyType({"is_callers": "is_caller_owned", "renewed": "refresh"})
"""The same for subclasses of `Credentials`."""


class FormerModules(MetaPathFinder, Loader):
    """Importer of modules under their former paths. It issues a DeprecationWarning that names the present path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a former path, and None for any other."""
        return ModuleSpec(fullname, self, is_package=True) if _present_path(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module that looks up its attributes in the present one.

        Raises:
            ModuleNotFoundError: there is no module under the present path, which the message names.
        """
        path = _present_path(spec.name) or spec.name
        module = ModuleType(spec.name, f"Former path of `{path}`.")
        module.__dict__["__getattr__"] = partial(_find, import_module(path))
        warnings.warn(f"{spec.name} is now {path}", DeprecationWarning, stacklevel=2)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing, because the module has no code."""


def install() -> None:
    """Make former paths importable. The finder comes last, so that no other import becomes slower."""
    sys.meta_path.append(FormerModules())


def adopt_former_attributes(own_class: type[Any], names: Mapping[str, str] = BACKEND_NAMES) -> None:
    """Give the attributes that a class defines under former names their present names."""
    own = vars(own_class)
    for former, present in names.items():
        if former in own and present not in own:
            setattr(own_class, present, own[former])


def find_renamed(path: str, name: str) -> Any:
    """Return the present object for a former name in the module `path`, with a DeprecationWarning.

    Raises:
        AttributeError: `name` is not a former name.
    """
    if name not in NAMES:
        raise AttributeError(f"module {path!r} has no attribute {name!r}")
    warn_renamed(f"{path}.{name}", NAMES[name], stacklevel=4)
    return _find(import_module(path), name)


def warn_renamed(former: str, present: str, stacklevel: int = 3) -> None:
    """Issue a DeprecationWarning for the caller's caller."""
    warnings.warn(f"{former} is now {present}", DeprecationWarning, stacklevel=stacklevel)


def _find(module: ModuleType, name: str) -> Any:
    if name.startswith("__"):  # what the import system asks for, such as `__path__`, is the former module's own
        raise AttributeError(name)
    path, _, present = NAMES.get(name, name).rpartition(":")
    return getattr(import_module(path) if path else module, present)


def _present_path(path: str) -> str | None:
    """Return the present path of a former module, or of a module in a former package."""
    if path in MODULES:
        return MODULES[path]
    package, _, name = path.rpartition(".")
    return f"{MODULES[package]}.{name}" if package in MODULES else None
