"""Which class answers for a kind: a row here, or a dotted path in the models file. Classes are loaded when named."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

from .base import Backend

KINDS = MappingProxyType(
    {
        "databricks": "openai_compat.backends.databricks.backend:DatabricksBackend",
        "echo": "openai_compat.backends.echo.backend:EchoBackend",
        "external": "openai_compat.backends.external.backend:ExternalBackend",
        "haystack": "openai_compat.backends.haystack.backend:HaystackBackend",
        "huggingface": "openai_compat.backends.huggingface.backend:HuggingFaceBackend",
        "openai": "openai_compat.backends.openai.backend:OpenAIBackend",
    }
)
"""kind -> where its class is."""


def load_backend_class(kind: str) -> type[Backend]:
    """The class of a built-in kind or of a third party's `package.module:Class`.

    Raises:
        ValueError: with a sentence that names what is wrong: no such kind, module or class, or not a backend.
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
