"""Description of a pipeline, which `GET /v1/models/{id}` adds to the model."""

from __future__ import annotations

import re
from typing import Any

from .haystack_compat import VERSION
from .loading import LoadedPipeline


def describe(loaded: LoadedPipeline) -> dict[str, Any]:
    """Return the components, their sockets and connections, and the mapping of the conversation."""
    mapping = loaded.mapping
    description: dict[str, Any] = {
        "state": "ready",
        "pipeline": {
            "haystack_version": VERSION,
            "components": {name: _component(instance) for name, instance in loaded.pipeline.walk()},
            "connections": [
                {"sender": f"{sender}.{edge['from_socket'].name}", "receiver": f"{receiver}.{edge['to_socket'].name}"}
                for sender, receiver, edge in loaded.pipeline.graph.edges(data=True)
            ],
            "inputs": {
                name: [str(socket) for socket in sockets] for name, sockets in mapping.inputs.items() if sockets
            },
            "outputs": {
                "answer": str(mapping.answer),
                **({"documents": str(mapping.documents)} if mapping.documents else {}),
            },
            "streams_from": mapping.stream_from,
        },
    }
    if loaded.index is not None:
        passages = sum(1 for _ in loaded.index.entries)
        description["documents"] = {"files": len(loaded.index.files), "passages": passages}
    return description


def _component(instance: Any) -> dict[str, Any]:
    kind = type(instance)
    return {
        "type": f"{kind.__module__}.{kind.__name__}",
        "inputs": _sockets(instance.__haystack_input__),
        "outputs": _sockets(instance.__haystack_output__),
    }


def _sockets(sockets: Any) -> dict[str, str]:
    return {name: type_name(socket.type) for name, socket in sockets._sockets_dict.items()}


def type_name(kind: Any) -> str:
    """Return the name of a type without module names, such as `list[ChatMessage]`."""
    text = kind.__name__ if isinstance(kind, type) and not getattr(kind, "__args__", None) else str(kind)
    return re.sub(r"\b[a-z_]\w*(?:\.\w+)*\.(?=\w)", "", text)
