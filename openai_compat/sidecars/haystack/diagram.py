"""Diagram of a pipeline as Mermaid text.

Haystack's own `draw` sends the pipeline to a public server to render it. This module sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .io_mapping import IOMapping

INPUT: Final = "conversation"
OUTPUT: Final = "answer"


def to_mermaid(pipeline: Any, mapping: IOMapping) -> str:
    """Return a Mermaid flowchart of the pipeline, from the conversation to the answer."""
    components = {name: type(instance).__name__ for name, instance in pipeline.walk()}
    ids = {name: f"node{number}" for number, name in enumerate(components)}
    lines = ["flowchart TD", f'    {INPUT}(["{INPUT}<br/><i>OpenAI messages</i>"])']
    lines += [f'    {ids[name]}["{_escape(name)}<br/><i>{kind}</i>"]' for name, kind in components.items()]
    lines += [f'    {OUTPUT}(["{OUTPUT}<br/><i>OpenAI choices</i>"])']
    lines += [
        f'    {sender} -->|"{_escape(label)}"| {receiver}' for sender, receiver, label in _edges(pipeline, mapping, ids)
    ]
    return "\n".join(lines) + "\n"


def _edges(pipeline: Any, mapping: IOMapping, ids: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the sender's id, the receiver's id and the label of each connection."""
    for name, sockets in mapping.inputs.items():
        for socket in sockets:
            yield INPUT, ids[socket.component], _label(name, socket.socket)
    for sender, receiver, edge in pipeline.graph.edges(data=True):
        yield ids[sender], ids[receiver], _label(edge["from_socket"].name, edge["to_socket"].name)
    yield ids[mapping.answer.component], OUTPUT, mapping.answer.socket
    if mapping.documents is not None:
        yield ids[mapping.documents.component], OUTPUT, _label(mapping.documents.socket, "sources")


def _label(sent: str, received: str) -> str:
    return sent if sent == received else f"{sent} → {received}"


def _escape(text: str) -> str:
    """Return the text with the characters escaped that end a Mermaid label or start an HTML tag in it."""
    return text.replace('"', "#quot;").replace("<", "#lt;")
