"""Backend classes by kind. A class is imported when a model needs it."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

from .base import Backend

KINDS = MappingProxyType(
    {
        "anthropic": "openai_compat.backends.anthropic.backend:AnthropicBackend",
        "databricks": "openai_compat.backends.databricks.backend:DatabricksBackend",
        "echo": "openai_compat.backends.echo.backend:EchoBackend",
        "external": "openai_compat.backends.external.backend:ExternalBackend",
        "haystack": "openai_compat.backends.haystack.backend:HaystackBackend",
        "huggingface": "openai_compat.backends.huggingface.backend:HuggingFaceBackend",
        "llama_cpp": "openai_compat.backends.llama_cpp.backend:LlamaCppBackend",
        "openai": "openai_compat.backends.openai.backend:OpenAIBackend",
    }
)
"""The built-in kinds and the import paths of their classes."""


def load_backend_class(kind: str) -> type[Backend]:
    """Import the class of a built-in kind, or of a third-party backend given as `package.module:Class`.

    Raises:
        ValueError: The kind is unknown, its class cannot be imported, or the class is not a backend. The message is a
            sentence for the user.
    """
    path = KINDS.get(kind, kind)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        raise ValueError(f"unknown kind '{kind}'; known are {', '.join(sorted(KINDS))}, and package.module:Class")
    try:
        backend_class = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"kind '{kind}' cannot be loaded: {error}") from error
    if not (isinstance(backend_class, type) and issubclass(backend_class, Backend)):
        raise ValueError(f"kind '{kind}' is not a subclass of openai_compat.backends.base.Backend")
    return backend_class
