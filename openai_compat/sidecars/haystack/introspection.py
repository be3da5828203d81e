"""A pipeline told in words: what `GET /v1/models/{id}` adds for it."""

from __future__ import annotations

import re
from typing import Any

from .haystack_compat import VERSION
from .loading import LoadedPipeline


def describe(loaded: LoadedPipeline) -> dict[str, Any]:
    """Components with their inputs and outputs, the connections, and where a conversation goes in and comes out."""
    mapped = loaded.mapped
    described: dict[str, Any] = {
        "state": "ready",
        "pipeline": {
            "haystack_version": VERSION,
            "components": {name: _component(instance) for name, instance in loaded.pipeline.walk()},
            "connections": [
                {"sender": f"{sender}.{edge['from_socket'].name}", "receiver": f"{receiver}.{edge['to_socket'].name}"}
                for sender, receiver, edge in loaded.pipeline.graph.edges(data=True)
            ],
            "inputs": {what: [str(place) for place in places] for what, places in mapped.inputs.items() if places},
            "outputs": {
                "answer": str(mapped.answer),
                **({"documents": str(mapped.documents)} if mapped.documents else {}),
            },
            "streams_from": mapped.stream_from,
        },
    }
    if loaded.index is not None:
        passages = sum(1 for _ in loaded.index.entries)
        described["documents"] = {"files": len(loaded.index.files), "passages": passages}
    return described


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
    """`list[ChatMessage]`, without the modules that its parts are from."""
    text = kind.__name__ if isinstance(kind, type) and not getattr(kind, "__args__", None) else str(kind)
    return re.sub(r"\b[a-z_]\w*(?:\.\w+)*\.(?=\w)", "", text)
